//! The inbound half of a WebSocket.
//!
//! ```text
//!   wire ─▶ Decoder ─▶ messages ─▶ read loop
//!              └─ pong, ping, close ─▶ Port ─▶ WsSink
//! ```
//!
//! # Invariants
//!
//! * A message that has begun ends within 30 s, or the connection does.
//! * Whatever a peer sends counts as a sign of life; without any it is pinged, then given up.
//! * A source that ended stays ended, and then hands its half of the connection to the sink.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use broadcaster::{ByteBudget, FrameSource, Received, SourceEnd};
use bytes::{BufMut, BytesMut};
use gossip::{DisconnectReason, Lane, TagTable};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::oneshot,
    time::{self, Instant, Sleep},
};

use crate::{
    decoder::{Decoder, Space, Step},
    frame::Role,
    port::Port,
};

/// What is read at a time from a busy peer. Source: architecture, "One broadcaster".
const READ_BYTES: usize = 16 * 1024;
/// What is read at a time from a quiet peer. Chosen: ten thousand idle peers take 40 MB.
const QUIET_READ_BYTES: usize = 4 * 1024;
/// How long a message may take to arrive once it has begun. Source: threats and goals, row 9.
const MESSAGE_TIME: Duration = Duration::from_secs(30);
/// Silence after which a peer is pinged, and after which, pinged, it is given up. Source: threats and
/// goals, row 4: 60 s in all.
const QUIET_TIME: Duration = Duration::from_secs(30);

/// What the source needs of its node.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) tags: TagTable,
    pub(crate) budget: ByteBudget,
}

/// The inbound half of one connection.
#[derive(Debug)]
pub(crate) struct WsSource<R: AsyncRead + Unpin + Send + 'static> {
    /// `Some` until the source is dropped, which hands it to the sink.
    io: Option<R>,
    /// Takes the read half back, so that the sink can wait for the peer's last bytes.
    returns: Option<oneshot::Sender<R>>,
    decoder: Decoder,
    budget: ByteBudget,
    port: Arc<Port>,
    /// How much to read at a time.
    appetite: usize,
    /// When the message began of which something has arrived.
    began: Option<Instant>,
    heard: Instant,
    pinged: Option<Instant>,
    /// Never later than something is due.
    timer: Pin<Box<Sleep>>,
    ended: Option<DisconnectReason>,
}

