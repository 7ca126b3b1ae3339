//! A relay between peers of all forms of votes: every vote arrives at every end, as the vote that it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashSet, net::SocketAddr, sync::LazyLock, time::Duration};

use bytes::Bytes;
use gossip::{
    Admission, NetworkId, NetworkProfile, Outbound, PeerClass, Tag,
    wire::{
        features::{Features, VoteCompression},
        interest, vote,
    },
};
use sha2::{Digest, Sha256};
use tandem::{
    AbortedBy, DropReason, Limits, Mode, NodeBuilder, Relaying, Running, Shutdown, VoteForm,
    VoteMetrics,
    services::blocks::{Capacity, Responder},
};
use testkit::{
    corpus::{self, RecordedVote},
    harness::{RawPeer, fence, next_of},
    libp2p::RawLibp2p,
    recorder::Recorder,
    votes::{VotingPeer, is_packed, packed},
    wait::{soon, until},
    websocket::{RawWebSocket, upgrade_request_with},
};
use tokio_util::sync::CancellationToken;

const PLAIN: VoteCompression = VoteCompression::Off;
const STATELESS: VoteCompression = VoteCompression::Stateless;
const STATEFUL: VoteCompression = VoteCompression::Stateful(2_048);

fn network() -> NetworkId {
    NetworkId::new("votes-v1").unwrap()
}

fn node() -> NodeBuilder {
    NodeBuilder::new(network()).profile(&NetworkProfile::ALGORAND)
}

/// A relay, and the address of its WebSocket side.
async fn start(relay: NodeBuilder) -> (Running, SocketAddr) {
    let relay = relay
        .mode(Mode::WebSocket)
        .relaying(Relaying::Accepted)
        .handler(Tag::UE, Responder::new(Capacity::default()));
    let relay = relay.start(&CancellationToken::new()).await.unwrap();
    let url = relay.ws_url().unwrap();
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    (relay, address)
}

