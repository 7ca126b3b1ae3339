//! The hosts that learnt addresses may lead to.

use std::net::{IpAddr, Ipv6Addr};

/// The hosts that are dialled at addresses which no operator named.
///
/// Existing nodes dial whatever a record of DNS says (wire facts 10.4), and a network of one's own may well have its
/// relays at private addresses, so nothing is left out unless it is asked for. In a public network whoever controls one of
/// its names could otherwise have every node send requests into the network that it stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LearntHosts {
    /// Every host. The default.
    #[default]
    Any,
    /// Hosts of the public Internet: no loopback, private, shared, link-local, multicast or unspecified address, nor a
    /// name that leads to one. Announcements on the local network are dialled all the same.
    Public,
}

impl LearntHosts {
    /// Returns `true` if an address of this host may be dialled.
    #[must_use]
    pub fn allow(self, ip: IpAddr) -> bool {
        self == Self::Any || is_public(ip.to_canonical())
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || first == 0
                || is_shared)
        }
        IpAddr::V6(v6) => {
            let begins =
                |mask: u16, with: u16| v6.segments().first().is_some_and(|a| a & mask == with);
            let is_local = begins(0xfe00, 0xfc00) || begins(0xffc0, 0xfe80);
            !(v6.is_loopback() || v6 == Ipv6Addr::UNSPECIFIED || v6.is_multicast() || is_local)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 10, 2: records that lead to this machine or the local network were dialled like all others.
    #[test]
    fn hosts_that_are_not_of_the_public_internet_are_told_apart() {
        let local = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
        ];
        for ip in local {
            let ip = ip.parse().unwrap();
            assert!(!LearntHosts::Public.allow(ip) && LearntHosts::Any.allow(ip), "{ip}");
        }
        for ip in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(LearntHosts::Public.allow(ip.parse().unwrap()), "{ip}");
        }
    }
}
