//! Broadcasts: recipients, copies, order, and results.

use bytes::Bytes;
use gossip::{
    Admission, Delivery, DeliveryError, Outbound, Recipients, SubmitError, Tag,
    wire::proposal::{MAX_DECOMPRESSED, decompress},
};
use testkit::{
    harness::{Events, Harness, join, next_of},
    wait::{eventually, soon, until},
};

use crate::scene::{body, broadcast, listeners, plain, queued, read_to, stall};

pub(crate) async fn a_broadcast_reaches_every_peer_once<H: Harness>() {
    let hub = H::start(plain()).await;
    let listeners = listeners(&hub, 3, &[Tag::AV, Tag::VB]).await;
    let gossip = hub.gossip();
    for number in 0..20 {
        broadcast(&gossip, Tag::AV, &body(&format!("vote {number}"), 600));
        broadcast(&gossip, Tag::VB, &body(&format!("bundle {number}"), 3_000));
    }
    for tag in [Tag::AV, Tag::VB] {
        broadcast(&gossip, tag, &body(&format!("last {tag}"), 100));
    }
    for (_, recorder, _) in &listeners {
        recorder.hears(&body("last AV", 100)).await;
        recorder.hears(&body("last VB", 100)).await;
        assert_eq!(recorder.count(), 42);
        for number in 0..20 {
            assert_eq!(recorder.times(&body(&format!("vote {number}"), 600)), 1);
            assert_eq!(recorder.times(&body(&format!("bundle {number}"), 3_000)), 1);
        }
    }
}

pub(crate) async fn a_transaction_reaches_every_node_once<H: Harness>() {
    let hub = H::start(plain()).await;
    let listeners = listeners(&hub, 3, &[Tag::TX]).await;
    let gossip = hub.gossip();
    // On a topic it takes a moment until every node is subscribed.
    let mut warm_up = 0;
    eventually("every node hears a transaction", testkit::wait::PATIENCE, || {
        broadcast(&gossip, Tag::TX, &body(&format!("warm-up {warm_up}"), 100));
        warm_up += 1;
        listeners.iter().all(|(_, recorder, _)| recorder.count() > 0).then_some(())
    })
    .await;
    let transactions: Vec<_> = (0..50).map(|n| body(&format!("transaction {n}"), 250)).collect();
    for transaction in &transactions {
        broadcast(&gossip, Tag::TX, transaction);
    }
    for (_, recorder, _) in &listeners {
        for transaction in &transactions {
            recorder.hears(transaction).await;
        }
    }
    for (_, recorder, _) in &listeners {
        for transaction in &transactions {
            assert_eq!(recorder.times(transaction), 1);
        }
    }
}

pub(crate) async fn a_proposal_is_compressed_once_and_arrives_as_it_was<H: Harness>() {
    let hub = H::start(plain()).await;
    let listeners = listeners(&hub, 1, &[Tag::PP]).await;
    let (mut raw, _) = join(&hub).await;
    let proposal: bytes::Bytes = body("proposal", 1_000).repeat(300).into();
    broadcast(&hub.gossip(), Tag::PP, &proposal);
    listeners[0].1.hears(&proposal).await;
    let payload = next_of(&mut raw, Tag::PP).await;
    assert!(payload.len() < proposal.len() / 10, "{} bytes", payload.len());
    assert_eq!(decompress(&payload, MAX_DECOMPRESSED).expect("it is a frame"), proposal);
}

pub(crate) async fn a_broadcast_may_leave_out_its_sender<H: Harness>() {
    let hub = H::start(plain()).await;
    let listeners = listeners(&hub, 3, &[Tag::AV]).await;
    let gossip = hub.gossip();
    let (vote, last) = (body("vote", 600), body("last", 600));
    let message = Outbound::new(Tag::AV, vote.clone()).to(Recipients::AllExcept(listeners[1].2));
    assert_eq!(gossip.broadcast(message), Ok(Admission::Queued));
    broadcast(&gossip, Tag::AV, &last);
    for (index, (_, recorder, _)) in listeners.iter().enumerate() {
        recorder.hears(&last).await;
        assert_eq!(recorder.times(&vote), usize::from(index != 1), "listener {index}");
    }
}

pub(crate) async fn a_broadcast_may_be_for_one_peer<H: Harness>() {
    let hub = H::start(plain()).await;
    let listeners = listeners(&hub, 3, &[Tag::VB]).await;
    let gossip = hub.gossip();
    let (bundle, last) = (body("bundle", 600), body("last", 600));
    let message = Outbound::new(Tag::VB, bundle.clone()).to(Recipients::One(listeners[1].2));
    assert_eq!(gossip.broadcast(message), Ok(Admission::Queued));
    broadcast(&gossip, Tag::VB, &last);
    for (index, (_, recorder, _)) in listeners.iter().enumerate() {
        recorder.hears(&last).await;
        assert_eq!(recorder.times(&bundle), usize::from(index == 1), "listener {index}");
    }
}

