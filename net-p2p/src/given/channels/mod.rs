//! Transports of an embedder whose connections have data channels, as a browser's `RTCPeerConnection`: each stream is a
//! channel, and a connection is secured by the certificates that both ends know.
//!
//! ```text
//!   host ──▶ ChannelEvents ──▶ Shared ──▶ Channels (`channels/`) ──▶ streams
//!        ◀── PeerChannels ◀── Pump ◀── orders ◀──┘
//! ```
//!
//! # Invariants
//!
//! * The host is called by the connection's task alone, and never while something is locked.
//! * A host cannot be told to wait, so each message is taken as it comes, or costs its stream (`handed.rs`).

mod handed;
#[cfg(feature = "circuits")]
mod meeting;
mod pump;
mod transport;

use std::{fmt, io, sync::Arc};

use futures::future::BoxFuture;
use libp2p::Multiaddr;
use runtime::time::{Instant, into_std};

#[cfg(feature = "circuits")]
pub(crate) use self::meeting::{MeetingParts, Meetings};
#[cfg(feature = "circuits")]
pub use self::meeting::{MeetingRole, Signal, SignalReceiver, SignalSender, Signals};
pub(crate) use self::transport::{GivenChannels, GivenChannelsParts};
use self::{handed::Handed, pump::Session};
use crate::channels::{Channels, Ended, Session as _, Shared, Side};

/// A transport with data channels, shared by everything that dials with it.
pub type SharedChannelTransport = Arc<dyn ChannelTransport>;

/// Dials connections with data channels to addresses of WebRTC Direct.
pub trait ChannelTransport: fmt::Debug + Send + Sync {
    /// Returns `true` if `address`, with or without a peer ID at its end, is one to dial with this transport. Default:
    /// every address with the hash of a certificate is.
    fn carries(&self, address: &Multiaddr) -> bool {
        let _ = address;
        true
    }

    /// Connects to `address`, and makes sure that the certificate of the peer is the one that it names. Channel 0 is there
    /// from the beginning, negotiated by both ends, and open when the future is ready. Everything that happens on channels
    /// goes to `events`, from the start of the dial on. The future is dropped after 8 s.
    ///
    /// # Errors
    ///
    /// The future's error becomes the failure of the dial, with its text.
    fn dial(
        &self,
        address: Multiaddr,
        events: ChannelEvents,
    ) -> BoxFuture<'static, io::Result<DialledChannels>>;

    /// Returns `true` if [`Self::meet`] connects hosts that nobody can dial. Default: `false`.
    #[cfg(feature = "circuits")]
    fn meets(&self) -> bool {
        false
    }

    /// Connects to a host with which signals are exchanged, each end in its role, over the circuit between them. There is no
    /// channel 0: every channel is a stream, and both ends have proven who they are to each other. The future is ready once
    /// channels can be opened, and is dropped after 10 s. Default: an error.
    ///
    /// # Errors
    ///
    /// The future's error becomes the failure of the dial, with its text.
    #[cfg(feature = "circuits")]
    fn meet(
        &self,
        role: MeetingRole,
        signals: Signals,
        events: ChannelEvents,
    ) -> BoxFuture<'static, io::Result<Box<dyn PeerChannels>>> {
        let _ = (role, signals, events);
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

/// A connection that was dialled.
pub struct DialledChannels {
    /// Its channels.
    pub channels: Box<dyn PeerChannels>,
    /// SHA-256 of this end's certificate, in DER.
    pub certificate: [u8; 32],
}

impl fmt::Debug for DialledChannels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialledChannels").finish_non_exhaustive()
    }
}

/// The channels of a connection: reliable, ordered, for messages of bytes. Each has a number while it is open. Dropping it
/// closes the connection at once.
///
/// None of these methods waits. What one of them says through [`ChannelEvents`] is handled afterwards.
pub trait PeerChannels: Send {
    /// Opens a channel, which [`ChannelEvents::opened`] follows.
    ///
    /// # Errors
    ///
    /// The error ends the channel.
    fn open(&mut self, channel: u16) -> io::Result<()>;

    /// Sends a message on an open channel, of at most 16 KiB.
    ///
    /// # Errors
    ///
    /// The error ends the connection, because nobody knows what has been sent.
    fn send(&mut self, channel: u16, message: &[u8]) -> io::Result<()>;

    /// The bytes that were given to [`Self::send`] and did not leave. [`ChannelEvents::drained`] follows once they are few.
    fn buffered(&mut self, channel: u16) -> usize;

    /// Closes a channel behind what was sent on it; [`ChannelEvents::closed`] follows.
    fn close(&mut self, channel: u16);
}

/// Takes what happens on the channels of a connection. Clones are the same; after the end of the connection they do nothing.
#[derive(Clone, Debug)]
pub struct ChannelEvents(Arc<Shared<Session>>);

impl ChannelEvents {
    fn new(side: Side) -> Self {
        Self(Arc::new(Shared::new(Session(Channels::new(side, Handed::new(side))))))
    }

    fn with<T>(&self, with: impl FnOnce(&mut Handed) -> T) -> Option<T> {
        let now = into_std(Instant::now());
        let done = self.0.with(|session| {
            let channels = session.channels();
            if channels.has_ended() {
                return None;
            }
            let done = with(channels.association());
            if let Err(why) = channels.settle(now) {
                channels.end(why);
            }
            Some(done)
        });
        self.0.changed.notify_one();
        done.flatten()
    }

    /// Notes that the peer has opened a channel, and returns the number that it has from now on. `None` if it is one too
    /// many, which is to be closed and forgotten.
    #[must_use]
    pub fn accepted(&self) -> Option<u16> {
        self.with(Handed::accept).flatten()
    }

    /// Notes that messages can be sent on a channel, whichever end has opened it.
    pub fn opened(&self, channel: u16) {
        self.with(|handed| handed.opened(channel));
    }

    /// Takes a message of the peer.
    pub fn message(&self, channel: u16, message: Vec<u8>) {
        self.with(|handed| handed.message(channel, message));
    }

    /// Notes that there may be room on a channel for more to send.
    pub fn drained(&self, channel: u16) {
        self.with(|handed| handed.drained(channel));
    }

    /// Notes that a channel is closed, whichever end did it.
    pub fn closed(&self, channel: u16) {
        self.with(|handed| handed.closed(channel));
    }

    /// Notes that the connection has ended.
    pub fn ended(&self, why: io::Error) {
        // After a panic it has ended already.
        let _ = self.0.with(|session| session.channels().end(Ended::Transport(why)));
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
