//! Drives an [`Assembler`] over a stream of bytes.
//!
//! ```text
//!   stream ──read──▶ Assembler ──▶ messages ─▶ read loop
//!                        └─ charge ─▶ ByteBudget
//! ```
//!
//! # Invariants
//!
//! * Every wait has the assembler's deadline, but the one between two messages: whether a peer that
//!   says nothing is alive is the transport's to ask.
//! * A source that ended stays ended.
//! * A source that waits for a quiet peer has no memory for its bytes: they are read into what all sources of a thread
//!   share, and copied.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, BytesMut};
use gossip::DisconnectReason;
use runtime::time::{self, Instant, Sleep};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{
    Assembler, AssemblyRules, Charge, Framing, Space, Step,
    read_buffer::{READ_BYTES, ReadBuffer},
};
use crate::link::{FrameSource, Received, SourceEnd};

thread_local! {
    /// Memory for bytes that have no buffer of their own yet; taken for the time of one read.
    static COMMON: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The inbound half of a connection: takes messages out of a stream of bytes.
#[derive(Debug)]
pub struct AssembledSource<R, F> {
    io: R,
    assembler: Assembler<F>,
    rules: AssemblyRules,
    /// Never later than a wait has to end; made when the first one has a deadline.
    timer: Option<Pin<Box<Sleep>>>,
    ended: Option<DisconnectReason>,
}

impl<R: AsyncRead + Unpin + Send + 'static, F: Framing> AssembledSource<R, F> {
    /// Creates a source over `io`, of which `early` has been read already.
    #[must_use]
    pub fn new(io: R, early: BytesMut, framing: F, rules: AssemblyRules) -> Self {
        let assembler = Assembler::new(framing, rules.clone(), early, Instant::now());
        Self { io, assembler, rules, timer: None, ended: None }
    }

    /// Returns the time at which the last bytes of the peer came. Transports find silent peers by it.
    #[must_use]
    pub fn heard(&self) -> Instant {
        self.assembler.heard()
    }

    async fn advance(&mut self) -> Result<Received, SourceEnd> {
        loop {
            match self.assembler.step().map_err(SourceEnd::because)? {
                Step::Message(message) => return Ok(message),
                // A message goes on as a whole.
                Step::Piece(_) => {}
                Step::Need => self.read().await?,
                Step::Charge(charge) => self.charge(charge).await?,
            }
        }
    }

    /// Charges the budget, as long as a message may wait for that.
    async fn charge(&mut self, charge: Charge) -> Result<(), SourceEnd> {
        let Self { assembler, rules, .. } = self;
        let Charge { bytes, lane, stage } = charge;
        let held = match rules.budget.try_reserve_for(bytes, lane, stage) {
            Some(held) => held,
            None => {
                let reserve = rules.budget.reserve_for(bytes, lane, stage);
                let now = Instant::now();
                let due = assembler.wait(now).unwrap_or(now);
                let held = time::timeout_at(due, reserve).await;
                held.map_err(|_elapsed| SourceEnd::because(assembler.overdue()))?
            }
        };
        assembler.charged(held, Instant::now());
        Ok(())
    }

    /// Reads something.
    async fn read(&mut self) -> Result<(), SourceEnd> {
        let now = Instant::now();
        let Self { io, assembler, timer, .. } = self;
        let due = assembler.wait(now);
        if due.is_some_and(|due| due <= now) {
            return Err(SourceEnd::because(assembler.overdue()));
        }
        let has_begun = assembler.has_begun();
        let space = assembler.space();
        let read = read_to(io, space);
        let (count, room) = match due {
            None => read.await?,
            Some(due) => tokio::select! {
                biased;
                read = read => read?,
                () = passed(timer, due) => return Err(SourceEnd::because(assembler.overdue())),
            },
        };
        match count {
            0 if has_begun => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            0 => Err(SourceEnd::because(DisconnectReason::RemoteClosed)),
            _ => {
                assembler.filled(count, room, Instant::now());
                Ok(())
            }
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static, F: Framing> FrameSource for AssembledSource<R, F> {
    async fn next_message(&mut self) -> Result<Received, SourceEnd> {
        if let Some(reason) = self.ended {
            return Err(SourceEnd::because(reason));
        }
        let received = self.advance().await;
        if let Err(end) = &received {
            self.ended = Some(end.reason);
        }
        received
    }
}

/// Reads once, and says how much, and for how much there was room.
async fn read_to(
    io: &mut (impl AsyncRead + Unpin),
    space: Space<'_>,
) -> io::Result<(usize, usize)> {
    match space {
        Space::Buffer(bytes, room) if bytes.capacity() - bytes.len() < room => {
            Ok((poll_fn(|context| poll_through_common(io, context, bytes, room)).await?, room))
        }
        Space::Buffer(bytes, room) => Ok((io.read_buf(&mut bytes.limit(room)).await?, room)),
        Space::Message(bytes, room) => Ok((io.read_buf(&mut bytes.limit(room)).await?, room)),
    }
}

/// Reads at most `room` bytes into the memory that all sources of this thread share, and appends them to `bytes`.
fn poll_through_common(
    io: &mut (impl AsyncRead + Unpin),
    context: &mut Context<'_>,
    bytes: &mut BytesMut,
    room: usize,
) -> Poll<io::Result<usize>> {
    let mut common = COMMON.take();
    if common.len() < room {
        common.resize(room.max(READ_BYTES), 0);
    }
    let mut into = ReadBuf::new(&mut common[..room]);
    let polled = Pin::new(io).poll_read(context, &mut into);
    let count = into.filled().len();
    if polled.is_ready() && count > 0 {
        ReadBuffer::append(bytes, into.filled());
    }
    COMMON.set(common);
    ready!(polled)?;
    Poll::Ready(Ok(count))
}

/// Resolves at `due`. The timer is set anew only where it would be late, which spares most reads that.
async fn passed(timer: &mut Option<Pin<Box<Sleep>>>, due: Instant) {
    let timer = timer.get_or_insert_with(|| Box::pin(time::sleep_until(due)));
    if due < timer.deadline() {
        timer.as_mut().reset(due);
    }
    loop {
        timer.as_mut().await;
        if Instant::now() >= due {
            return;
        }
        timer.as_mut().reset(due);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gossip::{Lane, MAX_MESSAGE_BYTES, NetworkProfile, Tag};
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::{ByteBudget, LengthPrefix};

    const SECOND: Duration = Duration::from_secs(1);
    const MIB: usize = 1024 * 1024;

    struct Rig {
        source: AssembledSource<DuplexStream, LengthPrefix>,
        peer: DuplexStream,
        budget: ByteBudget,
    }

    fn rig() -> Rig {
        let (ours, peer) = duplex(8 * MIB);
        let budget = ByteBudget::new(64 * MIB);
        let rules = AssemblyRules {
            tags: NetworkProfile::ALGORAND.tags,
            budget: budget.clone(),
            message_time: 30 * SECOND,
            room_time: 20 * SECOND,
        };
        Rig {
            source: AssembledSource::new(ours, BytesMut::new(), LengthPrefix, rules),
            peer,
            budget,
        }
    }

    fn framed(tag: &[u8; 2], len: usize) -> Vec<u8> {
        let header = u32::try_from(len + 2).unwrap().to_be_bytes();
        [&header[..], tag, &vec![7; len]].concat()
    }

    impl Rig {
        async fn end(&mut self) -> DisconnectReason {
            self.source.next_message().await.unwrap_err().reason
        }
    }

    #[tokio::test]
    async fn a_length_that_cannot_be_ends_the_link_at_once() {
        for (bytes, reason) in [
            (&[0, 0, 0, 0][..], DisconnectReason::Protocol),
            (&[0, 0, 0, 1], DisconnectReason::Protocol),
            (&[0, 0x60, 0, 1], DisconnectReason::Oversized),
            (&[0xff; 4], DisconnectReason::Oversized),
            // Longer than a vote may be.
            (&[0, 0, 0x04, 0xcf, b'A', b'V'], DisconnectReason::Oversized),
        ] {
            let mut rig = rig();
            rig.peer.write_all(bytes).await.unwrap();
            assert_eq!(rig.end().await, reason);
            assert_eq!(rig.end().await, reason, "it stays ended");
        }
    }

    #[tokio::test]
    async fn an_end_in_the_middle_of_a_message_delivers_nothing() {
        for (bytes, reason) in [
            (&[][..], DisconnectReason::RemoteClosed),
            (&[0, 0], DisconnectReason::Transport),
            (&[0, 0, 0, 100, b'V', b'B', b'h'], DisconnectReason::Transport),
        ] {
            let mut rig = rig();
            rig.peer.write_all(bytes).await.unwrap();
            rig.peer.shutdown().await.unwrap();
            assert_eq!(rig.end().await, reason);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_lost_when_a_read_is_dropped() {
        let mut rig = rig();
        for chunk in framed(b"VB", 100_000).chunks(999) {
            tokio::select! {
                biased;
                received = rig.source.next_message() => panic!("too early: {received:?}"),
                written = rig.peer.write_all(chunk) => written.unwrap(),
            }
        }
        let received = rig.source.next_message().await.unwrap();
        assert_eq!((received.tag, received.wire.len()), (Tag::VB, 100_002));
        assert_eq!(rig.budget.used(), 100_002);
        drop(received);
        assert_eq!(rig.budget.used(), 0);
    }

    // Issue 9, 3.
    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_end_is_given_up_after_its_time() {
        let mut rig = rig();
        let began = Instant::now();
        let peer = async {
            rig.peer.write_all(&framed(b"VB", 5_000)[..20]).await.unwrap();
            loop {
                time::sleep(7 * SECOND).await;
                rig.peer.write_all(b"x").await.unwrap();
            }
        };
        tokio::select! {
            end = rig.source.next_message() => {
                assert_eq!(end.unwrap_err().reason, DisconnectReason::Protocol);
            }
            () = peer => {}
        }
        assert_eq!(began.elapsed(), 30 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_pauses_has_no_more_time() {
        let mut rig = rig();
        let peer = async {
            rig.peer.write_all(&framed(b"VB", MAX_MESSAGE_BYTES - 2)[..20]).await.unwrap();
            loop {
                time::sleep(Duration::from_millis(1)).await;
                rig.peer.write_all(b"x").await.unwrap();
            }
        };
        let began = Instant::now();
        tokio::select! {
            biased;
            () = peer => {}
            end = rig.source.next_message() => {
                assert_eq!(end.unwrap_err().reason, DisconnectReason::Protocol);
            }
        }
        assert!(began.elapsed() <= 30 * SECOND + SECOND / 100, "{:?}", began.elapsed());
    }

    // Issue 9, 3: 210 kB a second are enough for the largest message.
    #[tokio::test(start_paused = true)]
    async fn a_peer_on_a_thin_line_can_send_the_largest_message() {
        let mut rig = rig();
        let began = Instant::now();
        let peer = async {
            for chunk in framed(b"VB", MAX_MESSAGE_BYTES - 2).chunks(21_000) {
                rig.peer.write_all(chunk).await.unwrap();
                time::sleep(SECOND / 10).await;
            }
        };
        let (received, ()) = tokio::join!(rig.source.next_message(), peer);
        assert_eq!(received.unwrap().wire.len(), MAX_MESSAGE_BYTES);
        assert!(began.elapsed() > 29 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_for_which_there_is_no_room_waits_then_ends_the_connection() {
        let mut rig = rig();
        let all = rig.budget.try_reserve(64 * MIB, Lane::Priority).unwrap();
        rig.peer.write_all(&framed(b"VB", 100_000)).await.unwrap();
        let waited = time::timeout(10 * SECOND, rig.source.next_message()).await;
        assert!(waited.is_err());
        drop(all);
        assert_eq!(rig.source.next_message().await.unwrap().wire.len(), 100_002);
        let _all = rig.budget.try_reserve(64 * MIB, Lane::Priority).unwrap();
        rig.peer.write_all(&framed(b"VB", 100_000)).await.unwrap();
        let began = Instant::now();
        assert_eq!(rig.end().await, DisconnectReason::Stalled);
        assert_eq!(began.elapsed(), 20 * SECOND);
    }
}
