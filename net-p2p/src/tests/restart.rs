//! A swarm that panics is restarted, and the rest of the node continues.

use std::time::Duration;

use gossip::{Admission, GossipNode, NetworkProfile, NodeAddress, Outbound, PeerClass, Tag};
use runtime::Shutdown;

use super::host::{Node, ordered_keys, until};
use crate::P2pEvent;

#[tokio::test]
async fn a_swarm_that_panics_comes_back_as_the_same_node() {
    let (small, large) = ordered_keys();
    let one = Node::start(&NetworkProfile::TANDEM, "net", large).await;
    let there = vec![NodeAddress::Multiaddr(one.address().to_string())];
    let other = Node::start_with(&NetworkProfile::TANDEM, "net", small, |config| {
        crate::P2pConfig { peers: there, ..config }
    })
    .await;
    let linked = |node: &Node| node.network.peers(PeerClass::Connected).len() == 1;
    until("they are linked", || linked(&one) && linked(&other)).await;
    let (before, id) = (one.network.listen_addresses(), one.network.identity());

    one.network.panic_for_test();
    until("it died", || one.network.metrics().count(P2pEvent::SwarmRestarted) == 1).await;
    until("its links ended", || one.network.peers(PeerClass::Connected).is_empty()).await;
    let queued = one.network.broadcast(Outbound::new(Tag::VB, &b"nobody"[..]));
    assert_eq!(queued, Ok(Admission::Queued), "the rest of the node goes on");

    until("they are linked again", || linked(&one) && linked(&other)).await;
    assert_eq!(one.network.listen_addresses(), before);
    assert_eq!(one.network.identity(), id);
    assert_eq!(
        other.network.broadcast(Outbound::new(Tag::VB, &b"back"[..])),
        Ok(Admission::Queued)
    );
    until("gossip flows again", || one.heard() == [b"back"]).await;
    for node in [one, other] {
        assert_eq!(node.network.stop(Duration::from_secs(5)).await, Shutdown::Clean);
        assert_eq!(node.broadcaster.stop(Duration::from_secs(5)).await, Shutdown::Clean);
        node.root.cancel();
    }
}
