//! Addresses of nodes: `host:port`, a URL, or a multiaddr.
//!
//! # Invariants
//!
//! * An address is checked once, when it is read; what is left can be dialled as far as text can tell.
//! * The printed form of an address reads as the same address again.
//! * `wss` and `https` stay what they are: an address that asks for TLS is never dialled without.
//! * No address holds a user name or a password: addresses are logged and sent to peers.
//!
//! A URL library would tidy up what it reads (case, numbers as IPv4, default ports), and existing nodes
//! compare addresses letter by letter. So the host is kept as it was written.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::network_id::NetworkId;

/// Longest address, in bytes, as it was written and as it is printed. Chosen: twice what an identity challenge has room
/// for.
const MAX_ADDRESS_BYTES: usize = 576;

/// Longest part of a refused text that an error repeats, in characters.
const MAX_SHOWN_CHARS: usize = 80;

/// Protocols a multiaddr may start with. Each needs a value after it. One that starts with `p2p` names a node
/// without saying where it is.
const MULTIADDR_STARTS: [&str; 7] = ["ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr", "p2p"];

/// An address of a node, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeAddress {
    /// The WebSocket network of a node.
    WebSocket(WebSocketAddress),
    /// A multiaddr. Only its shape is checked here; the libp2p network parses it.
    Multiaddr(String),
}

/// An address that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no address: write host:port, an http, https, ws or wss URL, or a multiaddr with /p2p/ID"
)]
pub struct AddressError {
    /// The text as given, cut to a bounded length.
    pub text: String,
}

/// The security of a connection: plain, or TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Security {
    /// TCP alone.
    Plain,
    /// TLS over TCP.
    Tls,
}

/// Host, port and path of a node's WebSocket network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebSocketAddress {
    security: Security,
    /// As written; an IPv6 address in brackets.
    host: String,
    /// `None` for the usual port of the scheme.
    port: Option<u16>,
    /// Percent-encoded. Empty, or a slash and what follows it, without a slash at the end.
    path: String,
    /// Percent-encoded, without the question mark.
    query: Option<String>,
}

/// The request that a dialler sends to start gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipUrl {
    /// Plain, or TLS.
    pub security: Security,
    /// Host and port as written in the address: the `Host` header.
    pub authority: String,
    /// Path and query: the target of the request line.
    pub target: String,
}

impl NodeAddress {
    /// The request that starts gossip; `None` for a multiaddr.
    #[must_use]
    pub fn gossip_url(&self, network: &NetworkId) -> Option<GossipUrl> {
        match self {
            Self::WebSocket(address) => Some(address.gossip_url(network.as_str())),
            Self::Multiaddr(_) => None,
        }
    }

    /// Returns the `host:port` to connect to over TCP; `None` for a multiaddr.
    #[must_use]
    pub fn host_port(&self) -> Option<String> {
        match self {
            Self::WebSocket(address) => Some(format!("{}:{}", address.host, address.port())),
            Self::Multiaddr(_) => None,
        }
    }

    /// The short form under which existing nodes keep an address: host and port as written, or the
    /// multiaddr. Source: wire facts 1.1.
    #[must_use]
    pub fn phonebook_entry(&self) -> String {
        match self {
            Self::WebSocket(address) => address.authority(),
            Self::Multiaddr(text) => text.clone(),
        }
    }

    /// The form in which it is shown: short, unless that would leave out that it asks for TLS.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::WebSocket(address) if address.security == Security::Tls => self.to_string(),
            _ => self.phonebook_entry(),
        }
    }
}

impl WebSocketAddress {
    /// Plain, or TLS.
    #[must_use]
    pub const fn security(&self) -> Security {
        self.security
    }

