//! The network of a node: its ports, the names it needs, and the peers it is to reach.

use std::{io, time::Duration};

use futures::future::join_all;
use gossip::NodeAddress;
use runtime::Environment;
use tandem::Mode;
use tokio::time::{self, Instant};

use super::Finding;
use crate::config::Settings;

/// Longest time for a name or a connection. Chosen: a few round trips round the world, and a lost packet.
const PATIENCE: Duration = Duration::from_secs(5);

/// The protocol that a port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortOf {
    Tcp,
    Udp,
}

/// The host and the port of a multiaddr, `host:port`; `None` for one through a relay, whose port is on another machine.
pub(super) fn port_of(multiaddr: &str) -> Option<(PortOf, String)> {
    if multiaddr.contains("/p2p-circuit") {
        return None;
    }
    let mut parts = multiaddr.trim_start_matches('/').split('/');
    let (kind, host) = (parts.next()?, parts.next()?);
    let (transport, port) = (parts.next()?, parts.next()?);
    let host = match kind {
        "ip4" | "dns" | "dns4" | "dns6" => host.to_owned(),
        "ip6" => format!("[{host}]"),
        _ => return None,
    };
    let protocol = match transport {
        "tcp" => PortOf::Tcp,
        "udp" => PortOf::Udp,
        _ => return None,
    };
    Some((protocol, format!("{host}:{port}")))
}

/// [`port_of`], as far as it is one of TCP.
fn tcp_of(multiaddr: &str) -> Option<String> {
    port_of(multiaddr).filter(|(protocol, _)| *protocol == PortOf::Tcp).map(|(_, port)| port)
}

/// Binds a port as a node would, and gives it back.
async fn try_port(environment: &Environment, protocol: PortOf, address: &str) -> io::Result<()> {
    match protocol {
        PortOf::Tcp => drop(environment.bind(address).await?),
        // QUIC listens on IP addresses alone.
        PortOf::Udp => {
            let address = address.parse().map_err(|_not_ip| {
                io::Error::new(io::ErrorKind::InvalidInput, "no IP address and port")
            })?;
            drop(environment.bind_udp(address)?);
        }
    }
    Ok(())
}

/// The ports that a node would listen on.
pub(super) async fn ports(environment: &Environment, settings: &Settings) -> Vec<Finding> {
    let mut wanted = Vec::new();
    if settings.mode != Mode::Libp2p {
        wanted.push(("listen_ws", (PortOf::Tcp, settings.listen_ws.clone())));
    }
    if settings.mode != Mode::WebSocket {
        let addresses = settings.listen_p2p.iter().filter_map(|address| port_of(address));
        wanted.extend(addresses.map(|address| ("listen_p2p", address)));
    }
    let tcp = |address: &String| (PortOf::Tcp, address.clone());
    wanted.extend(settings.metrics.iter().map(|address| ("metrics", tcp(address))));
    wanted.extend(settings.admin_listen.iter().map(|address| ("admin_listen", tcp(address))));
    let mut findings = Vec::new();
    for (setting, (protocol, address)) in wanted {
        findings.push(match try_port(environment, protocol, &address).await {
            Ok(()) => Finding::ok("ports", format!("{setting} {address} is free")),
            Err(error) => {
                let advice = match protocol {
                    PortOf::Tcp => "find its user with ss -ltnp, or set another address",
                    PortOf::Udp => "find its user with ss -lunp, or set another address",
                };
                Finding::failure("ports", format!("{setting} {address}: {error}"), advice)
            }
        });
    }
    findings
}

/// The hosts and ports of the configured peers.
fn targets(settings: &Settings) -> Vec<(String, Option<String>)> {
    let of = |peer: &NodeAddress| match peer {
        NodeAddress::WebSocket(_) => peer.host_port(),
        NodeAddress::Multiaddr(text) => tcp_of(text),
    };
    settings.peers.iter().map(|peer| (peer.to_string(), of(peer))).collect()
}

