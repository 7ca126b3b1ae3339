//! The broadcaster over in-memory links, which alone can show links that replace each other, exact deadlines,
//! and held bytes.

use std::{future::pending, io, num::NonZeroUsize, sync::Arc, time::Duration};

use broadcaster::{
    Broadcaster, DropReason, Frame, FrameSink, FrameSource, LaneLimits, LaneSinks, Limits, Link,
    LinkGuard, LinkInfo, PeerEvent, Received, Relaying, SourceEnd,
};
use bytes::Bytes;
use gossip::{
    Direction, DisconnectReason, Identity, Inbound, LinkId, Outbound, PeerClass, Request,
    RequestError, Tag, Transport, Validation, Verdict,
    wire::{block::BlockRequest, proposal},
};
use runtime::TaskSet;
use testkit::{
    harness::{RawPeer, next_of},
    memory::{MemoryNetwork, MemoryPeer, Shape, pair, replace},
    recorder::Recorder,
    rig::{Topic, gated, heard_on_topic, settle, setup, start},
    wait::{soon, until},
};
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);
const TWIN: Identity = Identity::from_ed25519([7; 32]);

/// A link of a peer that has two links.
fn twin(node: &MemoryNetwork) -> (MemoryPeer, LinkId) {
    let (peer, attached) =
        node.scripted_as(TWIN, Direction::Inbound, Shape::default()).expect("the node runs");
    (peer, attached.peer)
}

fn bundle(number: u8, len: usize) -> Bytes {
    Bytes::from(vec![number; len])
}

fn offer(broadcaster: &Broadcaster, tag: Tag, body: impl Into<Bytes>) {
    let admission = broadcaster.broadcast(&Outbound::new(tag, body));
    assert_eq!(admission, Ok(gossip::Admission::Queued));
}

// Seen once in a run of all tests: the last handle of a network was dropped, the task of a connection was aborted
// before it heard of that, and the link stayed.
#[tokio::test(start_paused = true)]
async fn a_link_ends_with_its_guard() {
    let (node, broadcaster) = start(setup(Limits::default()));
    let mut events = broadcaster.events();
    let (_peer, link) = twin(&node);
    let guard = LinkGuard::new(&broadcaster, link);
    settle().await;
    assert_eq!(broadcaster.peers(PeerClass::Connected).len(), 1);
    drop(guard);
    let reason = loop {
        if let PeerEvent::Disconnected(_, reason) =
            soon("the link ends", events.recv()).await.unwrap()
        {
            break reason;
        }
    };
    assert_eq!(reason, DisconnectReason::LocalShutdown);
    assert_eq!(broadcaster.peers(PeerClass::Connected).len(), 0);
    drop(LinkGuard::new(&broadcaster, link));
}

#[tokio::test(start_paused = true)]
async fn queued_messages_go_to_the_link_that_replaces_theirs() {
    let (node, broadcaster) = start(setup(Limits::default()));
    let ((_losing, loser), (mut winning, winner)) = (twin(&node), twin(&node));
    offer(&broadcaster, Tag::VB, bundle(1, 500_000));
    settle().await;
    // Only the winner's end reads; the losing link is stuck within this message.
    assert_eq!(next_of(&mut winning, Tag::VB).await, bundle(1, 500_000));
    for number in 0..10 {
        let to = gossip::Recipients::One(loser);
        let vote = Outbound::new(Tag::AV, bundle(number, 300)).to(to);
        assert_eq!(broadcaster.broadcast(&vote), Ok(gossip::Admission::Queued));
    }
    settle().await;
    replace(&broadcaster, TWIN, loser, winner);
    for number in 0..10 {
        assert_eq!(next_of(&mut winning, Tag::AV).await, bundle(number, 300));
    }
    // The message that was being written follows after the losing link was abandoned.
    assert_eq!(next_of(&mut winning, Tag::VB).await, bundle(1, 500_000));
}

#[tokio::test(start_paused = true)]
async fn the_older_link_answers_to_the_identity_when_the_newer_one_is_given_up() {
    let (node, broadcaster) = start(setup(Limits::default()));
    let (_winning, winner) = twin(&node);
    let (_losing, loser) = twin(&node);
    assert_eq!(broadcaster.peer_of(&TWIN), Some(loser));
    replace(&broadcaster, TWIN, loser, winner);
    assert_eq!(broadcaster.peer_of(&TWIN), Some(winner));
    assert_eq!(broadcaster.peers(PeerClass::Connected).len(), 1);
    broadcaster.disconnect(winner, DisconnectReason::Requested);
    assert_eq!(broadcaster.peer_of(&TWIN), Some(loser));
    broadcaster.disconnect(loser, DisconnectReason::Requested);
    assert_eq!(broadcaster.peer_of(&TWIN), None);
}