    /// The host as written; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, or the usual one: 80, and 443 over TLS.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.security {
            Security::Plain => 80,
            Security::Tls => 443,
        })
    }

    /// Path that everything of this node lies under, percent-encoded. Empty, or it starts with a slash
    /// and does not end with one.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The request that starts gossip in the network of this name. Source: wire facts 1.1.
    #[must_use]
    pub fn gossip_url(&self, genesis: &str) -> GossipUrl {
        let mut target = format!("{}/v1/{}/gossip", self.path, encode_segment(genesis));
        if let Some(query) = &self.query {
            target = format!("{target}?{query}");
        }
        GossipUrl { security: self.security, authority: self.authority(), target }
    }

    fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// Reads `host:port`, `[ipv6]:port` or `[ipv6]`.
    fn from_authority(text: &str) -> Option<Self> {
        let address = Self::under(Security::Plain, text)?;
        let complete = address.port.is_some() || address.host.starts_with('[');
        complete.then_some(address)
    }

    /// Reads a URL, `rest` being what follows `scheme://`.
    fn from_url(scheme: &str, rest: &str) -> Option<Self> {
        let security = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => Security::Plain,
            "https" | "wss" => Security::Tls,
            _ => return None,
        };
        // A fragment never leaves the program that reads it, so it says nothing to a node.
        let rest = rest.split('#').next()?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(encode(query, |byte| byte.is_ascii_graphic())?)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let mut address = Self::under(security, authority)?;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            address.path.push('/');
            address.path.push_str(&encode(segment, is_plain)?);
        }
        Some(Self { query, ..address })
    }

    /// Reads host and port.
    fn under(security: Security, authority: &str) -> Option<Self> {
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (inner, port) = rest.split_once(']')?;
                inner.parse::<Ipv6Addr>().ok()?;
                (authority.get(..inner.len() + 2)?, Some(port).filter(|port| !port.is_empty()))
            }
            None => match authority.find(':') {
                Some(colon) => (authority.get(..colon)?, authority.get(colon..)),
                None => (authority, None),
            },
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !host.starts_with('[') && (host.is_empty() || !host.bytes().all(named)) {
            return None;
        }
        let port = match port {
            Some(port) => Some(parse_port(port.strip_prefix(':')?)?),
            None => None,
        };
        Some(Self { security, host: host.to_owned(), port, path: String::new(), query: None })
    }
}

impl FromStr for NodeAddress {
    type Err = AddressError;

