//! The ports of this node that a router is asked for. Pure.

use std::net::{Ipv4Addr, SocketAddrV4};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// UDP, of QUIC.
    Udp,
}

impl Carrier {
    /// The name for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port that this node listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inside {
    pub(super) carrier: Carrier,
    pub(super) address: SocketAddrV4,
}

impl Inside {
    /// The port of a listening address; `None` unless it begins with an IPv4 address and a port.
    fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let Some(Protocol::Ip4(host)) = parts.next() else { return None };
        let (carrier, port) = match parts.next()? {
            Protocol::Tcp(port) => (Carrier::Tcp, port),
            Protocol::Udp(port) => (Carrier::Udp, port),
            _ => return None,
        };
        Some(Self { carrier, address: SocketAddrV4::new(host, port) })
    }

    /// The port of the router in the place of this one in a listening address; `None` if the address has another port.
    pub(super) fn seen_at(&self, address: &Multiaddr, outside: SocketAddrV4) -> Option<Multiaddr> {
        let port = match self.carrier {
            Carrier::Tcp => Protocol::Tcp(outside.port()),
            Carrier::Udp => Protocol::Udp(outside.port()),
        };
        let rest = address.iter().skip(2);
        let seen = [Protocol::Ip4(*outside.ip()), port].into_iter().chain(rest);
        (Self::of(address) == Some(*self)).then(|| seen.collect())
    }
}

/// The ports among the listening addresses that are on `host`, each once.
pub(super) fn wanted(listen: &[Multiaddr], host: Ipv4Addr) -> Vec<Inside> {
    let mut all: Vec<_> = listen.iter().filter_map(Inside::of).collect();
    all.retain(|inside| *inside.address.ip() == host);
    all.sort_unstable();
    all.dedup();
    all
}

/// Returns `true` if a router may have this address on its other side. One that is private is the other side of a router
/// behind another router, and may be what a network of one's own calls outside.
pub(super) const fn is_usable(host: Ipv4Addr) -> bool {
    !(host.is_unspecified()
        || host.octets()[0] == 0
        || host.is_loopback()
        || host.is_link_local()
        || host.is_multicast()
        || host.octets()[0] >= 240)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_port_of_the_host_is_wanted_once_whatever_is_spoken_on_it() {
        let listen = [
            "/ip4/10.0.0.2/tcp/4190",
            "/ip4/10.0.0.2/tcp/4190/ws",
            "/ip4/10.0.0.2/udp/4190/quic-v1",
            "/ip4/127.0.0.1/tcp/4190",
            "/ip6/fe80::1/tcp/4190",
            "/dns4/here/tcp/4190",
        ];
        let host = Ipv4Addr::new(10, 0, 0, 2);
        let wanted = wanted(&listen.map(address), host);
        let inside = |carrier| Inside { carrier, address: SocketAddrV4::new(host, 4190) };
        assert_eq!(wanted, [inside(Carrier::Tcp), inside(Carrier::Udp)]);
        let outside = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 777);
        let seen = |inside: Inside, text| {
            inside.seen_at(&address(text), outside).map(|address| address.to_string())
        };
        let quic = seen(wanted[1], listen[2]);
        assert_eq!(quic.as_deref(), Some("/ip4/192.0.2.1/udp/777/quic-v1"));
        let web = seen(wanted[0], listen[1]);
        assert_eq!(web.as_deref(), Some("/ip4/192.0.2.1/tcp/777/ws"));
        assert_eq!(seen(wanted[0], listen[2]), None);
        assert_eq!(seen(wanted[0], listen[3]), None);
    }

    #[test]
    fn no_router_has_a_host_of_this_machine_or_a_group_on_its_other_side() {
        for [a, b, c, d] in
            [[127, 0, 0, 1], [0, 0, 0, 0], [169, 254, 1, 1], [224, 0, 0, 1], [255, 255, 255, 255]]
        {
            assert!(!is_usable(Ipv4Addr::new(a, b, c, d)), "{a}.{b}.{c}.{d}");
        }
        assert!(is_usable(Ipv4Addr::new(9, 9, 9, 9)) && is_usable(Ipv4Addr::new(10, 0, 0, 1)));
    }
}
