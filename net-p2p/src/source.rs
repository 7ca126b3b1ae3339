//! Reads messages off a stream.
//!
//! ```text
//!   stream ──▶ [buffer, 16 KiB] ──length, tag──▶ admitted? ──▶ buffer grows in steps ──▶ slice
//! ```
//!
//! # Invariants
//!
//! * A length is refused as soon as it is read, a payload too long for its tag as soon as the tag is.
//! * Memory grows with the bytes that came, at most twofold, never with the length that was announced.
//! * A message over [`FREE_BYTES`] is charged to the node's budget before its body is read.
//! * A message that is not whole is never delivered, and one that was begun goes on within
//!   [`STALL_TIMEOUT`] or ends the link.

use std::{io, time::Duration};

use broadcaster::{ByteBudget, FrameSource, Received, Reservation, SourceEnd};
use bytes::{Buf, BytesMut};
use futures::{AsyncRead, AsyncReadExt};
use gossip::{
    DisconnectReason, Lane, Tag, TagTable,
    wire::frame::{FRAME_HEADER_BYTES, FrameError, decode_header},
};
use tokio::time;

/// Size of the buffer of an idle link, in bytes. Chosen: as the buffers of every other transport.
const BUFFER_BYTES: usize = 16 * 1024;

/// Least room for one read, in bytes, unless the rest of a message is shorter. Chosen: a few packets.
const MIN_READ_BYTES: usize = 4 * 1024;

/// Largest message that is read without being charged to the budget. Source: threats and goals, row 8.
const FREE_BYTES: usize = 64 * 1024;

/// How long nothing may come of a message that was begun. Source: threats and goals, row 9.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The inbound half of a gossip stream.
#[derive(Debug)]
pub(crate) struct StreamSource<R> {
    io: R,
    /// Always initialised; the first `filled` bytes are read and not yet handed on.
    buffer: BytesMut,
    filled: usize,
    /// The message being read, once its length and tag have been found good.
    admitted: Option<Admitted>,
    tags: TagTable,
    budget: ByteBudget,
}

#[derive(Debug)]
struct Admitted {
    tag: Tag,
    /// Tag and payload, in bytes.
    len: usize,
    held: Option<Reservation>,
}

