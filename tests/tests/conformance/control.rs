//! Interest, digests, and messages that break the rules.

use broadcaster::DropReason;
use gossip::{
    DisconnectReason, Interest, NetworkProfile, Tag,
    wire::{digest::Digest, interest, proposal},
};
use testkit::harness::{Events, Harness, RawPeer, fence, join, next_of};

use crate::scene::{body, broadcast, plain, read_to, recording, relay, send};

fn only(tags: &[Tag]) -> bytes::Bytes {
    let table = &NetworkProfile::TANDEM.tags;
    let interest = tags.iter().fold(Interest::NONE, |set, tag| set.with(table, *tag));
    interest::encode(interest, table)
}

pub(crate) async fn a_peer_gets_only_the_tags_it_asked_for<H: Harness>() {
    let node = H::start(plain()).await;
    let (mut raw, _) = join(&node).await;
    let gossip = node.gossip();
    send(&mut raw, Tag::MI, &only(&[Tag::VB, Tag::TS, Tag::SP])).await;
    fence(&mut raw, 1).await;
    broadcast(&gossip, Tag::AV, &body("unwanted", 100));
    broadcast(&gossip, Tag::SP, &body("wanted, and not sent unasked", 100));
    broadcast(&gossip, Tag::VB, &body("wanted", 100));
    assert_eq!(next_of(&mut raw, Tag::SP).await, body("wanted, and not sent unasked", 100));
    assert_eq!(next_of(&mut raw, Tag::VB).await, body("wanted", 100));
    // A new list replaces the earlier one.
    send(&mut raw, Tag::MI, &only(&[Tag::AV, Tag::TS])).await;
    let before = fence(&mut raw, 2).await;
    assert_eq!(before, [], "a vote came that was not asked for");
    broadcast(&gossip, Tag::VB, &body("unwanted now", 100));
    broadcast(&gossip, Tag::AV, &body("wanted now", 100));
    assert_eq!(next_of(&mut raw, Tag::AV).await, body("wanted now", 100));
    let before = fence(&mut raw, 3).await;
    assert_eq!(before, [], "a bundle came that was not asked for");
    assert_eq!(node.broadcaster().metrics().drops(DropReason::NotInterested), 2);
}

pub(crate) async fn a_list_of_tags_that_cannot_be_read_ends_the_connection<H: Harness>() {
    let node = H::start(plain()).await;
    let mut events = Events::of(node.broadcaster());
    for bad in [&b""[..], b"\x01\x04tags\x05AV,zz", b"\x01\x04tags\x00", b"\x01\x03tag\x02AV"] {
        let (mut raw, id) = join(&node).await;
        send(&mut raw, Tag::MI, bad).await;
        let shown = bad.escape_ascii();
        assert_eq!(events.disconnected(id).await, DisconnectReason::BadData, "{shown}");
    }
}

pub(crate) async fn an_unknown_tag_is_passed_over<H: Harness>() {
    let (setup, recorder) = recording(&[Tag::AV]);
    let node = H::start(setup).await;
    let (mut raw, _) = join(&node).await;
    for (tag, len) in [(*b"ZZ", 10), (*b"pi", 0), (*b"\0\xff", 200_000)] {
        send(&mut raw, Tag(tag), &vec![7; len]).await;
    }
    send(&mut raw, Tag::AV, b"known").await;
    recorder.hears(b"known").await;
    assert_eq!(node.broadcaster().metrics().drops(DropReason::UnknownTag), 3);
}

pub(crate) async fn a_message_past_the_bound_of_its_tag_ends_the_connection<H: Harness>() {
    let (setup, recorder) = recording(&[Tag::AV, Tag::VB, Tag::SP]);
    let node = H::start(setup).await;
    let mut events = Events::of(node.broadcaster());
    for (tag, bound) in [(Tag::AV, 1_228), (Tag::SP, 6_378), (Tag::MS, 69), (Tag::UE, 65_536)] {
        let (mut raw, id) = join(&node).await;
        if tag == Tag::AV || tag == Tag::SP {
            let longest = body("longest", bound);
            send(&mut raw, tag, &longest).await;
            recorder.hears(&longest).await;
        }
        // The node may close the connection before the whole message is sent.
        let _ = raw.send(tag, &body("too long", bound + 1)).await;
        assert_eq!(events.disconnected(id).await, DisconnectReason::Oversized, "{tag}");
        assert_eq!(recorder.times(&body("too long", bound + 1)), 0);
    }
}

