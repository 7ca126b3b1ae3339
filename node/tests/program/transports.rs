//! Links over every transport at once, as `tandem peers` shows them.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

use serde_json::Value;

use crate::support::{Node, eventually, finish, scratch, tandem};

/// The transports of a hub: its setting beside those of every node, and the end of such an address, without the port.
const TRANSPORTS: [(&str, &str); 4] = [
    ("/ip4/127.0.0.1/tcp/0", "/tcp/"),
    ("/ip4/127.0.0.1/tcp/0/ws", "/ws"),
    ("/ip4/127.0.0.1/udp/0/quic-v1", "/quic-v1"),
    ("/ip4/127.0.0.1/udp/0/webrtc-direct", "/webrtc-direct"),
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
fn peers_over_every_transport_are_shown_with_it_at_both_ends() {
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
    let expected = ["/quic-v1", "/tcp/", "/webrtc-direct", "/ws", "gossip over WebSocket"];
    assert_eq!(shown, expected, "{peers:?}");
    // The table for people has the same addresses.
    let table = finish(&mut hub.command("peers")).stdout;
    for peer in &peers {
        assert!(table.contains(peer["address"].as_str().unwrap()), "{table}");
    }
}

// Issue 13, 3.
#[test]
fn the_certificate_in_an_address_of_webrtc_stays_over_a_restart() {
    let dirs = scratch();
    let place = dirs.path().join("node");
    let certificate = || {
        let node = Node::start(&place, &["--listen-p2p", "/ip4/127.0.0.1/udp/0/webrtc-direct"]);
        let own = node.ready["p2p"].as_array().unwrap().iter().map(|own| own.as_str().unwrap());
        let own = own.filter_map(|own| own.split_once("/certhash/")).next();
        own.unwrap().1.to_owned()
    };
    let first = certificate();
    assert_eq!(certificate(), first);
    let mode = std::fs::metadata(place.join("webrtc.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(place.join("webrtc.pem"), "no certificate").unwrap();
    let told = finish(
        tandem()
            .args(["run", "--network", "net", "--listen-p2p", "/ip4/127.0.0.1/udp/0/webrtc-direct"])
            .arg("--data-dir")
            .arg(&place),
    );
    assert!(told.stderr.contains("webrtc.pem") && told.code != Some(0), "{told:?}");
}
