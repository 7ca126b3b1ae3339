//! The read half of a WebSocket link.
//!
//! ```text
//!   wire ─▶ AssembledSource ─▶ messages ─▶ read loop
//!              └─ WsFraming: pong, ping, close ─▶ Port ─▶ WsSink
//! ```
//!
//! # Invariants
//!
//! * Any byte of the peer is a sign of life. A silent peer is pinged, then disconnected.
//! * A source that has ended stays ended, and returns the read half to the sink when it is dropped.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use broadcaster::{AssembledSource, AssemblyRules, FrameSource, Received, SourceEnd};
use bytes::BytesMut;
use gossip::DisconnectReason;
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::oneshot,
    time::{self, Instant, Sleep},
};

use crate::{frame::Role, framing::WsFraming, port::Port};

/// Silence after which the peer is pinged, and silence after the ping that ends the link. Source: threats and
/// goals, row 4: 60 s in all.
const QUIET_TIME: Duration = Duration::from_secs(30);

/// The read half of one connection.
#[derive(Debug)]
pub(crate) struct WsSource<R: AsyncRead + Unpin + Send + 'static> {
    messages: AssembledSource<Lent<R>, WsFraming>,
    port: Arc<Port>,
    pinged: Option<Instant>,
    /// Fires no later than the next deadline of the link.
    timer: Pin<Box<Sleep>>,
    ended: Option<DisconnectReason>,
}

impl<R: AsyncRead + Unpin + Send + 'static> WsSource<R> {
    /// Creates a source over `io`, from which `early` has been read already. The read half is sent to `returns`
    /// when the source is dropped.
    pub(crate) fn new(
        (io, early): (R, BytesMut),
        role: Role,
        rules: AssemblyRules,
        port: Arc<Port>,
        returns: oneshot::Sender<R>,
    ) -> Self {
        let io = Lent { io: Some(io), returns: Some(returns) };
        let framing = WsFraming::new(role, Arc::clone(&port), Instant::now());
        let messages = AssembledSource::new(io, early, framing, rules);
        let timer = Box::pin(time::sleep(QUIET_TIME));
        Self { messages, port, pinged: None, timer, ended: None }
    }

    /// The time of the next deadline if nothing is read before.
    fn due(&self) -> Instant {
        self.pinged.unwrap_or(self.messages.heard()) + QUIET_TIME
    }

    fn timed_out(&mut self) -> Result<(), SourceEnd> {
        // Any byte after the ping counts as its answer.
        self.pinged = self.pinged.filter(|pinged| *pinged > self.messages.heard());
        let now = Instant::now();
        if now >= self.due() {
            if self.pinged.is_some() {
                return Err(SourceEnd::because(DisconnectReason::Silent));
            }
            self.port.ping();
            self.pinged = Some(now);
        }
        let due = self.due();
        self.timer.as_mut().reset(due);
        Ok(())
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> FrameSource for WsSource<R> {
    async fn next_message(&mut self) -> Result<Received, SourceEnd> {
        if let Some(reason) = self.ended {
            return Err(SourceEnd::because(reason));
        }
        loop {
            tokio::select! {
                biased;
                received = self.messages.next_message() => return received,
                () = &mut self.timer => {}
            }
            if let Err(end) = self.timed_out() {
                self.ended = Some(end.reason);
                return Err(end);
            }
        }
    }
}

/// A read half that is sent back when dropped, so that the sink can wait for the peer's end of stream.
#[derive(Debug)]
struct Lent<R> {
    /// `None` once it has been sent back.
    io: Option<R>,
    returns: Option<oneshot::Sender<R>>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Lent<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Some(io) => Pin::new(io).poll_read(cx, into),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<R> Drop for Lent<R> {
    fn drop(&mut self) {
        if let (Some(io), Some(returns)) = (self.io.take(), self.returns.take()) {
            // The send fails if the sink is gone; the connection is then closed by dropping its last half here.
            let _ = returns.send(io);
        }
    }
}

#[cfg(test)]
mod tests {
    use broadcaster::ByteBudget;
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
        let rules = AssemblyRules {
            tags: NetworkProfile::TANDEM.tags,
            budget: budget.clone(),
            message_time: Duration::from_secs(30),
            room_time: Duration::from_secs(30),
        };
        let io = (split(ours).0, BytesMut::new());
        // This node is the dialler, so the test writes unmasked frames.
        let source = WsSource::new(io, Role::Client, rules, Arc::clone(&port), returns);
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
        assert!(rig.budget.used() >= 100_002);
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

    // Issue 9, 3.
    #[tokio::test(start_paused = true)]
    async fn a_control_frame_in_two_reads_does_not_end_a_quiet_peer() {
        let mut rig = rig();
        let began = Instant::now();
        let peer = async {
            rig.peer.write_all(b"\x89\x02h").await.unwrap();
            time::sleep(Duration::from_secs(1)).await;
            rig.peer.write_all(b"i").await.unwrap();
        };
        let (reason, ()) = tokio::join!(end(&mut rig.source), peer);
        assert_eq!((reason, began.elapsed().as_secs()), (DisconnectReason::Silent, 61));
    }
}
