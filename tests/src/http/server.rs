//! A node with the service under test, in this process.

use std::{sync::Arc, time::Duration};

use gossip::http::HttpService;
use tandem::{Incident, NodeBuilder, Running, ServeLimits, TlsFiles};
use tokio_util::sync::CancellationToken;

use super::{
    certificate::Certificate,
    route::{Addresses, Reach, Route},
    service::{self, Seen},
};
use crate::harness::network;

/// The time limits of the nodes under test: short, so that no test waits for the defaults.
#[must_use]
pub fn limits() -> ServeLimits {
    ServeLimits::default().with_head_time(Duration::from_secs(2)).with_stall(Duration::from_secs(3))
}

/// Time after which a raw client that sends nothing is disconnected.
#[must_use]
pub fn head_time(way: Route) -> Duration {
    match way {
        Route::Tcp | Route::Tls | Route::Libp2p => limits().head_time,
        // `tandem forward` applies limits of its own.
        Route::Forward => ServeLimits::default().head_time,
    }
}

/// A node of both transports that serves the routes under test.
pub fn described(seen: &Seen, tls: Option<TlsFiles>) -> NodeBuilder {
    // Bodies of any length are allowed, except on the route for testing the limit.
    let mut builder = NodeBuilder::new(network())
        .http(service::limited(seen.clone()))
        .http_service(HttpService::new(service::router(seen.clone())))
        .serve_limits(limits());
    if let Some(files) = tls {
        builder = builder.tls(files);
    }
    builder
}

/// Starts a node of both transports that serves the routes under test.
///
/// # Panics
///
/// If it does not start.
pub async fn serving(seen: &Seen, tls: Option<TlsFiles>, root: &CancellationToken) -> Running {
    let builder = described(seen, tls);
    Box::pin(builder.start(root)).await.expect("a node that serves starts")
}

/// A serving node in this process.
#[derive(Debug)]
pub struct Server {
    running: Running,
    seen: Seen,
    certificate: Arc<Certificate>,
}

impl Server {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn start() -> Self {
        let certificate = Arc::new(Certificate::generate());
        let seen = Seen::default();
        let running = serving(&seen, Some(certificate.files()), &CancellationToken::new()).await;
        Self { running, seen, certificate }
    }

    /// The events of its handlers.
    #[must_use]
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Returns the number of times that an incident happened.
    #[must_use]
    pub fn incidents(&self, incident: Incident) -> u64 {
        self.running.http_metrics().map_or(0, |metrics| metrics.count(incident))
    }

    /// Sets up a route to it.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn reach(&self, way: Route) -> Reach {
        Reach::to(way, &addresses(&self.running), &self.certificate).await
    }

    /// Sets up a route to another port of this machine.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn reach_at(&self, way: Route, port: u16) -> Reach {
        let identity = self.running.identity();
        let elsewhere = Addresses {
            socket: format!("127.0.0.1:{port}"),
            multiaddr: format!("/ip4/127.0.0.1/tcp/{port}/p2p/{identity}"),
        };
        Reach::to(way, &elsewhere, &self.certificate).await
    }
}

/// The addresses of a node.
///
/// # Panics
///
/// If it does not listen.
#[must_use]
pub fn addresses(running: &Running) -> Addresses {
    let url = running.ws_url().expect("the node listens for sockets");
    let socket = url.split_once("://").map_or(&*url, |(_, host)| host).to_owned();
    let multiaddr = running.p2p_addresses().into_iter().next();
    Addresses { socket, multiaddr: multiaddr.expect("the node listens for libp2p") }
}
