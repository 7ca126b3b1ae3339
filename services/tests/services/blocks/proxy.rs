//! Requests passed on by relays without blocks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gossip::{
    GossipNode, Handler, Identity, LateNode, NetworkId, RequestError, Transport, Verdict,
    http::{Caller, read_all},
    wire::{
        block::{self, BlockAnswer, BlockRequest},
        request::seal,
        topics::Topics,
    },
};
use tandem_services::blocks::{
    BlockProxy, BlockProxyLimits, BlockStore, Blocks, Capacity, MemoryStore, Responder,
    X_LATEST_ROUND, path, router, sample,
};
use tokio::time::{self, Instant};
use tower::ServiceExt;

use super::fake::{FakeNode, handle, inbound};

const ROUND: u64 = 24;

/// A node that asks over HTTP.
const NEWCOMER: Identity = Identity::from_ed25519([7; 32]);

/// A relay without blocks.
struct Relay {
    node: Arc<FakeNode>,
    responder: Arc<Responder>,
}

impl Relay {
    fn new() -> Self {
        Self::with(BlockProxyLimits::default())
    }

    fn with(limits: BlockProxyLimits) -> Self {
        let late = LateNode::new();
        let proxy = BlockProxy::new(late.clone(), limits);
        let responder = Arc::new(Responder::new(Capacity::default()).proxy(proxy));
        let node = FakeNode::new();
        let handle: Arc<dyn GossipNode> = node.clone();
        late.fill(&handle);
        Self { node, responder }
    }

    /// A node asks as existing nodes do.
    async fn ask(&self, from: u64, round: u64) -> BlockAnswer {
        self.handle(from, plain(round)).await.expect("not answered")
    }