impl<R: AsyncRead + Unpin + Send + 'static> WsSource<R> {
    /// A source over `io`, of which `early` has been read already. At its end the read half goes to
    /// `returns`.
    pub(crate) fn new(
        (io, early): (R, BytesMut),
        role: Role,
        bounds: Bounds,
        port: Arc<Port>,
        returns: oneshot::Sender<R>,
    ) -> Self {
        let now = Instant::now();
        Self {
            io: Some(io),
            returns: Some(returns),
            decoder: Decoder::new(role, bounds.tags, Arc::clone(&port), (early, now)),
            budget: bounds.budget,
            port,
            appetite: QUIET_READ_BYTES,
            began: None,
            heard: now,
            pinged: None,
            timer: Box::pin(time::sleep(QUIET_TIME)),
            ended: None,
        }
    }

    async fn advance(&mut self) -> Result<Received, SourceEnd> {
        loop {
            match self.decoder.step(self.heard).map_err(SourceEnd::because)? {
                Step::Message(message) => {
                    self.began = None;
                    return Ok(message);
                }
                Step::Progress => {}
                Step::Hungry => {
                    if self.began.is_none() && self.decoder.is_within_message() {
                        // Not when it was last heard: it may have waited for a handler since.
                        self.began = Some(Instant::now());
                    }
                    self.fill().await?;
                }
                Step::Charge(bytes, lane) => self.charge(bytes, lane).await?,
            }
        }
    }

    /// Charges the budget for the message that is being put together. The peer's time stands still.
    async fn charge(&mut self, bytes: usize, lane: Lane) -> Result<(), SourceEnd> {
        let asked = Instant::now();
        let held = time::timeout(MESSAGE_TIME, self.budget.reserve(bytes, lane)).await;
        let held = held.map_err(|_elapsed| SourceEnd::because(DisconnectReason::Stalled))?;
        self.decoder.charged(bytes, held);
        self.began = self.began.map(|began| began + asked.elapsed());
        Ok(())
    }

    /// Reads something.
    async fn fill(&mut self) -> Result<(), SourceEnd> {
        loop {
            let due = self.due();
            if due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                read = read(&mut self.io, &mut self.decoder, self.appetite) => {
                    let (count, room) = read?;
                    if count == 0 {
                        return Err(self.end_of_stream());
                    }
                    self.appetite = if count == room { READ_BYTES } else { QUIET_READ_BYTES };
                    (self.heard, self.pinged) = (Instant::now(), None);
                    return Ok(());
                }
                () = &mut self.timer => self.timed_out()?,
            }
        }
    }

    /// When something has to be done though nothing was read.
    fn due(&self) -> Instant {
        let quiet = self.pinged.unwrap_or(self.heard) + QUIET_TIME;
        self.began.map_or(quiet, |began| quiet.min(began + MESSAGE_TIME))
    }

    fn timed_out(&mut self) -> Result<(), SourceEnd> {
        let now = Instant::now();
        if self.began.is_some_and(|began| now >= began + MESSAGE_TIME) {
            return Err(SourceEnd::because(DisconnectReason::Protocol));
        }
        if now >= self.pinged.unwrap_or(self.heard) + QUIET_TIME {
            if self.pinged.is_some() {
                return Err(SourceEnd::because(DisconnectReason::Silent));
            }
            self.port.ping();
            self.pinged = Some(now);
        }
        // The timer may also have been set before the peer was last heard.
        let due = self.due();
        self.timer.as_mut().reset(due);
        Ok(())
    }

    fn end_of_stream(&self) -> SourceEnd {
        if self.decoder.is_within_message() {
            SourceEnd::from(io::Error::from(io::ErrorKind::UnexpectedEof))
        } else {
            SourceEnd::because(DisconnectReason::RemoteClosed)
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> FrameSource for WsSource<R> {
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

impl<R: AsyncRead + Unpin + Send + 'static> Drop for WsSource<R> {
    fn drop(&mut self) {
        if let (Some(io), Some(returns)) = (self.io.take(), self.returns.take()) {
            // A sink that is gone has no use for it; the connection ends here then.
            let _ = returns.send(io);
        }
    }
}

/// Reads once, and says how much, and for how much there was room.
///
/// # Cancel safety
///
/// Safe: what was read is in the decoder.
async fn read<R: AsyncRead + Unpin>(
    io: &mut Option<R>,
    decoder: &mut Decoder,
    appetite: usize,
) -> io::Result<(usize, usize)> {
    let Some(io) = io else { return Ok((0, 0)) };
    match decoder.space() {
        Space::Buffer(buffer) => {
            if buffer.capacity() - buffer.len() < appetite / 4 {
                // An unfinished message makes the buffer grow with what has arrived of it.
                buffer.reserve(appetite.max(buffer.len()));
            }
            let room = buffer.capacity() - buffer.len();
            Ok((io.read_buf(buffer).await?, room))
        }
        Space::Message(bytes, room) => {
            let count = io.read_buf(&mut bytes.limit(room)).await?;
            decoder.arrived(count);
            Ok((count, room))
        }
    }
}

#[cfg(test)]
mod tests {
    use gossip::{NetworkProfile, Tag};
    use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, duplex, split};

    use super::*;

    type Source = WsSource<ReadHalf<DuplexStream>>;

    struct Rig {
        source: Source,
        peer: DuplexStream,
        port: Arc<Port>,
        budget: ByteBudget,
        returned: oneshot::Receiver<ReadHalf<DuplexStream>>,
    }

    fn rig() -> Rig {
        let (ours, peer) = duplex(1 << 20);
        let (port, budget) = (Arc::new(Port::default()), ByteBudget::new(1 << 20));
        let (returns, returned) = oneshot::channel();
        let bounds = Bounds { tags: NetworkProfile::TANDEM.tags, budget: budget.clone() };
        let io = (split(ours).0, BytesMut::new());
        // A dialler's source: frames come unmasked and can be written down.
        let source = WsSource::new(io, Role::Client, bounds, Arc::clone(&port), returns);
        Rig { source, peer, port, budget, returned }
    }

    async fn end(source: &mut Source) -> DisconnectReason {
        match source.next_message().await {
            Ok(message) => panic!("a message: {message:?}"),
            Err(end) => end.reason,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_pinged_after_30_s_and_given_up_after_60() {
        let mut rig = rig();
        let began = Instant::now();
        let pinged = async {
            rig.port.urgent().await;
            assert!(rig.port.take_urgent().ping);
            began.elapsed()
        };
        let (reason, pinged) = tokio::join!(end(&mut rig.source), pinged);
        assert_eq!(pinged.as_secs(), 30);
        assert_eq!((reason, began.elapsed().as_secs()), (DisconnectReason::Silent, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn anything_heard_is_a_sign_of_life() {
        let mut rig = rig();
        let began = Instant::now();
        let peer = async {
            for _ in 0..10 {
                time::sleep(Duration::from_secs(50)).await;
                rig.peer.write_all(&[0x8a, 0]).await.unwrap();
            }
        };
        let (reason, ()) = tokio::join!(end(&mut rig.source), peer);
        assert_eq!((reason, began.elapsed().as_secs()), (DisconnectReason::Silent, 560));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_end_is_given_up_after_30_s() {
        let mut rig = rig();
        let began = Instant::now();
        let peer = async {
            rig.peer.write_all(b"\x02\x03VB1").await.unwrap();
            for _ in 0..100 {
                time::sleep(Duration::from_secs(1)).await;
                if rig.peer.write_all(b"\x00\x01x").await.is_err() {
                    break;
                }
            }
        };
        let ended = async {
            let reason = end(&mut rig.source).await;
            assert_eq!(began.elapsed().as_secs(), 30);
            reason
        };
        let (reason, ()) = tokio::join!(ended, peer);
        assert_eq!(reason, DisconnectReason::Protocol);
        assert_eq!(end(&mut rig.source).await, DisconnectReason::Protocol, "it stays ended");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_lost_when_a_read_is_dropped() {
        let mut rig = rig();
        let message = [&b"\x82\x7f\0\0\0\0\0\x01\x86\xa2VB"[..], &[7; 100_000]].concat();
        for chunk in message.chunks(999) {
            let next = rig.source.next_message();
            tokio::select! {
                biased;
                received = next => panic!("too early: {received:?}"),
                written = rig.peer.write_all(chunk) => written.unwrap(),
            }
        }
        let received = rig.source.next_message().await.unwrap();
        assert_eq!((received.tag, received.wire.len()), (Tag::VB, 100_002));
        assert!(received.held.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_for_which_there_is_no_room_waits_then_ends_the_connection() {
        let mut rig = rig();
        let all = rig.budget.try_reserve(1 << 20, Lane::Priority).unwrap();
        let message = [&b"\x82\x7f\0\0\0\0\0\x01\x86\xa2VB"[..], &[7; 100_000]].concat();
        rig.peer.write_all(&message).await.unwrap();
        let waited = time::timeout(Duration::from_secs(10), rig.source.next_message()).await;
        assert!(waited.is_err());
        drop(all);
        assert_eq!(rig.source.next_message().await.unwrap().wire.len(), 100_002);
        let _all = rig.budget.try_reserve(1 << 20, Lane::Priority).unwrap();
        rig.peer.write_all(&message).await.unwrap();
        let began = Instant::now();
        assert_eq!(end(&mut rig.source).await, DisconnectReason::Stalled);
        assert_eq!(began.elapsed(), MESSAGE_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_within_a_message_is_a_broken_connection() {
        for (sent, reason) in [
            (&b""[..], DisconnectReason::RemoteClosed),
            (b"\x82", DisconnectReason::Transport),
            (b"\x02\x02VB", DisconnectReason::Transport),
            (b"\x8a\x00", DisconnectReason::RemoteClosed),
        ] {
            let mut rig = rig();
            rig.peer.write_all(sent).await.unwrap();
            drop(rig.peer);
            assert_eq!(end(&mut rig.source).await, reason, "{sent:?}");
            drop(rig.source);
            assert!(rig.returned.await.is_ok(), "the read half goes to the sink");
        }
    }
}
