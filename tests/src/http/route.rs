//! The routes to the HTTP service of a node.

use std::{path::PathBuf, time::Duration};

use gossip::{NodeAddress, http::HttpClient};
use tandem::{ClientLimits, Environment, Forward, Mode, NodeBuilder, Running};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::{compat::FuturesAsyncReadCompatExt, sync::CancellationToken};

use super::{certificate::Certificate, raw::RawStream};
use crate::{harness::network, libp2p::open_stream, wait::soon};

/// The protocol of HTTP over a libp2p stream. Source: wire facts 9.1.
pub const STREAM_PROTOCOL: &str = "/http/1.1";

/// The client's limit for a stalled peer in these tests. Chosen: short, so that no test waits for the default.
pub const STILL: Duration = Duration::from_secs(3);

/// A route to the HTTP service of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// A socket.
    Tcp,
    /// A socket with TLS.
    Tls,
    /// A stream of a libp2p connection.
    Libp2p,
    /// A socket to `tandem forward`, which forwards requests over libp2p.
    Forward,
}

impl Route {
    /// Every route.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::Libp2p, Self::Forward];
}

/// The addresses of a node's HTTP service.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// `host:port`, for TCP and TLS.
    pub socket: String,
    /// A multiaddr with `/p2p/ID`.
    pub multiaddr: String,
}

/// Describes a node that only sends requests.
pub fn describe_caller(mode: Mode, roots: Option<PathBuf>) -> NodeBuilder {
    let mut builder = NodeBuilder::new(network())
        .mode(mode)
        .outward()
        .client_limits(ClientLimits::default().with_window(None).with_still(STILL));
    if let Some(roots) = roots {
        builder = builder.tls_roots(roots);
    }
    builder
}

/// Starts a node that only sends requests.
///
/// # Panics
///
/// If it does not start.
pub async fn caller(mode: Mode, roots: Option<PathBuf>, root: &CancellationToken) -> Running {
    let builder = describe_caller(mode, roots);
    Box::pin(builder.start(root)).await.expect("a node that calls others starts")
}

/// A client for `address`.
///
/// # Panics
///
/// If the address is not valid.
#[must_use]
pub fn client_of(node: &Running, address: &str) -> HttpClient {
    let address: NodeAddress = address.parse().expect("it is an address");
    node.node().http_client(&address).expect("the node can call it")
}

/// A route to one node, set up.
#[derive(Debug)]
pub struct Reach {
    way: Route,
    node: Running,
    /// The address that the client calls: a URL or a multiaddr.
    address: String,
    certificate: Certified,
    /// The `tandem forward` on the route and the node it uses, if the route has one.
    between: Option<(Forward, Running)>,
    root: CancellationToken,
}

/// The certificate of the node at the end of the route.
type Certified = std::sync::Arc<Certificate>;

impl Reach {
    /// Sets up a route to a node.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn to(way: Route, at: &Addresses, certificate: &Certified) -> Self {
        let root = CancellationToken::new();
        let (address, between) = match way {
            Route::Tcp => (format!("http://{}", at.socket), None),
            Route::Tls => (format!("https://{}", at.socket), None),
            Route::Libp2p => (at.multiaddr.clone(), None),
            Route::Forward => {
                let node = caller(Mode::Libp2p, None, &root).await;
                let client = client_of(&node, &at.multiaddr);
                let forward =
                    Forward::start("127.0.0.1:0", client, &Environment::system(), &root).await;
                let forward = forward.expect("a free port is there");
                (format!("http://{}", forward.local_address()), Some((forward, node)))
            }
        };
        Self::over(way, address, between, certificate, root).await
    }

    /// Sets up a route through a running `tandem forward`.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn through(socket: &str, certificate: &Certified) -> Self {
        let address = format!("http://{socket}");
        Self::over(Route::Forward, address, None, certificate, CancellationToken::new()).await
    }

    async fn over(
        way: Route,
        address: String,
        between: Option<(Forward, Running)>,
        certificate: &Certified,
        root: CancellationToken,
    ) -> Self {
        let mode = if way == Route::Libp2p { Mode::Libp2p } else { Mode::WebSocket };
        let node = caller(mode, Some(certificate.root()), &root).await;
        let certificate = Certified::clone(certificate);
        Self { way, node, address, certificate, between, root }
    }

    /// The kind of this route.
    #[must_use]
    pub const fn way(&self) -> Route {
        self.way
    }

    /// The address that the client calls.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The peer ID of the calling node, by which the server knows it if the route proves identities.
    #[must_use]
    pub fn caller(&self) -> String {
        let caller = self.between.as_ref().map_or(&self.node, |(_, node)| node);
        caller.identity().to_string()
    }

    /// Returns a client. All clients of a route share their connections.
    #[must_use]
    pub fn client(&self) -> HttpClient {
        client_of(&self.node, &self.address)
    }

    /// Opens a byte stream over a connection of its own.
    ///
    /// # Panics
    ///
    /// If there is none in time.
    pub async fn raw(&self) -> RawStream {
        soon("a raw stream is open", self.open()).await
    }

    async fn open(&self) -> RawStream {
        if self.way == Route::Libp2p {
            let opened = open_stream(&self.address, STREAM_PROTOCOL).await;
            let (stream, driver) = opened.expect("the node speaks HTTP over libp2p");
            return RawStream::new(stream.compat(), Some(driver));
        }
        let host = self.address.split_once("://").map_or(&*self.address, |(_, host)| host);
        let socket = TcpStream::connect(host).await.expect("the node listens");
        socket.set_nodelay(true).expect("a socket option can be set");
        if self.way != Route::Tls {
            return RawStream::new(socket, None);
        }
        let name = ServerName::try_from("127.0.0.1").expect("it is an address");
        let stream = self.certificate.connector().connect(name, socket).await;
        RawStream::new(stream.expect("the node speaks TLS"), None)
    }
}

impl Drop for Reach {
    fn drop(&mut self) {
        self.root.cancel();
    }
}
