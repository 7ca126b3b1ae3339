//! The settings of quinn, and the tasks it runs in.
//!
//! # Invariants
//!
//! * A stream that nobody reads holds at most [`STREAM_WINDOW`], and the streams of a connection together at most a window
//!   that follows from the backlog's bound. The window for sent bytes shrinks with the number of connections (`driver.rs`).
//! * A peer that is silent for [`IDLE_LIMIT`] is given up, and one that is there is never silent for so long.
//! * Datagrams of strangers whose handshake was not begun take at most [`WAITING_BYTES`] in all.
//! * Every task of quinn is one of the connections' tasks.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use libp2p::identity::Keypair;
use quinn::{
    AsyncTimer, AsyncUdpSocket, ClientConfig, IdleTimeout, Runtime, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};

use super::counting::CountingFactory;
use super::send_queue::BoundedSocket;
use crate::{
    backlog::Backlog,
    connections::ConnectionTasks,
    muxer::max_window_growth,
    security::tls::{ALPN, SetupError, Tls},
};

/// Window of a stream, in bytes. Source: issue 11, as much as a stream of Yamux holds unread.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Streams that a peer may have open at one time. Chosen: 256 in negotiation and 256 accepted, as with Yamux.
const MAX_PEER_STREAMS: u32 = 512;

/// Longest silence of a peer. Chosen: half of what the node allows itself to notice one (60 s).
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Interval at which a sign of life is sent if there is nothing else. Chosen: three within [`IDLE_LIMIT`].
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Handshakes that wait for the node's attention. Chosen: as many as connections in a second of a busy node.
const MAX_WAITING: usize = 256;

/// Bytes of datagrams that wait with one such handshake, and with all. Chosen: a first flight of a few datagrams each.
const WAITING_BYTES_EACH: u64 = 8 * 1024;
const WAITING_BYTES: u64 = 1024 * 1024;

/// The reason why QUIC cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuicSetupError {
    #[error(transparent)]
    Tls(#[from] SetupError),
    #[error("TLS has no cipher suite for the first datagrams")]
    Cipher(#[from] NoInitialCipherSuite),
}

/// The settings of both ends.
#[derive(Clone, Debug)]
pub(super) struct Configs {
    pub(super) client: ClientConfig,
    pub(super) server: ServerConfig,
    /// Window of a connection in each direction, in bytes.
    pub(super) window: usize,
}

impl Configs {
    /// The settings of a node with the key `key` and this backlog.
    ///
    /// # Errors
    ///
    /// [`QuicSetupError`]; never with an Ed25519 key.
    pub(super) fn new(key: &Keypair, backlog: &Backlog) -> Result<Self, QuicSetupError> {
        Self::with(Tls::new(key, &[ALPN], backlog.metrics())?, backlog)
    }

    /// The same with given TLS.
    pub(super) fn with(tls: Tls, backlog: &Backlog) -> Result<Self, QuicSetupError> {
        let window = max_window_growth(backlog).max(STREAM_WINDOW as usize);
        let mut transport = TransportConfig::default();
        transport
            .congestion_controller_factory(Arc::new(CountingFactory::default()))
            .max_concurrent_bidi_streams(VarInt::from_u32(MAX_PEER_STREAMS))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::try_from(window).unwrap_or(VarInt::MAX))
            .send_window(window as u64)
            .max_idle_timeout(IdleTimeout::try_from(IDLE_LIMIT).ok())
            .keep_alive_interval(Some(KEEP_ALIVE));
        let transport = Arc::new(transport);
        let client = QuicClientConfig::try_from(tls.client())?;
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(Arc::clone(&transport));
        let server = QuicServerConfig::try_from(tls.server())?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server
            .transport_config(transport)
            .max_incoming(MAX_WAITING)
            .incoming_buffer_size(WAITING_BYTES_EACH)
            .incoming_buffer_size_total(WAITING_BYTES);
        Ok(Self { client, server, window })
    }
}

/// quinn's runtime, with the tasks of connections.
#[derive(Debug)]
pub(super) struct Tasks(pub(super) ConnectionTasks);

impl Runtime for Tasks {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.start("quic", future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let same = socket.try_clone()?;
        Ok(Arc::new(BoundedSocket::new(TokioRuntime.wrap_udp_socket(socket)?, same)))
    }

    fn now(&self) -> std::time::Instant {
        TokioRuntime.now()
    }
}
