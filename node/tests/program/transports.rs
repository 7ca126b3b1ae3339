//! Links over every transport at once, as `tandem peers` shows them.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Node, eventually, finish, scratch};

/// The transports of a hub: its setting beside those of every node, and the end of such an address, without the port.
const TRANSPORTS: [(&str, &str); 3] = [
    ("/ip4/127.0.0.1/tcp/0", "/tcp/"),
    ("/ip4/127.0.0.1/tcp/0/ws", "/ws"),
    ("/ip4/127.0.0.1/udp/0/quic-v1", "/quic-v1"),
];

fn json(node: &Node) -> Vec<Value> {
    let told = finish(node.command("peers").arg("--json"));
    assert_eq!(told.code, Some(0), "{told:?}");
    serde_json::from_str(&told.stdout).unwrap()
}

/// The name that an address has for its transport here.
fn transport(address: &str) -> &'static str {
    let bare = address.split("/p2p/").next().unwrap();
    match TRANSPORTS.iter().rev().find(|(_, end)| bare.contains(end)) {
        Some((_, end)) => end,
        None => "gossip over WebSocket",
    }
}

// Issue 11, 1: "addresses of all transports in `tandem peers`".
#[test]
fn peers_over_tcp_websocket_and_quic_are_shown_with_their_transports_at_both_ends() {
    let dirs = scratch();
    let listen = TRANSPORTS[1..].iter().flat_map(|(listen, _)| ["--listen-p2p", listen]);
    let hub = Node::start(&dirs.path().join("hub"), &listen.collect::<Vec<_>>());
    let addresses: Vec<_> =
        hub.ready["p2p"].as_array().unwrap().iter().map(|own| own.as_str().unwrap()).collect();
    let by_transport: BTreeMap<_, _> = addresses.iter().map(|own| (transport(own), *own)).collect();
    assert_eq!(by_transport.len(), TRANSPORTS.len(), "{addresses:?}");
    let gossip = hub.ws().strip_prefix("http://").unwrap();
    let all = by_transport.into_values().chain([gossip]);
    let spokes: Vec<_> = all
        .enumerate()
        .map(|(number, own)| {
            let spoke = Node::start(&dirs.path().join(number.to_string()), &["--peer", own]);
            let event = spoke.event("peer_connected");
            assert_eq!(event["direction"], "out", "{event}");
            (spoke, own.to_owned())
        })
        .collect();
    for (spoke, own) in &spokes {
        let peers = json(spoke);
        assert_eq!(peers.len(), 1, "{peers:?}");
        let shown = peers[0]["address"].as_str().unwrap();
        assert_eq!(transport(shown), transport(own), "{peers:?}");
        let over = if own == gossip { "ws" } else { "p2p" };
        assert_eq!((&peers[0]["transport"], &peers[0]["path"]), (&over.into(), &"direct".into()));
    }
    let peers = eventually("the hub has all links", || {
        Some(json(&hub)).filter(|peers| peers.len() == spokes.len())
    });
    let mut shown: Vec<_> =
        peers.iter().map(|peer| transport(peer["address"].as_str().unwrap())).collect();
    shown.sort_unstable();
    assert_eq!(shown, ["/quic-v1", "/tcp/", "/ws", "gossip over WebSocket"], "{peers:?}");
    // The table for people has the same addresses.
    let table = finish(&mut hub.command("peers")).stdout;
    for peer in &peers {
        assert!(table.contains(peer["address"].as_str().unwrap()), "{table}");
    }
}