pub(crate) async fn a_large_message_that_a_peer_has_is_not_sent_to_it<H: Harness>() {
    let node = H::start(plain()).await;
    let ((mut raw, _), (mut other, _)) = (join(&node).await, join(&node).await);
    let gossip = node.gossip();
    let (known, last) = (body("known", 20_000), body("last", 20_000));
    send(&mut raw, Tag::MS, &Digest::of(Tag::VB, &known).0).await;
    send(&mut raw, Tag::MS, b"not a digest").await;
    // The digest covers the uncompressed message.
    let proposal = body("proposal", 20_000);
    send(&mut raw, Tag::MS, &Digest::of(Tag::PP, &proposal).0).await;
    fence(&mut raw, 1).await;
    broadcast(&gossip, Tag::VB, &known);
    broadcast(&gossip, Tag::PP, &proposal);
    broadcast(&gossip, Tag::VB, &last);
    assert!(read_to(&mut raw, Tag::VB, &last).await.is_empty());
    assert_eq!(read_to(&mut other, Tag::VB, &last).await, [known]);
    assert_eq!(node.broadcaster().metrics().drops(DropReason::PeerHasIt), 2);
}

pub(crate) async fn a_small_message_is_sent_to_a_peer_that_has_it<H: Harness>() {
    let node = H::start(plain()).await;
    let (mut raw, _) = join(&node).await;
    // 5,000 bytes on the wire, tag included, and one byte more.
    let (at, past) = (body("at", 4_998), body("past", 4_999));
    for small in [&at, &past] {
        send(&mut raw, Tag::MS, &Digest::of(Tag::VB, small).0).await;
    }
    fence(&mut raw, 1).await;
    for small in [&at, &past] {
        broadcast(&node.gossip(), Tag::VB, small);
        assert_eq!(next_of(&mut raw, Tag::VB).await, *small);
    }
    // A proposal that is small after compression.
    let zeros = bytes::Bytes::from(vec![0; 50_000]);
    send(&mut raw, Tag::MS, &Digest::of(Tag::PP, &zeros).0).await;
    fence(&mut raw, 2).await;
    broadcast(&node.gossip(), Tag::PP, &zeros);
    next_of(&mut raw, Tag::PP).await;
}

pub(crate) async fn a_large_message_is_announced_to_the_others<H: Harness>() {
    let node = H::start(relay()).await;
    let ((mut near, _), (mut far, _)) = (join(&node).await, join(&node).await);
    let (large, small, last) = (body("large", 5_000), body("small", 4_999), body("last", 100));
    for message in [&small, &large, &last] {
        send(&mut near, Tag::VB, message).await;
    }
    assert_eq!(next_of(&mut far, Tag::MS).await, Digest::of(Tag::VB, &large).0[..]);
    let rest = read_to(&mut far, Tag::VB, &last).await;
    assert!(rest.contains(&large), "it is announced and passed on");
    let before = fence(&mut near, 1).await;
    assert_eq!(before, [], "nothing comes back to who sent it");
    let before = fence(&mut far, 1).await;
    assert_eq!(before, [], "one announcement, and none of the small message");
}

pub(crate) async fn a_proposal_that_cannot_be_decompressed_ends_the_connection<H: Harness>() {
    let (setup, recorder) = recording(&[Tag::PP]);
    let node = H::start(setup).await;
    let mut events = Events::of(node.broadcaster());
    let good = proposal::compress(&body("proposal", 3_000));
    let too_large = proposal::compress(&vec![0; proposal::MAX_DECOMPRESSED + 1]);
    for bad in [&good[..good.len() - 1], &[&good[..], b"x"].concat(), &too_large] {
        let (mut raw, id) = join(&node).await;
        send(&mut raw, Tag::PP, bad).await;
        assert_eq!(events.disconnected(id).await, DisconnectReason::BadData);
    }
    assert_eq!(recorder.count(), 0);
}
