//! Bodies whose every byte is known from its place, so that a gigabyte needs no memory to be checked.
//!
//! # Invariants
//!
//! * Byte `i` is `i mod 251`. A prime: no buffer size divides it, so bytes that are lost or swapped show.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// After how many bytes it begins anew. Shared with the programs in `tests/interop`.
const PERIOD: usize = 251;

/// Bytes handed out at once. Chosen: what a socket takes; a multiple of the period.
const BLOCK_BYTES: usize = PERIOD * 256;

/// Two blocks, so that a block can be taken at any place within the period.
fn blocks() -> &'static Bytes {
    static BLOCKS: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
    BLOCKS.get_or_init(|| (0..2 * BLOCK_BYTES).map(byte).collect())
}

fn byte(place: usize) -> u8 {
    u8::try_from(place % PERIOD).unwrap_or_default()
}

/// The bytes from `at` on, a block at most.
fn piece(at: u64, len: u64) -> Bytes {
    let start = usize::try_from(at % PERIOD as u64).unwrap_or_default();
    let len = usize::try_from(len).map_or(BLOCK_BYTES, |len| len.min(BLOCK_BYTES));
    blocks().slice(start..start + len)
}

/// The first bytes of the pattern.
#[must_use]
pub fn bytes(len: usize) -> Bytes {
    (0..len).map(byte).collect()
}

/// The hash of the first bytes of the pattern, in hexadecimal.
#[must_use]
pub fn hash(len: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < len {
        let piece = piece(at, len - at);
        hasher.update(&piece);
        at += piece.len() as u64;
    }
    hasher.finalize().to_hex().to_string()
}

/// How a body tells its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// At its start.
    Length,
    /// At its end.
    Chunked,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// After its last byte.
    Whole,
    /// In its middle, with an error, after what came before could be sent.
    Error,
    /// In its middle, with a panic.
    Panic,
}

/// A body of the pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    at: u64,
    len: u64,
    framing: Framing,
    ending: Ending,
    paused: Paused,
    sent: Arc<AtomicU64>,
}

/// Whether a body that breaks off has let its sender send what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paused {
    NotYet,
    Once,
}

impl Pattern {
    /// So many bytes, their number told first.
    #[must_use]
    pub fn of(len: u64) -> Self {
        let sent = Arc::default();
        Self {
            at: 0,
            len,
            framing: Framing::Length,
            ending: Ending::Whole,
            paused: Paused::NotYet,
            sent,
        }
    }

    /// Without end.
    #[must_use]
    pub fn endless() -> Self {
        Self::of(u64::MAX).framed(Framing::Chunked)
    }

    /// Tells its length so.
    #[must_use]
    pub fn framed(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    /// Ends so.
    #[must_use]
    pub fn ending(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }

    /// How many bytes were taken of it so far, as long as it is and after.
    #[must_use]
    pub fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    fn last(&self) -> u64 {
        match self.ending {
            Ending::Whole => self.len,
            Ending::Error | Ending::Panic => self.len / 2,
        }
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.at < self.last() {
            let piece = piece(self.at, self.last() - self.at);
            self.at += piece.len() as u64;
            self.sent.store(self.at, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.ending != Ending::Whole && self.paused == Paused::NotYet {
            self.paused = Paused::Once;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.ending {
            Ending::Whole => Poll::Ready(None),
            Ending::Error => Poll::Ready(Some(Err(io::Error::other("cut on purpose")))),
            Ending::Panic => panic!("a body panics on purpose"),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ending == Ending::Whole && self.at == self.len
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length => SizeHint::with_exact(self.len - self.at),
            Framing::Chunked => SizeHint::default(),
        }
    }
}

/// Reads a body as the pattern.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    at: u64,
}

impl Reader {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// The place of the first byte that is not the pattern's.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), u64> {
        while !bytes.is_empty() {
            let expected = piece(self.at, bytes.len() as u64);
            let (now, later) = bytes.split_at(expected.len());
            if now != expected {
                let same = now.iter().zip(&expected).take_while(|(a, b)| a == b).count();
                return Err(self.at + same as u64);
            }
            self.at += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// How many bytes were the pattern's.
    #[must_use]
    pub const fn read(&self) -> u64 {
        self.at
    }
}

/// A body that is sent as it is fed, its length not told.
#[must_use]
pub fn fed(
    bytes: tokio::sync::mpsc::Receiver<Bytes>,
) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    http_body_util::StreamBody::new(futures::stream::unfold(bytes, |mut bytes| async {
        let next = bytes.recv().await?;
        Some((Ok(Frame::data(next)), bytes))
    }))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_pattern_is_what_its_reader_and_its_hash_expect() {
        let len = 3 * BLOCK_BYTES as u64 + 7;
        let body = Pattern::of(len).collect().await.expect("it is whole").to_bytes();
        let mut reader = Reader::default();
        for piece in body.chunks(1_000) {
            assert_eq!(reader.take(piece), Ok(()));
        }
        assert_eq!(reader.read(), len);
        assert_eq!(hash(len), blake3::hash(&body).to_hex().to_string());
        assert_eq!(bytes(1_000), body.slice(..1_000));
    }

    #[tokio::test]
    async fn a_byte_that_is_lost_is_found() {
        let mut reader = Reader::default();
        assert_eq!(reader.take(&bytes(500)[..400]), Ok(()));
        assert_eq!(reader.take(&bytes(500)[401..]), Err(400));
        let broken = Pattern::of(100).ending(Ending::Error).collect().await;
        assert!(broken.is_err());
    }
}