    /// Somebody asks over HTTP, with a proven identity or without. The status, the latest round that is told,
    /// and the body.
    async fn get(&self, from: Option<Identity>, round: u64) -> (u16, Option<String>, Bytes) {
        let network = NetworkId::new("test-v1").unwrap();
        let path = path(&network, round);
        let caller = Caller {
            identity: from,
            transport: Transport::Libp2p,
            address: "here".into(),
            ip: None,
        };
        let request = http::Request::get(path).extension(caller);
        let request = request.body(axum::body::Body::empty()).unwrap();
        let router = router((*self.responder).clone(), network, Vec::new());
        let response = router.oneshot(request).await.unwrap();
        let latest = response.headers().get(X_LATEST_ROUND);
        let latest = latest.map(|latest| latest.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        (status, latest, read_all(response.into_body(), 1 << 20).await.unwrap())
    }

    async fn handle(&self, from: u64, payload: Bytes) -> Option<BlockAnswer> {
        match self.responder.handle(inbound(payload, from)).await {
            Verdict::Respond(topics) => Some(BlockAnswer::decode(&topics).unwrap()),
            _ => None,
        }
    }
}

/// A request as existing nodes write it.
fn plain(round: u64) -> Bytes {
    seal(&BlockRequest { round }.topics(), 1)
}

fn answer(round: u64) -> BlockAnswer {
    let sample = sample::block(round);
    BlockAnswer::Block { block: sample.block, cert: sample.cert }
}

fn no_block(latest: u64) -> BlockAnswer {
    BlockAnswer::Unavailable { latest: Some(latest) }
}

async fn archive(payload: Bytes, _turn: usize) -> Result<Topics, RequestError> {
    let round = BlockRequest::parse(&payload).unwrap().round;
    let sample = sample::block(round);
    Ok(block::found(sample.block, sample.cert))
}

fn lacking(
    latest: u64,
) -> impl Fn(Bytes, usize) -> std::future::Ready<Result<Topics, RequestError>> {
    move |_, _| std::future::ready(Ok(block::unavailable(latest)))
}

async fn silent(_payload: Bytes, _turn: usize) -> Result<Topics, RequestError> {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_a_block_through_a_relay_and_asking_again_costs_nothing() {
    let relay = Relay::new();
    relay.node.connect(2, archive);
    relay.node.connect(1, archive);
    assert_eq!(relay.ask(1, ROUND).await, answer(ROUND));
    assert_eq!(relay.ask(1, ROUND).await, answer(ROUND));
    assert_eq!(relay.ask(3, ROUND).await, answer(ROUND));
    assert_eq!(relay.node.asked(), [2], "who asks is not asked, and once is enough");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_waits_for_a_round_is_not_asked_for_it() {
    let relay = Relay::new();
    relay.node.connect(1, archive);
    assert_eq!(relay.ask(1, ROUND).await, no_block(0));
    assert_eq!(relay.node.asked(), [0; 0]);
    relay.node.connect(2, |payload, turn| async move {
        time::sleep(Duration::from_millis(500)).await;
        lacking(0)(payload, turn).await
    });
    relay.node.disconnect(gossip::LinkId(1));
    // While 2 is asked for it, 3 comes and asks for it too: then it is not the one to have it.
    let third = async {
        relay.node.connect(3, archive);
        relay.ask(3, ROUND).await
    };
    let both = futures::future::join(relay.ask(1, ROUND), third).await;
    assert!(both == (no_block(0), no_block(0)), "{:?}", relay.node.asked());
    assert_eq!(relay.node.asked(), [2]);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_has_it_the_highest_round_heard_is_told() {
    let relay = Relay::new();
    relay.node.connect(2, lacking(7));
    relay.node.connect(3, lacking(90));
    relay.node.connect(4, lacking(8));
    assert_eq!(relay.ask(1, ROUND).await, no_block(90));
    assert_eq!(relay.ask(5, ROUND).await, no_block(90));
    assert_eq!(relay.node.asked().len(), 3, "nobody is asked twice within a second");
    time::advance(Duration::from_millis(1001)).await;
    assert_eq!(relay.ask(1, ROUND).await, no_block(90));
    assert_eq!(relay.node.asked().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_three_peers_are_asked_and_another_time_others() {
    let relay = Relay::new();
    for peer in 2..10 {
        relay.node.connect(peer, lacking(0));
    }
    assert_eq!(relay.ask(1, ROUND).await, no_block(0));
    assert_eq!(relay.node.asked().len(), 3);
    relay.node.connect(11, archive);
    for round in ROUND + 1..ROUND + 4 {
        relay.ask(1, round).await;
    }
    assert!(relay.node.asked().contains(&11), "{:?}", relay.node.asked());
}

#[tokio::test(start_paused = true)]
async fn silent_peers_cost_their_deadline_and_then_are_left_alone() {
    let relay = Relay::new();
    relay.node.connect(2, silent);
    relay.node.connect(3, silent);
    relay.node.connect(4, silent);
    relay.node.connect(5, silent);
    let began = Instant::now();
    assert_eq!(relay.ask(1, ROUND).await, no_block(0));
    assert_eq!(began.elapsed(), Duration::from_millis(3300));
    relay.node.connect(6, archive);
    let began = Instant::now();
    assert_eq!(relay.ask(1, ROUND + 1).await, answer(ROUND + 1));
    assert!(began.elapsed() <= Duration::from_millis(1200), "{:?}", began.elapsed());
    assert_eq!(relay.node.asked().len(), 5, "{:?}", relay.node.asked());
}

#[tokio::test(start_paused = true)]
async fn a_block_of_another_round_is_not_passed_on() {
    let relay = Relay::new();
    relay.node.connect(2, |_, _| async {
        let other = sample::block(ROUND + 1);
        Ok(block::found(other.block, other.cert))
    });
    assert_eq!(relay.ask(1, ROUND).await, no_block(0));
    relay.node.connect(3, archive);
    time::advance(Duration::from_secs(2)).await;
    assert_eq!(relay.ask(1, ROUND).await, answer(ROUND));
    assert_eq!(relay.node.asked(), [2, 3], "who sent it is left alone");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_again_gets_the_block_from_another() {
    let relay = Relay::new();
    relay.node.connect(2, archive);
    relay.node.connect(3, archive);
    let first = async {
        relay.ask(1, ROUND).await;
        relay.node.asked()
    };
    let first = first.await;
    for _ in 0..3 {
        assert_eq!(relay.ask(1, ROUND).await, answer(ROUND));
    }
    let asked = relay.node.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_ne!(asked.last(), first.last());
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_share_one_request() {
    let relay = Relay::new();
    relay.node.connect(2, |payload, turn| async move {
        time::sleep(Duration::from_millis(500)).await;
        archive(payload, turn).await
    });
    let answers = futures::future::join_all((10..60).map(|asker| relay.ask(asker, ROUND))).await;
    assert!(answers.iter().all(|given| *given == answer(ROUND)));
    assert_eq!(relay.node.asked(), [2]);
}

#[tokio::test(start_paused = true)]
async fn when_who_started_it_leaves_the_others_still_get_their_block() {
    let relay = Relay::new();
    relay.node.connect(2, |payload, turn| async move {
        time::sleep(Duration::from_millis(500)).await;
        archive(payload, turn).await
    });
    let leaves = time::timeout(Duration::from_millis(100), relay.ask(1, ROUND));
    let (left, given) = futures::future::join(leaves, relay.ask(3, ROUND)).await;
    assert!(left.is_err());
    assert_eq!(given, answer(ROUND));
    assert_eq!(relay.node.asked(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_flight_without_anybody_is_dropped() {
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Counts(Arc<AtomicUsize>);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let relay = Relay::with(BlockProxyLimits::default().with_flights(1));
    let counts = Arc::clone(&dropped);
    relay.node.connect(2, move |_, _| {
        let counted = Counts(Arc::clone(&counts));
        async move {
            let _counted = counted;
            std::future::pending().await
        }
    });
    for round in 0..50 {
        let left = time::timeout(Duration::from_millis(10), relay.ask(1, round)).await;
        assert!(left.is_err(), "the place of the one before was free");
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 50);
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_the_bounds_is_not_answered() {
    let limits = BlockProxyLimits::default().with_flights(2).with_waiting(0).with_per_asker(2);
    let relay = Relay::with(limits);
    relay.node.connect(2, silent);
    let ask = |from, round| relay.handle(from, plain(round));
    let all = [ask(1, 1), ask(1, 2), ask(1, 2), ask(3, 2), ask(3, 3), ask(3, 1), ask(3, 2)];
    let given = futures::future::join_all(all).await;
    let answered: Vec<bool> = given.iter().map(Option::is_some).collect();
    assert_eq!(answered, [true, true, false, true, false, true, false]);
}

// Issue 9, 2. A request that is not answered costs an existing node four seconds.
#[tokio::test(start_paused = true)]
async fn two_newcomers_at_once_wait_for_their_turn_and_are_both_served() {
    let relay = Relay::new();
    relay.node.connect(2, |payload, turn| async move {
        time::sleep(Duration::from_millis(100)).await;
        archive(payload, turn).await
    });
    let began = Instant::now();
    let asks = (0..16).flat_map(|at| [(10, at), (11, 500 + at)]);
    let asks = asks.map(|(asker, round)| relay.handle(asker, plain(round)));
    let given = futures::future::join_all(asks).await;
    assert!(given.iter().all(|given| matches!(given, Some(BlockAnswer::Block { .. }))));
    assert_eq!(began.elapsed(), Duration::from_millis(200), "sixteen at once, twice");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_does_not_come_in_time_is_no_answer() {
    let relay = Relay::with(BlockProxyLimits::default().with_flights(1));
    for peer in 2..5 {
        relay.node.connect(peer, silent);
    }
    let began = Instant::now();
    let both = [relay.handle(10, plain(1)), relay.handle(11, plain(2))];
    let given = futures::future::join_all(both).await;
    assert_eq!(given, [Some(no_block(0)), None]);
    assert_eq!(began.elapsed(), Duration::from_millis(3300));
}

#[tokio::test(start_paused = true)]
async fn two_relays_that_know_only_each_other_ask_once_and_stop() {
    let (a, b) = (Relay::new(), Relay::new());
    a.node.connect_handler(2, 1, b.responder.clone());
    b.node.connect_handler(1, 2, a.responder.clone());
    let began = Instant::now();
    let (from_a, from_b) = futures::future::join(a.ask(10, ROUND), b.ask(20, ROUND)).await;
    assert_eq!((from_a, from_b), (no_block(0), no_block(0)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!((a.node.asked().len(), b.node.asked().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_ring_of_relays_passes_a_request_on_once_and_answers_at_once() {
    let ring: Vec<Relay> = (0..5).map(|_| Relay::new()).collect();
    for (index, relay) in ring.iter().enumerate() {
        let next = (index + 1) % ring.len();
        relay.node.connect_handler(next as u64, index as u64, ring[next].responder.clone());
    }
    let began = Instant::now();
    let asks = ring.iter().map(|relay| relay.ask(100, ROUND));
    for given in futures::future::join_all(asks).await {
        assert_eq!(given, no_block(0));
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "no relay waits for another");
    assert!(ring.iter().all(|relay| relay.node.asked().len() == 1));
}

/// A relay of somebody else: it passes on what it is asked, in the usual order.
fn foreign(node: &Arc<FakeNode>, peer: u64, known_as: u64, next: Arc<Responder>) {
    node.connect(peer, move |payload, _| {
        let next = Arc::clone(&next);
        async move {
            let round = BlockRequest::parse(&payload).unwrap().round;
            let payload = seal(&BlockRequest { round }.topics(), 9);
            handle(next, inbound(payload, known_as)).await
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_not_know_the_mark_and_sends_our_request_back_is_told_at_once() {
    let relay = Relay::new();
    foreign(&relay.node, 2, 2, relay.responder.clone());
    let began = Instant::now();
    assert_eq!(relay.ask(1, ROUND).await, no_block(0));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(relay.node.asked(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_round_by_strangers_ends_with_one_deadline() {
    let relay = Relay::new();
    // Asked as peer 2, it comes back as peer 3, which has no other way to go.
    foreign(&relay.node, 2, 3, relay.responder.clone());
    let began = Instant::now();
    assert_eq!(relay.ask(1, ROUND).await, no_block(0));
    assert_eq!(began.elapsed(), Duration::from_millis(1200));
    assert_eq!(relay.node.asked(), [2]);
    relay.node.connect(4, archive);
    assert_eq!(relay.ask(1, ROUND + 1).await, answer(ROUND + 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_passed_on_is_answered_from_the_cache_only() {
    let (a, b) = (Relay::new(), Relay::new());
    b.node.connect(7, archive);
    a.node.connect_handler(2, 1, b.responder.clone());
    assert_eq!(a.ask(10, ROUND).await, no_block(0), "two relays are one too many");
    assert_eq!(b.node.asked(), [0; 0]);
    assert_eq!(b.ask(20, ROUND + 1).await, answer(ROUND + 1));
    assert_eq!(a.ask(10, ROUND + 1).await, answer(ROUND + 1));
    assert_eq!(b.node.asked(), [7]);
}

/// A chain of relays that let a request go through so many, and an archive behind the last one.
fn chain(count: usize, relays: u8) -> Vec<Relay> {
    let limits = BlockProxyLimits::default().with_relays(relays);
    let chain: Vec<Relay> = (0..count).map(|_| Relay::with(limits)).collect();
    for (relay, next) in chain.iter().zip(chain.iter().skip(1)) {
        relay.node.connect_handler(2, 1, next.responder.clone());
    }
    chain.last().unwrap().node.connect(7, archive);
    chain
}

// Issue 10, 9: more than one relay on the way, with a limit.
#[tokio::test(start_paused = true)]
async fn a_request_goes_through_as_many_relays_as_it_may() {
    for (count, relays, found) in
        [(1, 1, true), (2, 1, false), (2, 2, true), (3, 2, false), (3, 3, true)]
    {
        let chain = chain(count, relays);
        let given = chain[0].ask(10, ROUND).await;
        let wanted = if found { answer(ROUND) } else { no_block(0) };
        assert_eq!(given, wanted, "{count} relays, {relays} allowed");
        let asked: Vec<usize> = chain.iter().map(|relay| relay.node.asked().len()).collect();
        let went: Vec<usize> = (0..count).map(|at| usize::from(at < usize::from(relays))).collect();
        assert_eq!(asked, went, "{count} relays, {relays} allowed");
    }
}

// A relay may be told any number by a peer: its own limit counts.
#[tokio::test(start_paused = true)]
async fn a_peer_cannot_make_a_request_go_further_than_a_relay_allows() {
    for (relays, reached) in [(1, 0), (2, 2), (3, 3)] {
        let chain = chain(4, relays);
        let topics = BlockRequest { round: ROUND }.topics();
        let topics = topics.with("relays", vec![255]).with("patience", vec![255, 255]);
        let given = chain[0].handle(10, seal(&topics, 1)).await;
        assert_eq!(given, Some(no_block(0)));
        let asked = chain.iter().filter(|relay| !relay.node.asked().is_empty()).count();
        assert_eq!(asked, if reached == 0 { 0 } else { reached - 1 }, "{relays} allowed");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_behind_a_silent_peer_of_the_second_relay_comes_in_time() {
    let chain = chain(2, 2);
    // The second relay asks this one first.
    chain[1].node.disconnect(gossip::LinkId(7));
    chain[1].node.connect(6, silent);
    let began = Instant::now();
    let (given, ()) = tokio::join!(chain[0].ask(10, ROUND), async {
        time::sleep(Duration::from_millis(10)).await;
        chain[1].node.connect(7, archive);
    });
    assert_eq!(given, answer(ROUND));
    assert!(began.elapsed() < Duration::from_millis(1_200), "{:?}", began.elapsed());
    assert_eq!(chain[1].node.asked(), [6, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_ring_of_relays_that_allow_many_ends_at_once() {
    let limits = BlockProxyLimits::default().with_relays(10);
    let ring: Vec<Relay> = (0..5).map(|_| Relay::with(limits)).collect();
    for (index, relay) in ring.iter().enumerate() {
        let next = (index + 1) % ring.len();
        relay.node.connect_handler(next as u64, index as u64, ring[next].responder.clone());
    }
    let began = Instant::now();
    assert_eq!(ring[0].ask(100, ROUND).await, no_block(0));
    assert_eq!(began.elapsed(), Duration::ZERO, "no relay waits for itself");
    assert!(ring.iter().all(|relay| relay.node.asked().len() == 1), "once around");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_passed_on_fits_the_tag_and_is_read_by_existing_nodes() {
    let relay = Relay::new();
    relay.node.connect(2, archive);
    relay.ask(1, u64::MAX).await;
    let asked = relay.node.asked.lock().unwrap();
    let (_, payload) = asked.first().unwrap();
    assert_eq!(payload.len(), 67);
    assert_eq!(BlockRequest::parse(payload), Ok(BlockRequest { round: u64::MAX }));
    assert_ne!(*payload, plain(u64::MAX));
}

#[tokio::test(start_paused = true)]
async fn a_node_with_a_store_passes_on_only_what_it_lacks() {
    let late = LateNode::new();
    let proxy = BlockProxy::new(late.clone(), BlockProxyLimits::default());
    let store = MemoryStore::new(1 << 20);
    store.put(500, sample::block(500)).unwrap();
    let responder = Responder::new(Capacity::default());
    let responder = responder.store(Blocks::new(Arc::new(store))).proxy(proxy);
    let node = FakeNode::new();
    let relay = Relay { node: node.clone(), responder: Arc::new(responder) };
    assert_eq!(relay.ask(1, ROUND).await, no_block(500), "there is no node yet");
    let handle: Arc<dyn GossipNode> = node.clone();
    late.fill(&handle);
    node.connect(2, archive);
    assert_eq!(relay.ask(1, 500).await, answer(500));
    assert_eq!(node.asked(), [0; 0]);
    assert_eq!(relay.ask(1, ROUND).await, answer(ROUND));
    assert_eq!(node.asked(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_dropped_is_not_kept_alive() {
    let relay = Relay::new();
    let node = Arc::downgrade(&relay.node);
    let responder = relay.responder.clone();
    drop(relay);
    assert!(node.upgrade().is_none());
    let Verdict::Respond(topics) = responder.handle(inbound(plain(ROUND), 1)).await else {
        panic!("not answered");
    };
    assert_eq!(BlockAnswer::decode(&topics), Ok(no_block(0)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_for_missing_rounds_is_slowed_down() {
    let relay = Relay::new();
    relay.node.connect(2, lacking(90));
    for round in 100..1100 {
        assert_eq!(relay.ask(1, round).await, no_block(90));
    }
    assert_eq!(relay.node.asked().len(), 32);
    for round in 2000..2010 {
        assert_eq!(relay.ask(1, round).await, no_block(90));
        assert_eq!(relay.ask(3, round + 500).await, no_block(90));
        time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(relay.node.asked().len(), 32 + 9 + 10, "others are served as before");
    relay.node.connect(4, archive);
    assert_eq!(relay.ask(1, 7).await, answer(7));
    relay.node.disconnect(gossip::LinkId(4));
    for round in 3000..3100 {
        assert_eq!(relay.ask(1, round).await, no_block(90));
    }
    assert_eq!(relay.node.asked().len(), 32 + 19 + 1 + 32, "a block makes up for it");
}

#[tokio::test(start_paused = true)]
async fn topics_beside_a_block_in_an_answer_are_not_kept() {
    let kept = Arc::new(std::sync::Mutex::new(None));
    let sent = Arc::clone(&kept);
    let relay = Relay::new();
    relay.node.connect(2, move |_, _| {
        let sample = sample::block(ROUND);
        let topics = block::found(sample.block, sample.cert).with("padding", vec![0; 1 << 20]);
        let payload = topics.encode();
        *sent.lock().unwrap() = Some(payload.clone());
        std::future::ready(Ok(Topics::decode(&payload).unwrap()))
    });
    let BlockAnswer::Block { block, cert } = relay.ask(1, ROUND).await else {
        panic!("no block");
    };
    let sent = kept.lock().unwrap().take().unwrap();
    assert!(!sent.as_ptr_range().contains(&block.as_ptr()));
    assert!(!sent.as_ptr_range().contains(&cert.as_ptr()));
    assert!(sent.is_unique(), "the cache would keep a megabyte for a small block");
}

// Issue 9, 2. An existing node asks over HTTP for as long as it has no gossip link, and takes a 404 for the
// end of the history.
#[tokio::test(start_paused = true)]
async fn a_request_over_http_is_passed_on_as_a_message_is() {
    let relay = Relay::new();
    relay.node.connect(2, archive);
    let body = Bytes::from(sample::block(ROUND).to_body());
    assert_eq!(relay.get(None, ROUND).await, (200, None, body.clone()));
    assert_eq!(relay.get(Some(NEWCOMER), ROUND).await, (200, None, body));
    assert_eq!(relay.ask(1, ROUND).await, answer(ROUND));
    assert_eq!(relay.node.asked(), [2], "the cache is one");
}

#[tokio::test(start_paused = true)]
async fn a_missing_block_is_told_over_http_with_the_latest_round_heard() {
    let relay = Relay::new();
    relay.node.connect(2, lacking(90));
    let not_found = (404, Some("90".to_owned()), Bytes::new());
    assert_eq!(relay.get(None, ROUND).await, not_found);
    let alone = Relay::new();
    assert_eq!(alone.get(None, ROUND).await, (404, Some("0".to_owned()), Bytes::new()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_over_http_is_not_asked_by_message() {
    let relay = Relay::new();
    let link = relay.node.connect(1, archive);
    relay.node.identify(link, NEWCOMER);
    assert_eq!(relay.get(Some(NEWCOMER), ROUND).await.0, 404);
    assert_eq!(relay.node.asked(), [0; 0]);
    relay.node.connect(2, archive);
    assert_eq!(relay.get(Some(NEWCOMER), ROUND).await.0, 200);
    assert_eq!(relay.node.asked(), [2]);
}

#[tokio::test(start_paused = true)]
async fn too_much_at_once_over_http_is_asked_to_come_back() {
    let limits = BlockProxyLimits::default().with_per_asker(1);
    let relay = Relay::with(limits);
    relay.node.connect(2, silent);
    let asks = [relay.get(Some(NEWCOMER), 1), relay.get(Some(NEWCOMER), 2)];
    let given = futures::future::join_all(asks).await;
    let statuses: Vec<u16> = given.iter().map(|given| given.0).collect();
    assert_eq!(statuses, [404, 503]);
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_reverse_proxy_are_not_refused_for_what_others_of_them_ask() {
    let relay = Relay::new();
    relay.node.connect(2, |payload, turn| async move {
        time::sleep(Duration::from_millis(100)).await;
        archive(payload, turn).await
    });
    let asks = (0..40).map(|round| relay.get(None, round));
    let given = futures::future::join_all(asks).await;
    assert!(given.iter().all(|given| given.0 == 200), "two newcomers and more, at once");
    relay.node.disconnect(gossip::LinkId(2));
    relay.node.connect(3, lacking(90));
    let mut statuses = Vec::new();
    for round in 1000..1033 {
        statuses.push(relay.get(None, round).await.0);
    }
    assert_eq!(statuses.pop(), Some(503), "one asks in vain, so all are told to come back");
    assert!(statuses.iter().all(|&status| status == 404), "{statuses:?}");
}
