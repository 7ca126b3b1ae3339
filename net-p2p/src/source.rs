//! The read half of a gossip stream: [`AssembledSource`] over the bytes of a libp2p stream.
//!
//! # Invariants
//!
//! * The stream only ever reads into initialized memory, and that memory is initialized only once.
//! * A stream has no memory of its own for its bytes; those of a thread share it.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use broadcaster::{AssembledSource, AssemblyRules, LengthPrefix};
use bytes::BytesMut;
use futures::AsyncRead;
use tokio::io::ReadBuf;

/// Largest read, in bytes. Chosen: a Yamux frame.
const MAX_READ_BYTES: usize = 16 * 1024;

thread_local! {
    /// Initialized memory to read into; taken for the time of one read.
    static COMMON: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The read half of a gossip stream.
pub(crate) type StreamSource<R> = AssembledSource<Initialised<R>, LengthPrefix>;

/// Creates the read half of a gossip stream over `io`.
pub(crate) fn stream_source<R>(io: R, rules: AssemblyRules) -> StreamSource<R>
where
    R: AsyncRead + Unpin + Send + 'static,
{
    AssembledSource::new(Initialised { io }, BytesMut::new(), LengthPrefix, rules)
}

/// Reads from a stream that requires initialized memory into memory that may not be initialized.
///
/// The adapter of `tokio-util` clears all free memory before each read; this one copies the bytes that were
/// read instead.
#[derive(Debug)]
pub(crate) struct Initialised<R> {
    io: R,
}

impl<R: AsyncRead + Unpin> tokio::io::AsyncRead for Initialised<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let io = Pin::new(&mut self.get_mut().io);
        let room = into.remaining().min(MAX_READ_BYTES);
        if into.initialized().len() - into.filled().len() >= room {
            let count = ready!(io.poll_read(cx, into.initialize_unfilled_to(room)))?;
            into.advance(count);
            return Poll::Ready(Ok(()));
        }
        let mut common = COMMON.take();
        common.resize(MAX_READ_BYTES, 0);
        let polled = io.poll_read(cx, common.get_mut(..room).unwrap_or_default());
        if let Poll::Ready(Ok(count)) = polled {
            into.put_slice(common.get(..count).unwrap_or_default());
        }
        COMMON.set(common);
        polled.map_ok(|_count| ())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broadcaster::{ByteBudget, FrameSource};
    use gossip::{DisconnectReason, MAX_MESSAGE_BYTES, NetworkProfile, Tag};
    use tokio::{
        io::AsyncWriteExt,
        time::{self, Instant},
    };
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    /// A reader that yields its bytes in pieces of at most `piece` bytes, then ends.
    struct Script {
        bytes: Vec<u8>,
        at: usize,
        piece: usize,
    }

    impl AsyncRead for Script {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            into: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let count = into.len().min(self.piece).min(self.bytes.len() - self.at);
            into[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
            self.at += count;
            Poll::Ready(Ok(count))
        }
    }

    fn rules(budget: &ByteBudget) -> AssemblyRules {
        AssemblyRules {
            tags: NetworkProfile::ALGORAND.tags,
            budget: budget.clone(),
            message_time: Duration::from_secs(30),
            room_time: Duration::from_secs(30),
        }
    }

    fn framed(tag: &[u8; 2], payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len() + 2).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(tag);
        bytes.extend_from_slice(payload);
        bytes
    }

    #[tokio::test]
    async fn messages_are_read_whole_however_their_bytes_are_split() {
        let budget = ByteBudget::new(64 << 20);
        for piece in [1, 3, 100, 16 * 1024, 1 << 20] {
            let long: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
            let bytes = [framed(b"VB", b"hello"), framed(b"VB", &long), framed(b"UE", b"")];
            let script = Script { bytes: bytes.concat(), at: 0, piece };
            let mut source = stream_source(script, rules(&budget));
            let first = source.next_message().await.unwrap();
            assert_eq!((first.tag, &first.wire[..]), (Tag::VB, &b"VBhello"[..]));
            assert_eq!(source.next_message().await.unwrap().wire[2..], long);
            assert_eq!(&source.next_message().await.unwrap().wire[..], b"UE");
            let end = source.next_message().await.unwrap_err();
            assert_eq!(end.reason, DisconnectReason::RemoteClosed);
        }
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn the_largest_message_of_all_is_read() {
        let bytes = framed(b"VB", &vec![3; MAX_MESSAGE_BYTES - 2]);
        let script = Script { bytes, at: 0, piece: 50_000 };
        let mut source = stream_source(script, rules(&ByteBudget::new(64 << 20)));
        assert_eq!(source.next_message().await.unwrap().wire.len(), MAX_MESSAGE_BYTES);
    }

    // Issue 9, 3; issue 8, 26.
    #[tokio::test(start_paused = true)]
    async fn peers_that_announce_much_and_send_little_hold_no_budget_and_are_disconnected() {
        let budget = ByteBudget::new(256 << 20);
        let began = Instant::now();
        let peers = (0..43).map(|_| {
            let (ours, mut peer) = tokio::io::duplex(64);
            let mut source = stream_source(ours.compat(), rules(&budget));
            async move {
                let attack = async {
                    let announced = 6_000_000_u32.to_be_bytes();
                    peer.write_all(&[&announced[..], b"VB"].concat()).await.unwrap();
                    for _ in 0..10 {
                        time::sleep(Duration::from_secs(29)).await;
                        if peer.write_all(b"x").await.is_err() {
                            return;
                        }
                    }
                };
                let ended = async {
                    let end = source.next_message().await.unwrap_err();
                    drop(source);
                    (end.reason, began.elapsed())
                };
                tokio::join!(ended, attack).0
            }
        });
        let ended = futures::future::join_all(peers);
        tokio::pin!(ended);
        assert!(time::timeout(Duration::from_secs(20), ended.as_mut()).await.is_err());
        assert!(budget.used() < 1 << 20, "{} bytes are held for nothing", budget.used());
        for end in ended.await {
            assert_eq!(end, (DisconnectReason::Protocol, Duration::from_secs(30)));
        }
    }
}
