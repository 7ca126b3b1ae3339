//! State that a libp2p network shares with the rest of its node: claims, and the verdicts of validators.

use std::sync::Arc;

use broadcaster::Claim;
use gossip::{
    Admission, GossipNode, Identity, Inbound, LinkPath, NetworkProfile, Outbound, Tag, Transport,
    Validation,
};
use mesh::LinkClaim;
use tandem_net_p2p::P2pEvent;

use super::kit::{Node, Plan, linked, ordered_keys, until};

/// Claims a peer for a WebSocket link, as the other half of a hybrid would.
fn claim_by_websocket(node: &Node, identity: Identity) -> Claim {
    let link = node.broadcaster.next_link_id();
    let (transport, dialer) = (Transport::WebSocket, node.network.identity());
    let claim = LinkClaim {
        link,
        identity,
        transport,
        path: LinkPath::Direct,
        dialer,
        session: None,
        run: None,
        tie: [0; 32],
    };
    let claim = node.broadcaster.claim(claim);
    assert_eq!(claim.ruling(), mesh::Ruling::Keep);
    claim
}

#[tokio::test]
async fn with_ranked_links_libp2p_takes_over_from_websocket() {
    let profile = &NetworkProfile::TANDEM;
    let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
    let claim = claim_by_websocket(&one, other.network.identity());
    one.dial(&other);
    linked(&one, &other).await;
    let holder = one.broadcaster.holder(&other.network.identity());
    assert_eq!(holder, Some(one.peers()[0].id));
    drop(claim);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn with_first_link_kept_topics_go_on_without_a_stream_until_it_ends() {
    let profile = &NetworkProfile::ALGORAND;
    let (small, large) = ordered_keys();
    for (key, other_key) in [(&small, &large), (&large, &small)] {
        let one = Plan::new(profile).key(key).start().await;
        let other = Plan::new(profile).key(other_key).start().await;
        let held = claim_by_websocket(&one, other.network.identity());
        let other_held = claim_by_websocket(&other, one.network.identity());
        one.dial(&other);
        let mut number = 0_u32;
        until("a transaction arrives by the topic", || {
            number += 1;
            let message = Outbound::new(Tag::TX, number.to_be_bytes().to_vec());
            if number % 20 == 1 {
                assert_eq!(one.network.broadcast(message), Ok(Admission::Queued));
            }
            !other.heard(Tag::TX).is_empty()
        })
        .await;
        assert!(one.peers().is_empty());
        assert_eq!(one.network.metrics().count(P2pEvent::DuplicateLink), 0, "nobody tries");
        drop((held, other_held));
        linked(&one, &other).await;
        one.stop().await;
        other.stop().await;
    }
}

#[tokio::test]
async fn a_rejected_message_is_not_forwarded_on_the_topic() {
    let profile = &NetworkProfile::TANDEM;
    let validator = |message: &Inbound| {
        if message.body.starts_with(b"bad") { Validation::Reject } else { Validation::Accept }
    };
    let middle = Plan::new(profile).validator(Arc::new(validator)).start().await;
    let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
    one.dial(&middle);
    other.dial(&middle);
    linked(&one, &middle).await;
    linked(&other, &middle).await;
    let mut number = 0_u32;
    until("good ones get through", || {
        number += 1;
        if number % 20 == 1 {
            // So few bad messages that their sender's score stays above the threshold.
            for word in [&b"good"[..], b"bad"].iter().take(if number < 60 { 2 } else { 1 }) {
                let message = Outbound::new(Tag::TX, [word, &number.to_be_bytes()[..]].concat());
                assert_eq!(one.network.broadcast(message), Ok(Admission::Queued));
            }
        }
        other.heard(Tag::TX).len() >= 5
    })
    .await;
    let heard = other.heard(Tag::TX);
    assert!(heard.iter().all(|body| body.starts_with(b"good")), "{heard:?}");
    assert_eq!(middle.network.metrics().count(P2pEvent::VerdictLost), 0);
    for node in [one, middle, other] {
        node.stop().await;
    }
}
