//! Two muxers connected by pipes that count writes.

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _},
    identity::Keypair,
    noise,
};
use runtime::TaskSet;
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    time,
};
use tokio_util::{
    compat::{Compat, TokioAsyncReadCompatExt},
    sync::CancellationToken,
};

use super::*;
use crate::{
    flush_coalescer::TURN_BYTES,
    linger::Lingering,
    metrics::{P2pEvent, P2pMetrics},
    tests::{
        host::{PATIENCE, until},
        rpc,
    },
};

/// Capacity of the pipe between two nodes in one direction, in bytes.
const PIPE_BYTES: usize = 16 * 1024;

/// Counts the writes that reach the socket.
struct Counted<S> {
    stream: S,
    sent: Arc<Sent>,
}

#[derive(Default)]
struct Sent {
    writes: AtomicUsize,
    bytes: AtomicUsize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.sent.writes.fetch_add(1, Ordering::Relaxed);
        self.sent.bytes.fetch_add(written, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

type Socket = noise::Output<Lingering<Counted<Compat<DuplexStream>>>>;

/// One end of a connection, and the set of its task.
struct Node {
    muxer: Muxer,
    tasks: TaskSet,
    sent: Arc<Sent>,
    metrics: P2pMetrics,
}

impl Node {
    fn new(io: impl Wire, sent: Arc<Sent>, mode: Mode) -> Self {
        let (tasks, metrics) = (TaskSet::new(&CancellationToken::new()), P2pMetrics::default());
        let connections = ConnectionTasks::new(tasks.clone(), CancellationToken::new());
        let muxer =
            Upgrade::new(connections, Backlog::new(1 << 26, metrics.clone())).muxer(io, mode);
        Self { muxer, tasks, sent, metrics }
    }

    async fn open(&mut self) -> Result<Substream, ConnectionError> {
        soon(poll_fn(|context| Pin::new(&mut self.muxer).poll_outbound(context))).await
    }

    async fn accept(&mut self) -> Result<Substream, ConnectionError> {
        soon(poll_fn(|context| Pin::new(&mut self.muxer).poll_inbound(context))).await
    }

    async fn close(&mut self) -> Result<(), ConnectionError> {
        soon(poll_fn(|context| Pin::new(&mut self.muxer).poll_close(context))).await
    }

    async fn ended(&mut self) -> ConnectionError {
        soon(poll_fn(|context| Pin::new(&mut self.muxer).poll(context))).await.unwrap_err()
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    time::timeout(PATIENCE, what).await.unwrap()
}

/// Both ends of a pipe after the Noise handshake.
async fn sockets() -> [(Socket, Arc<Sent>); 2] {
    let config = noise::Config::new(&Keypair::generate_ed25519()).unwrap();
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let [(ours, our_count), (theirs, their_count)] = [ours, theirs].map(|pipe| {
        let sent = Arc::<Sent>::default();
        let counted = Counted { stream: pipe.compat(), sent: Arc::clone(&sent) };
        (Lingering::new(counted), sent)
    });
    let (ours, theirs) = tokio::join!(
        config.clone().upgrade_outbound(ours, "/noise"),
        config.upgrade_inbound(theirs, "/noise"),
    );
    let sockets = [(ours.unwrap().1, our_count), (theirs.unwrap().1, their_count)];
    for (_, sent) in &sockets {
        sent.writes.store(0, Ordering::Relaxed);
        sent.bytes.store(0, Ordering::Relaxed);
    }
    sockets
}

async fn nodes() -> (Node, Node) {
    let [(ours, our_count), (theirs, their_count)] = sockets().await;
    (Node::new(ours, our_count, Mode::Client), Node::new(theirs, their_count, Mode::Server))
}

#[tokio::test]
async fn streams_beyond_the_queue_are_reset_and_counted() {
    let (mut peer, ours) = tokio::io::duplex(1 << 20);
    let mut node = Node::new(ours.compat(), Arc::default(), Mode::Server);
    for number in 0..=MAX_BUFFERED as u32 + 2 {
        // A window update that opens a stream.
        let mut frame = [0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[4..8].copy_from_slice(&(2 * number + 1).to_be_bytes());
        peer.write_all(&frame).await.unwrap();
    }
    until("three are dropped", || node.metrics.count(P2pEvent::MuxerFull) == 3).await;
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..MAX_BUFFERED {
        drop(node.accept().await.unwrap());
    }
    assert!(Pin::new(&mut node.muxer).poll_inbound(&mut context).is_pending());
    assert_eq!(node.metrics.count(P2pEvent::MuxerFull), 3);
}

#[tokio::test(start_paused = true)]
async fn streams_that_waited_too_long_make_room_for_the_next_one() {
    let (mut node, mut peer) = nodes().await;
    // The swarm's last place is taken.
    let mut in_negotiation = peer.open().await.unwrap();
    in_negotiation.write_all(b"slow").await.unwrap();
    let _last = node.accept().await.unwrap();
    for _ in 0..5 {
        let mut stream = peer.open().await.unwrap();
        stream.write_all(b"stale").await.unwrap();
    }
    until("they wait", || node.muxer.inbound.len() == 5).await;
    time::advance(MAX_WAIT + Duration::from_millis(1)).await;
    let mut stream = peer.open().await.unwrap();
    stream.write_all(b"fresh").await.unwrap();
    let mut said = [0; 5];
    soon(node.accept().await.unwrap().read_exact(&mut said)).await.unwrap();
    assert_eq!((&said, node.metrics.count(P2pEvent::MuxerFull)), (b"fresh", 5));
}

// The first stream of a newcomer was reset, because the swarm of a busy node took more than the longest wait to get round
// to the new connection, or, later, to a stream that it waited for.
#[tokio::test(start_paused = true)]
async fn a_stream_is_not_late_because_this_node_stood_still() {
    let (mut node, mut peer) = nodes().await;
    for said in [b"first", b"later"] {
        let mut stream = peer.open().await.unwrap();
        stream.write_all(said).await.unwrap();
        until("it waits", || node.muxer.inbound.len() == 1).await;
        time::advance(MAX_WAIT + Duration::from_millis(1)).await;
        let mut heard = [0; 5];
        soon(node.accept().await.unwrap().read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, said);
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut node.muxer).poll_inbound(&mut context).is_pending());
    }
    assert_eq!(node.metrics.count(P2pEvent::MuxerFull), 0);
}

#[tokio::test]
async fn frames_of_many_streams_leave_in_few_writes() {
    const STREAMS: usize = 16;
    const FRAMES: usize = 5;
    let (mut one, mut other) = nodes().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(one.open().await.unwrap());
    }
    for stream in &mut streams {
        for _ in 0..FRAMES {
            // The window has room, so this does not wait and the other task gets no turn.
            stream.write_all(&[7; 100]).await.unwrap();
        }
    }
    for _ in 0..STREAMS {
        let mut heard = [0; 100 * FRAMES];
        soon(other.accept().await.unwrap().read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, [7; 100 * FRAMES]);
    }
    let (writes, bytes) = (&one.sent.writes, &one.sent.bytes);
    let (writes, bytes) = (writes.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
    // 9,000 bytes fit into one Noise message, and into the pipe.
    assert!(writes <= 3, "{writes} writes for {} frames", STREAMS * FRAMES);
    assert!(bytes < STREAMS * FRAMES * 112 + 3 * 40, "{bytes} bytes");
}

#[tokio::test]
async fn a_peer_that_does_not_read_stops_the_writers() {
    const STREAMS: usize = 8;
    let [(ours, sent), silent] = sockets().await;
    let mut node = Node::new(ours, sent, Mode::Client);
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(node.open().await.unwrap());
    }
    let mut taken = 0;
    loop {
        let before = taken;
        for stream in &mut streams {
            let write = time::timeout(Duration::from_millis(20), stream.write(&[7; 1024]));
            taken += write.await.map_or(0, Result::unwrap);
        }
        if taken == before {
            break;
        }
    }
    // Yamux keeps about ten frames per stream, the frame being sent, and the next one.
    let kept = STREAMS * 11 * 1024 + 2 * 1024;
    assert!(taken <= kept + TURN_BYTES + PIPE_BYTES, "{taken} bytes");
    assert!(node.sent.bytes.load(Ordering::Relaxed) <= PIPE_BYTES);
    drop(silent);
}

// Issue 8, 22. Before, the flush of a message that took the last place on its way to the socket waited for the peer, and
// the library queued all further messages.
#[tokio::test]
async fn a_peer_that_does_not_read_its_socket_stops_no_message_on_the_topic_stream() {
    let [(ours, sent), silent] = sockets().await;
    let mut node = Node::new(ours, sent, Mode::Client);
    let mut stream = node.open().await.unwrap();
    stream.write_all(b"\x13/multistream/1.0.0\n\x0f/meshsub/1.1.0\n").await.unwrap();
    let message = rpc::request(&[rpc::message("t", &[7; 1_000])]);
    for number in 0..1_000 {
        let taken = async {
            assert_eq!(stream.write(&message).await.unwrap(), message.len());
            stream.flush().await.unwrap();
        };
        let taken = time::timeout(Duration::from_secs(5), taken).await;
        assert!(taken.is_ok(), "message {number} waits");
    }
    drop(silent);
}

#[tokio::test]
async fn written_bytes_arrive_before_the_end() {
    let (mut one, mut other) = nodes().await;
    let mut stream = one.open().await.unwrap();
    stream.write_all(b"last words").await.unwrap();
    let mut heard = String::new();
    let listens = async {
        let mut stream = other.accept().await.unwrap();
        let read = soon(stream.read_to_string(&mut heard)).await;
        // The close waits until the other side has dropped its connection.
        drop(other);
        read
    };
    let (closed, read) = tokio::join!(one.close(), listens);
    closed.unwrap();
    // The end of the connection may show as the end of the stream or as an error.
    drop(read);
    assert_eq!(heard, "last words");
    until("no task is left", || one.tasks.is_empty()).await;
    one.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_waits_until_the_socket_has_lingered() {
    let [(ours, sent), silent] = sockets().await;
    let mut node = Node::new(ours, sent, Mode::Client);
    let begun = time::Instant::now();
    node.close().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(400));
    drop(silent);
}

// Issue 8, 28. Before, closing a connection woke no reader, so its links lived on.
#[tokio::test]
async fn tasks_that_wait_on_a_stream_wake_when_its_connection_closes() {
    let (mut one, mut other) = nodes().await;
    let mut stream = one.open().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut theirs = other.accept().await.unwrap();
    soon(theirs.read_exact(&mut [0; 5])).await.unwrap();
    let (ends, mut ended) = mpsc::channel(2);
    for mut stream in [stream, theirs] {
        let ends = ends.clone();
        one.tasks.spawn("reader", |_cancel| async move {
            // An end or an error: either wakes the reader.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            ends.send(()).await.unwrap();
        });
    }
    // Both tasks wait by now, and nothing else polls them.
    time::sleep(Duration::from_millis(50)).await;
    one.close().await.unwrap();
    soon(ended.recv()).await.unwrap();
    soon(ended.recv()).await.unwrap();
}

// Issue 8, 28. Before, a stream knew one task only: a writer that had to wait took the reader's place, and was woken at
// the end in place of it.
#[tokio::test]
async fn a_reader_wakes_at_the_end_after_a_writer_of_its_stream_had_to_wait() {
    let [(ours, sent), silent] = sockets().await;
    let mut node = Node::new(ours, sent, Mode::Client);
    let (mut read, mut write) = node.open().await.unwrap().split();
    let (ends, mut ended) = mpsc::channel(1);
    node.tasks.spawn("reader", |_cancel| async move {
        // An end or an error: either wakes the reader.
        let _ = read.read(&mut [0]).await;
        ends.send(()).await.unwrap();
    });
    time::sleep(Duration::from_millis(50)).await;
    let fill = time::timeout(Duration::from_millis(50), write.write_all(&[7; 64 * PIPE_BYTES]));
    assert!(fill.await.is_err(), "it does not fit into the pipe");
    node.muxer.end_streams(DisconnectReason::Stalled);
    soon(ended.recv()).await.unwrap();
    drop(silent);
}

// Issue 8, 28. Before, a dead peer delayed the end of its connection.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_cannot_delay_the_end() {
    let [(ours, sent), silent] = sockets().await;
    let mut node = Node::new(ours, sent, Mode::Client);
    let mut stream = node.open().await.unwrap();
    let fill = time::timeout(Duration::from_secs(1), stream.write_all(&[7; 64 * PIPE_BYTES]));
    assert!(fill.await.is_err(), "it does not fit into the pipe");
    let begun = time::Instant::now();
    node.close().await.unwrap();
    assert_eq!(begun.elapsed(), CLOSE_LIMIT);
    assert!(soon(stream.write_all(&[7; 64 * PIPE_BYTES])).await.is_err());
    drop(silent);
}

