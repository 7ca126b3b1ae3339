//! A peer that speaks GossipSub by hand: what it sends is up to the test, and what the node sends to it is counted.

use std::{
    future::poll_fn,
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    core::{
        StreamMuxer,
        muxing::{StreamMuxerBox, SubstreamBox},
    },
    identity::Keypair,
};
use runtime::TaskSet;
use tokio_util::sync::CancellationToken;

use super::{Sockets, dial, select, split_address};

/// The version that it speaks. Nodes offer newer ones first.
const PROTOCOL: &str = "/meshsub/1.1.0";

/// The way in which a peer takes what the node sends to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ear {
    /// It reads everything.
    Open,
    /// It accepts the stream, and reads nothing from it.
    Closed,
}

/// A connection with one stream of GossipSub in each direction. It ends with this value.
pub struct RawMeshsub {
    stream: SubstreamBox,
    heard: Arc<AtomicUsize>,
    tasks: TaskSet,
}

impl std::fmt::Debug for RawMeshsub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawMeshsub").field("heard", &self.heard).finish_non_exhaustive()
    }
}

impl RawMeshsub {
    /// Connects to the node at `address`, a multiaddr with `/p2p/ID`, with a new identity.
    ///
    /// # Errors
    ///
    /// When the connection fails, or the node does not speak the protocol.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the connection.
    pub async fn connect(address: &str, ear: Ear) -> io::Result<Self> {
        let (node, address) = split_address(address)?;
        let sockets = (Sockets { source: Ipv4Addr::UNSPECIFIED }, Arc::default());
        let (found, mut muxer) = dial(&Keypair::generate_ed25519(), address, sockets).await?;
        if found != node {
            return Err(io::Error::other("another peer answered"));
        }
        let mut stream = poll_fn(|context| {
            if let Poll::Ready(Err(error)) = Pin::new(&mut muxer).poll(context) {
                return Poll::Ready(Err(error));
            }
            Pin::new(&mut muxer).poll_outbound(context)
        })
        .await?;
        let (tasks, heard) = (TaskSet::new(&CancellationToken::new()), Arc::default());
        let (each, count) = (tasks.clone(), Arc::clone(&heard));
        tasks.spawn("raw connection", move |_cancel| serve(muxer, each, ear, count));
        select(&mut stream, PROTOCOL).await?;
        Ok(Self { stream, heard, tasks })
    }

    /// Sends bytes, which need not be whole RPCs.
    ///
    /// # Errors
    ///
    /// When the node has ended the stream or the connection.
    ///
    /// # Cancel safety
    ///
    /// Not safe: a part may have been sent.
    pub async fn send(&mut self, rpcs: &[u8]) -> io::Result<()> {
        self.stream.write_all(rpcs).await?;
        self.stream.flush().await
    }

    /// Bytes of GossipSub that the node has sent.
    #[must_use]
    pub fn heard_bytes(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }

    /// Returns `true` if the connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.tasks.token().is_cancelled()
    }
}

/// Drives the connection, and answers the streams that the node opens.
async fn serve(mut muxer: StreamMuxerBox, tasks: TaskSet, ear: Ear, heard: Arc<AtomicUsize>) {
    poll_fn(|context| {
        while let Poll::Ready(inbound) = Pin::new(&mut muxer).poll_inbound(context) {
            let Ok(stream) = inbound else { return Poll::Ready(()) };
            let heard = Arc::clone(&heard);
            tasks.spawn("raw stream", move |_cancel| async move {
                // A stream that fails ends, and the node notices.
                let _ = take(stream, ear, &heard).await;
            });
        }
        match Pin::new(&mut muxer).poll(context) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            // No event of the muxer needs an answer.
            Poll::Ready(Ok(_)) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    tasks.token().cancel();
}

/// Negotiates GossipSub as the listener, and takes what comes. Source: multistream-select 1.0.
async fn take(mut stream: SubstreamBox, ear: Ear, heard: &AtomicUsize) -> io::Result<()> {
    loop {
        let mut length = [0];
        stream.read_exact(&mut length).await?;
        let mut line = vec![0; usize::from(length[0])];
        stream.read_exact(&mut line).await?;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let answer = match line {
            b"/multistream/1.0.0" => line,
            offered if offered == PROTOCOL.as_bytes() => line,
            _ => b"na",
        };
        let length = u8::try_from(answer.len() + 1).map_err(io::Error::other)?;
        stream.write_all(&[&[length], answer, b"\n"].concat()).await?;
        stream.flush().await?;
        if answer == PROTOCOL.as_bytes() {
            break;
        }
    }
    if ear == Ear::Closed {
        std::future::pending::<()>().await;
    }
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        heard.fetch_add(read, Ordering::Relaxed);
    }
}
