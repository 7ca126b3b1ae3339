//! The one way in: a message that arrives twice is not lost with its first copy, and a peer that sends much
//! takes no places of others.

use std::{future::pending, num::NonZeroUsize, sync::Arc, sync::Mutex, time::Duration};

use broadcaster::{
    DropReason, HandleError, LaneLimits, Limits, Rate, Rates, Relaying, TopicMessage,
};
use bytes::Bytes;
use gossip::{
    Admission, DisconnectReason, Inbound, Interest, Lane, LinkId, NetworkProfile, Outbound, Tag,
    Transport, Validation, Verdict,
    wire::{
        interest,
        proposal::{self, MAX_DECOMPRESSED},
        request,
        topics::Topics,
    },
};
use testkit::{
    harness::{RawPeer, next_of},
    memory::{MemoryNetwork, MemoryPeer, Shape},
    recorder::Recorder,
    rig::{Topic, Verdicts, gated, heard_on_topic, settle, setup, start},
    wait::soon,
};
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

const SECOND: Duration = Duration::from_secs(1);
const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// A scripted peer, and the number of its link.
fn join(node: &MemoryNetwork) -> (MemoryPeer, LinkId) {
    let (raw, attached) = node.scripted(Shape::default()).expect("the node runs");
    (raw, attached.peer)
}

fn body(number: u32, len: usize) -> Bytes {
    let mut body = vec![0; len];
    body[..4].copy_from_slice(&number.to_le_bytes());
    body.into()
}

/// Limits so long that no handler reaches its deadline.
fn patient() -> Limits {
    Limits::default().with_handler_timeout(600 * SECOND).with_inbound_wait(600 * SECOND)
}

// Issue 9, 4.
#[tokio::test(start_paused = true)]
async fn a_message_lost_with_its_peer_is_accepted_from_another() {
    let (gate, recorder) = (Arc::new(Semaphore::new(0)), Recorder::default());
    let limits = patient().with_workers(ONE).with_topic_queue(ONE).with_peer_tokens(3);
    let (node, broadcaster) = start(setup(limits).handler(Tag::VB, gated(&gate, &recorder)));
    let ((mut leaving, id), (mut staying, _)) = (join(&node), join(&node));
    for number in 0..4 {
        leaving.send(Tag::VB, &body(number, 100)).await.unwrap();
    }
    settle().await;
    // One message is being handled, and the others do not all fit into the queue.
    broadcaster.disconnect(id, DisconnectReason::Requested);
    settle().await;
    for number in 0..4 {
        staying.send(Tag::VB, &body(number, 100)).await.unwrap();
    }
    settle().await;
    gate.add_permits(100);
    for number in 0..4 {
        recorder.hears(&body(number, 100)).await;
    }
    assert_eq!(recorder.count(), 4, "nothing is handled twice");
}

// Issue 9, 4.
#[tokio::test(start_paused = true)]
async fn a_message_refused_on_sending_is_accepted_from_a_peer() {
    let recorder = Recorder::default();
    let limits = Limits::default().with_intake_priority(ONE);
    let (node, broadcaster) = start(setup(limits).handler(Tag::AV, Arc::new(recorder.clone())));
    let (mut raw, _) = join(&node);
    let sent = [body(1, 100), body(2, 100)]
        .map(|vote| broadcaster.broadcast(&Outbound::new(Tag::AV, vote)));
    assert_eq!(sent, [Ok(Admission::Queued), Ok(Admission::Full)]);
    raw.send(Tag::AV, &body(1, 100)).await.unwrap();
    raw.send(Tag::AV, &body(2, 100)).await.unwrap();
    recorder.hears(&body(2, 100)).await;
    assert_eq!(recorder.times(&body(1, 100)), 0, "that one is this node's own");
}