#[tokio::test(start_paused = true)]
async fn unwritten_messages_of_the_newer_link_go_to_the_older_one() {
    let (node, broadcaster) = start(setup(Limits::default()));
    let (mut winning, winner) = twin(&node);
    let (_losing, loser) = twin(&node);
    let large = Outbound::new(Tag::VB, bundle(1, 500_000)).to(gossip::Recipients::One(loser));
    assert_eq!(broadcaster.broadcast(&large), Ok(gossip::Admission::Queued));
    settle().await;
    replace(&broadcaster, TWIN, loser, winner);
    assert_eq!(next_of(&mut winning, Tag::VB).await, bundle(1, 500_000));
}

#[tokio::test(start_paused = true)]
async fn a_request_stays_with_the_link_it_was_made_on() {
    let (node, broadcaster) = start(setup(Limits::default()));
    let ((_losing, loser), (mut winning, winner)) = (twin(&node), twin(&node));
    let large = Outbound::new(Tag::VB, bundle(1, 500_000)).to(gossip::Recipients::One(loser));
    assert_eq!(broadcaster.broadcast(&large), Ok(gossip::Admission::Queued));
    settle().await;
    let request = Request { topics: BlockRequest { round: 1 }.topics() };
    let answer = broadcaster.request(loser, request);
    let replace = async {
        settle().await;
        replace(&broadcaster, TWIN, loser, winner);
    };
    let (answer, ()) = futures::join!(answer, replace);
    assert_eq!(answer, Err(RequestError::NotConnected { peer: loser }));
    offer(&broadcaster, Tag::VB, "last");
    loop {
        let (tag, payload) = winning.recv().await.expect("the link is kept");
        assert_ne!(tag, Tag::UE, "an answer to it would end the link");
        if payload == "last" {
            break;
        }
    }
    // The large message comes after the losing link was abandoned, and the request does not.
    let (tag, _) = winning.recv().await.expect("the link is kept");
    assert_eq!(tag, Tag::VB);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_for_its_handler_survives_the_loss_of_its_link() {
    let (gate, recorder) = (Arc::new(Semaphore::new(0)), Recorder::default());
    let limits = Limits::default().with_peer_tokens(1);
    let (node, broadcaster) = start(setup(limits).handler(Tag::AV, gated(&gate, &recorder)));
    let ((mut losing, loser), (_winning, winner)) = (twin(&node), twin(&node));
    for number in 0..3 {
        losing.send(Tag::AV, &bundle(number, 100)).await.unwrap();
    }
    settle().await;
    replace(&broadcaster, TWIN, loser, winner);
    settle().await;
    gate.add_permits(3);
    until("all three are handled", || recorder.count() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn parked_messages_are_dropped_if_their_peer_does_not_return_in_time() {
    let limits = Limits::default().with_write_timeout(60 * SECOND);
    let parking_time = limits.parking_time;
    let (node, broadcaster) = start(setup(limits));
    let (mut leaving, peer) = twin(&node);
    let mut events = broadcaster.events();
    for number in 0..8 {
        offer(&broadcaster, Tag::VB, bundle(number, 500_000));
    }
    settle().await;
    let waited_for = broadcaster.broadcast_and_wait(&Outbound::new(Tag::AV, "vote"));
    settle().await;
    tokio::io::AsyncWriteExt::shutdown(leaving.end().writer()).await.unwrap();
    let began = loop {
        if let PeerEvent::Disconnected(info, reason) = events.recv().await.unwrap() {
            assert_eq!((info.id, reason), (peer, DisconnectReason::RemoteClosed));
            break Instant::now();
        }
    };
    let delivery = soon("the broadcast is given up", waited_for).await.unwrap();
    assert_eq!(delivery, gossip::Delivery { written: 0, given_up: 1 });
    assert!(began.elapsed() <= 2 * parking_time, "after {:?}", began.elapsed());
    assert_eq!(broadcaster.budget().used(), 0);
    assert_eq!(broadcaster.metrics().drops(DropReason::PeerGone), 9);
}

#[tokio::test(start_paused = true)]
async fn parked_messages_are_dropped_when_the_node_stops() {
    let (node, broadcaster) = start(setup(Limits::default()));
    let (mut leaving, _) = twin(&node);
    let mut events = broadcaster.events();
    offer(&broadcaster, Tag::VB, bundle(1, 500_000));
    settle().await;
    let waited_for = broadcaster.broadcast_and_wait(&Outbound::new(Tag::AV, "vote"));
    settle().await;
    tokio::io::AsyncWriteExt::shutdown(leaving.end().writer()).await.unwrap();
    while !matches!(events.recv().await.unwrap(), PeerEvent::Disconnected(..)) {}
    assert!(broadcaster.budget().used() > 0, "it is kept");
    assert_eq!(node.stop(5 * SECOND).await, runtime::Shutdown::Clean);
    assert_eq!(broadcaster.budget().used(), 0);
    let delivery = soon("the broadcast is given up", waited_for).await.unwrap();
    assert_eq!(delivery, gossip::Delivery { written: 0, given_up: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_returns_in_time_gets_its_parked_messages_after_its_greeting() {
    let limits = Limits::default().with_write_timeout(60 * SECOND);
    let (node, broadcaster) = start(setup(limits));
    let (mut leaving, _) = twin(&node);
    let mut events = broadcaster.events();
    offer(&broadcaster, Tag::VB, bundle(1, 500_000));
    settle().await;
    for number in 0..3 {
        offer(&broadcaster, Tag::AV, bundle(number, 100));
    }
    settle().await;
    tokio::io::AsyncWriteExt::shutdown(leaving.end().writer()).await.unwrap();
    while !matches!(events.recv().await.unwrap(), PeerEvent::Disconnected(..)) {}
    let tasks = TaskSet::new(&CancellationToken::new());
    let (near, far) = pair(Shape::default(), &tasks);
    let (sink, source) = near.into_halves(broadcaster.assembly());
    let link = Link {
        about: about(Some(TWIN)),
        sinks: LaneSinks::Shared(sink),
        sources: vec![source],
        greeting: vec![(Tag::NI, "first".into()), (Tag::NP, "second".into())],
        hooks: None,
        codec: None,
        gauge: None,
    };
    let _attached = broadcaster.attach(broadcaster.next_link_id(), link).unwrap();
    let mut returned = MemoryPeer::new(far, TWIN);
    let mut tags = Vec::new();
    for _ in 0..6 {
        tags.push(returned.recv().await.unwrap().0);
    }
    assert_eq!(tags, [Tag::NI, Tag::NP, Tag::AV, Tag::AV, Tag::AV, Tag::VB]);
}

#[tokio::test(start_paused = true)]
async fn messages_beyond_the_room_of_the_other_link_are_counted() {
    let peer_priority = LaneLimits::new(4, 1_000_000);
    let (node, broadcaster) = start(setup(Limits::default().with_peer_priority(peer_priority)));
    let ((_losing, loser), (_winning, winner)) = (twin(&node), twin(&node));
    for peer in [loser, winner] {
        let stuck = Outbound::new(Tag::VB, bundle(1, 500_000)).to(gossip::Recipients::One(peer));
        assert_eq!(broadcaster.broadcast(&stuck), Ok(gossip::Admission::Queued));
    }
    settle().await;
    for number in 0..3 {
        offer(&broadcaster, Tag::AV, bundle(number, 100));
    }
    settle().await;
    replace(&broadcaster, TWIN, loser, winner);
    assert_eq!(broadcaster.metrics().drops(DropReason::PeerFull), 2);
}

/// An end that reads nothing and never finishes its close, or one that sends nothing.
struct Deaf;

impl FrameSink for Deaf {
    async fn write_batch(&mut self, _batch: &[Frame]) -> io::Result<()> {
        pending().await
    }

    async fn close(&mut self, _reason: DisconnectReason) {
        pending().await
    }
}

impl FrameSource for Deaf {
    async fn next_message(&mut self) -> Result<Received, SourceEnd> {
        pending().await
    }
}

fn about(identity: Option<Identity>) -> LinkInfo {
    let mut about = LinkInfo::new(Transport::Memory, Direction::Inbound, "memory".into());
    about.identity = identity;
    about
}

#[tokio::test(start_paused = true)]
async fn a_slow_peer_is_gone_at_its_deadline_however_long_it_takes_to_close() {
    let (_node, broadcaster) = start(setup(Limits::default()));
    let link = Link {
        about: about(None),
        sinks: LaneSinks::Shared(Deaf),
        sources: vec![Deaf],
        greeting: Vec::new(),
        hooks: None,
        codec: None,
        gauge: None,
    };
    let mut attached = broadcaster.attach(broadcaster.next_link_id(), link).unwrap();
    offer(&broadcaster, Tag::AV, "vote");
    let began = Instant::now();
    until("it is gone", || broadcaster.peers(PeerClass::Connected).is_empty()).await;
    assert!(began.elapsed() < broadcaster.limits().write_timeout + SECOND / 10);
    assert_eq!(attached.ended().await, DisconnectReason::Slow);
}

#[tokio::test(start_paused = true)]
async fn every_message_of_a_peer_that_is_cut_off_is_counted() {
    let limits = Limits::default().with_slow_age(SECOND);
    let (node, broadcaster) = start(setup(limits));
    let (mut raw, attached) = node.scripted(Shape::default()).unwrap();
    for number in 0..50 {
        offer(&broadcaster, Tag::VB, bundle(number, 10_000));
    }
    settle().await;
    time::advance(2 * SECOND).await;
    let mut read = 0;
    while raw.recv().await.is_some() {
        read += 1;
    }
    let mut attached = attached;
    assert_eq!(attached.ended().await, DisconnectReason::Slow);
    assert_eq!(broadcaster.metrics().drops(DropReason::PeerGone) + read, 50);
    assert_eq!(broadcaster.budget().used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_slow_when_its_oldest_message_is_too_old_whosever_it_is() {
    let limits = Limits::default().with_write_timeout(60 * SECOND);
    let (node, _) = start(setup(limits).relaying(Relaying::Accepted));
    let (mut near, _) = node.scripted(Shape::default()).unwrap();
    let (mut far, mut ended) = node.scripted(Shape::default()).unwrap();
    // Too short to be announced: an announcement would be a message of the node itself.
    for number in 0..100 {
        near.send(Tag::VB, &bundle(number, 4_000)).await.unwrap();
    }
    settle().await;
    // Not old enough to end the link, so they are dropped one by one.
    time::advance(9 * SECOND).await;
    near.send(Tag::AV, b"young").await.unwrap();
    settle().await;
    time::advance(17 * SECOND).await;
    next_of(&mut far, Tag::VB).await;
    let drain = async { while far.recv().await.is_some() {} };
    let (reason, ()) = futures::join!(ended.ended(), drain);
    assert_eq!(reason, DisconnectReason::Slow);
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_message_that_waited_too_long_is_dropped_and_counted() {
    let limits = Limits::default().with_write_timeout(60 * SECOND);
    let (node, broadcaster) = start(setup(limits).relaying(Relaying::Accepted));
    let (mut near, _) = node.scripted(Shape::default()).unwrap();
    let (mut far, _ended) = node.scripted(Shape::default()).unwrap();
    near.send(Tag::VB, &bundle(1, 500_000)).await.unwrap();
    settle().await;
    for number in 0..5 {
        near.send(Tag::AV, &bundle(number, 300)).await.unwrap();
    }
    offer(&broadcaster, Tag::AV, "own");
    settle().await;
    time::advance(8 * SECOND + SECOND / 100).await;
    assert_eq!(next_of(&mut far, Tag::AV).await, "own");
    assert_eq!(broadcaster.metrics().drops(DropReason::Aged), 5);
}

/// A proposal of five megabytes that compresses to a fiftieth.
fn large_proposal(number: u8) -> Vec<u8> {
    let mut body = vec![number; proposal::MAX_DECOMPRESSED];
    let mut word = u64::from(number);
    for byte in body.iter_mut().take(proposal::MAX_DECOMPRESSED / 50) {
        word = (word ^ word >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(1);
        *byte = (word >> 32) as u8;
    }
    proposal::compress(&body)
}

#[tokio::test(start_paused = true)]
async fn a_proposal_is_charged_by_its_decompressed_size() {
    let (gate, recorder) = (Arc::new(Semaphore::new(0)), Recorder::default());
    let limits = Limits::default().with_budget_bytes(16 * 1024 * 1024);
    let (node, broadcaster) = start(setup(limits).handler(Tag::PP, gated(&gate, &recorder)));
    let mut peers = Vec::new();
    for number in 0..8 {
        let (mut raw, _) = node.scripted(Shape::default()).unwrap();
        raw.send(Tag::PP, &large_proposal(number)).await.unwrap();
        peers.push(raw);
    }
    settle().await;
    let used = broadcaster.budget().used();
    assert!(used <= broadcaster.budget().total());
    assert!(used >= 2 * proposal::MAX_DECOMPRESSED, "{used} bytes are charged");
    gate.add_permits(8);
    until("all are handled", || recorder.count() == 8).await;
    until("the budget is given back", || broadcaster.budget().used() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_delays_no_message_and_no_other_request() {
    let heard = Recorder::default();
    let asked = move |request: Inbound| async move {
        match BlockRequest::parse(&request.body) {
            Ok(BlockRequest { round: 1 }) => pending().await,
            _ => Verdict::Respond(gossip::wire::block::unavailable(7)),
        }
    };
    let setup = setup(Limits::default()).handler(Tag::VB, Arc::new(heard.clone()));
    let (node, _broadcaster) = start(setup.handler(Tag::UE, Arc::new(asked)));
    let (mut raw, _) = node.scripted(Shape::default()).unwrap();
    for round in [1, 2] {
        let request = gossip::wire::request::seal(&BlockRequest { round }.topics(), round);
        raw.send(Tag::UE, &request).await.unwrap();
    }
    raw.send(Tag::VB, &bundle(3, 100)).await.unwrap();
    let begun = Instant::now();
    next_of(&mut raw, Tag::TS).await;
    soon("the bundle is handled", heard.hears(&bundle(3, 100))).await;
    assert!(begun.elapsed() < SECOND, "nobody waited for the first request");
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_does_not_keep_up_holds_a_bounded_share_of_memory() {
    let limits = Limits::default().with_budget_bytes(8 * 1024 * 1024);
    let (node, broadcaster) = start(setup(limits));
    let (mut raw, _) = node.scripted(Shape::default()).unwrap();
    let mut observer = broadcaster.observe();
    for number in 0..100 {
        raw.send(Tag::VB, &bundle(number, 100_000)).await.unwrap();
    }
    settle().await;
    let mut held = 0;
    while let Ok(message) = observer.try_recv() {
        held += message.body.len();
    }
    assert!(held > 0, "it sees what there is room for");
    assert!(held <= 1024 * 1024, "{held} bytes were held");
    let lost = broadcaster.metrics().drops(DropReason::ObserverLagged);
    assert_eq!(lost + held as u64 / 100_000, 100);
    assert_eq!(broadcaster.budget().used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_a_topic_had_no_room_for_is_heard_from_a_peer() {
    let (gate, recorder) = (Arc::new(Semaphore::new(0)), Recorder::default());
    let two = NonZeroUsize::MIN.saturating_add(1);
    let limits = Limits::default()
        .with_topic_queue(two)
        .with_handler_timeout(600 * SECOND)
        .with_inbound_wait(600 * SECOND);
    let (node, broadcaster) = start(setup(limits).handler(Tag::TX, gated(&gate, &recorder)));
    let mut reports = Vec::new();
    for number in 0..4 {
        let (message, report) = heard_on_topic(bundle(number, 100));
        broadcaster.hear(message);
        settle().await;
        reports.push(report);
    }
    // One message is being handled, one waits, and two had no room.
    assert_eq!(broadcaster.metrics().drops(DropReason::WorkerFull), 2);
    assert_eq!(*reports[3].lock().unwrap(), [Validation::Ignore]);
    gate.add_permits(10);
    until("two are handled", || recorder.count() == 2).await;
    let (mut raw, _) = node.scripted(Shape::default()).unwrap();
    raw.send(Tag::TX, &bundle(3, 100)).await.unwrap();
    recorder.hears(&bundle(3, 100)).await;
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_topic_that_wait_for_a_handler_are_charged_to_the_budget() {
    let (gate, recorder) = (Arc::new(Semaphore::new(0)), Recorder::default());
    let limits = Limits::default().with_budget_bytes(4 * 1024 * 1024);
    let (_node, broadcaster) = start(setup(limits).handler(Tag::TX, gated(&gate, &recorder)));
    for number in 0..40 {
        broadcaster.hear(heard_on_topic(bundle(number, 500_000)).0);
    }
    settle().await;
    let used = broadcaster.budget().used();
    assert!((2_000_000..=3 * 1024 * 1024).contains(&used), "{used} bytes are charged");
    let dropped = broadcaster.metrics().drops(DropReason::BudgetFull);
    gate.add_permits(40);
    until("the rest is handled", || recorder.count() as u64 + dropped == 40).await;
    assert_eq!(broadcaster.budget().used(), 0);
}

// Issue 9, "Shown by": the messages of a round are judged once for a peer where all of them go to it.
#[tokio::test(start_paused = true)]
async fn messages_of_one_round_go_to_everybody_but_the_peer_that_each_came_from() {
    let (node, broadcaster) = start(setup(Limits::default()).relaying(Relaying::Accepted));
    // The last one sends nothing.
    let peers = (0..12).map(|_| node.scripted(Shape::default()).expect("the node runs").0);
    let mut peers: Vec<MemoryPeer> = peers.collect();
    // With few senders, and with more than are named apart.
    for senders in [2, 11, 3_u8] {
        for (peer, number) in peers.iter_mut().zip(0..senders) {
            peer.send(Tag::AV, &bundle(100 + number, 300 + usize::from(senders))).await.unwrap();
        }
        offer(&broadcaster, Tag::AV, bundle(senders, 300));
        settle().await;
        for (peer, number) in peers.iter_mut().zip(0..) {
            let others = (0..senders).filter(|sender| *sender != number).map(|sender| 100 + sender);
            let expected: Vec<u8> = [senders].into_iter().chain(others).collect();
            // One message too many would be the first of the next turn.
            let mut heard = Vec::new();
            for _ in &expected {
                heard.push(next_of(peer, Tag::AV).await[0]);
            }
            heard.sort_unstable();
            assert_eq!(heard, expected, "peer {number}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_for_a_newcomer_is_not_published_again() {
    let (node, broadcaster) = start(setup(Limits::default()).relaying(Relaying::Accepted));
    let topic = Arc::new(Topic::default());
    broadcaster.attach_topic(Tag::TX, Transport::Libp2p, Arc::clone(&topic) as _);
    let (mut near, _) = node.scripted(Shape::default()).unwrap();
    near.send(Tag::TX, b"transaction").await.unwrap();
    settle().await;
    let (mut newcomer, _) = node.scripted(Shape::default()).unwrap();
    near.send(Tag::TX, b"transaction").await.unwrap();
    assert_eq!(next_of(&mut newcomer, Tag::TX).await, "transaction");
    assert_eq!(topic.published(), ["transaction"]);
}

#[tokio::test(start_paused = true)]
async fn a_link_may_be_slow_and_may_break() {
    let recorder = Recorder::default();
    let (near, near_node) = start(setup(Limits::default()));
    let (far, _) = start(setup(Limits::default()).handler(Tag::AV, Arc::new(recorder.clone())));
    let shape = Shape { delay: SECOND / 4, ..Shape::default() };
    let mut link = near.connect(&far, shape).unwrap();
    let began = Instant::now();
    for number in 0..20 {
        offer(&near_node, Tag::AV, bundle(number, 600));
    }
    until("everything is heard", || recorder.count() == 20).await;
    assert!(began.elapsed() >= SECOND / 4 && began.elapsed() < SECOND / 2);
    link.cut();
    assert_eq!(link.near.ended().await, DisconnectReason::Transport);
    assert_eq!(link.far.ended().await, DisconnectReason::Transport);
}

#[tokio::test(start_paused = true)]
async fn submitted_messages_are_written_before_a_node_stops() {
    let (node, broadcaster) = start(setup(Limits::default()));
    let (mut raw, _) = node.scripted(Shape::default()).unwrap();
    for number in 0..200 {
        offer(&broadcaster, Tag::AV, bundle(number, 600));
    }
    let read = async {
        let mut bodies = Vec::new();
        while let Some((_, payload)) = raw.recv().await {
            bodies.push(payload);
        }
        bodies
    };
    let (bodies, stopped) = futures::join!(read, node.stop(5 * SECOND));
    assert_eq!(stopped, runtime::Shutdown::Clean);
    assert_eq!(bodies, (0..200).map(|number| bundle(number, 600)).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_ends_does_not_keep_a_node_from_stopping() {
    let handler = |_message: Inbound| pending::<Verdict>();
    let (node, broadcaster) = start(setup(Limits::default()).handler(Tag::AV, Arc::new(handler)));
    let (mut raw, _) = node.scripted(Shape::default()).unwrap();
    for number in 0..30 {
        raw.send(Tag::AV, &bundle(number, 100)).await.unwrap();
    }
    settle().await;
    assert_eq!(node.stop(5 * SECOND).await, runtime::Shutdown::Clean);
    assert_eq!(node.task_count(), 0);
    assert_eq!(broadcaster.peers(PeerClass::Connected), []);
}
