//! The marks of messages in a transport's stream of bytes.

use gossip::{
    DisconnectReason,
    wire::frame::{FRAME_HEADER_BYTES, FrameError, decode_header},
};
use runtime::time::Instant;

/// The marks of messages in a transport's stream of bytes. It sees what a peer sends first, and must not
/// take memory for it.
pub trait Framing: Send + 'static {
    /// Reads the head at the start of `bytes`, which came at the latest at `heard`. It is asked again
    /// with more bytes after [`Head::Incomplete`], and otherwise once for each head.
    ///
    /// # Errors
    ///
    /// The reason to end the connection for.
    fn head(&mut self, bytes: &[u8], heard: Instant) -> Result<Head, DisconnectReason>;

    /// Makes payload plain: `bytes` begin at `offset` of the part whose head was read last. The default
    /// changes nothing.
    fn unmask(&self, _bytes: &mut [u8], _offset: usize) {}
}

/// The next part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Not all of the head has come.
    Incomplete,
    /// Something of the transport's own, which is done with.
    Own {
        /// Length of the piece, in bytes.
        bytes: usize,
    },
    /// A part of a message.
    Part(PartHead),
}

/// The head of a part of a message: its own length and that of the payload behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// Length of the head itself, in bytes.
    pub header: usize,
    /// Length of the payload as announced, in bytes.
    pub payload: usize,
    /// True if the message ends with it.
    pub follows: Follows,
}

/// The place of a part in its message: the last one, or one that others follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// This is the last part of its message, or the only one.
    Nothing,
    /// The message goes on with another part.
    More,
}

/// A length of four bytes before each message, as on a libp2p stream. See
/// [`gossip::wire::frame`].
#[derive(Clone, Copy, Debug)]
pub struct LengthPrefix;

impl Framing for LengthPrefix {
    fn head(&mut self, bytes: &[u8], _heard: Instant) -> Result<Head, DisconnectReason> {
        let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(Head::Incomplete);
        };
        let payload = decode_header(*header).map_err(|error| match error {
            FrameError::TooLong { .. } => DisconnectReason::Oversized,
            _ => DisconnectReason::Protocol,
        })?;
        let (header, follows) = (FRAME_HEADER_BYTES, Follows::Nothing);
        Ok(Head::Part(PartHead { header, payload, follows }))
    }
}
