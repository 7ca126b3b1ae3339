//! Twenty-four WebSocket peers, four of which never read: those are disconnected, memory stays within the
//! budget, and the latency of the others does not change.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gossip::{NetworkId, NetworkProfile, Tag};
use runtime::TaskSet;
use serde_json::Value;
use tempfile::tempdir;
use testkit::{
    harness::RawPeer,
    process::Node,
    wait::until,
    websocket::{RawWebSocket, upgrade_request},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

const READERS: usize = 20;
const STALLED: usize = 4;
const MESSAGE_BYTES: usize = 128 * 1024;
/// Interval of the messages. Chosen: some forty megabytes a second for all peers together, which a busy machine
/// carries even without optimization.
const INTERVAL: Duration = Duration::from_millis(70);
const BUDGET_MIB: usize = 48;
/// Latency below which a doubling is noise. Chosen: a tenth of the cost of one lost time slice or one delayed
/// retransmission on a busy machine; a node that waits for a stalled peer would be late by seconds.
const FLOOR: Duration = Duration::from_millis(100);

fn request() -> String {
    let network = NetworkId::new("tandem").expect("it is the name of a network");
    upgrade_request(&NetworkProfile::TANDEM, &network)
}

/// A peer that never reads. Its receive buffer is small, so that it stalls at once.
async fn stalled(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 * 1024)?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(request().as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    assert_eq!(&head, b"HTTP/1.1 101");
    Ok(stream)
}

/// The latencies of messages.
#[derive(Clone, Default)]
struct Delays(Arc<Mutex<Vec<Duration>>>);

impl Delays {
    fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn note(&self, delay: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(delay);
    }
}

fn p99(mut delays: Vec<Duration>) -> Duration {
    delays.sort();
    delays[(delays.len() * 99 / 100).min(delays.len() - 1)]
}

/// A peer that sends, and twenty that read.
struct Scene {
    source: RawWebSocket,
    began: Instant,
    delays: Delays,
    sent: u64,
    _readers: TaskSet,
}

impl Scene {
    async fn start(address: SocketAddr) -> Self {
        let (began, delays) = (Instant::now(), Delays::default());
        let readers = TaskSet::new(&CancellationToken::new());
        for _ in 0..READERS {
            let connected = RawWebSocket::connect(address, &request()).await;
            let mut reader = connected.expect("the node takes a peer");
            let delays = delays.clone();
            readers.spawn("reader", |_cancel| async move {
                while let Some((tag, payload)) = reader.recv().await {
                    if let (Tag::VB, Some(sent)) = (tag, payload.first_chunk()) {
                        let sent = Duration::from_micros(u64::from_le_bytes(*sent));
                        delays.note(began.elapsed().saturating_sub(sent));
                    }
                }
            });
        }
        let source = RawWebSocket::connect(address, &request()).await;
        let source = source.expect("the node takes a peer");
        Self { source, began, delays, sent: 0, _readers: readers }
    }

    /// Sends at a steady rate while `go_on` holds, and returns the latencies.
    async fn stream(&mut self, mut go_on: impl FnMut(u64) -> bool) -> Vec<Duration> {
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent = 0;
        while go_on(sent) {
            ticks.tick().await;
            let mut message = vec![0; MESSAGE_BYTES];
            let now = u64::try_from(self.began.elapsed().as_micros()).expect("it is not that late");
            message[..8].copy_from_slice(&now.to_le_bytes());
            message[8..16].copy_from_slice(&self.sent.to_le_bytes());
            self.source.send(Tag::VB, &message).await.expect("the node takes everything");
            (sent, self.sent) = (sent + 1, self.sent + 1);
        }
        let expected = usize::try_from(sent).expect("it is not that many") * READERS;
        until("everything arrives", || self.delays.count() >= expected).await;
        assert_eq!(self.delays.count(), expected, "once");
        self.delays.take()
    }
}

fn disconnections(node: &Node) -> Vec<Value> {
    let events = node.events().into_iter();
    events.filter(|event| event["event"] == "peer_disconnected").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_never_read_are_cut_off_and_the_others_do_not_notice() {
    let _alone = crate::alone().await;
    let folder = tempdir().expect("a temporary folder");
    let budget = BUDGET_MIB.to_string();
    let arguments = ["--mode", "ws", "--max-inbound-per-ip", "64", "--budget-mib", &budget];
    let node = Node::run(folder.path(), &arguments).await;
    let address = node.ws_address().parse().expect("it is a socket address");
    let mut scene = Scene::start(address).await;
    node.has_peers(READERS + 1).await;
    scene.stream(|sent| sent < 20).await;
    let undisturbed = p99(scene.stream(|sent| sent < 100).await);
    let before = node.resident_bytes().expect("the system tells");

    let mut deaf = Vec::new();
    for _ in 0..STALLED {
        deaf.push(stalled(address).await.expect("the node takes a peer"));
    }
    node.has_peers(READERS + 1 + STALLED).await;
    let (mut most, began) = (before, Instant::now());
    let disturbed = scene.stream(|sent| {
        most = most.max(node.resident_bytes().expect("the system tells"));
        assert!(began.elapsed() < Duration::from_secs(90), "they are never cut off");
        sent < 100 || disconnections(&node).len() < STALLED
    });
    let disturbed = p99(disturbed.await);

    let ends = disconnections(&node);
    assert_eq!(ends.len(), STALLED, "{ends:?}");
    assert!(ends.iter().all(|end| end["reason"] == "slow"), "{ends:?}");
    node.has_peers(READERS + 1).await;
    let grown = most - before;
    println!("p99 {undisturbed:?}, then {disturbed:?}; memory grew by {grown} bytes");
    assert!(grown <= BUDGET_MIB * 1024 * 1024, "memory grew by {grown} bytes");
    let bound = (2 * undisturbed).max(FLOOR);
    assert!(disturbed <= bound, "p99 is {disturbed:?}, and was {undisturbed:?}");
    assert_eq!(node.terminate().await, Some(0));
}
