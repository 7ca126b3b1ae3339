//! Proxies in front of this node, and the real clients of the connections and requests that they pass on.
//!
//! ```text
//!   accept ─▶ trusted? ─▶ preamble: the client of the connection ─▶ trusted? ─▶ forwarded: the client of each request
//! ```
//!
//! # Invariants
//!
//! * Only a peer whose address is in [`ProxyRules::trusted`] can tell another client than itself.
//! * A proxy on another machine cannot tell that its client is this machine.

pub(crate) mod forwarded;
pub(crate) mod preamble;

use std::net::IpAddr;

use gossip::IpRange;
use http::HeaderMap;

pub use self::forwarded::RealIpHeader;

/// States whether connections of trusted proxies begin with a preamble of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They begin with TLS or HTTP, like all others. Default.
    #[default]
    Off,
    /// They begin with a preamble of version 1 or 2, and are closed without one. Connections of others begin with TLS or
    /// HTTP.
    On,
}

/// The proxies in front of a listener. Default: none, so that every connection is its own client's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyRules {
    /// Addresses of proxies that are trusted to tell their clients. Default: none.
    pub trusted: Vec<IpRange>,
    /// States whether their connections begin with a preamble. Default: [`ProxyProtocol::Off`].
    pub protocol: ProxyProtocol,
    /// The header in which they tell the client of a request. Default: [`RealIpHeader::XForwardedFor`].
    pub header: RealIpHeader,
}

gossip::setters!(ProxyRules {
    with_trusted => trusted: Vec<IpRange>,
    with_protocol => protocol: ProxyProtocol,
    with_header => header: RealIpHeader,
});

impl ProxyRules {
    /// Returns `true` if a peer at `ip` is a trusted proxy.
    #[must_use]
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|range| range.contains(ip))
    }

    /// The client of a request that the proxy at `proxy` passed on; `None` if it told none that can be used.
    pub(crate) fn client_of(&self, headers: &HeaderMap, proxy: IpAddr) -> Option<IpAddr> {
        let told = forwarded::client(headers, self.header, |ip| self.trusts(ip));
        told.filter(|ip| is_credible(*ip, proxy))
    }
}

/// Returns whether the client of the proxy at `proxy` can be at `ip`.
pub(crate) fn is_credible(ip: IpAddr, proxy: IpAddr) -> bool {
    let (ip, proxy) = (ip.to_canonical(), proxy.to_canonical());
    (!ip.is_loopback() || proxy.is_loopback()) && !ip.is_unspecified() && !ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_elsewhere_cannot_tell_that_its_client_is_this_machine() {
        for (client, proxy, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "10.0.0.1", false),
            ("::ffff:127.0.0.1", "10.0.0.1", false),
            ("::1", "10.0.0.1", false),
            ("192.0.2.1", "10.0.0.1", true),
            ("224.0.0.1", "127.0.0.1", false),
            ("0.0.0.0", "127.0.0.1", false),
        ] {
            let credible = is_credible(client.parse().unwrap(), proxy.parse().unwrap());
            assert_eq!(credible, expected, "{client} {proxy}");
        }
    }
}