async fn stop(relay: Running) {
    assert_eq!(relay.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}

/// Connects a peer that the relay serves.
async fn join(address: SocketAddr, votes: VoteCompression) -> VotingPeer {
    let mut peer = VotingPeer::connect(address, &network(), votes).await.unwrap();
    fence(&mut peer.raw, 0).await;
    peer
}

fn metrics(relay: &Running) -> VoteMetrics {
    relay.broadcaster().metrics().votes().clone()
}

/// The longest recorded vote with another credential, so that each is another one.
fn vote_of(number: u32) -> Vec<u8> {
    static RECORDED: LazyLock<Bytes> = LazyLock::new(|| {
        let [votes, _] = corpus::votes("av").unwrap();
        votes.into_iter().map(|vote| vote.payload).max_by_key(Bytes::len).unwrap()
    });
    let mut packed = packed(&RECORDED);
    packed[2..6].copy_from_slice(&number.to_be_bytes());
    let mut plain = Vec::new();
    vote::unpack(&packed, &mut plain).unwrap();
    plain
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

// Issue 10, 7: the votes of a session, sent in their recorded bytes by two peers.
async fn play(name: &str, table: Option<u32>, count: usize) {
    let [dialling, listening] = corpus::votes(name).unwrap();
    assert_eq!(dialling.len() + listening.len(), count, "{name} is whole");
    let (relay, address) = start(node()).await;
    let form = if name == "av" { PLAIN } else { STATELESS };
    let form = table.map_or(form, VoteCompression::Stateful);
    let mut senders = [join(address, form).await, join(address, form).await];
    let mut ends = Vec::new();
    for votes in [PLAIN, STATELESS, STATEFUL, VoteCompression::Stateful(16)] {
        ends.push((votes, join(address, votes).await));
    }
    for (sender, votes) in senders.iter_mut().zip([&dialling, &listening]) {
        for RecordedVote { tag, payload, .. } in votes {
            sender.raw.send(*tag, payload).await.unwrap();
        }
    }
    let hashes = |votes: &[RecordedVote]| -> Vec<String> {
        votes.iter().map(|vote| vote.plain_sha256.clone()).collect()
    };
    for (votes, end) in &mut ends {
        let mut heard = Vec::with_capacity(count);
        for _ in 0..count {
            let (tag, payload, plain) = soon("a vote", end.vote()).await.unwrap();
            let stateful = matches!(votes, VoteCompression::Stateful(_));
            assert_eq!(tag == Tag::VP, stateful, "{name}, to {votes:?}");
            assert!(stateful || is_packed(&payload) == (*votes == STATELESS), "{name}");
            heard.push(sha256(&plain));
        }
        for sent in [&dialling, &listening] {
            let sent = hashes(sent);
            let own: HashSet<&String> = sent.iter().collect();
            let of_sender: Vec<_> = heard.iter().filter(|vote| own.contains(vote)).collect();
            assert_eq!(of_sender, sent.iter().collect::<Vec<_>>(), "{name}, to {votes:?}");
        }
    }
    // Each sender hears the other, in its own form.
    for (sender, other) in senders.iter_mut().zip([&listening, &dialling]) {
        for sent in other {
            let (tag, _, plain) = soon("a vote", sender.vote()).await.unwrap();
            assert_eq!(tag == Tag::VP, table.is_some());
            assert_eq!(sha256(&plain), sent.plain_sha256, "{name}");
        }
    }
    let votes = metrics(&relay);
    assert_eq!((votes.aborts(AbortedBy::Us), votes.aborts(AbortedBy::Peer)), (0, 0));
    stop(relay).await;
}

#[tokio::test]
async fn recorded_votes_that_were_not_packed_reach_peers_of_every_form() {
    play("av", None, 339).await;
    play("av-stateless", None, 339).await;
}

#[tokio::test]
async fn recorded_votes_of_the_largest_table_reach_peers_of_every_form() {
    play("vp", Some(2_048), 513).await;
    play("vp-peer", Some(2_048), 524).await;
    play("vp-late", Some(2_048), 321).await;
    play("vp-many", Some(2_048), 1_168).await;
}

#[tokio::test]
async fn recorded_votes_of_small_tables_reach_peers_of_every_form() {
    play("vp-table16", Some(16), 1_244).await;
    play("vp-table32", Some(32), 1_239).await;
}

// Issue 10, 7: every node of every form hears the same, over either transport.
#[tokio::test]
async fn nodes_of_three_forms_hear_equal_votes_over_both_transports() {
    let root = CancellationToken::new();
    let relay = node().relaying(Relaying::Accepted).start(&root).await.unwrap();
    let url: gossip::NodeAddress = relay.ws_url().unwrap().parse().unwrap();
    let multiaddr: gossip::NodeAddress = relay.p2p_addresses()[0].to_string().parse().unwrap();
    let mut ends = Vec::new();
    for votes in [PLAIN, STATELESS, STATEFUL] {
        for (mode, address) in [(Mode::WebSocket, &url), (Mode::Libp2p, &multiaddr)] {
            let recorder = Recorder::default();
            let end = node().mode(mode).vote_packing(votes).peer(address.clone());
            let end = end.handler(Tag::AV, recorder.clone()).start(&root).await.unwrap();
            ends.push((end, recorder));
        }
    }
    until("all are connected", || relay.node().peers(PeerClass::Connected).len() == ends.len())
        .await;
    let mut sent = Vec::new();
    for (number, (end, _)) in ends.iter().enumerate() {
        let links = || end.node().peers(PeerClass::Connected).len() == 1;
        until("the end has its link", links).await;
        for vote in 0..20 {
            let vote = Bytes::from(vote_of((number * 100 + vote) as u32));
            sent.push((number, vote.clone()));
            let admission = end.node().broadcast(Outbound::new(Tag::AV, vote));
            assert_eq!(admission, Ok(Admission::Queued));
        }
    }
    for (number, (_, recorder)) in ends.iter().enumerate() {
        for (sender, vote) in sent.iter().filter(|(sender, _)| *sender != number) {
            recorder.hears(vote).await;
            assert_eq!(recorder.times(vote), 1, "a vote of {sender} at {number}");
        }
        assert_eq!(recorder.count(), 100);
    }
    let votes = metrics(&relay);
    assert_eq!(votes.votes_received(VoteForm::Stateless), 40);
    assert_eq!(votes.votes_received(VoteForm::Stateful), 40);
    assert_eq!(votes.votes_sent(VoteForm::Stateless), 200);
    assert_eq!(votes.votes_sent(VoteForm::Stateful), 200);
    // Of each vote the names are saved, and of one like the last the keys, the sender and the proposal too.
    let plain = sent[0].1.len();
    assert!(votes.bytes_saved(VoteForm::Stateless) >= 200 * 120);
    assert!(votes.bytes_saved(VoteForm::Stateful) >= 200 * (plain as u64 - 200));
    for (end, _) in ends {
        stop(end).await;
    }
    stop(relay).await;
}

// Issue 10, 7.
#[tokio::test]
async fn the_smaller_table_is_used_and_packed_votes_are_asked_for_of_peers_that_know_them() {
    let (relay, address) = start(node().vote_packing(VoteCompression::Stateful(64))).await;
    assert_eq!(relay.broadcaster().features().to_header(), "ppzstd,avvpack,avvpack64");
    let table = &NetworkProfile::ALGORAND.tags;
    for (votes, is_asked) in [
        (PLAIN, false),
        (STATELESS, false),
        (VoteCompression::Stateful(16), true),
        (VoteCompression::Stateful(64), true),
    ] {
        let mut peer = VotingPeer::connect(address, &network(), votes).await.unwrap();
        let asked = next_of(&mut peer.raw, Tag::MI).await;
        let asked = interest::decode(&asked, table).unwrap();
        assert_eq!(asked.contains(table, Tag::VP), is_asked, "{votes:?}");
    }
    let smaller = Features::announcing(VoteCompression::Stateful(16));
    assert_eq!(relay.broadcaster().features().shared_table(smaller), Some(16));
    stop(relay).await;
}

// Issue 10, 7: `vote_packing = off`.
#[tokio::test]
async fn a_relay_that_does_not_pack_sends_votes_as_they_are() {
    let (relay, address) = start(node().vote_packing(PLAIN)).await;
    assert_eq!(relay.broadcaster().features().to_header(), "ppzstd");
    let (mut sender, mut end) = (join(address, PLAIN).await, join(address, STATEFUL).await);
    sender.raw.send(Tag::AV, &vote_of(1)).await.unwrap();
    let (tag, payload, _) = soon("a vote", end.vote()).await.unwrap();
    assert_eq!((tag, payload), (Tag::AV, Bytes::from(vote_of(1))));
    // It did not ask for packed votes either: what comes packed is lost, and counted.
    end.send_stateful(&vote_of(2)).await.unwrap();
    fence(&mut end.raw, 1).await;
    assert_eq!(relay.broadcaster().metrics().drops(DropReason::PackedVote), 1);
    stop(relay).await;
}

// Issue 10, 7: the first vote that cannot be unpacked ends the packing against earlier ones, and nothing else.
#[tokio::test]
async fn a_malformed_packed_vote_ends_packing_against_earlier_ones_and_not_the_link() {
    let (relay, address) = start(node()).await;
    let mut end = join(address, PLAIN).await;
    let good = {
        let mut peer = VotingPeer::connect(address, &network(), STATEFUL).await.unwrap();
        peer.send_stateful(&vote_of(0)).await.unwrap();
        assert_eq!(soon("a vote", end.vote()).await.unwrap().2, vote_of(0));
        packed(&vote_of(0))
    };
    let mut reference_to_nothing = good.clone();
    reference_to_nothing[1] = 0b100;
    let mut wrong_number = good.clone();
    (wrong_number[0], wrong_number[82]) = (1, 0xc0);
    let malformed = [
        &b""[..],
        &[0xfe],
        &good[..100],
        &reference_to_nothing,
        &wrong_number,
        &[good.clone(), vec![0]].concat(),
        &[0; 1_228],
    ];
    for (round, malformed) in (1..).zip(malformed) {
        let mut peer = join(address, STATEFUL).await;
        peer.raw.send(Tag::VP, malformed).await.unwrap();
        assert_eq!(next_of(&mut peer.raw, Tag::VP).await, vote::ABORT[..]);
        // Further ones are lost, as is said in the answer.
        peer.send_stateful(&vote_of(1_000 + round)).await.unwrap();
        // The link goes on, in both directions, with votes packed by themselves.
        peer.raw.send(Tag::AV, &packed(&vote_of(round))).await.unwrap();
        assert_eq!(soon("a vote", end.vote()).await.unwrap().2, vote_of(round));
        end.raw.send(Tag::AV, &vote_of(100 + round)).await.unwrap();
        let (tag, payload, plain) = soon("a vote", peer.vote()).await.unwrap();
        assert_eq!((tag, plain), (Tag::AV, Bytes::from(vote_of(100 + round))));
        assert!(is_packed(&payload));
    }
    let metrics = relay.broadcaster().metrics();
    assert_eq!(metrics.votes().aborts(AbortedBy::Us), 7);
    assert_eq!(metrics.drops(DropReason::PackedVote), 14);
    stop(relay).await;
}

// Issue 10, 7: abort in mid-stream.
#[tokio::test]
async fn a_peer_that_aborts_gets_every_later_vote_packed_by_itself() {
    let (relay, address) = start(node()).await;
    let (mut sender, mut end) = (join(address, PLAIN).await, join(address, STATEFUL).await);
    for round in 0..50 {
        sender.raw.send(Tag::AV, &vote_of(round)).await.unwrap();
        let (tag, _, plain) = soon("a vote", end.vote()).await.unwrap();
        assert_eq!((tag, plain), (Tag::VP, Bytes::from(vote_of(round))));
    }
    end.raw.send(Tag::VP, &vote::ABORT).await.unwrap();
    // The answer says that the relay has read it.
    assert!(fence(&mut end.raw, 1).await.is_empty(), "an abort has no answer");
    for round in 50..100 {
        sender.raw.send(Tag::AV, &vote_of(round)).await.unwrap();
        let (tag, payload, plain) = soon("a vote", end.vote()).await.unwrap();
        assert_eq!((tag, plain), (Tag::AV, Bytes::from(vote_of(round))));
        assert!(is_packed(&payload));
    }
    assert_eq!(metrics(&relay).aborts(AbortedBy::Peer), 1);
    // A second one changes nothing; it came where none is expected.
    end.raw.send(Tag::VP, &vote::ABORT).await.unwrap();
    fence(&mut end.raw, 2).await;
    assert_eq!(metrics(&relay).aborts(AbortedBy::Peer), 1);
    stop(relay).await;
}

// Issue 10, 7 (S-4): existing nodes cut such votes off after 502 bytes, and pack no more.
#[tokio::test]
async fn a_vote_that_cannot_be_packed_arrives_whole_and_ends_nothing() {
    let (relay, address) = start(node()).await;
    let mut sender = join(address, PLAIN).await;
    let mut ends =
        [join(address, PLAIN).await, join(address, STATELESS).await, join(address, STATEFUL).await];
    let mut unpackable = vote_of(1);
    // The last byte of `ps`, which nobody checks: 64 bytes of `s` with their header follow.
    let at = unpackable.len() - 64 - 4 - 1;
    assert_eq!(unpackable[at], 0);
    unpackable[at] = 1;
    assert!(unpackable.len() > 502);
    let votes = [vote_of(0), unpackable.clone(), vote_of(2), vec![7; 1_228], vote_of(3)];
    for vote in &votes {
        sender.raw.send(Tag::AV, vote).await.unwrap();
    }
    for (end, tag) in ends.iter_mut().zip([Tag::AV, Tag::AV, Tag::VP]) {
        for vote in &votes {
            let (came, payload, plain) = soon("a vote", end.vote()).await.unwrap();
            assert_eq!(plain, *vote);
            if *vote == unpackable || vote.len() == 1_228 {
                assert_eq!((came, &payload), (Tag::AV, &plain));
            } else {
                assert_eq!(came, tag, "packing goes on");
            }
        }
    }
    let votes = metrics(&relay);
    assert_eq!((votes.aborts(AbortedBy::Us), votes.aborts(AbortedBy::Peer)), (0, 0));
    stop(relay).await;
}

// Issue 10, 7: no end takes a message for another one.
#[tokio::test]
async fn a_message_that_would_be_read_as_another_vote_is_kept_from_peers_that_unpack() {
    let (relay, address) = start(node()).await;
    let (mut sender, mut end) = (join(address, PLAIN).await, join(address, STATELESS).await);
    let mut plain_end = join(address, PLAIN).await;
    let misleading = packed(&vote_of(1));
    sender.raw.send(Tag::AV, &misleading).await.unwrap();
    sender.raw.send(Tag::AV, &vote_of(2)).await.unwrap();
    assert_eq!(soon("a vote", end.vote()).await.unwrap().2, vote_of(2));
    assert_eq!(next_of(&mut plain_end.raw, Tag::AV).await, misleading);
    assert_eq!(relay.broadcaster().metrics().drops(DropReason::PackedVote), 1);
    stop(relay).await;
}

// Issue 10, 7: a round that is written wider than needed would come out narrower.
#[tokio::test]
async fn a_round_written_wide_survives_every_form() {
    let (relay, address) = start(node()).await;
    let (mut sender, mut end) = (join(address, PLAIN).await, join(address, STATEFUL).await);
    let narrow = vote_of(1);
    let at = narrow.windows(4).position(|name| name == b"\xa3rnd").unwrap() + 4;
    let small = narrow[at];
    assert!(small < 0x80, "the recorded rounds are small");
    let wide = [&narrow[..at], &[0xcd, 0, small], &narrow[at + 1..]].concat();
    for (vote, tag) in [(&narrow, Tag::VP), (&wide, Tag::AV), (&vote_of(2), Tag::VP)] {
        sender.raw.send(Tag::AV, vote).await.unwrap();
        let (came, _, plain) = soon("a vote", end.vote()).await.unwrap();
        assert_eq!((came, &plain[..]), (tag, &vote[..]));
    }
    stop(relay).await;
}

// Issue 10, 7: tables have a bound for all links together, and nothing is lost beyond it.
#[tokio::test]
async fn a_link_without_room_for_tables_begins_with_an_abort() {
    let room = vote::link_bytes(2_048) * 3 / 2;
    let (relay, address) =
        start(node().limits(Limits::default().with_vote_tables_bytes(room))).await;
    let mut sender = join(address, STATEFUL).await;
    let mut end = VotingPeer::connect(address, &network(), STATEFUL).await.unwrap();
    assert_eq!(next_of(&mut end.raw, Tag::VP).await, vote::ABORT[..]);
    sender.send_stateful(&vote_of(1)).await.unwrap();
    let (tag, payload, plain) = soon("a vote", end.vote()).await.unwrap();
    assert_eq!((tag, plain), (Tag::AV, Bytes::from(vote_of(1))));
    assert!(is_packed(&payload));
    drop(sender);
    until("the room is free again", || relay.node().peers(PeerClass::Connected).len() == 1).await;
    let mut next = join(address, STATEFUL).await;
    end.raw.send(Tag::AV, &packed(&vote_of(2))).await.unwrap();
    assert_eq!(soon("a vote", next.vote()).await.unwrap().0, Tag::VP);
    stop(relay).await;
}

// Issue 10, section 15.1 of the wire facts: a table without packing is no form of votes.
#[tokio::test]
async fn a_peer_that_announces_a_table_and_no_packing_gets_votes_as_they_are() {
    let (relay, address) = start(node()).await;
    let mut sender = join(address, PLAIN).await;
    let request =
        upgrade_request_with(&NetworkProfile::ALGORAND, &network(), Features::announcing(STATEFUL));
    let request = request.replace("avvpack,avvpack2048", "avvpack2048");
    assert!(request.contains("ppzstd,avvpack2048\r\n"), "{request}");
    let mut odd = RawWebSocket::connect(address, &request).await.unwrap();
    fence(&mut odd, 0).await;
    sender.raw.send(Tag::AV, &vote_of(1)).await.unwrap();
    assert_eq!(next_of(&mut odd, Tag::AV).await, vote_of(1));
    // Packed votes of it are lost, as of any peer that did not agree on them.
    odd.send(Tag::VP, &packed(&vote_of(2))).await.unwrap();
    fence(&mut odd, 1).await;
    assert_eq!(relay.broadcaster().metrics().drops(DropReason::PackedVote), 1);
    assert_eq!(metrics(&relay).aborts(AbortedBy::Us), 0);
    stop(relay).await;
}

/// A relay with a libp2p side, and a peer of it over libp2p that packs votes so.
async fn over_libp2p(votes: VoteCompression) -> (Running, SocketAddr, RawLibp2p) {
    let relay = node().mode(Mode::Hybrid).relaying(Relaying::Accepted);
    let relay = relay.handler(Tag::UE, Responder::new(Capacity::default()));
    let relay = relay.start(&CancellationToken::new()).await.unwrap();
    let url = relay.ws_url().unwrap();
    let features = Features::announcing(votes);
    let (profile, network) = (&NetworkProfile::ALGORAND, network());
    let at = &relay.p2p_addresses()[0];
    let peer = RawLibp2p::connect_with(at, profile, &network, features).await.unwrap();
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    (relay, address, peer)
}

// Issue 10, section 15.1: the aborts of votes packed against earlier ones, over libp2p as over WebSocket.
#[tokio::test]
async fn a_malformed_packed_vote_over_libp2p_ends_packing_and_not_the_link() {
    let (relay, address, mut peer) = over_libp2p(STATEFUL).await;
    let mut end = join(address, PLAIN).await;
    fence(&mut peer, 0).await;
    peer.send(Tag::VP, &[0xfe]).await.unwrap();
    assert_eq!(next_of(&mut peer, Tag::VP).await, vote::ABORT[..]);
    peer.send(Tag::AV, &packed(&vote_of(1))).await.unwrap();
    assert_eq!(soon("a vote", end.vote()).await.unwrap().2, vote_of(1));
    end.raw.send(Tag::AV, &vote_of(2)).await.unwrap();
    assert_eq!(next_of(&mut peer, Tag::AV).await, packed(&vote_of(2)));
    assert_eq!(metrics(&relay).aborts(AbortedBy::Us), 1);
    stop(relay).await;
}

// Issue 10, section 15.1.
#[tokio::test]
async fn a_peer_over_libp2p_that_aborts_gets_every_later_vote_packed_by_itself() {
    let (relay, address, mut peer) = over_libp2p(STATEFUL).await;
    let mut sender = join(address, PLAIN).await;
    fence(&mut peer, 0).await;
    sender.raw.send(Tag::AV, &vote_of(1)).await.unwrap();
    let _packed_against_nothing = next_of(&mut peer, Tag::VP).await;
    peer.send(Tag::VP, &vote::ABORT).await.unwrap();
    assert!(fence(&mut peer, 1).await.is_empty(), "an abort has no answer");
    sender.raw.send(Tag::AV, &vote_of(2)).await.unwrap();
    assert_eq!(next_of(&mut peer, Tag::AV).await, packed(&vote_of(2)));
    assert_eq!(metrics(&relay).aborts(AbortedBy::Peer), 1);
    stop(relay).await;
}
