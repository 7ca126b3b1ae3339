//! A TCP path to a node that can break without a word, as a cut cable does.
#![allow(clippy::disallowed_methods, reason = "the path is part of a test's surroundings")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use runtime::TaskSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::SetOnce,
};
use tokio_util::sync::CancellationToken;

/// A TCP proxy in front of a node. After a cut its connections move no further byte and never end; new
/// connections are carried.
#[derive(Debug)]
pub struct Path {
    /// Its own address, at which the node is reached through it.
    pub address: SocketAddr,
    target: Arc<SetOnce<SocketAddr>>,
    cut: Arc<Mutex<CancellationToken>>,
    _tasks: TaskSet,
}

impl Path {
    /// Starts a path whose end is not known yet. The first connection waits for it.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let target = Arc::<SetOnce<SocketAddr>>::default();
        let cut = Arc::<Mutex<CancellationToken>>::default();
        let tasks = TaskSet::new(&CancellationToken::new());
        let (to, current, each) = (Arc::clone(&target), Arc::clone(&cut), tasks.clone());
        tasks.spawn("path", |cancel| async move {
            while let Some(Ok((near, _))) = cancel.run_until_cancelled(listener.accept()).await {
                let Some(&target) = cancel.run_until_cancelled(to.wait()).await else { break };
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let cut = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                each.spawn("carried", |cancel| async move {
                    cancel.run_until_cancelled(carry(near, far, cut)).await;
                });
            }
        });
        Self { address, target, cut, _tasks: tasks }
    }

    /// Makes the path lead to the port of a node on this machine. To be called once.
    ///
    /// # Panics
    ///
    /// If it is called again, or `address` has no port.
    pub fn leads_to(&self, address: &str) {
        let target = SocketAddr::from(([127, 0, 0, 1], port_of(address)));
        self.target.set(target).expect("the target is set once");
    }

    /// Breaks the connections of now.
    pub fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap_or_else(PoisonError::into_inner)).cancel();
    }

    /// The address of a node, at the port of this path.
    ///
    /// # Panics
    ///
    /// If `address` has no port.
    #[must_use]
    pub fn through(&self, address: &str) -> String {
        address.replacen(&port_of(address).to_string(), &self.address.port().to_string(), 1)
    }
}

/// The port in `host:port`, a URL without a path, or a multiaddr.
fn port_of(address: &str) -> u16 {
    let port = match address.split_once("/tcp/") {
        Some((_, rest)) => rest.split('/').next(),
        None => address.rsplit(':').next(),
    };
    port.and_then(|port| port.parse().ok()).expect("an address has a port")
}

/// Carries bytes both ways until the path is cut, and then holds both sockets for ever.
async fn carry(mut near: TcpStream, mut far: TcpStream, cut: CancellationToken) {
    let (mut near_read, mut near_write) = near.split();
    let (mut far_read, mut far_write) = far.split();
    let copies = async {
        tokio::join!(copy(&mut near_read, &mut far_write), copy(&mut far_read, &mut near_write));
    };
    if cut.run_until_cancelled(copies).await.is_none() {
        std::future::pending::<()>().await;
    }
}

async fn copy(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin)) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        match from.read(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                if to.write_all(&bytes[..read]).await.is_err() {
                    break;
                }
            }
        }
    }
    // The other end may be gone already.
    let _ = to.shutdown().await;
}
