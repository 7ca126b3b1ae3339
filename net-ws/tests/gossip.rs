//! Whole nodes over loopback: they find each other, gossip, and part.

mod common;

use bytes::Bytes;
use common::{Recipe, until};
use gossip::{Admission, GossipNode, NetworkProfile, Outbound, PeerClass, Tag};

#[tokio::test]
async fn a_message_goes_both_ways_whatever_its_length() {
    for profile in NetworkProfile::ALL {
        let listener = Recipe::new(profile).listening().relaying().start().await;
        let dialer = Recipe::new(profile).dialling(&[listener.address()]).start().await;
        listener.until_peers(1).await;
        dialer.until_peers(1).await;
        // No two bodies are the same: a repeated one would count as heard.
        for (fill, sender, receiver) in [(1, &listener, &dialer), (2, &dialer, &listener)] {
            for len in [1, 4094, 4095, 100_000, 5_000_000] {
                let body = Bytes::from(vec![fill; len]);
                let before = receiver.heard.all().len();
                let message = Outbound::new(Tag::TX, body.clone());
                assert_eq!(sender.network.broadcast(message), Admission::Queued);
                until("the message", || receiver.heard.all().len() > before).await;
                assert_eq!(receiver.heard.all().last().unwrap().body, body, "{len} bytes");
            }
        }
        assert_eq!(dialer.network.peers(PeerClass::ConnectedOut).len(), 1);
        assert_eq!(listener.network.peers(PeerClass::ConnectedIn).len(), 1);
        dialer.stop().await;
        listener.until_peers(0).await;
        listener.stop().await;
    }
}
