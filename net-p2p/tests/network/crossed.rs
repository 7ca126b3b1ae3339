//! Two nodes that dial each other at once, each over a transport of its own: one link is left, and no vote is lost. Issue
//! 11, 2.

use std::time::Duration;

use futures::future::join_all;
use gossip::{Admission, GossipNode, NetworkProfile, NodeAddress, Outbound, Tag};
use tokio::time;

use super::kit::{Node, Plan, linked, until};

/// The transports of a node, each by the part of an address that only it has.
const TRANSPORTS: [(&str, &str); 4] = [
    ("/ip4/127.0.0.1/tcp/0", "/tcp/"),
    ("/ip4/127.0.0.1/tcp/0/ws", "/ws/"),
    ("/ip4/127.0.0.1/udp/0/quic-v1", "/quic-v1/"),
    ("/ip4/127.0.0.1/udp/0/webrtc-direct", "/webrtc-direct/"),
];

/// Every pair of transports, by their places in [`TRANSPORTS`].
const PAIRS: [(usize, usize); 10] =
    [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2), (0, 3), (1, 3), (2, 3), (3, 3)];

/// Meetings of each pair at a time, each of two nodes with random keys, so that either has the smaller one in some.
const MEETINGS: usize = 4;

/// Votes of either end, and the pause between two. Chosen: the last ones are sent after the losing link was closed, for
/// which an end waits a second.
const VOTES: u32 = 80;
const PAUSE: Duration = Duration::from_millis(20);

async fn listening(profile: &'static NetworkProfile) -> Node {
    let start = |mut config: tandem_net_p2p::P2pConfig| {
        config.listen = TRANSPORTS.iter().map(|(listen, _)| listen.parse().unwrap()).collect();
        config
    };
    Plan::new(profile).start_with(start).await
}

fn address(node: &Node, transport: usize) -> NodeAddress {
    let (listen, part) = TRANSPORTS[transport];
    let is_of = |address: &NodeAddress| {
        let text = address.to_string();
        text.contains(part) && text.contains("/ws/") == listen.ends_with("/ws")
    };
    node.network.addresses().into_iter().find(is_of).unwrap()
}

fn say(node: &Node, mark: char, number: u32) {
    let vote = Outbound::new(Tag::AV, format!("{mark}{number}").into_bytes());
    assert_eq!(node.network.broadcast(vote), Ok(Admission::Queued));
}

async fn meeting(profile: &'static NetworkProfile, (here, there): (usize, usize)) {
    let (one, other) = tokio::join!(listening(profile), listening(profile));
    one.network.add_peer(&address(&other, here)).unwrap();
    other.network.add_peer(&address(&one, there)).unwrap();
    linked(&one, &other).await;
    for number in 0..VOTES {
        say(&one, 'a', number);
        say(&other, 'b', number);
        time::sleep(PAUSE).await;
    }
    for (node, mark) in [(&one, 'b'), (&other, 'a')] {
        let expected: Vec<_> =
            (0..VOTES).map(|number| format!("{mark}{number}").into_bytes()).collect();
        let heard = || {
            let mut heard = node.heard(Tag::AV);
            heard.sort_by_key(|body| (body.len(), body.clone()));
            heard
        };
        until("every vote is heard", || heard().len() >= expected.len()).await;
        assert_eq!(heard(), expected, "{} {here} {there}", profile.name);
    }
    // Both ends keep the same one.
    let agreed = || match (&one.peers()[..], &other.peers()[..]) {
        ([one], [other]) => one.direction != other.direction,
        _ => false,
    };
    until("one link is left", agreed).await;
    one.stop().await;
    other.stop().await;
}

async fn meetings(profile: &'static NetworkProfile) {
    for pair in PAIRS {
        join_all((0..MEETINGS).map(|_| meeting(profile, pair))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_dials_over_any_two_transports_end_with_one_link_and_no_vote_is_lost() {
    meetings(&NetworkProfile::TANDEM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_in_the_profile_of_existing_nodes() {
    meetings(&NetworkProfile::ALGORAND).await;
}
