//! A node under attack by a peer that speaks GossipSub by hand, and an honest peer that must not suffer.

use std::time::Duration;

use futures::AsyncWriteExt;
use gossip::{Admission, GossipNode, NetworkProfile, Outbound, PeerClass, Tag};
use libp2p::{Stream, StreamProtocol};
use tokio::{sync::broadcast, time};

use super::{
    by_hand::MESHSUB,
    host::{Host, Node, PATIENCE, new_key, until},
    rpc,
};
use crate::P2pEvent;

pub(super) const TOPIC: &str = "algotx01";

/// A node, an honest peer that listens to it, and an attacker that has subscribed.
pub(super) struct Attacked {
    pub(super) node: Node,
    pub(super) peer: Node,
    observed: broadcast::Receiver<gossip::Inbound>,
    pub(super) host: Host,
    stream: Stream,
    said: u32,
}

impl Attacked {
    pub(super) async fn start() -> Self {
        let profile = &NetworkProfile::ALGORAND;
        let node = Node::relay(profile, "net").await;
        let peer = Node::start(profile, "net", new_key()).await;
        peer.network.add_peer(&node.network.listen_addresses()[0].parse().unwrap()).unwrap();
        until("they are linked", || !node.network.peers(PeerClass::Connected).is_empty()).await;
        let observed = peer.broadcaster.observe();
        let host = Host::dial(&new_key(), &[StreamProtocol::new(MESHSUB)], node.address()).await;
        let stream = host.open(MESHSUB).await;
        let mut attacked = Self { node, peer, observed, host, stream, said: 0 };
        attacked.send(&rpc::request(&[rpc::subscription(TOPIC)])).await;
        attacked
    }

    /// Sends bytes of GossipSub, unless the node has ended the connection.
    pub(super) async fn send(&mut self, rpcs: &[u8]) {
        let sent = async {
            self.stream.write_all(rpcs).await?;
            self.stream.flush().await
        };
        // A peer that floods may be disconnected.
        let _ = time::timeout(PATIENCE, sent).await.expect("the node reads or ends the connection");
    }

    /// Publishes messages until the honest peer has heard one, and checks that it hears all further ones.
    pub(super) async fn honest_peer_hears(&mut self) {
        let heard = async {
            let mut is_met = false;
            let mut left = 20;
            while left > 0 {
                self.said += 1;
                let mut body = vec![7; 300];
                body[..4].copy_from_slice(&self.said.to_be_bytes());
                let message = Outbound::new(Tag::TX, body.clone());
                assert_eq!(self.node.network.broadcast(message), Ok(Admission::Queued));
                let hears = async { while self.observed.recv().await.unwrap().body != body[..] {} };
                // Before subscriptions were exchanged, nobody is served.
                let limit = if is_met { PATIENCE } else { Duration::from_millis(200) };
                match time::timeout(limit, hears).await {
                    Ok(()) => {
                        is_met = true;
                        left -= 1;
                    }
                    Err(_) => assert!(!is_met, "an honest peer does not hear a message"),
                }
            }
        };
        time::timeout(3 * PATIENCE, heard).await.expect("the honest peer is not served");
        let metrics = self.node.network.metrics();
        assert_eq!(metrics.count(P2pEvent::SwarmRestarted), 0, "the library has panicked");
        assert_eq!(self.peer.network.metrics().count(P2pEvent::TopicPeerMuted), 0);
        assert_eq!(self.node.network.peers(PeerClass::Connected).len(), 1, "the peer stays");
    }

    /// The stream on which the node publishes to the attacker.
    pub(super) async fn heard(&mut self) -> Stream {
        let accepted = async {
            loop {
                let accepted = self.host.accepted.next().await.unwrap();
                if accepted.protocol == MESHSUB {
                    break accepted.stream;
                }
            }
        };
        time::timeout(PATIENCE, accepted).await.expect("the node opens its stream")
    }
}
