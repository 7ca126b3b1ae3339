//! The counts of the library, while peers say odd things.

use std::collections::BTreeSet;

use futures::AsyncWriteExt;
use gossip::NetworkProfile;
use libp2p::{Multiaddr, StreamProtocol, swarm::dial_opts::DialOpts};
use prometheus_client::{encoding::text, registry::Registry};

use super::{
    host::{Host, Node, new_key, until},
    rpc,
};
use crate::{P2pConfig, Subscription, config::libp2p_key};

/// The version of GossipSub that a host speaks by hand.
const MESHSUB: &str = "/meshsub/1.1.0";

/// Odd addresses, protocols and topics of one peer.
const WORDS: usize = 50;

/// All samples of the library.
fn samples(node: &Node) -> Vec<String> {
    let (mut registry, mut encoded) = (Registry::default(), String::new());
    node.network.metrics().register(&mut registry);
    text::encode(&mut encoded, &registry).unwrap();
    encoded.lines().filter(|line| line.starts_with("libp2p_")).map(str::to_owned).collect()
}

/// Names and labels of all samples of the library.
fn series(node: &Node) -> BTreeSet<String> {
    samples(node).iter().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

async fn node() -> Node {
    let subscribed = |config| P2pConfig { subscribe: Subscription::Subscribed, ..config };
    Node::start_with(&NetworkProfile::ALGORAND, "net", new_key(), subscribed).await
}

/// A peer with odd addresses and protocols, which the node has been told.
async fn odd_host(node: &Node, name: &str) -> Host {
    let key = new_key();
    let odd = (0..WORDS).map(|at| format!("/{name}/odd/{at}"));
    let odd = odd.map(|protocol| StreamProtocol::try_from_owned(protocol).unwrap());
    let protocols: Vec<_> = [StreamProtocol::new(MESHSUB)].into_iter().chain(odd).collect();
    let host = Host::start(&libp2p_key(&key), &protocols, |swarm| {
        for at in 0..WORDS {
            let more = "/http".repeat(at);
            let address: Multiaddr = format!("/dns4/{name}.test/tcp/1{more}").parse().unwrap();
            swarm.add_external_address(address);
        }
        swarm.dial(DialOpts::unknown_peer_id().address(node.address()).build()).unwrap();
    });
    until("the node is told the protocols", || {
        let about = node.network.about(&key.identity());
        about.is_some_and(|about| about.protocols.iter().any(|name| name.contains("odd")))
    })
    .await;
    host
}

// Issue 12, 1: bounded labels, and nothing that a peer says is one.
#[tokio::test]
async fn odd_words_of_peers_make_no_series() {
    let node = node().await;
    let mut before = BTreeSet::new();
    for (round, name) in ["first", "second", "third"].into_iter().enumerate() {
        let host = odd_host(&node, name).await;
        let mut stream = host.open(MESHSUB).await;
        for at in 0..WORDS {
            let topic = format!("{name}-odd-{at}");
            let parts = [rpc::subscription(&topic), rpc::message(&topic, &[7; 40])];
            stream.write_all(&rpc::request(&parts)).await.unwrap();
        }
        // Messages on odd topics come first, so once the one on a known topic is counted, they were handled.
        stream
            .write_all(&rpc::request(&[rpc::message("algotx01", name.as_bytes())]))
            .await
            .unwrap();
        stream.flush().await.unwrap();
        let counted = "libp2p_gossipsub_topic_msg_recv_counts_unfiltered_total{hash=\"algotx01\"}";
        let counted = format!("{counted} {}", round + 1);
        until("the message is counted", || samples(&node).contains(&counted)).await;
        let after = series(&node);
        let odd: Vec<_> = after.iter().filter(|line| line.contains("odd")).collect();
        assert!(odd.is_empty(), "{odd:?}");
        let grown: Vec<_> = after.difference(&before).collect();
        assert!(before.is_empty() || grown.len() < WORDS / 2, "{grown:?}");
        assert!(after.len() < 400, "{} series", after.len());
        before = after;
    }
    assert!(before.iter().any(|line| line.contains("connections_established_total")), "{before:?}");
}

// A swarm that was restarted counts anew, in the same registry of the node.
#[tokio::test]
async fn counts_of_the_library_are_shown_after_a_restart_of_the_swarm() {
    let node = node().await;
    let _host = odd_host(&node, "first").await;
    let is_established = |line: &String| line.contains("connections_established_total");
    assert!(series(&node).iter().any(is_established));
    node.network.panic_for_test();
    until("the swarm counts anew", || !series(&node).iter().any(is_established)).await;
    until("the swarm runs", || node.network.is_up()).await;
    let _host = odd_host(&node, "second").await;
    assert!(series(&node).iter().any(is_established));
}