// Issue 9, 4.
#[tokio::test(start_paused = true)]
async fn a_topic_gets_the_verdict_on_a_copy_that_waits_for_its_validator() {
    let (gate, recorder) = (Arc::new(Semaphore::new(0)), Recorder::default());
    let judge = |message: &Inbound| match message.body[0] {
        2 => Validation::Ignore,
        _ => Validation::Accept,
    };
    let limits = patient().with_workers(ONE);
    let setup = setup(limits).relaying(Relaying::Accepted).validator(Tag::TX, Arc::new(judge));
    let (node, broadcaster) = start(setup.handler(Tag::TX, gated(&gate, &recorder)));
    let (mut raw, _) = join(&node);
    for number in 0..3 {
        raw.send(Tag::TX, &body(number, 100)).await.unwrap();
    }
    settle().await;
    // The first message is being handled, and the others wait behind it.
    let mut asked = Vec::new();
    for number in 1..3 {
        let (message, answers) = heard_on_topic(body(number, 100));
        broadcaster.hear(message);
        asked.push(answers);
    }
    settle().await;
    assert!(asked.iter().all(|answers| answers.lock().unwrap().is_empty()), "not judged yet");
    gate.add_permits(100);
    settle().await;
    assert_eq!(*asked[0].lock().unwrap(), [Validation::Accept]);
    assert_eq!(*asked[1].lock().unwrap(), [Validation::Ignore]);
    let (message, answers) = heard_on_topic(body(1, 100));
    broadcaster.hear(message);
    assert_eq!(*answers.lock().unwrap(), [Validation::Accept], "and whoever asks later");
    assert_eq!(recorder.count(), 2, "no copy was handled twice");
}

// Issue 9, 4. Before, topics had a second path with rules of their own.
#[tokio::test(start_paused = true)]
async fn topics_and_streams_share_the_rules_for_compressed_messages() {
    let recorder = Recorder::default();
    let setup = setup(Limits::default()).handler(Tag::PP, Arc::new(recorder.clone()));
    let (node, broadcaster) = start(setup);
    let (proposal, answers) = (body(1, 3_000), Verdicts::default());
    let log = Arc::clone(&answers);
    broadcaster.hear(TopicMessage {
        tag: Tag::PP,
        body: proposal::compress(&proposal).into(),
        from: None,
        transport: Transport::Memory,
        report: Box::new(move |verdict| log.lock().unwrap().push(verdict)),
    });
    recorder.hears(&proposal).await;
    let (mut raw, _) = join(&node);
    raw.send(Tag::PP, &proposal::compress(&proposal)).await.unwrap();
    settle().await;
    assert_eq!(recorder.count(), 1);
    assert_eq!(recorder.messages()[0].transport, Transport::Memory);
    assert_eq!(*answers.lock().unwrap(), [Validation::Accept]);
}

// Issue 9, 4.
#[tokio::test(start_paused = true)]
async fn a_copy_in_the_same_bytes_costs_no_memory_and_delays_no_peer() {
    let (gate, recorder) = (Arc::new(Semaphore::new(0)), Recorder::default());
    let votes = Recorder::default();
    let limits = patient().with_budget_bytes(2 * MAX_DECOMPRESSED - 1_000_000);
    let setup = setup(limits).handler(Tag::PP, gated(&gate, &recorder));
    let (node, _) = start(setup.handler(Tag::AV, Arc::new(votes.clone())));
    let ((mut first, _), (mut second, _)) = (join(&node), join(&node));
    let large = proposal::compress(&body(1, 5_000_000));
    first.send(Tag::PP, &large).await.unwrap();
    settle().await;
    // It waits for its handler, and leaves no memory to decompress another one.
    second.send(Tag::PP, &large).await.unwrap();
    second.send(Tag::AV, &body(2, 100)).await.unwrap();
    let began = Instant::now();
    votes.hears(&body(2, 100)).await;
    assert!(began.elapsed() < SECOND);
    gate.add_permits(100);
    recorder.hears(&body(1, 5_000_000)).await;
    assert_eq!(recorder.count(), 1);
}