#[tokio::test]
async fn an_unexpected_end_is_reported() {
    let (mut one, mut other) = nodes().await;
    let mut stream = one.open().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    drop(other.accept().await.unwrap());
    assert!(other.close().await.is_ok());
    assert!(matches!(one.ended().await, ConnectionError::Closed));
    assert!(one.open().await.is_err());
    assert!(one.accept().await.is_err());
    until("no task is left", || one.tasks.is_empty() && other.tasks.is_empty()).await;
}

#[tokio::test]
async fn garbage_ends_the_connection_with_an_error() {
    let (mut peer, ours) = tokio::io::duplex(1024);
    let mut node = Node::new(ours.compat(), Arc::default(), Mode::Server);
    peer.write_all(&[0xff; 12]).await.unwrap();
    assert!(matches!(node.ended().await, ConnectionError::Decode(_)));
}

#[tokio::test]
async fn a_muxer_that_is_dropped_ends_its_task_and_the_connection() {
    let (one, mut other) = nodes().await;
    drop(one.muxer);
    until("its task ended", || one.tasks.is_empty()).await;
    assert!(matches!(other.ended().await, ConnectionError::Closed));
}

#[tokio::test]
async fn an_aborted_task_is_reported_as_an_end() {
    let (mut one, _other) = nodes().await;
    let _ = one.tasks.stop(PATIENCE).await;
    assert!(matches!(one.ended().await, ConnectionError::Closed));
    one.close().await.unwrap();
}
