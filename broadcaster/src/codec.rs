//! The stage of a link between its queue and its bytes: an encoding that has state, and a gauge.
//!
//! ```text
//!   Lanes ─▶ write loop ─▶ Encoder ─▶ FrameSink        FrameSource ─▶ Decoder ─▶ read loop
//! ```
//!
//! # Invariants
//!
//! * An encoder is given the messages of its link in the order in which they are written, each once, and
//!   what it makes of one is written before anything it makes of the next.
//! * A decoded message is an ordinary one: bounds, rates, the duplicate filter and all that
//!   follows apply to it as to one that came as it is.
//! * A link with a write loop per lane has its codec on the priority lane and on its first source.

use std::time::Duration;

use bytes::Bytes;
use gossip::{DisconnectReason, Tag};

use crate::frame::Frame;

/// The outbound half of a [`LinkCodec`]. Called by the write loop alone, for one batch after the other.
pub trait Encoder: Send + 'static {
    /// Puts what is to be written for `frames` into `out`, in their order: for each the frame itself, another one,
    /// or several. Nothing is written for a frame for which it puts in nothing.
    fn encode(&mut self, frames: &[Frame], out: &mut Vec<Frame>);

    /// Takes back what it put into `out` once that is written, and leaves nothing in it. The default drops it; an
    /// encoder that makes many frames may use their memory again.
    fn take_back(&mut self, written: &mut Vec<Frame>) {
        written.clear();
    }
}

/// The inbound half of a codec. Everything it is given was made by a peer.
pub trait Decoder: Send + 'static {
    /// Says what a message that came stands for. `wire` is tag and payload.
    ///
    /// # Errors
    ///
    /// The reason to end the connection for.
    fn decode(&mut self, tag: Tag, wire: &Bytes) -> Result<Decoded, DisconnectReason>;
}

/// The result of decoding a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Itself.
    AsItCame,
    /// Another message, which has an allocation of its own.
    Message {
        /// Tag and payload. The length is bounded by the tag, as that of any message.
        wire: Bytes,
        /// The same vote packed by itself, tag and payload, in the same allocation: links that pack votes send it as it is.
        packed: Option<Bytes>,
    },
    /// Nothing yet, or nothing but what the codec itself has learned from it.
    Nothing,
    /// Nothing, and the peer is told so with this message of the connection: tag and payload. It goes ahead of
    /// everything that waits, so a codec gives few of them.
    Answer(Tag, Bytes),
}

/// An encoding with state of its own, for one link. The halves share what they have to.
pub struct LinkCodec {
    /// Encodes outbound messages.
    pub encoder: Box<dyn Encoder>,
    /// Decodes inbound messages.
    pub decoder: Box<dyn Decoder>,
    /// Message of the connection with which the codec begins, after the greeting of the link: tag and payload.
    pub opening: Option<(Tag, Bytes)>,
}

impl std::fmt::Debug for LinkCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkCodec").finish_non_exhaustive()
    }
}

/// A gauge of a link's path, at its sending end. See [`Broadcaster::pressure`](crate::Broadcaster::pressure).
pub trait PipeGauge: Send + Sync + 'static {
    /// Samples the path. `None` while there is nothing to tell.
    fn sample(&self) -> Option<PipeSample>;
}

/// A sample of the path of a link, from which a sender can tell how full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeSample {
    /// Bytes that have reached the other end since the link came up.
    pub acked_bytes: u64,
    /// Bytes that were written and that the peer has not acknowledged.
    pub in_flight_bytes: u64,
    /// Smoothed round-trip time.
    pub round_trip: Duration,
    /// Shortest round-trip time seen on this link.
    pub min_round_trip: Duration,
}
