//! The addresses that the table may lead to.
//!
//! # Invariants
//!
//! * A node of the public internet is never led to addresses of its own machine or of its local network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::address::PeerAddress;

/// Addresses of one peer that are used, at most. Chosen: both address families of four interfaces.
pub(super) const MAX_ADDRESSES: usize = 8;

/// The addresses that are believed and given to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressScope {
    /// Addresses of the public internet, and names.
    Public,
    /// All addresses, also those of this machine and of private networks.
    Any,
}

impl AddressScope {
    /// The scope of a node that listens at `listen` and dials `peers`: [`AddressScope::Any`] if all of them are private,
    /// so that a network of one's own works without a setting.
    pub(crate) fn of<'a>(addresses: impl IntoIterator<Item = &'a Multiaddr>) -> Self {
        let mut addresses = addresses.into_iter().peekable();
        let is_private = addresses.peek().is_some() && addresses.all(|address| !is_public(address));
        if is_private { Self::Any } else { Self::Public }
    }

    /// The addresses of `peer` that may be used, each with `/p2p/ID` at its end.
    pub(super) fn usable(
        self,
        peer: PeerId,
        addresses: impl IntoIterator<Item = Multiaddr>,
    ) -> Vec<PeerAddress> {
        let mut usable = Vec::new();
        for mut address in addresses {
            if let Some(Protocol::P2p(_)) = address.iter().last() {
                address.pop();
            }
            let Ok(address) = PeerAddress::new(address.with(Protocol::P2p(peer))) else { continue };
            if self.admits(&address.address) && !usable.contains(&address) {
                usable.push(address);
            }
            if usable.len() == MAX_ADDRESSES {
                break;
            }
        }
        usable
    }

    /// Returns `true` if an address may be used.
    pub(crate) fn admits(self, address: &Multiaddr) -> bool {
        match self {
            Self::Public => is_public(address),
            Self::Any => true,
        }
    }
}

fn is_public(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => is_global_v4(ip),
        Some(Protocol::Ip6(ip)) => is_global_v6(ip),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => {
            !name.eq_ignore_ascii_case("localhost")
        }
        _ => false,
    }
}

/// Source: the IANA registry of special-purpose addresses, and those that wire facts 8.1 name.
fn is_global_v4(ip: Ipv4Addr) -> bool {
    let [first, second, third, _] = ip.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_protocol = (first, second, third) == (192, 0, 0);
    let is_benchmark = first == 198 && (second == 18 || second == 19);
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast()
        || first == 0
        || first >= 240
        || is_shared
        || is_protocol
        || is_benchmark)
}

fn is_global_v6(ip: Ipv6Addr) -> bool {
    match IpAddr::V6(ip).to_canonical() {
        IpAddr::V4(ip) => is_global_v4(ip),
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            let is_documentation = (first, second) == (0x2001, 0xdb8);
            let is_benchmark = (first, second) == (0x2001, 2);
            // Only 2000::/3 is given out to hosts.
            first & 0xe000 == 0x2000 && !is_documentation && !is_benchmark
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_of_the_internet_are_told_from_those_of_private_networks() {
        for public in ["/ip4/9.9.9.9/tcp/1", "/ip6/2620:fe::9/tcp/1", "/dns4/a.example/tcp/1"] {
            assert!(AddressScope::Public.admits(&address(public)), "{public}");
        }
        let private = [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.1.2.3/tcp/1",
            "/ip4/192.168.0.1/tcp/1",
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/100.64.0.1/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/255.255.255.255/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/::ffff:127.0.0.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/fd00::1/tcp/1",
            "/ip6/100::1/tcp/1",
            "/ip6/2001:2::1/tcp/1",
            "/dns/localhost/tcp/1",
        ];
        for private in private {
            assert!(!AddressScope::Public.admits(&address(private)), "{private}");
            assert!(AddressScope::Any.admits(&address(private)), "{private}");
        }
    }

    #[test]
    fn a_node_with_private_addresses_alone_is_part_of_a_private_network() {
        let of = |texts: &[&str]| {
            let addresses: Vec<_> = texts.iter().map(|text| address(text)).collect();
            AddressScope::of(&addresses)
        };
        assert_eq!(of(&["/ip4/127.0.0.1/tcp/1"]), AddressScope::Any);
        assert_eq!(of(&["/ip4/10.0.0.1/tcp/1", "/ip4/9.9.9.9/tcp/1"]), AddressScope::Public);
        assert_eq!(of(&[]), AddressScope::Public);
    }

    #[test]
    fn a_peer_has_a_bounded_number_of_addresses_that_can_be_dialled() {
        let peer = PeerId::random();
        let other = PeerId::random();
        let many = (1..100).map(|port| address(&format!("/ip4/127.0.0.1/tcp/{port}")));
        assert_eq!(AddressScope::Any.usable(peer, many).len(), MAX_ADDRESSES);
        let odd = [
            address(&format!("/ip4/127.0.0.1/tcp/1/p2p/{other}")),
            address("/ip4/127.0.0.1/tcp/1"),
            address("/ip4/127.0.0.1/udp/1/webrtc-direct"),
            address("/memory/1"),
        ];
        let usable = AddressScope::Any.usable(peer, odd);
        assert_eq!(usable.len(), 1);
        assert_eq!(usable[0].peer, peer, "another peer cannot be reached under this one's name");
    }
}