impl<R: AsyncRead + Unpin + Send + 'static> StreamSource<R> {
    pub(crate) fn new(io: R, tags: TagTable, budget: ByteBudget) -> Self {
        let buffer = BytesMut::zeroed(BUFFER_BYTES);
        Self { io, buffer, filled: 0, admitted: None, tags, budget }
    }

    /// Looks at the length and the tag; `None` until both are there.
    fn admissible(&self) -> Result<Option<(Tag, usize, Lane)>, SourceEnd> {
        let read = self.buffer.get(..self.filled).unwrap_or_default();
        let Some((header, rest)) = read.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let len = decode_header(*header).map_err(|error| match error {
            FrameError::TooLong { .. } => SourceEnd::because(DisconnectReason::Oversized),
            _ => SourceEnd::because(DisconnectReason::Protocol),
        })?;
        let Some(tag) = rest.first_chunk::<{ Tag::BYTES }>() else { return Ok(None) };
        let tag = Tag(*tag);
        let rule = self.tags.rule(tag);
        if rule.is_some_and(|rule| len - Tag::BYTES > rule.max_payload) {
            return Err(SourceEnd::because(DisconnectReason::Oversized));
        }
        Ok(Some((tag, len, rule.map_or(Lane::Bulk, |rule| rule.lane))))
    }

    /// Takes the message out of the buffer, once it is there in full.
    fn take(&mut self) -> Option<Received> {
        let whole = FRAME_HEADER_BYTES + self.admitted.as_ref()?.len;
        if self.filled < whole {
            return None;
        }
        let Admitted { tag, held, .. } = self.admitted.take()?;
        let mut wire = self.buffer.split_to(whole);
        wire.advance(FRAME_HEADER_BYTES);
        self.filled -= whole;
        Some(Received { tag, wire: wire.freeze(), held })
    }

    /// Makes room behind what was read: up to the end of an admitted message, at most twice what came.
    fn make_room(&mut self) {
        let wanted = self.admitted.as_ref().map_or(0, |message| FRAME_HEADER_BYTES + message.len);
        let space = self.buffer.len().saturating_sub(self.filled);
        let missing = if wanted > 0 { wanted.saturating_sub(self.filled) } else { MIN_READ_BYTES };
        if space >= missing.min(MIN_READ_BYTES) {
            return;
        }
        let room = wanted.min(2 * self.filled.max(FREE_BYTES)).max(self.filled + BUFFER_BYTES);
        self.buffer.resize(room, 0);
    }

    async fn fill(&mut self) -> Result<(), SourceEnd> {
        self.make_room();
        let begun = self.filled > 0;
        let space = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let read = self.io.read(space);
        let read = if begun {
            let stalled = |_elapsed| SourceEnd::because(DisconnectReason::Silent);
            time::timeout(STALL_TIMEOUT, read).await.map_err(stalled)?
        } else {
            read.await
        };
        match read? {
            0 if begun => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            0 => Err(SourceEnd::because(DisconnectReason::RemoteClosed)),
            count => {
                self.filled += count;
                Ok(())
            }
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> FrameSource for StreamSource<R> {
    async fn next_message(&mut self) -> Result<Received, SourceEnd> {
        loop {
            if self.admitted.is_none()
                && let Some((tag, len, lane)) = self.admissible()?
            {
                let held = if len > FREE_BYTES {
                    if len > self.budget.total() / 2 {
                        // The budget would never grant it.
                        return Err(SourceEnd::because(DisconnectReason::Oversized));
                    }
                    Some(self.budget.reserve(len, lane).await)
                } else {
                    None
                };
                self.admitted = Some(Admitted { tag, len, held });
            }
            if let Some(message) = self.take() {
                return Ok(message);
            }
            self.fill().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use gossip::{MAX_MESSAGE_BYTES, NetworkProfile};

    use super::*;

    /// Gives its bytes in pieces of at most `piece` bytes, then ends or stays silent.
    struct Script {
        bytes: Vec<u8>,
        at: usize,
        piece: usize,
        silent: bool,
    }

    impl AsyncRead for Script {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            into: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let count = into.len().min(self.piece).min(self.bytes.len() - self.at);
            if count == 0 && self.silent {
                return Poll::Pending;
            }
            into[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
            self.at += count;
            Poll::Ready(Ok(count))
        }
    }

    fn source(bytes: Vec<u8>, piece: usize) -> StreamSource<Script> {
        let script = Script { bytes, at: 0, piece, silent: false };
        StreamSource::new(script, NetworkProfile::ALGORAND.tags, ByteBudget::new(64 << 20))
    }

    fn framed(tag: &[u8; 2], payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len() + 2).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(tag);
        bytes.extend_from_slice(payload);
        bytes
    }

    async fn ends(bytes: Vec<u8>, reason: DisconnectReason) {
        assert_eq!(source(bytes, 7).next_message().await.unwrap_err().reason, reason);
    }

    #[tokio::test]
    async fn messages_come_out_as_they_went_in_however_they_are_cut() {
        for piece in [1, 3, 100, 16 * 1024, 1 << 20] {
            let long = vec![9; 100_000];
            let bytes = [framed(b"VB", b"hello"), framed(b"VB", &long), framed(b"UE", b"")];
            let mut source = source(bytes.concat(), piece);
            let first = source.next_message().await.unwrap();
            assert_eq!((first.tag, &first.wire[..]), (Tag::VB, &b"VBhello"[..]));
            assert!(first.held.is_none());
            let second = source.next_message().await.unwrap();
            assert_eq!(second.wire[2..], long);
            assert!(second.held.is_some(), "a large message is charged");
            assert_eq!(source.budget.used(), 100_002);
            drop(second);
            assert_eq!(&source.next_message().await.unwrap().wire[..], b"UE");
            let end = source.next_message().await.unwrap_err();
            assert_eq!(end.reason, DisconnectReason::RemoteClosed);
        }
    }

    #[tokio::test]
    async fn a_length_that_cannot_be_ends_the_link_at_once() {
        ends(vec![0, 0, 0, 0], DisconnectReason::Protocol).await;
        ends(vec![0, 0, 0, 1, b'V'], DisconnectReason::Protocol).await;
        ends(vec![0, 0x60, 0, 1], DisconnectReason::Oversized).await;
        ends(vec![0xff; 4], DisconnectReason::Oversized).await;
    }

    #[tokio::test]
    async fn a_payload_is_held_against_the_bound_of_its_tag_before_it_is_read() {
        let at_bound = framed(b"AV", &[1; 1_228]);
        assert_eq!(source(at_bound, 500).next_message().await.unwrap().wire.len(), 1_230);
        ends([&1_231_u32.to_be_bytes()[..], b"AV"].concat(), DisconnectReason::Oversized).await;
    }

    #[tokio::test]
    async fn the_largest_message_of_all_is_read() {
        let payload = vec![3; MAX_MESSAGE_BYTES - 2];
        let mut source = source(framed(b"VB", &payload), 50_000);
        assert_eq!(source.next_message().await.unwrap().wire.len(), MAX_MESSAGE_BYTES);
    }

    #[tokio::test]
    async fn an_end_in_the_middle_of_a_message_delivers_nothing() {
        ends(vec![0, 0], DisconnectReason::Transport).await;
        ends([&100_u32.to_be_bytes()[..], b"VBhello"].concat(), DisconnectReason::Transport).await;
        ends(vec![], DisconnectReason::RemoteClosed).await;
    }

    #[tokio::test]
    async fn memory_does_not_follow_the_length_announced() {
        let mut begun = source([&6_000_000_u32.to_be_bytes()[..], b"VBhello"].concat(), 64);
        assert!(begun.next_message().await.is_err());
        assert!(begun.buffer.capacity() <= 2 * BUFFER_BYTES, "{}", begun.buffer.capacity());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_was_begun_must_go_on() {
        let mut source = source(vec![0, 0, 0, 9, b'V'], 64);
        source.io.silent = true;
        let began = time::Instant::now();
        let end = source.next_message().await.unwrap_err();
        assert_eq!((end.reason, began.elapsed()), (DisconnectReason::Silent, STALL_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_survives_a_dropped_call() {
        let mut bytes = framed(b"VB", b"hello");
        let rest = bytes.split_off(6);
        let mut source = source(bytes, 64);
        source.io.silent = true;
        assert!(futures::poll!(Box::pin(source.next_message())).is_pending());
        source.io.bytes.extend(rest);
        assert_eq!(&source.next_message().await.unwrap().wire[..], b"VBhello");
    }
}
