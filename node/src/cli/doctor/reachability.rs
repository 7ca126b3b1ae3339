//! The check of reachability: can others dial the node, as far as its configuration and its peers show?
//!
//! # Invariants
//!
//! * Nobody outside is asked: a node that runs knows better than a test from its own machine.

use std::net::IpAddr;

use tandem::{Mode, ReachPart};

use super::{Finding, network::port_of};
use crate::{
    admin::wire::{Peer, RouterPort},
    config::Settings,
};

const CHECK: &str = "reachability";

/// The hosts that a node would listen on, and whether it has a place at a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listens {
    hosts: Vec<IpAddr>,
    by_relay: bool,
}

impl Listens {
    fn of(settings: &Settings) -> Self {
        let ws = (settings.mode != Mode::Libp2p).then_some(settings.listen_ws.as_str());
        let p2p = (settings.mode != Mode::WebSocket).then_some(&settings.listen_p2p);
        Self::on(ws, p2p.into_iter().flatten().map(String::as_str))
    }

    fn on<'a>(ws: Option<&str>, p2p: impl Iterator<Item = &'a str>) -> Self {
        let mut listens =
            Self { hosts: ws.and_then(host_of).into_iter().collect(), by_relay: false };
        for multiaddr in p2p {
            listens.by_relay |= multiaddr.contains("/p2p-circuit");
            listens.hosts.extend(port_of(multiaddr).and_then(|(_, port)| host_of(&port)));
        }
        listens
    }

    fn is_local(&self) -> bool {
        !self.by_relay && self.hosts.iter().all(IpAddr::is_loopback)
    }
}

/// The IP address of `host:port`. A name may lead anywhere.
fn host_of(port: &str) -> Option<IpAddr> {
    let (host, _) = port.rsplit_once(':')?;
    host.trim_matches(['[', ']']).parse().ok()
}

/// Returns `true` for a peer of another machine that has dialled the node.
fn has_dialled(peer: &Peer) -> bool {
    let over_p2p = || port_of(&peer.address).map(|(_, port)| port);
    let host = host_of(&over_p2p().unwrap_or_else(|| peer.address.clone()));
    peer.direction == "in" && (peer.path == "relayed" || host.is_some_and(|ip| !ip.is_loopback()))
}

/// The finding about a node with these settings, and with these peers if it runs.
pub(super) fn reachability(settings: &Settings, peers: Option<&[Peer]>) -> Finding {
    if Listens::of(settings).is_local() {
        let says = "only this machine reaches the node: to let others in, set listen_ws and listen_p2p to addresses of the network, as 0.0.0.0:4160";
        return Finding::ok(CHECK, says);
    }
    let Some(peers) = peers else {
        let says = "the node listens for other machines; whether they reach it shows once it runs";
        return Finding::ok(CHECK, says);
    };
    match peers.iter().filter(|peer| has_dialled(peer)).count() {
        0 => Finding::warning(
            CHECK,
            "no peer of another machine has dialled the node so far",
            "try tandem http HOST:PORT/health on another machine, look at the firewalls between, and behind a router set reachability",
        ),
        1 => Finding::ok(CHECK, "1 peer of another machine has dialled the node"),
        peers => {
            Finding::ok(CHECK, format!("{peers} peers of other machines have dialled the node"))
        }
    }
}

/// The findings about the ports that a node with these settings, which runs, has from its router.
pub(super) fn router(settings: &Settings, ports: &[RouterPort]) -> Vec<Finding> {
    const CHECK: &str = "router";
    if ports.is_empty() && settings.reach.has(ReachPart::PortMapping) {
        let advice = "turn NAT-PMP or UPnP on in the router, or forward a port by hand and name it in announce";
        return vec![Finding::warning(CHECK, "the router maps no port to the node", advice)];
    }
    ports.iter().map(|port| Finding::ok(CHECK, port.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_listens_on_loopback_addresses_is_local() {
        for (ws, p2p, is_local) in [
            (Some("127.0.0.1:1"), "/ip4/127.0.0.1/tcp/2", true),
            (None, "/ip6/::1/udp/2/quic-v1", true),
            (Some("0.0.0.0:1"), "/ip4/127.0.0.1/tcp/2", false),
            (Some("[::]:1"), "/ip4/127.0.0.1/tcp/2", false),
            (Some("127.0.0.1:1"), "/ip4/192.0.2.1/tcp/2", false),
            (Some("127.0.0.1:1"), "/ip4/192.0.2.1/tcp/2/p2p/12D3KooW/p2p-circuit", false),
        ] {
            let listens = Listens::on(ws, std::iter::once(p2p));
            assert_eq!(listens.is_local(), is_local, "{ws:?} {p2p}");
        }
    }
}
