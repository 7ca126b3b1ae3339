//! The end that opens the gossip stream, and the one link that remains.

use std::time::Duration;

use gossip::{ApplicationReason, Direction, GossipNode, Keypair, NetworkProfile, Outbound, Tag};
use tokio::time::Instant;

use super::kit::{Node, Plan, linked, ordered_keys, until};

async fn pair(
    profile: &'static NetworkProfile,
    dialer: &Keypair,
    listener: &Keypair,
) -> (Node, Node) {
    let dialer = Plan::new(profile).key(dialer).start().await;
    let listener = Plan::new(profile).key(listener).start().await;
    (dialer, listener)
}

#[tokio::test]
async fn a_link_comes_up_whichever_end_dials_and_whichever_has_the_smaller_id() {
    let mut cases = 0;
    for profile in NetworkProfile::ALL {
        let (small, large) = ordered_keys();
        for (dialer, listener) in [(&small, &large), (&large, &small)] {
            let (dialer, listener) = pair(profile, dialer, listener).await;
            let began = Instant::now();
            dialer.dial(&listener);
            linked(&dialer, &listener).await;
            // Well below the delay after which a dialer opens late.
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
            assert_eq!(dialer.peers()[0].direction, Direction::Outbound);
            assert_eq!(listener.peers()[0].direction, Direction::Inbound);
            dialer.stop().await;
            listener.stop().await;
            cases += 1;
        }
    }
    assert_eq!(cases, 4);
}

#[tokio::test]
async fn nodes_that_dial_each_other_at_once_end_with_one_link() {
    for profile in NetworkProfile::ALL {
        for _ in 0..5 {
            let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
            one.dial(&other);
            other.dial(&one);
            linked(&one, &other).await;
            let single = || one.peers().len() == 1 && other.peers().len() == 1;
            until("there is one link", single).await;
            // Both ends keep the same link: a message of one end arrives at the other, once.
            for (from, to) in [(&one, &other), (&other, &one)] {
                let mark = from.network.identity().ed25519().unwrap();
                let message = Outbound::new(Tag::AV, mark.to_vec());
                let delivery = from.network.broadcast_and_wait(message).await.unwrap();
                assert_eq!((delivery.written, delivery.given_up), (1, 0));
                until("it is heard", || to.heard(Tag::AV) == [mark]).await;
            }
            assert!(single());
            one.stop().await;
            other.stop().await;
        }
    }
}

#[tokio::test]
async fn an_ended_link_is_made_again_by_its_dialer() {
    for profile in NetworkProfile::ALL {
        let (small, large) = ordered_keys();
        let (dialer, listener) = pair(profile, &large, &small).await;
        dialer.dial(&listener);
        linked(&dialer, &listener).await;
        let first = listener.peers()[0].id;
        listener.network.disconnect(first, ApplicationReason::Requested);
        until("another link is up", || {
            let is_new = |node: &Node| node.peers().len() == 1;
            is_new(&dialer) && is_new(&listener) && listener.peers()[0].id != first
        })
        .await;
        linked(&dialer, &listener).await;
        dialer.stop().await;
        listener.stop().await;
    }
}

#[tokio::test]
async fn a_stopped_node_leaves_no_link_behind() {
    let profile = &NetworkProfile::TANDEM;
    let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
    one.dial(&other);
    linked(&one, &other).await;
    one.stop().await;
    until("the other end notices", || other.peers().is_empty()).await;
    until("and frees the identity", || other.broadcaster.claimed() == 0).await;
    other.stop().await;
}

#[tokio::test]
async fn a_peer_may_be_named_by_a_host_name() {
    let profile = &NetworkProfile::TANDEM;
    let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
    let address = other.address().to_string().replace("/ip4/127.0.0.1/", "/dns4/localhost/");
    one.network.add_peer(&gossip::NodeAddress::Multiaddr(address)).unwrap();
    linked(&one, &other).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn two_addresses_of_one_peer_lead_to_one_link() {
    let profile = &NetworkProfile::TANDEM;
    let (one, other) = (Plan::new(profile).start().await, Plan::new(profile).start().await);
    let by_name = other.address().to_string().replace("/ip4/127.0.0.1/", "/dns4/localhost/");
    one.network.add_peer(&gossip::NodeAddress::Multiaddr(by_name)).unwrap();
    one.dial(&other);
    linked(&one, &other).await;
    // The other way round too, while the link is up.
    other.dial(&one);
    for number in 0..20_u8 {
        let message = Outbound::new(Tag::AV, vec![number]);
        let delivery = one.network.broadcast_and_wait(message).await.unwrap();
        assert_eq!((delivery.written, delivery.given_up), (1, 0));
        until("it is heard once", || other.heard(Tag::AV).len() == usize::from(number) + 1).await;
    }
    assert_eq!((one.peers().len(), other.peers().len()), (1, 1));
    one.stop().await;
    other.stop().await;
}