pub(crate) async fn messages_of_a_lane_arrive_in_order<H: Harness>() {
    let hub = H::start(plain()).await;
    let listeners = listeners(&hub, 2, &[Tag::AV, Tag::VB]).await;
    let gossip = hub.gossip();
    let name = |tag: Tag, number: usize| body(&format!("{tag} {number}"), 50 + number % 7 * 150);
    for number in 0..500 {
        broadcast(&gossip, Tag::AV, &name(Tag::AV, number));
        broadcast(&gossip, Tag::VB, &name(Tag::VB, number));
    }
    for (_, recorder, _) in &listeners {
        until("everything is heard", || recorder.count() == 1_000).await;
        for tag in [Tag::AV, Tag::VB] {
            let messages = recorder.messages();
            let heard = messages.iter().filter(|message| message.tag == tag);
            for (number, message) in heard.enumerate() {
                assert_eq!(message.body, name(tag, number), "{tag} {number}");
            }
        }
    }
}

pub(crate) async fn a_broadcast_that_is_waited_for_is_written_to_every_peer<H: Harness>() {
    let hub = H::start(plain()).await;
    let gossip = hub.gossip();
    let nobody = gossip.broadcast_and_wait(Outbound::new(Tag::AV, "to nobody"));
    assert_eq!(soon("a broadcast to nobody", nobody).await, Ok(Delivery::default()));
    let listeners = listeners(&hub, 3, &[Tag::AV]).await;
    let vote = body("vote", 600);
    let delivery = gossip.broadcast_and_wait(Outbound::new(Tag::AV, vote.clone()));
    let delivery = soon("a broadcast", delivery).await;
    assert_eq!(delivery, Ok(Delivery { written: 3, given_up: 0 }));
    for (_, recorder, _) in &listeners {
        recorder.hears(&vote).await;
    }
}

pub(crate) async fn a_broadcast_that_is_waited_for_gives_up_a_peer_that_dies<H: Harness>() {
    let hub = H::start(plain()).await;
    let (raw, stalled) = join(&hub).await;
    let _sent = stall(&hub, stalled, 256 * 1024).await;
    let listeners = listeners(&hub, 2, &[Tag::VB]).await;
    let mut events = Events::of(hub.broadcaster());
    let last = body("last", 600);
    let gossip = hub.gossip();
    let delivery = gossip.broadcast_and_wait(Outbound::new(Tag::VB, last.clone()));
    for (_, recorder, _) in &listeners {
        recorder.hears(&last).await;
    }
    drop(raw);
    let delivery = soon("the broadcast is done", delivery).await;
    assert_eq!(delivery, Ok(Delivery { written: 2, given_up: 1 }));
    let _reason = events.disconnected(stalled).await;
    assert_eq!(queued(&hub, stalled), 0);
}

// Issue 10, section 15.1 of the wire facts: in existing nodes a caller that gives up stops the sending. Here the message is
// under way once it was taken, and the next one is not held up.
pub(crate) async fn a_broadcast_whose_caller_gives_up_is_written_all_the_same<H: Harness>() {
    let hub = H::start(plain()).await;
    let listeners = listeners(&hub, 2, &[Tag::AV]).await;
    let gossip = hub.gossip();
    let (given_up, last) = (body("given up", 600), body("last", 600));
    drop(gossip.broadcast_and_wait(Outbound::new(Tag::AV, given_up.clone())));
    let delivery = gossip.broadcast_and_wait(Outbound::new(Tag::AV, last.clone()));
    let delivery = soon("a broadcast", delivery).await;
    assert_eq!(delivery, Ok(Delivery { written: 2, given_up: 0 }));
    for (_, recorder, _) in &listeners {
        recorder.hears(&last).await;
        assert_eq!(recorder.times(&given_up), 1);
    }
}

pub(crate) async fn a_message_at_the_bound_of_its_tag_arrives_and_a_longer_one_is_refused<
    H: Harness,
>() {
    let hub = H::start(plain()).await;
    let (mut raw, _) = join(&hub).await;
    let gossip = hub.gossip();
    // Issue 9, 13: a message that can never be sent is an error, not back-pressure.
    let refused = |tag, body: Bytes| {
        gossip.broadcast(Outbound::new(tag, body)).expect_err("it can never be sent")
    };
    let too_large = SubmitError::TooLarge { bytes: 1_229, max: 1_228 };
    assert_eq!(refused(Tag::AV, body("long", 1_229)), too_large);
    let unknown = Tag(*b"ZZ");
    assert_eq!(refused(unknown, body("unknown", 10)), SubmitError::UnknownTag { tag: unknown });
    let hop_local = SubmitError::HopLocal { tag: Tag::TS };
    assert_eq!(refused(Tag::TS, body("hop-local", 10)), hop_local);
    let waited_for = gossip.broadcast_and_wait(Outbound::new(Tag::AV, body("long", 1_229)));
    assert_eq!(waited_for.await, Err(DeliveryError::Refused(too_large)));
    let longest = body("longest", 1_228);
    broadcast(&gossip, Tag::AV, &longest);
    assert!(read_to(&mut raw, Tag::AV, &longest).await.is_empty());
}
