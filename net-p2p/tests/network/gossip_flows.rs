//! Messages reach every node they are for, over the right transport.

use broadcaster::{DropReason, Relaying};
use gossip::{Admission, GossipNode, MAX_TOPIC_BYTES, NetworkProfile, Outbound, Tag};
use tandem_net_p2p::{P2pEvent, Subscription};

use super::kit::{Node, Plan, linked, until};

fn send(node: &Node, tag: Tag, body: Vec<u8>) {
    assert_eq!(node.network.broadcast(Outbound::new(tag, body)), Ok(Admission::Queued));
}

/// Publishes until the peers have received a message: the mesh of a topic takes a moment to form.
async fn publish_until_heard(from: &Node, to: &[&Node], body: &[u8]) {
    let heard = |node: &&Node| node.heard(Tag::TX).iter().any(|heard| heard.starts_with(body));
    let mut number = 0_u32;
    until("the transaction is heard by all", || {
        number += 1;
        if number % 20 == 1 {
            send(from, Tag::TX, [body, &number.to_be_bytes()].concat());
        }
        to.iter().all(heard)
    })
    .await;
}

#[tokio::test]
async fn two_nodes_gossip_votes_proposals_and_transactions_both_ways() {
    for profile in NetworkProfile::ALL {
        let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
        one.dial(&other);
        linked(&one, &other).await;
        let proposal: Vec<u8> = (0..200_000_u32).map(|number| (number / 97) as u8).collect();
        for (from, to) in [(&one, &other), (&other, &one)] {
            let mark = from.network.identity().peer_id_bytes().to_vec();
            send(from, Tag::AV, mark.clone());
            send(from, Tag::PP, [mark.clone(), proposal.clone()].concat());
            until("the vote is heard", || to.heard(Tag::AV) == std::slice::from_ref(&mark)).await;
            until("the proposal is heard", || to.heard(Tag::PP).len() == 1).await;
            assert_eq!(to.heard(Tag::PP), [[mark.clone(), proposal.clone()].concat()]);
            publish_until_heard(from, &[to], &mark).await;
        }
        one.stop().await;
        other.stop().await;
    }
}

#[tokio::test]
async fn a_relay_in_the_middle_forwards_votes_and_the_topic_carries_transactions() {
    let profile = &NetworkProfile::TANDEM;
    let middle = Plan { relaying: Relaying::Accepted, ..Plan::new(profile) }.start().await;
    let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
    one.dial(&middle);
    other.dial(&middle);
    linked(&one, &middle).await;
    linked(&other, &middle).await;
    send(&one, Tag::AV, b"vote".to_vec());
    until("the vote comes through", || other.heard(Tag::AV) == [b"vote"]).await;
    publish_until_heard(&one, &[&middle, &other], b"tx").await;
    for node in [one, middle, other] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_transaction_too_large_for_the_topic_goes_over_streams() {
    let profile = &NetworkProfile::ALGORAND;
    let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
    one.dial(&other);
    linked(&one, &other).await;
    publish_until_heard(&one, &[&other], b"small").await;
    send(&one, Tag::TX, vec![7; 1_040_000]);
    until("a transaction just under the bound is heard", || {
        other.heard(Tag::TX).iter().any(|body| body.len() == 1_040_000)
    })
    .await;
    send(&one, Tag::TX, vec![8; MAX_TOPIC_BYTES]);
    until("a larger one is heard as well", || {
        other.heard(Tag::TX).iter().any(|body| body.len() == MAX_TOPIC_BYTES)
    })
    .await;
    assert_eq!(one.network.metrics().count(P2pEvent::PublishFailed), 0);
    assert_eq!(one.broadcaster.metrics().drops(DropReason::TopicFull), 0);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_node_that_only_publishes_receives_nothing() {
    let profile = &NetworkProfile::TANDEM;
    let listener = Plan::new(profile).start().await;
    let publisher = Plan::new(profile)
        .start_with(|mut config| {
            config.subscribe = Subscription::PublishOnly;
            config
        })
        .await;
    publisher.dial(&listener);
    linked(&publisher, &listener).await;
    publish_until_heard(&publisher, &[&listener], b"tx").await;
    send(&listener, Tag::TX, b"to nobody".to_vec());
    until("the publication found nobody", || {
        listener.network.metrics().count(P2pEvent::PublishWithoutPeers) == 1
    })
    .await;
    assert!(publisher.heard(Tag::TX).is_empty());
    publisher.stop().await;
    listener.stop().await;
}

#[tokio::test]
async fn a_large_message_and_many_votes_arrive_whole_and_once() {
    let profile = &NetworkProfile::TANDEM;
    let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
    one.dial(&other);
    linked(&one, &other).await;
    let bundle: Vec<u8> = (0..6_000_000_u32).map(|number| (number % 251) as u8).collect();
    send(&one, Tag::VB, bundle.clone());
    for number in 0..500_u32 {
        send(&one, Tag::AV, number.to_be_bytes().to_vec());
    }
    until("all votes are heard", || other.heard(Tag::AV).len() >= 500).await;
    until("the bundle is heard", || !other.heard(Tag::VB).is_empty()).await;
    assert!(other.heard(Tag::VB) == [bundle]);
    let mut votes = other.heard(Tag::AV);
    votes.sort();
    assert_eq!(votes, (0..500_u32).map(|number| number.to_be_bytes()).collect::<Vec<_>>());
    assert!(one.is_linked_to(&other));
    one.stop().await;
    other.stop().await;
}
