//! Transports that the embedder of a node brings along: they carry bytes, and libp2p does the rest above them.
//!
//! In a browser there is no other way to a peer. Natively they are asked before the sockets of the environment.
//!
//! # Invariants
//!
//! * An address that such a transport carries reaches no socket of the environment.
//! * A dial to an address that nobody named leads to no host of a private network, as far as the address says.

#[cfg(feature = "data-channels")]
mod channels;
mod listener;
mod stream;
mod transport;

use std::{fmt, io, sync::Arc};

use futures::{future::BoxFuture, stream::BoxStream};
use libp2p::Multiaddr;
use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(feature = "data-channels")]
pub use self::channels::{
    ChannelEvents, ChannelTransport, DialledChannels, PeerChannels, SharedChannelTransport,
};
#[cfg(feature = "data-channels")]
pub(crate) use self::channels::{GivenChannels, GivenChannelsParts};
#[cfg(all(feature = "circuits", feature = "data-channels"))]
pub(crate) use self::channels::{MeetingParts, Meetings};
#[cfg(all(feature = "circuits", feature = "data-channels"))]
pub use self::channels::{MeetingRole, Signal, SignalReceiver, SignalSender, Signals};
pub(crate) use self::transport::Given;

/// A transport of an embedder, shared by everything that dials with it.
pub type SharedTransport = Arc<dyn ByteTransport>;

/// Dials and listens for byte streams. libp2p secures them, so their bytes are nobody's but the two ends'.
pub trait ByteTransport: fmt::Debug + Send + Sync {
    /// Returns `true` if `address`, with or without a peer ID at its end, is one to dial or to listen on with this
    /// transport. Default: every address is.
    fn carries(&self, address: &Multiaddr) -> bool {
        let _ = address;
        true
    }

    /// Opens a stream to `address`. The future is dropped after 8 s.
    ///
    /// # Errors
    ///
    /// The future's error becomes the failure of the dial, with its text.
    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, io::Result<ByteStream>>;

    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// The future's error becomes the reason why the node does not listen there.
    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, io::Result<ByteListener>>;
}

/// Reads and writes bytes in order, as TCP does.
///
/// A write waits while the other end takes nothing, so that nothing beyond a small buffer is kept here; the end of the
/// stream is a read of nothing, and one that breaks is an error. Dropping it closes it.
pub trait ByteIo: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteIo for S {}

/// A byte stream to a peer that has proved nothing yet.
pub type ByteStream = Box<dyn ByteIo>;

/// Accepts byte streams at an address. Dropping it ends that.
pub struct ByteListener {
    /// The addresses under which others reach it, at least one, with the port that was chosen in place of port 0.
    pub addresses: Vec<Multiaddr>,
    /// The streams as they come. An error is logged, and the listener goes on; its end is the listener's.
    pub accepted: BoxStream<'static, io::Result<Accepted>>,
}

impl fmt::Debug for ByteListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteListener").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// A stream that was accepted.
pub struct Accepted {
    /// Its bytes.
    pub stream: ByteStream,
    /// The address at which it was accepted.
    pub local: Multiaddr,
    /// The address from which it comes. The door counts by its IP address; without one it counts as this machine's.
    pub from: Multiaddr,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("local", &self.local)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
