//! IPv6 addresses and IPv4 addresses wherever a host is read or shown.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[cfg(test)]
use std::net::TcpListener;

use crate::support::{Node, Process, eventually, finish, scratch, tandem};
use serde_json::Value;

/// The loopback address of IPv6 as URLs and as multiaddrs have it, and that of IPv4.
const HOSTS: [(&str, &str); 2] = [("[::1]", "/ip6/::1"), ("127.0.0.1", "/ip4/127.0.0.1")];

fn has_ipv6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        eprintln!("skipped: this machine has no IPv6");
    }
    has
}

fn json(node: &Node, command: &str) -> Value {
    let told = finish(node.command(command).arg("--json"));
    assert_eq!(told.code, Some(0), "{told:?}");
    serde_json::from_str(&told.stdout).unwrap()
}

// Issue 10, 6: "IPv6 literals and dual stack everywhere a host is read or shown".
#[test]
fn addresses_of_both_families_are_listened_on_dialled_shown_kept_and_forwarded() {
    if !has_ipv6() {
        return;
    }
    for (host, multiaddr) in HOSTS {
        let (here, there) = (scratch(), scratch());
        let listen =
            ["--listen-ws", &format!("{host}:0"), "--listen-p2p", &format!("{multiaddr}/tcp/0")];
        let mut hub = tandem();
        hub.args(["run", "--json", "--data-dir"]).arg(here.path()).args(listen);
        let process = Process::spawn(&mut hub);
        let ready = process.json();
        let hub = Node { process, ready, dir: here.path().to_owned() };
        assert!(hub.ws().starts_with(&format!("http://{host}:")), "{}", hub.ready);
        assert!(hub.p2p().starts_with(&format!("{multiaddr}/tcp/")), "{}", hub.ready);
        let status = json(&hub, "status");
        assert_eq!((&status["ws"], &status["p2p"][0]), (&hub.ready["ws"], &hub.ready["p2p"][0]));

        let authority = hub.ws().strip_prefix("http://").unwrap();
        for peer in [authority, hub.p2p()] {
            let dir = there.path().join(if peer == authority { "ws" } else { "p2p" });
            let dialling = Node::start(&dir, &["--peer", peer]);
            let event = dialling.event("peer_connected");
            assert_eq!(event["direction"], "out", "{event}");
            let peers = json(&dialling, "peers");
            let shown = peers[0]["address"].as_str().unwrap();
            assert!(
                shown.starts_with(if peer == authority { authority } else { multiaddr }),
                "{peers}"
            );
            let dials = json(&dialling, "status")["dials"].clone();
            assert_eq!(dials[0]["address"], *peer, "{dials}");
            // The other end shows the family, too.
            let inbound = eventually("the hub shows it", || {
                json(&hub, "peers").as_array().unwrap().first().cloned()
            });
            let from = inbound["address"].as_str().unwrap();
            assert!(from.starts_with(host) || from.starts_with(multiaddr), "{inbound}");
            let listed = json_of(
                tandem().args(["phonebook", "list", "--json", "--data-dir"]).arg(&dialling.dir),
            );
            let known = listed.as_array().unwrap().iter();
            assert!(known.clone().any(|entry| entry["address"] == *peer), "{listed}");
            drop(dialling);
            eventually("it is gone", || {
                json(&hub, "peers").as_array().unwrap().is_empty().then_some(())
            });
        }

        let added = [
            format!("{host}:9"),
            format!("{multiaddr}/tcp/9/p2p/{}", hub.ready["peer_id"].as_str().unwrap()),
        ];
        for address in &added {
            let told =
                finish(tandem().args(["phonebook", "add", address, "--data-dir"]).arg(&hub.dir));
            assert_eq!(told.code, Some(0), "{told:?}");
        }
        let listed =
            json_of(tandem().args(["phonebook", "list", "--json", "--data-dir"]).arg(&hub.dir));
        for address in &added {
            let known = listed.as_array().unwrap().iter();
            assert!(known.clone().any(|entry| entry["address"] == **address), "{listed}");
        }

        let asked = finish(tandem().args(["http", &format!("{}/status", hub.ws())]));
        assert_eq!(asked.code, Some(0), "{asked:?}");
        for target in [hub.ws(), hub.p2p()] {
            let forward = Process::spawn(tandem().args([
                "forward",
                "--listen",
                &format!("{host}:0"),
                target,
            ]));
            let line = forward.line();
            let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
            assert!(url.starts_with(&format!("http://{host}:")), "{line}");
            let asked = finish(tandem().args(["http", &format!("{url}/status")]));
            assert_eq!(asked.code, Some(0), "{line} {asked:?}");
        }
    }
}

fn json_of(command: &mut std::process::Command) -> Value {
    let told = finish(command);
    assert_eq!(told.code, Some(0), "{told:?}");
    serde_json::from_str(&told.stdout).unwrap()
}

// Issue 10, 6: one node that is reached over both families at one port.
#[test]
fn a_wildcard_address_of_ipv6_is_reached_over_both_families() {
    if !has_ipv6() {
        return;
    }
    let dir = scratch();
    let mut hub = tandem();
    hub.args(["run", "--json", "--mode", "ws", "--listen-ws", "[::]:0", "--data-dir"])
        .arg(dir.path());
    let process = Process::spawn(&mut hub);
    let ready = process.json();
    let port = ready["ws"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    for (host, _) in HOSTS {
        let asked = finish(tandem().args(["http", &format!("http://{host}:{port}/status")]));
        assert_eq!(asked.code, Some(0), "{host}: {asked:?}");
        let other = scratch();
        let peer = format!("{host}:{port}");
        let dialling = Node::start(other.path(), &["--mode", "ws", "--peer", &peer]);
        assert_eq!(dialling.event("peer_connected")["address"], *peer);
    }
}