    /// Reads an address in any form an operator may write.
    ///
    /// A multiaddr starts with a slash; what has `://` in it is a URL; all else is host and port.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let clean = text.len() <= MAX_ADDRESS_BYTES
            && text.trim() == text
            && !text.chars().any(char::is_control);
        let address = match (clean, text.split_once("://")) {
            (false, _) => None,
            (true, _) if text.starts_with('/') => multiaddr(text),
            (true, Some((scheme, rest))) => {
                // Escapes may make it longer, and whoever reads what is printed has the same bound.
                let address = WebSocketAddress::from_url(scheme, rest).map(Self::WebSocket);
                address.filter(|address| address.to_string().len() <= MAX_ADDRESS_BYTES)
            }
            (true, None) => WebSocketAddress::from_authority(text).map(Self::WebSocket),
        };
        address.ok_or_else(|| AddressError { text: text.chars().take(MAX_SHOWN_CHARS).collect() })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WebSocket(address) => fmt::Display::fmt(address, f),
            Self::Multiaddr(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for WebSocketAddress {
    /// `host:port` where that says it all, else a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = self.port.is_some() && self.path.is_empty() && self.query.is_none();
        match self.security {
            Security::Plain if bare => {}
            Security::Plain => f.write_str("http://")?,
            Security::Tls => f.write_str("https://")?,
        }
        write!(f, "{}{}", self.authority(), self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for GossipUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.security {
            Security::Plain => "ws",
            Security::Tls => "wss",
        };
        write!(f, "{scheme}://{}{}", self.authority, self.target)
    }
}

/// A text that starts with a slash, if it has the shape of a multiaddr.
fn multiaddr(text: &str) -> Option<NodeAddress> {
    let mut parts = text.strip_prefix('/')?.split('/');
    let known = MULTIADDR_STARTS.contains(&parts.next()?);
    let valued = parts.next().is_some_and(|value| !value.is_empty());
    let well_formed = known && valued && parts.all(|part| !part.is_empty());
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    (well_formed && printable).then(|| NodeAddress::Multiaddr(text.to_owned()))
}

/// A number of digits only: the parser of numbers would take a sign as well.
fn parse_port(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Returns whether a byte stands for itself in a segment of a path.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+')
        || matches!(byte, b',' | b':' | b';' | b'=' | b'@')
}

/// Percent-encodes what is not plain. What is encoded already stays; `None` for a stray percent sign.
fn encode(text: &str, plain: impl Fn(u8) -> bool) -> Option<String> {
    let mut encoded = String::new();
    for (index, part) in text.split('%').enumerate() {
        if index > 0 {
            let digits = part.get(..2)?;
            digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
            encoded.push('%');
        }
        push_encoded(&mut encoded, part, &plain);
    }
    Some(encoded)
}

/// Percent-encodes a name that is one segment of a path, percent signs included.
fn encode_segment(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    push_encoded(&mut encoded, name, is_plain);
    encoded
}

fn push_encoded(out: &mut String, text: &str, plain: impl Fn(u8) -> bool) {
    for byte in text.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn prints(text: &str, expected: &str) {
        let address: NodeAddress = text.parse().unwrap();
        assert_eq!(address.to_string(), expected);
        assert_eq!(expected.parse::<NodeAddress>(), Ok(address));
    }

    #[test]
    fn an_address_prints_as_an_operator_would_write_it() {
        prints("relay.example:4160", "relay.example:4160");
        prints("http://relay.example:4160/", "relay.example:4160");
        prints("ws://Relay.Example:4160", "Relay.Example:4160");
        prints("http://relay.example", "http://relay.example");
        prints("wss://relay.example:4160", "https://relay.example:4160");
        prints("[::1]:4160", "[::1]:4160");
        prints("[::1]", "http://[::1]");
        prints("http://h:1//a b//c/?q=1#f", "http://h:1/a%20b/c?q=1");
        prints("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1");
        // Issue 9, 13.
        prints("/p2p/12D3KooW", "/p2p/12D3KooW");
    }

    #[test]
    fn an_address_that_asks_for_tls_keeps_it() {
        for text in ["wss://relay.example/x", "https://relay.example/x"] {
            let address: NodeAddress = text.parse().unwrap();
            let url = address.gossip_url(&NetworkId::new("net").unwrap()).unwrap();
            assert_eq!(url.to_string(), "wss://relay.example/x/v1/net/gossip");
            assert_eq!(address.host_port().unwrap(), "relay.example:443");
        }
    }

    #[test]
    fn a_network_name_is_one_segment_of_the_path() {
        let address = WebSocketAddress::from_authority("h:1").unwrap();
        assert_eq!(address.gossip_url("a?b%/c").target, "/v1/a%3Fb%25%2Fc/gossip");
    }

    #[test]
    fn a_text_that_cannot_be_dialled_is_no_address() {
        let bad = [
            "host",
            "host:",
            "host:+1",
            "host:65536",
            "::1:4160",
            "[::1",
            "[::1]x:1",
            "[host]:1",
            "http://user:pw@host:1",
            "http://host:1/%zz",
            "http://host:1?%2",
            "ftp://host:1",
            "naïve:1",
            "/",
            "/ip4",
            "/p2p",
            "/ip4//tcp",
            "/ip4/1.2.3.4/",
            "//host:1",
        ];
        for text in bad {
            assert!(text.parse::<NodeAddress>().is_err(), "{text:?}");
        }
        // Found by fuzzing: each of these bytes is printed as three.
        let escaped = format!("http://h:1/{}", "^".repeat(200));
        assert!(escaped.parse::<NodeAddress>().is_err());
        let error = "x".repeat(5000).parse::<NodeAddress>().unwrap_err();
        assert_eq!(error.text.len(), MAX_SHOWN_CHARS);
    }

    proptest! {
        #[test]
        fn a_printed_address_parses_to_the_same_address(
            text in "(http://|https://|ws://|wss://|)[a-zA-Z0-9._-]{1,9}(:[0-9]{1,5}|)(/[ -~é]{0,9}|)"
        ) {
            if let Ok(address) = text.parse::<NodeAddress>() {
                prop_assert_eq!(address.to_string().parse::<NodeAddress>(), Ok(address));
            }
        }

        #[test]
        fn no_text_causes_a_panic(text: String, tail in "[]/:%@?#\\[ a0]{0,20}") {
            let _: Result<_, _> = text.parse::<NodeAddress>();
            let _: Result<_, _> = tail.parse::<NodeAddress>();
            let _: Result<_, _> = format!("http://{tail}").parse::<NodeAddress>();
            let _: Result<_, _> = format!("/ip4/{text}").parse::<NodeAddress>();
        }
    }
}