// Issue 9, 4.
#[tokio::test(start_paused = true)]
async fn two_encodings_of_one_body_are_one_message() {
    let recorder = Recorder::default();
    let (node, broadcaster) =
        start(setup(Limits::default()).handler(Tag::PP, Arc::new(recorder.clone())));
    let (mut raw, _) = join(&node);
    for len in [2_000, 200_000] {
        let proposal = body(1, len);
        // Compressed, compressed differently, and uncompressed.
        for payload in
            [proposal::compress(&proposal), proposal::compress(&proposal), proposal.to_vec()]
        {
            raw.send(Tag::PP, &payload).await.unwrap();
        }
        recorder.hears(&proposal).await;
        settle().await;
        assert_eq!(recorder.times(&proposal), 1);
    }
    assert_eq!(broadcaster.metrics().drops(DropReason::Duplicate), 4);
}

// Issue 9, 4, with as many requests as an existing node makes when it catches up.
#[tokio::test(start_paused = true)]
async fn requests_under_way_hold_up_no_vote() {
    let votes = Recorder::default();
    let setup = setup(patient()).handler(Tag::AV, Arc::new(votes.clone()));
    let never = |_request: Inbound| pending::<Verdict>();
    let (node, broadcaster) = start(setup.handler(Tag::UE, Arc::new(never)));
    let (mut raw, _) = join(&node);
    let began = Instant::now();
    for (number, requests) in [(1, 16), (2, 100)] {
        for nonce in 0..requests {
            let topics = Topics::new().with("n", vec![7; 4]);
            raw.send(Tag::UE, &request::seal(&topics, nonce)).await.unwrap();
        }
        raw.send(Tag::AV, &body(number, 100)).await.unwrap();
        votes.hears(&body(number, 100)).await;
    }
    assert!(began.elapsed() < SECOND);
    // Requests beyond the peer's share are dropped and counted.
    assert_eq!(broadcaster.metrics().drops(DropReason::RequestsFull), 116 - 64);
}

// Issue 8, 24.
#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_for_much_leaves_room_for_the_requests_of_others() {
    let asked = Recorder::default();
    let log = asked.clone();
    let first = Arc::new(Mutex::new(None));
    let handler = move |request: Inbound| {
        let (log, first) = (log.clone(), Arc::clone(&first));
        async move {
            let flooder = *first.lock().unwrap().get_or_insert(request.from);
            if request.from == flooder {
                return pending().await;
            }
            gossip::Handler::handle(&log, request).await
        }
    };
    let limits = patient().with_requests_handled(ONE.saturating_add(19));
    let (node, _) = start(setup(limits).handler(Tag::UE, Arc::new(handler)));
    let ((mut flooder, _), (mut honest, _)) = (join(&node), join(&node));
    let topics = Topics::new().with("n", vec![7; 4]);
    for nonce in 0..500 {
        flooder.send(Tag::UE, &request::seal(&topics, nonce)).await.unwrap();
    }
    settle().await;
    for nonce in 1_000..1_100 {
        let request = request::seal(&topics, nonce);
        honest.send(Tag::UE, &request).await.unwrap();
        asked.hears(&request).await;
    }
}

// Issue 8, 24.
#[tokio::test(start_paused = true)]
async fn a_flood_of_votes_takes_no_place_of_another_peer() {
    const FLOOD: u32 = 20_000;
    // The queue of the listener is large, because this test is about the queues before it.
    let peer_priority = LaneLimits::new(100_000, 100_000_000);
    let intake_priority = ONE.saturating_add(63);
    let limits =
        Limits::default().with_intake_priority(intake_priority).with_peer_priority(peer_priority);
    let (node, broadcaster) = start(setup(limits).relaying(Relaying::Accepted));
    let ((mut flooder, _), (mut honest, _)) = (join(&node), join(&node));
    let (mut listener, _) = join(&node);
    let table = &NetworkProfile::TANDEM.tags;
    let nothing = interest::encode(Interest::NONE.with(table, Tag::SP), table);
    for raw in [&mut flooder, &mut honest] {
        raw.send(Tag::MI, &nothing).await.unwrap();
    }
    settle().await;
    let flood = async {
        for number in 0..FLOOD {
            flooder.send(Tag::AV, &body(number, 10)).await.unwrap();
        }
    };
    let votes = async {
        for number in 0..200 {
            honest.send(Tag::AV, &body(1_000_000 + number, 300)).await.unwrap();
            time::sleep(SECOND / 1_000).await;
        }
    };
    let read = async {
        let mut honest = 0;
        for _ in 0..FLOOD + 200 {
            honest += u32::from(next_of(&mut listener, Tag::AV).await.len() == 300);
        }
        honest
    };
    let ((), (), heard) =
        soon("everything is passed on", async { futures::join!(flood, votes, read) }).await;
    assert_eq!(heard, 200);
    assert_eq!(broadcaster.metrics().drops(DropReason::IntakeFull), 0);
}

