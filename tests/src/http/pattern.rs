//! Bodies in which every byte follows from its position, so that a gigabyte is checked without memory for it.
//!
//! # Invariants
//!
//! * Byte `i` is `i mod 251`. No buffer size divides the prime, so lost and swapped bytes are detected.

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

/// Period of the pattern, in bytes. Shared with the programs in `tests/interop`.
const PERIOD: usize = 251;

/// Bytes per piece. Chosen: about the size of one read from a socket, and a multiple of the period.
const BLOCK_BYTES: usize = PERIOD * 256;

/// Two blocks of the pattern, so that a block can start at any position within the period.
fn blocks() -> &'static Bytes {
    static BLOCKS: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
    BLOCKS.get_or_init(|| (0..2 * BLOCK_BYTES).map(byte).collect())
}

fn byte(place: usize) -> u8 {
    u8::try_from(place % PERIOD).unwrap_or_default()
}

/// The bytes from `at` on, at most a block.
fn piece(at: u64, len: u64) -> Bytes {
    let start = usize::try_from(at % PERIOD as u64).unwrap_or_default();
    let len = usize::try_from(len).map_or(BLOCK_BYTES, |len| len.min(BLOCK_BYTES));
    blocks().slice(start..start + len)
}

/// The first `len` bytes of the pattern.
#[must_use]
pub fn bytes(len: usize) -> Bytes {
    (0..len).map(byte).collect()
}

/// The hash of the first `len` bytes of the pattern, in hexadecimal.
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

/// The framing of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// With a length in the head.
    Length,
    /// Chunked, without a length in the head.
    Chunked,
}

/// The end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// After the last byte.
    Whole,
    /// In the middle, with an error, after the bytes before it could be sent.
    Error,
    /// In the middle, with a panic.
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

/// Tells whether a body that breaks off has let its sender send the bytes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paused {
    NotYet,
    Once,
}

impl Pattern {
    /// A body of `len` bytes, with its length in the head.
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

    /// A body without an end.
    #[must_use]
    pub fn endless() -> Self {
        Self::of(u64::MAX).framed(Framing::Chunked)
    }

    /// Sets the framing.
    #[must_use]
    pub fn framed(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    /// Sets the end.
    #[must_use]
    pub fn ending(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }

    /// The number of bytes taken from this body so far; it stays readable after the body was dropped.
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

/// Compares a body with the pattern.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    at: u64,
}

impl Reader {
    /// Compares the next bytes.
    ///
    /// # Errors
    ///
    /// The position of the first byte that differs.
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

    /// The number of bytes that were equal.
    #[must_use]
    pub const fn read(&self) -> u64 {
        self.at
    }
}

/// A body without a length, which sends bytes as they are fed to it.
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
    async fn a_pattern_matches_its_reader_and_its_hash() {
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
    async fn a_lost_byte_is_detected() {
        let mut reader = Reader::default();
        assert_eq!(reader.take(&bytes(500)[..400]), Ok(()));
        assert_eq!(reader.take(&bytes(500)[401..]), Err(400));
        let broken = Pattern::of(100).ending(Ending::Error).collect().await;
        assert!(broken.is_err());
    }
}
