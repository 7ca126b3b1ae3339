//! Hosts and subnets, by which connections and requests are limited.
//!
//! # Invariants
//!
//! * An IPv4 address written as IPv6 is the IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The limits of connections from this machine.
///
/// One value serves a whole node, its door, its HTTP server and its protection layers: that of the door's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoopbackRule {
    /// They are not: they are many programs behind one address, such as the clients of a reverse
    /// proxy. The default. Source: wire facts 1.6, the exemption of localhost.
    ///
    /// Bounds on the whole node, and the bound on the peers of one host, hold for them all the same.
    #[default]
    Exempt,
    /// They are. Every address of 127.0.0.0/8 is a host of its own then.
    Counted,
}

/// One host: an IPv4 address, or the /64 of an IPv6 address.
///
/// Chosen: a /64 is what one customer gets, so its addresses cost nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(IpAddr);

impl Host {
    /// The host an address belongs to.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6(first_bits(v6, 64)),
            other => other,
        })
    }

    /// The IPv4 address, or the first address of the /64.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.0
    }

    /// Returns `true` if the host is this machine.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }

    /// The part of the network it is in.
    #[must_use]
    pub fn subnet(self) -> Subnet {
        Subnet(match self.0 {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !0xff)),
            IpAddr::V6(v6) => IpAddr::V6(first_bits(v6, 48)),
        })
    }
}

/// One part of the network: the /24 of an IPv4 address, or the /48 of an IPv6 address.
///
/// Source: threats and goals, row 2. It is what one organisation gets at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet(IpAddr);

fn first_bits(address: Ipv6Addr, count: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::of(text.parse().unwrap())
    }

    #[test]
    fn a_host_is_an_ipv4_address_or_the_first_half_of_an_ipv6_address() {
        assert_eq!(host("2001:db8:1:2::1"), host("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(host("2001:db8:1:2::1"), host("2001:db8:1:3::1"));
        assert_eq!(host("192.0.2.1"), host("::ffff:192.0.2.1"));
        assert_ne!(host("192.0.2.1"), host("192.0.2.2"));
        assert_ne!(host("127.0.0.1"), host("127.0.0.2"));
        assert_ne!(host("::1"), host("::2"));
    }

    #[test]
    fn a_subnet_is_a_24th_or_a_48th() {
        let same = |one, other| host(one).subnet() == host(other).subnet();
        assert!(same("192.0.2.1", "192.0.2.254") && !same("192.0.2.1", "192.0.3.1"));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("2001:db8:1::1", "2001:db8:2::1"));
    }
}
