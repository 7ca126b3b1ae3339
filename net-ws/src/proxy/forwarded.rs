//! The headers in which HTTP proxies tell the client of a request: `X-Forwarded-For`, and `Forwarded` of RFC 7239.
//!
//! # Invariants
//!
//! * A list is read from its right end, which the nearest proxy wrote, and only as far as trusted proxies wrote it.
//! * Nothing is believed beyond an entry that cannot be read.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header::FORWARDED};

/// The header in which trusted proxies tell the client of a request.
///
/// One alone is believed: a proxy that writes one passes the other one on as the client sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RealIpHeader {
    /// `X-Forwarded-For`. Default.
    #[default]
    XForwardedFor,
    /// `Forwarded`, of RFC 7239.
    Forwarded,
}

impl RealIpHeader {
    fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            Self::Forwarded => FORWARDED,
        }
    }

    fn read(self, entry: &[u8]) -> Option<IpAddr> {
        let entry = std::str::from_utf8(entry).ok()?;
        match self {
            Self::XForwardedFor => node(entry.trim()),
            Self::Forwarded => {
                let mut pairs = entry.split(';').filter_map(|pair| pair.split_once('='));
                let is_for = |name: &str| name.trim().eq_ignore_ascii_case("for");
                let (_, value) = pairs.find(|(name, _)| is_for(name))?;
                let value = value.trim();
                node(
                    value
                        .strip_prefix('"')
                        .and_then(|rest| rest.strip_suffix('"'))
                        .unwrap_or(value),
                )
            }
        }
    }
}

/// The client that the headers tell: the rightmost one that is no trusted proxy itself. `None` if the nearest proxy told
/// none, or one that cannot be read.
pub(crate) fn client(
    headers: &HeaderMap,
    header: RealIpHeader,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let lines = headers.get_all(header.name());
    let entries = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let entries: Vec<&[u8]> = entries.collect();
    let mut nearest = None;
    for entry in entries.into_iter().rev() {
        let Some(ip) = header.read(entry) else { return nearest };
        nearest = Some(ip);
        if !is_trusted(ip) {
            return nearest;
        }
    }
    nearest
}

/// The address of a node: an IP address with or without a port, an IPv6 address in brackets or, as many proxies write it,
/// without. An address that no client can have is none.
fn node(text: &str) -> Option<IpAddr> {
    let bracketed = || {
        let (inner, port) = text.strip_prefix('[')?.split_once(']')?;
        let port = port.strip_prefix(':').unwrap_or(port);
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        is_port.then(|| inner.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6)).flatten()
    };
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let ip = text.parse::<IpAddr>().ok().or_else(bracketed).or_else(with_port)?.to_canonical();
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn is_trusted(ip: IpAddr) -> bool {
        ip.to_string().starts_with("10.")
    }

    #[track_caller]
    fn tells(header: RealIpHeader, lines: &[&str], expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name(), HeaderValue::from_str(line).unwrap());
        }
        let found = client(&headers, header, is_trusted);
        assert_eq!(found, expected.map(|ip| ip.parse().unwrap()), "{lines:?}");
    }

    // Threats and goals, row 32.
    #[test]
    fn the_rightmost_client_that_is_no_proxy_counts() {
        for (lines, expected) in [
            (&["192.0.2.1"][..], Some("192.0.2.1")),
            (&["127.0.0.1, 192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.1 ,\t10.0.0.1"], Some("192.0.2.1")),
            (&["192.0.2.1", "10.0.0.1"], Some("192.0.2.1")),
            (&["192.0.2.9", "192.0.2.1,10.0.0.1", "10.0.0.2"], Some("192.0.2.1")),
            (&["10.0.0.3, 10.0.0.1"], Some("10.0.0.3")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["[2001:db8::1]:80"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["192.0.2.1:65535"], Some("192.0.2.1")),
            (&["::ffff:192.0.2.1"], Some("192.0.2.1")),
            // Beyond what cannot be read, nothing is believed.
            (&["192.0.2.1, unknown"], None),
            (&["192.0.2.1, unknown, 10.0.0.1"], Some("10.0.0.1")),
            (&["192.0.2.1,"], None),
            (&["0.0.0.0"], None),
            (&["192.0.2.1:x"], None),
            (&["[2001:db8::1]:8o"], None),
            (&[""], None),
            (&[], None),
        ] {
            tells(RealIpHeader::XForwardedFor, lines, expected);
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (lines, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], Some("192.0.2.60")),
            (&["For=\"[2001:db8:cafe::17]:4711\""], Some("2001:db8:cafe::17")),
            (&["for=192.0.2.43, for=198.51.100.17"], Some("198.51.100.17")),
            (&["for=192.0.2.43", "by=x; FOR=\"10.0.0.1:80\""], Some("192.0.2.43")),
            (&["for=_hidden"], None),
            (&["for=unknown"], None),
            (&["proto=http"], None),
            (&["192.0.2.1"], None),
        ] {
            tells(RealIpHeader::Forwarded, lines, expected);
        }
    }

    proptest! {
        #[test]
        fn no_value_causes_a_panic(value: Vec<u8>, parts in "[0-9a-f:.,\\[\\]\"=; for]{0,60}") {
            for header in [RealIpHeader::XForwardedFor, RealIpHeader::Forwarded] {
                for bytes in [&value[..], parts.as_bytes()] {
                    let Ok(value) = HeaderValue::from_bytes(bytes) else { continue };
                    let headers = HeaderMap::from_iter([(header.name(), value)]);
                    let _: Option<IpAddr> = client(&headers, header, is_trusted);
                }
            }
        }

        // The client controls everything to the left of what the proxy adds.
        #[test]
        fn a_client_cannot_choose_its_address(forged in "[0-9a-f:.,\\[\\]\"=; a-z]{0,60}") {
            let Ok(value) = HeaderValue::from_str(&format!("{forged}, 192.0.2.1")) else { return Ok(()) };
            let header = RealIpHeader::XForwardedFor;
            let headers = HeaderMap::from_iter([(header.name(), value)]);
            prop_assert_eq!(client(&headers, header, is_trusted), Some([192, 0, 2, 1].into()));
        }
    }
}
