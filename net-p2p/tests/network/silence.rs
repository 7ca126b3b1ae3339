//! A peer that becomes unreachable without a packet that says so.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use broadcaster::PeerEvent;
use gossip::{DisconnectReason, GossipNode, NetworkProfile, NodeAddress, PeerClass};
use runtime::TaskSet;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::kit::{Node, Plan, linked};

/// Longest time until the silence is detected, as on the other transport, and the peer is reached again, with a
/// margin for a busy machine.
const NOTICED: Duration = Duration::from_secs(70);

/// A proxy between two nodes. After a cut, its connections carry nothing and stay open.
struct Cable {
    address: SocketAddr,
    cut: watch::Sender<usize>,
    dialled: Arc<AtomicUsize>,
    _tasks: TaskSet,
}

impl Cable {
    async fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, cuts) = watch::channel(0);
        let dialled = Arc::new(AtomicUsize::new(0));
        let tasks = TaskSet::new(&CancellationToken::new());
        let (count, passing) = (Arc::clone(&dialled), tasks.clone());
        tasks.spawn("cable", |_cancel| async move {
            loop {
                let (mut one, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let mut cuts = cuts.clone();
                passing.spawn("connection", |_cancel| async move {
                    let mut other = TcpStream::connect(node).await.unwrap();
                    tokio::select! {
                        biased;
                        cut = cuts.wait_for(|cut| *cut >= number) => { cut.unwrap(); }
                        // Either end may close the connection.
                        _ = copy_bidirectional(&mut one, &mut other) => return,
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { address, cut, dialled, _tasks: tasks }
    }

    /// Cuts every current connection.
    fn cut(&self) {
        self.cut.send_replace(self.dialled.load(Ordering::SeqCst));
    }

    /// The address of a node behind this proxy.
    fn address(&self, node: &Node) -> NodeAddress {
        let there = node.network.identity();
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{there}", self.address.port()).parse().unwrap()
    }
}

fn port(node: &Node) -> u16 {
    node.address().to_string().split('/').nth(4).unwrap().parse().unwrap()
}

/// Waits until a node loses its peer, and returns the reason.
async fn lost(node: &Node) -> DisconnectReason {
    let mut events = node.broadcaster.events();
    let ended = async {
        loop {
            if let PeerEvent::Disconnected(_, reason) = events.recv().await.unwrap() {
                return reason;
            }
        }
    };
    time::timeout(NOTICED, ended).await.expect("nobody noticed")
}

// Issue 8, 28. Before, the ping failed after 80 s, the connection closed, and its link lived on at both ends.
#[tokio::test]
async fn a_silent_peer_is_disconnected_within_a_minute_and_dialled_again() {
    let profile = &NetworkProfile::TANDEM;
    let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
    let cable = Cable::to(SocketAddr::from(([127, 0, 0, 1], port(&other)))).await;
    one.network.add_peer(&cable.address(&other)).unwrap();
    linked(&one, &other).await;
    // A link that has lived this long does not count as a failed dial.
    time::sleep(Duration::from_secs(11)).await;

    let begun = Instant::now();
    cable.cut();
    let (here, there) = tokio::join!(lost(&one), lost(&other));
    assert_eq!((here, there), (DisconnectReason::Silent, DisconnectReason::Silent));
    linked(&one, &other).await;
    assert!(begun.elapsed() < NOTICED, "{:?}", begun.elapsed());
    assert_eq!(one.network.peers(PeerClass::Connected).len(), 1);
    one.stop().await;
    other.stop().await;
}
