//! The addresses of a node: those that it listens on, over every transport and both families, and those that it tells.
//! Issue 11, 1.

use std::collections::BTreeSet;

use gossip::{GossipNode, NetworkProfile, NodeAddress, PeerClass};
use libp2p::Multiaddr;

use super::host::{Host, Node, new_key, until};

const PROFILE: &NetworkProfile = &NetworkProfile::TANDEM;

/// Addresses to listen on, each with the parts that only the addresses of its peers have.
const LISTEN: &[(&str, &str, &str)] = &[
    ("/ip4/127.0.0.1/tcp/0", "/ip4/", "/tcp/"),
    ("/ip6/::1/tcp/0", "/ip6/", "/tcp/"),
    #[cfg(feature = "websocket")]
    ("/ip4/127.0.0.1/tcp/0/ws", "/ip4/", "/ws"),
    #[cfg(feature = "websocket")]
    ("/ip6/::1/tcp/0/ws", "/ip6/", "/ws"),
    #[cfg(feature = "quic")]
    ("/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/", "/quic-v1"),
    #[cfg(feature = "quic")]
    ("/ip6/::1/udp/0/quic-v1", "/ip6/", "/quic-v1"),
];

fn parsed(addresses: &[&str]) -> Vec<Multiaddr> {
    addresses.iter().map(|text| text.parse().unwrap()).collect()
}

/// A node that dials one address and listens nowhere.
async fn dialler(to: &str) -> Node {
    let peer: NodeAddress = to.parse().unwrap();
    Node::start_with(PROFILE, "net", new_key(), |mut config| {
        (config.listen, config.peers) = (Vec::new(), vec![peer]);
        config
    })
    .await
}

#[tokio::test]
async fn a_node_is_reached_at_every_address_of_its_list_and_both_ends_show_the_transport() {
    let node = Node::start_with(PROFILE, "net", new_key(), |mut config| {
        config.listen = LISTEN.iter().map(|(listen, ..)| listen.parse().unwrap()).collect();
        config
    })
    .await;
    let told = node.network.listen_addresses();
    assert_eq!(told.len(), LISTEN.len(), "{told:?}");
    for (listen, family, transport) in LISTEN {
        let is_of = |address: &str| {
            let is_plain = !address.contains("/ws") && !address.contains("/quic-v1");
            address.contains(family)
                && address.contains(transport)
                && (is_plain || *transport != "/tcp/")
        };
        let address = told.iter().find(|address| is_of(address)).unwrap();
        let peer = dialler(address).await;
        let shown = |node: &Node, of: &Node| {
            let all = node.network.peers(PeerClass::Connected);
            let it = all.into_iter().find(|one| one.identity == Some(of.network.identity()));
            it.map(|one| one.address)
        };
        until("both are linked", || shown(&node, &peer).is_some() && shown(&peer, &node).is_some())
            .await;
        for address in [shown(&node, &peer), shown(&peer, &node)] {
            assert!(is_of(&address.clone().unwrap_or_default()), "{listen}: {address:?}");
        }
        peer.root.cancel();
    }
}

#[tokio::test]
async fn peers_are_told_the_announced_addresses_in_place_of_those_of_the_listeners() {
    let announced = parsed(&["/dns4/h.example/tcp/443/tls/ws", "/ip6/2001:db8::1/tcp/4190"]);
    let node = Node::start_with(PROFILE, "net", new_key(), |mut config| {
        config.announce.clone_from(&announced);
        config
    })
    .await;
    let host = Host::dial(&new_key(), &[], node.address()).await;
    let told = host.seen.lock().unwrap().identified.clone().unwrap().listen_addrs;
    let sorted = |all: &[Multiaddr]| all.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&told), sorted(&announced));
}

#[tokio::test]
async fn one_port_takes_both_families_if_it_listens_on_each() {
    let first = Node::start_with(PROFILE, "net", new_key(), |mut config| {
        config.listen = parsed(&["/ip6/::/tcp/0"]);
        config
    })
    .await;
    let port = first.address().iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let port = port.unwrap();
    // The port of the other family is free: a listener on IPv6 leaves it alone.
    let second = Node::start_with(PROFILE, "net", new_key(), |mut config| {
        config.listen = parsed(&[&format!("/ip4/127.0.0.1/tcp/{port}")]);
        config
    })
    .await;
    for (node, host) in [(&first, "/ip6/::1"), (&second, "/ip4/127.0.0.1")] {
        let peer = dialler(&format!("{host}/tcp/{port}/p2p/{}", node.network.identity())).await;
        until("they are linked", || !peer.network.peers(PeerClass::Connected).is_empty()).await;
        peer.root.cancel();
    }
}

#[cfg(all(feature = "quic", feature = "private-network"))]
#[tokio::test]
async fn quic_is_refused_in_a_private_network() {
    use crate::P2pConfig;

    let root = tokio_util::sync::CancellationToken::new();
    let setup = broadcaster::Setup::new(PROFILE);
    let broadcaster = broadcaster::Broadcaster::start(setup, &root);
    let mut config = P2pConfig::new(gossip::NetworkId::new("net").unwrap(), new_key());
    config.listen = parsed(&["/ip4/127.0.0.1/udp/0/quic-v1"]);
    let key = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "a".repeat(64));
    config.private_network = Some(key.parse().unwrap());
    let refused = crate::P2pNetwork::start(config, broadcaster, &root).await.unwrap_err();
    let mut told = vec![refused.to_string()];
    let mut cause: &dyn std::error::Error = &refused;
    while let Some(source) = cause.source() {
        told.push(source.to_string());
        cause = source;
    }
    assert!(told.iter().any(|text| text.contains("private network")), "{told:?}");
}