/// The names in the configuration that DNS has to answer for.
pub(super) async fn names(environment: &Environment, settings: &Settings) -> Vec<Finding> {
    const CHECK: &str = "names";
    let is_name = |target: &String| {
        let host = target.rsplit_once(':').map_or(target.as_str(), |(host, _)| host);
        host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err()
    };
    let names: Vec<String> = targets(settings)
        .into_iter()
        .filter_map(|(_, target)| target)
        .chain(settings.public_address.as_ref().and_then(NodeAddress::host_port))
        .filter(is_name)
        .collect();
    if names.is_empty() {
        return vec![Finding::ok(CHECK, "the configuration has no host names")];
    }
    let ask = |name: String| async move {
        let advice = "look at /etc/resolv.conf, and at the spelling of the name";
        match time::timeout(PATIENCE, environment.resolve(&name)).await {
            Ok(Ok(found)) if !found.is_empty() => {
                Finding::ok(CHECK, format!("{name} leads to {} addresses", found.len()))
            }
            Ok(Ok(_)) => Finding::failure(CHECK, format!("{name} leads nowhere"), advice),
            Ok(Err(error)) => Finding::failure(CHECK, format!("{name}: {error}"), advice),
            Err(_elapsed) => {
                let says = format!("{name}: no answer within {} s", PATIENCE.as_secs());
                Finding::failure(CHECK, says, advice)
            }
        }
    };
    join_all(names.into_iter().map(ask)).await
}

/// The configured peers, as far as a connection over TCP shows.
pub(super) async fn peers(environment: &Environment, settings: &Settings) -> Vec<Finding> {
    const CHECK: &str = "peers";
    let configured = targets(settings);
    if configured.is_empty() {
        if settings.joins_nobody() {
            let says = "none is configured: this node hears nothing until another one dials it";
            return vec![Finding::warning(CHECK, says, "name one with --peer")];
        }
        return Vec::new();
    }
    let ask = |(peer, target): (String, Option<String>)| async move {
        let Some(target) = target else {
            return Finding::ok(CHECK, format!("{peer} is not over TCP, and is not tried"));
        };
        let dialled = environment.dial(&target, Instant::now() + PATIENCE).await;
        match dialled {
            Ok(_closed) => Finding::ok(CHECK, format!("{peer} takes connections")),
            Err(error) => {
                let mut says = format!("{peer}: {error}");
                let mut cause = std::error::Error::source(&error);
                while let Some(source) = cause {
                    says = format!("{says}: {source}");
                    cause = source.source();
                }
                let advice = "look whether it runs, and at the firewalls between";
                Finding::warning(CHECK, says, advice)
            }
        }
    };
    join_all(configured.into_iter().map(ask)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_multiaddr_is_found() {
        for (multiaddr, found) in [
            ("/ip4/192.0.2.1/tcp/4190/p2p/12D3KooW", Some((PortOf::Tcp, "192.0.2.1:4190"))),
            ("/ip6/::1/tcp/1", Some((PortOf::Tcp, "[::1]:1"))),
            ("/dns4/a.example/tcp/2/ws", Some((PortOf::Tcp, "a.example:2"))),
            ("/ip4/192.0.2.1/udp/4190/quic-v1", Some((PortOf::Udp, "192.0.2.1:4190"))),
            ("/ip4/192.0.2.1/tcp/1/p2p/12D3KooW/p2p-circuit", None),
            ("/p2p/12D3KooW", None),
            ("", None),
        ] {
            let found = found.map(|(protocol, port)| (protocol, port.to_owned()));
            assert_eq!(port_of(multiaddr), found, "{multiaddr}");
        }
    }

    // Issue 12, 5.
    #[tokio::test]
    async fn a_taken_port_of_udp_is_found_as_one_of_tcp_is() {
        let environment = Environment::system();
        let taken = environment.bind_udp(([127, 0, 0, 1], 0).into()).unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = try_port(&environment, PortOf::Udp, &address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        try_port(&environment, PortOf::Udp, &address).await.unwrap();
        try_port(&environment, PortOf::Udp, "a.example:1").await.unwrap_err();
    }
}
