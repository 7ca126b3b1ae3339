//! Private networks: nodes with the key find each other, and nobody else gets further than their first bytes. Issue 11, 1.

use gossip::{GossipNode, NetworkProfile, PeerClass};
use tokio::time;

use super::host::{Node, PATIENCE, new_key, until};
use crate::{NetworkKey, P2pEvent};

fn key(digit: char) -> NetworkKey {
    let hex = digit.to_string().repeat(64);
    format!("/key/swarm/psk/1.0.0/\n/base16/\n{hex}\n").parse().unwrap()
}

async fn node(address: &str, key: Option<NetworkKey>) -> Node {
    let address = address.parse().unwrap();
    Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), |mut config| {
        config.listen = vec![address];
        config.private_network = key;
        config
    })
    .await
}

#[tokio::test]
async fn a_private_network_admits_those_with_its_key_alone() {
    for address in [
        "/ip4/127.0.0.1/tcp/0",
        #[cfg(feature = "websocket")]
        "/ip4/127.0.0.1/tcp/0/ws",
    ] {
        let hub = node(address, Some(key('a'))).await;
        let at = hub.network.addresses().remove(0);
        let member = node(address, Some(key('a'))).await;
        member.network.add_peer(&at).unwrap();
        until("the member is linked", || !hub.network.peers(PeerClass::Connected).is_empty()).await;
        let strangers = [node(address, Some(key('b'))).await, node(address, None).await];
        for (number, stranger) in strangers.iter().enumerate() {
            stranger.network.add_peer(&at).unwrap();
            let refused = || hub.network.metrics().count(P2pEvent::NotOfPrivateNetwork);
            until("the stranger is refused", || refused() > number as u64).await;
        }
        time::sleep(PATIENCE / 100).await;
        assert_eq!(hub.network.peers(PeerClass::Connected).len(), 1);
        for stranger in &strangers {
            assert!(stranger.network.peers(PeerClass::Connected).is_empty());
            stranger.root.cancel();
        }
    }
}