// Issue 8, 24: the same if workers are the scarce resource.
#[tokio::test(start_paused = true)]
async fn handlers_that_take_their_time_take_it_from_their_own_peer() {
    let (recorder, log) = (Recorder::default(), Recorder::default());
    let written = log.clone();
    let slow = move |message: Inbound| {
        let written = written.clone();
        async move {
            time::sleep(SECOND / 100).await;
            gossip::Handler::handle(&written, message).await
        }
    };
    let limits = patient().with_workers(ONE);
    let (node, _) = start(setup(limits).handler(Tag::AV, Arc::new(slow)));
    let mut flooders = Vec::new();
    for _ in 0..3 {
        flooders.push(join(&node).0);
    }
    let (mut honest, _) = join(&node);
    for number in 0..1_000 {
        for (which, flooder) in (0_u32..).zip(&mut flooders) {
            flooder.send(Tag::AV, &body(number + 100_000 * which, 10)).await.unwrap();
        }
    }
    drop(recorder);
    settle().await;
    for number in 0..20 {
        let (vote, began) = (body(1_000_000 + number, 300), Instant::now());
        honest.send(Tag::AV, &vote).await.unwrap();
        log.hears(&vote).await;
        assert!(began.elapsed() < SECOND / 20, "{:?} for one vote", began.elapsed());
    }
}

// Issue 8, 24.
#[tokio::test(start_paused = true)]
async fn a_message_that_could_not_be_forwarded_is_forwarded_at_its_next_copy() {
    let limits = Limits::default().with_budget_bytes(1_000_000);
    let (node, broadcaster) = start(setup(limits).relaying(Relaying::Accepted));
    let ((mut first, _), (mut second, _)) = (join(&node), join(&node));
    let (mut listener, _) = join(&node);
    let full = broadcaster.budget().try_reserve(1_000_000, Lane::Priority).unwrap();
    first.send(Tag::AV, &body(1, 100)).await.unwrap();
    settle().await;
    assert_eq!(broadcaster.metrics().drops(DropReason::BudgetFull), 1);
    drop(full);
    second.send(Tag::AV, &body(1, 100)).await.unwrap();
    assert_eq!(next_of(&mut listener, Tag::AV).await, body(1, 100));
    second.send(Tag::AV, &body(2, 100)).await.unwrap();
    assert_eq!(next_of(&mut listener, Tag::AV).await, body(2, 100), "and once only");
}

/// Sends at most `most` messages of a tag, until the connection is closed.
async fn flood(raw: &mut MemoryPeer, tag: Tag, most: u64) -> u64 {
    let topics = Topics::new().with("n", vec![7; 4]);
    for number in 0..most {
        if raw.send(tag, &request::seal(&topics, number)).await.is_err() {
            return number;
        }
    }
    most
}

