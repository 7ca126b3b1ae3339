//! Floods of subscriptions, measured in a process of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use gossip::{Outbound, Tag};
use runtime::TaskSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{
    alone::{self, resident},
    attacked::{Attacked, TOPIC},
    host::until,
    rpc,
};
use crate::P2pEvent;

/// The name of the test, as the test program knows it.
const NAME: &str =
    "tests::subscription_floods::a_flood_of_subscriptions_takes_no_memory_and_ends_the_flooder";

/// Subscriptions of one request. Source: wire facts 8.6.
const AT_ONCE: u32 = 100;

const SUBSCRIPTIONS: u32 = 1_000_000;

/// The growth of the process that is allowed during a flood, in bytes. Chosen: the window of the flooder's stream at
/// both ends, one request of a megabyte on its way, and noise of the allocator: up to 7.3 MB were seen beside a busy
/// machine. A flood of 25 MB is sent.
const GROWTH_BYTES: usize = 12 * 1024 * 1024;

/// Longest time for which the swarm may be busy with the flood. Chosen: a debug build beside a busy machine.
const STALL: Duration = Duration::from_secs(2);

/// Watches the memory of the process and the answers of a node's swarm.
struct Watch {
    most: Arc<AtomicUsize>,
    slowest_ms: Arc<AtomicU64>,
    before: usize,
    _tasks: TaskSet,
}

impl Watch {
    fn new(attacked: &Attacked) -> Self {
        let (most, slowest_ms) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let (memory, stalls) = (Arc::clone(&most), Arc::clone(&slowest_ms));
        let broadcaster = attacked.node.broadcaster.clone();
        let tasks = TaskSet::new(&CancellationToken::new());
        tasks.spawn("watch", |_cancel| async move {
            loop {
                let begun = Instant::now();
                let probe = Outbound::new(Tag::TX, rand::random::<[u8; 40]>().to_vec());
                // The swarm's task answers.
                broadcaster.broadcast_and_wait(&probe).await.unwrap();
                let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
                stalls.fetch_max(took, Ordering::Relaxed);
                memory.fetch_max(resident(), Ordering::Relaxed);
                time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { most, slowest_ms, before: resident(), _tasks: tasks }
    }

    fn check(self, kind: &str) {
        let growth = self.most.load(Ordering::Relaxed).saturating_sub(self.before);
        let slowest = Duration::from_millis(self.slowest_ms.load(Ordering::Relaxed));
        println!("{kind}: {growth} bytes more, the swarm answered within {slowest:?}");
        assert!(growth < GROWTH_BYTES, "{kind}: {growth} bytes");
        assert!(slowest < STALL, "{kind}: {slowest:?}");
    }
}

/// Requests with random topics.
async fn random_topics() {
    let mut attacked = Attacked::start().await;
    attacked.honest_peer_hears().await;
    let watch = Watch::new(&attacked);
    for _ in 0..SUBSCRIPTIONS / AT_ONCE / 10 {
        let request = || {
            let topic = |_| rpc::subscription(&format!("{:016x}", rand::random::<u64>()));
            rpc::request(&(0..AT_ONCE).map(topic).collect::<Vec<_>>())
        };
        let requests: Vec<u8> = (0..10).flat_map(|_| request()).collect();
        attacked.send(&requests).await;
    }
    until("the flooder is cut", || !attacked.host.is_alive()).await;
    assert_eq!(attacked.node.network.metrics().count(P2pEvent::TopicFlood), 1);
    watch.check("random topics");
    attacked.honest_peer_hears().await;
}

/// Requests with very many entries.
async fn many_entries(entries: u32, what: &str, entry: &[u8]) {
    let mut attacked = Attacked::start().await;
    attacked.honest_peer_hears().await;
    let request = rpc::request(&vec![entry.to_vec(); entries as usize]);
    attacked.send(&request).await;
    let watch = Watch::new(&attacked);
    for _ in 0..SUBSCRIPTIONS / entries {
        attacked.send(&request).await;
    }
    attacked.honest_peer_hears().await;
    watch.check(what);
}

// Issue 8, 31; threats and goals, row 16. Before, a peer could go on for ever with topics that this node does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_subscriptions_takes_no_memory_and_ends_the_flooder() {
    if !alone::is_alone() {
        let told = alone::run(NAME);
        assert!(told.contains("the swarm answered"), "the child has done nothing: {told}");
        return;
    }
    let empty = rpc::field(1, &[]);
    many_entries(SUBSCRIPTIONS, "one request of a million empty entries", &empty).await;
    many_entries(100_000, "requests of 100,000 empty entries", &empty).await;
    let known = rpc::subscription(TOPIC);
    many_entries(10_000, "requests of 10,000 times the same topic", &known).await;
    random_topics().await;
}
