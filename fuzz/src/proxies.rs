//! The words of proxies about their clients.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use net_ws::{RealIpHeader, fuzzing};

/// A preamble is read in bounded steps; what follows it changes nothing.
pub(crate) fn preamble(data: &[u8]) {
    let Some(len) = fuzzing::preamble(data) else { return };
    assert!(len <= data.len());
    assert_eq!(fuzzing::preamble(&data[..len]), Some(len));
    assert_eq!(fuzzing::preamble(&[&data[..len], b"GET / HTTP/1.1"].concat()), Some(len));
}

/// A client is not believed beyond the address that its proxy adds, whatever it writes into the headers.
pub(crate) fn forwarded(data: &[u8]) {
    let client = IpAddr::from([192, 0, 2, 1]);
    for (header, name, told) in [
        (RealIpHeader::XForwardedFor, "x-forwarded-for", "192.0.2.1"),
        (RealIpHeader::Forwarded, "forwarded", "for=192.0.2.1"),
    ] {
        let mut headers = HeaderMap::new();
        for line in data.split(|byte| *byte == b'\n').take(8) {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        let found = fuzzing::forwarded(&headers, header);
        assert!(!found.is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()), "{found:?}");
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(told));
        assert_eq!(fuzzing::forwarded(&headers, header), Some(client));
    }
}