// Issue 8, 24.
#[tokio::test(start_paused = true)]
async fn floods_of_every_kind_end_as_floods() {
    let answer = |_request: Inbound| async { Verdict::Ignore };
    let setup = setup(Limits::default()).handler(Tag::UE, Arc::new(answer));
    let (node, broadcaster) = start(setup.relaying(Relaying::Accepted));
    for (tag, most) in [(Tag(*b"ZZ"), 10_000), (Tag::UE, 100_000), (Tag::MS, 100_000)] {
        let (mut raw, mut attached) = node.scripted(Shape::default()).unwrap();
        let began = Instant::now();
        assert!(flood(&mut raw, tag, most).await < most, "{tag}");
        assert_eq!(attached.ended().await, DisconnectReason::Flood, "{tag}");
        assert!(began.elapsed() < 15 * SECOND, "{tag} after {:?}", began.elapsed());
    }
    assert!(broadcaster.metrics().over_rate() > 0);
    assert_eq!(broadcaster.metrics().disconnects(DisconnectReason::Flood), 3);
}

// Issue 8, 25.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_frames_that_hold_megabytes_end_as_a_flood_and_silence_nobody() {
    let votes = Recorder::default();
    // The bodies of some fifty frames, at a rate that a busy machine reaches too.
    let unpacked_bytes = Rates::default().unpacked_bytes.with_per_second(1024 * 1024);
    let rates = Rates::default().with_unpacked_bytes(unpacked_bytes);
    let setup = setup(Limits::default().with_rates(rates)).relaying(Relaying::Accepted);
    let (node, broadcaster) = start(setup.handler(Tag::AV, Arc::new(votes.clone())));
    let (mut attacker, mut ended) = node.scripted(Shape::default()).unwrap();
    let (mut honest, mut honest_ended) = node.scripted(Shape::default()).unwrap();
    let attack = async {
        for number in 0..1_000 {
            let frame = proposal::compress(&body(number, MAX_DECOMPRESSED));
            assert!(frame.len() < 1_000);
            if attacker.send(Tag::PP, &frame).await.is_err() {
                return number;
            }
        }
        1_000
    };
    let talk = async {
        let mut longest = Duration::ZERO;
        for number in 0..100 {
            let (vote, began) = (body(number, 300), Instant::now());
            honest.send(Tag::AV, &vote).await.unwrap();
            votes.hears(&vote).await;
            longest = longest.max(began.elapsed());
            time::sleep(SECOND / 100).await;
        }
        longest
    };
    let (sent, longest) = futures::join!(attack, talk);
    assert!(sent < 1_000, "all of it was taken");
    assert_eq!(soon("it is cut off", ended.ended()).await, DisconnectReason::Flood);
    // Without optimization one such frame takes a tenth of this time.
    assert!(longest < 5 * SECOND, "a vote took {longest:?}");
    assert_eq!(broadcaster.metrics().drops(DropReason::IntakeFull), 0);
    assert!(futures::FutureExt::now_or_never(honest_ended.ended()).is_none());
}

// Issue 8, 25: a peer that came back with a new connection had a burst of decompression again.
#[tokio::test(start_paused = true)]
async fn a_large_message_of_a_peer_without_an_allowance_is_not_decompressed() {
    const MIB: u64 = 1024 * 1024;
    let unpacked_in_all = Rate::new(1, 8 * MIB);
    let rates = Rates::default().with_unpacked_in_all(unpacked_in_all);
    let (node, broadcaster) = start(setup(Limits::default().with_rates(rates)));
    let (mut raw, mut attached) = node.scripted(Shape::default()).unwrap();
    for number in 0..20 {
        raw.send(Tag::PP, &proposal::compress(&body(number, 100_000))).await.unwrap();
    }
    settle().await;
    let refused = broadcaster.metrics().drops(DropReason::OverRate);
    assert!((10..20).contains(&refused), "{refused}");
    // Decompressed, it would end its peer.
    let whole = proposal::compress(&body(100, 1_000_000));
    raw.send(Tag::PP, &whole[..whole.len() - 1]).await.unwrap();
    settle().await;
    assert_eq!(broadcaster.metrics().drops(DropReason::OverRate), refused + 1);
    assert!(futures::FutureExt::now_or_never(attached.ended()).is_none());
}

