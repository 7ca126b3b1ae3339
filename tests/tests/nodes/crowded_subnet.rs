//! Peers of a crowded subnet, seen from a node whose topics they are on (P6 of GossipSub's scores, by subnet).

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use gossip::{Keypair, NetworkId, NodeAddress};
use tandem::{Mode, NodeBuilder, OwnTopic, Running, memory::Network};
use testkit::wait::eventually;
use tokio_util::sync::CancellationToken;

/// Longest wait for a score, which a node reads once a second. Chosen: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Peers of the crowded subnet. Chosen: two more than do not crowd it.
const CROWD: u8 = 6;

/// Score of a peer in a crowded subnet, with what its time in a mesh may add.
const LOST: f64 = 5.0;

/// Least score of a peer that has its bonus of 10.
const KEPT: f64 = 9.0;

/// The address of a host of a subnet.
fn ip(subnet: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(10, subnet, 0, host).into()
}

fn key(subnet: u8, host: u8) -> Keypair {
    Keypair::from_seed([16 * subnet + host; 32])
}

async fn start(network: &Network, (subnet, host): (u8, u8), to: Option<NodeAddress>) -> Running {
    let at = ip(subnet, host);
    let mut builder = NodeBuilder::new(NetworkId::new("crowded").expect("a name"))
        .mode(Mode::Libp2p)
        .environment(network.host(at))
        .key(key(subnet, host))
        .listen_p2p([format!("/ip4/{at}/tcp/4191")])
        .topic(OwnTopic::new("weather"));
    if let Some(to) = to {
        builder = builder.peer(to);
    }
    Box::pin(builder.start(&CancellationToken::new())).await.expect("a node in memory starts")
}

async fn until_scored(hub: &Running, (subnet, host): (u8, u8), is_so: fn(f64) -> bool) {
    let (view, peer) = (hub.view(), key(subnet, host).identity());
    let what = format!("the score of 10.{subnet}.0.{host}");
    let score = || view.topic_score(&peer).filter(|score| is_so(score.score));
    let score = eventually(&what, PATIENCE, score).await;
    assert!(!score.is_muted, "{what}: {score:?}");
}

// Issue 11, 3.
#[tokio::test]
async fn peers_of_a_crowded_subnet_lose_score_until_it_is_crowded_no_more() {
    let network = Network::new(1);
    let hub = start(&network, (9, 1), None).await;
    let at = format!("/ip4/{}/tcp/4191/p2p/{}", ip(9, 1), key(9, 1).identity());
    let at = || Some(NodeAddress::Multiaddr(at.clone()));
    let _alone = start(&network, (2, 1), at()).await;
    let mut crowd = Vec::new();
    for host in 1..=4 {
        crowd.push(start(&network, (1, host), at()).await);
    }
    until_scored(&hub, (1, 1), |score| score > KEPT).await;
    for host in 5..=CROWD {
        crowd.push(start(&network, (1, host), at()).await);
    }
    for host in 1..=CROWD {
        until_scored(&hub, (1, host), |score| score < LOST).await;
    }
    until_scored(&hub, (2, 1), |score| score > KEPT).await;
    for peer in crowd.split_off(4) {
        // It was started for the test; the result does not matter.
        let _ = peer.stop(Duration::from_secs(1)).await;
    }
    until_scored(&hub, (1, 1), |score| score > KEPT).await;
}
