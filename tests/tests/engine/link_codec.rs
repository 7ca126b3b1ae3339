//! Links with a codec carry every kind of message, and links with a gauge report their pressure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::Arc, time::Duration};

use broadcaster::{Relaying, Setup};
use bytes::Bytes;
use gossip::{Admission, DisconnectReason, NetworkProfile, Outbound, Tag};
use testkit::{
    harness::{RawPeer, network, next_of},
    memory::{MemoryNetwork, Shape, difference, replace},
    recorder::Recorder,
    wait::{soon, until},
};

fn coded(setup: Setup) -> MemoryNetwork {
    MemoryNetwork::start_with_codec(network(), setup, Arc::new(difference))
}

fn identity(seed: u8) -> gossip::Identity {
    gossip::Keypair::from_seed([seed; 32]).identity()
}

fn vote(number: u32) -> Bytes {
    format!("{:0>300}{number}", "a vote of one round and one step ").into_bytes().into()
}

fn offer(node: &MemoryNetwork, tag: Tag, body: &Bytes) {
    let admission = node.broadcaster().broadcast(&Outbound::new(tag, body.clone()));
    assert_eq!(admission, Ok(Admission::Queued));
}

// Issue 9, 7.
#[tokio::test(start_paused = true)]
async fn messages_pass_a_codec_unchanged_once_and_in_order() {
    let recorder = Recorder::default();
    let setup = [Tag::AV, Tag::VB]
        .into_iter()
        .fold(Setup::new(&NetworkProfile::TANDEM).relaying(Relaying::Accepted), |setup, tag| {
            setup.handler(tag, Arc::new(recorder.clone()))
        });
    let (near, relay) = (coded(Setup::new(&NetworkProfile::TANDEM)), coded(setup));
    let _link = near.connect(&relay, Shape::default()).unwrap();
    let (mut raw, _attached) = relay.scripted_plain(identity(8), Shape::default()).unwrap();
    for number in 0..200 {
        offer(&near, Tag::AV, &vote(number));
        if number % 10 == 0 {
            offer(&near, Tag::VB, &Bytes::from(vec![7; 20_000 + number as usize]));
        }
    }
    // Decoded messages are ordinary ones: a peer without a codec gets them in their original form.
    for number in 0..200 {
        assert_eq!(next_of(&mut raw, Tag::AV).await, vote(number));
    }
    until("all are handled", || recorder.count() == 220).await;
    for number in 0..200 {
        assert_eq!(recorder.times(&vote(number)), 1);
    }
    // The duplicate filter recognizes them, whichever way the next copy comes.
    raw.send(Tag::AV, &vote(7)).await.unwrap();
    raw.send(Tag::AV, &vote(1_000)).await.unwrap();
    recorder.hears(&vote(1_000)).await;
    assert_eq!(recorder.times(&vote(7)), 1);
}

// Issue 9, 7.
#[tokio::test(start_paused = true)]
async fn a_message_that_a_decoder_cannot_read_ends_its_link() {
    let node = coded(Setup::new(&NetworkProfile::TANDEM));
    for payload in [&b""[..], b"\xffno vote came before"] {
        let (mut raw, mut attached) = node.scripted(Shape::default()).unwrap();
        raw.send(Tag::VP, payload).await.unwrap();
        assert_eq!(soon("the link ends", attached.ended()).await, DisconnectReason::BadData);
    }
}

// Issue 9, 7.
#[tokio::test(start_paused = true)]
async fn decoded_messages_are_bounded_like_others() {
    let node = coded(Setup::new(&NetworkProfile::TANDEM));
    let (mut raw, mut attached) = node.scripted(Shape::default()).unwrap();
    let longest = vec![7; 1_228];
    raw.send(Tag::AV, &longest).await.unwrap();
    // 255 bytes are taken from the vote before, and more than a thousand follow.
    raw.send(Tag::VP, &[&[255], &longest[..1_100]].concat()).await.unwrap();
    assert_eq!(soon("the link ends", attached.ended()).await, DisconnectReason::Oversized);
}

// Issue 9, 7.
#[tokio::test(start_paused = true)]
async fn unwritten_messages_of_a_broken_link_go_to_the_next_one_in_original_form() {
    let near = coded(Setup::new(&NetworkProfile::TANDEM));
    let narrow = Shape { pipe_bytes: 2_000, ..Shape::default() };
    let direction = gossip::Direction::Inbound;
    let (stuck, attached) = near.scripted_as(identity(7), direction, narrow).unwrap();
    for number in 0..100 {
        offer(&near, Tag::AV, &vote(number));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    // A link without a codec must get votes, and not differences to votes that it never got.
    let (mut other, winner) = near.scripted_plain(identity(7), Shape::default()).unwrap();
    replace(near.broadcaster(), identity(7), attached.peer, winner.peer);
    drop(stuck);
    let mut last = None;
    while last != Some(vote(99)) {
        let (tag, payload) = soon("a vote", other.recv()).await.unwrap();
        assert_eq!(tag, Tag::AV);
        assert!(payload.len() >= 300, "a vote, and not a difference");
        last = Some(payload);
    }
}

// Issue 9, 7.
#[tokio::test(start_paused = true)]
async fn a_gauge_reports_the_bytes_in_transit() {
    let (near, far) =
        (coded(Setup::new(&NetworkProfile::TANDEM)), coded(Setup::new(&NetworkProfile::TANDEM)));
    let shape = Shape { delay: Duration::from_millis(50), ..Shape::default() };
    let link = near.connect(&far, shape).unwrap();
    let sample = || near.broadcaster().pressure(link.near.peer).unwrap();
    assert_eq!(sample().round_trip, Duration::from_millis(100));
    assert_eq!((sample().acked_bytes, sample().in_flight_bytes), (0, 0));
    offer(&near, Tag::VB, &Bytes::from(vec![7; 10_000]));
    until("it is on the way", || sample().in_flight_bytes == 10_006).await;
    until("it is there", || sample().acked_bytes == 10_006).await;
    assert_eq!(sample().in_flight_bytes, 0);
    assert_eq!(near.broadcaster().pressure(gossip::LinkId(4_711)), None);
}