// Issue 9, 4.
#[tokio::test(start_paused = true)]
async fn a_message_forwarded_at_its_next_copy_goes_to_the_topic_too() {
    let limits = Limits::default().with_budget_bytes(1_000_000);
    let (node, broadcaster) = start(setup(limits).relaying(Relaying::Accepted));
    let topic = Arc::new(Topic::default());
    broadcaster.attach_topic(Tag::TX, Transport::Libp2p, Arc::clone(&topic) as _);
    let (mut raw, _) = join(&node);
    let full = broadcaster.budget().try_reserve(1_000_000, Lane::Priority).unwrap();
    raw.send(Tag::TX, &body(1, 100)).await.unwrap();
    settle().await;
    drop(full);
    raw.send(Tag::TX, &body(1, 100)).await.unwrap();
    settle().await;
    raw.send(Tag::TX, &body(1, 100)).await.unwrap();
    settle().await;
    assert_eq!(topic.published(), [body(1, 100)]);
}

// Issue 8, 25. On the system's clock, like a stall.
#[tokio::test]
async fn a_peer_is_not_slow_because_this_node_stood_still() {
    let limits = Limits::default().with_write_timeout(2 * SECOND).with_slow_age(2 * SECOND);
    let (node, broadcaster) = start(setup(limits));
    let (mut raw, mut attached) = node.scripted(Shape::default()).unwrap();
    for number in 0..10 {
        let sent = broadcaster.broadcast(&Outbound::new(Tag::VB, body(number, 100_000)));
        assert_eq!(sent, Ok(Admission::Queued));
    }
    // The write loop has started and is stuck, because the peer does not read yet.
    time::sleep(SECOND / 10).await;
    std::thread::sleep(3 * SECOND);
    for number in 0..10 {
        assert_eq!(next_of(&mut raw, Tag::VB).await, body(number, 100_000));
    }
    assert!(broadcaster.metrics().stalled() >= 2 * SECOND);
    // A peer that does not read although the node runs is slow.
    for number in 10..20 {
        let sent = broadcaster.broadcast(&Outbound::new(Tag::VB, body(number, 100_000)));
        assert_eq!(sent, Ok(Admission::Queued));
    }
    assert_eq!(soon("it is cut off", attached.ended()).await, DisconnectReason::Slow);
}

// Issue 9, 13. Before, handlers had to be registered before the node started.
#[tokio::test(start_paused = true)]
async fn a_handler_added_to_a_running_node_gets_later_messages() {
    let (node, broadcaster) = start(setup(patient()));
    let (mut raw, _) = join(&node);
    let unhandled = || broadcaster.metrics().drops(DropReason::Unhandled);
    raw.send(Tag::AV, &body(1, 100)).await.unwrap();
    settle().await;
    assert_eq!(unhandled(), 1);

    let (first, second) = (Recorder::default(), Recorder::default());
    assert_eq!(broadcaster.handle(Tag::AV, Arc::new(first.clone())), Ok(()));
    raw.send(Tag::AV, &body(2, 100)).await.unwrap();
    first.hears(&body(2, 100)).await;

    let taken = Err(HandleError::Taken { tag: Tag::AV });
    assert_eq!(broadcaster.handle(Tag::AV, Arc::new(second.clone())), taken);
    let unknown = Tag(*b"ZZ");
    let refused = broadcaster.handle(unknown, Arc::new(second.clone()));
    assert_eq!(refused, Err(HandleError::UnknownTag { tag: unknown }));
    raw.send(Tag::AV, &body(3, 100)).await.unwrap();
    first.hears(&body(3, 100)).await;
    assert_eq!((first.count(), second.count(), unhandled()), (2, 0, 1));
}

// Issue 9, 13.
#[tokio::test(start_paused = true)]
async fn a_handler_that_is_added_to_a_running_node_answers_requests() {
    let (node, broadcaster) = start(setup(patient()));
    let (mut raw, _) = join(&node);
    let handler = |_: Inbound| async { Verdict::Respond(Topics::default()) };
    assert_eq!(broadcaster.handle(Tag::UE, Arc::new(handler)), Ok(()));
    raw.send(Tag::UE, &request::seal(&Topics::default(), 1)).await.unwrap();
    next_of(&mut raw, Tag::TS).await;
}
