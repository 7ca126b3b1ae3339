//! The way to a node that a multiaddr describes: host, port, and the protocols above them.
//!
//! # Invariants
//!
//! * A name stays in its route until the dial, because TLS verifies the certificate by it.
//! * Nothing that this build cannot dial or listen on becomes a route.

use std::{
    iter::Peekable,
    net::{IpAddr, SocketAddr},
};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// End of the message of every address error: the forms of address that this build dials.
#[cfg(not(feature = "websocket"))]
pub(crate) const WHAT_IS_DIALLED: &str = "this build dials /ip4, /ip6, /dns, /dns4 or /dns6, then /tcp/PORT, then /p2p/ID; or /dnsaddr/NAME/p2p/ID";
#[cfg(feature = "websocket")]
pub(crate) const WHAT_IS_DIALLED: &str = "this build dials /ip4, /ip6, /dns, /dns4 or /dns6, then /tcp/PORT, /tcp/PORT/ws \
     or /tcp/PORT/tls/ws, then /p2p/ID; or /dnsaddr/NAME/p2p/ID";

/// End of the message of every error about an address to listen on.
#[cfg(not(feature = "websocket"))]
pub(crate) const WHAT_IS_LISTENED_ON: &str = "write /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT, \
     for example /ip4/127.0.0.1/tcp/4190";
#[cfg(feature = "websocket")]
pub(crate) const WHAT_IS_LISTENED_ON: &str = "write /ip4/ADDRESS or /ip6/ADDRESS, then /tcp/PORT, /tcp/PORT/ws \
     or /tcp/PORT/tls/ws, for example /ip4/127.0.0.1/tcp/4190";

/// The address families that a name may resolve to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    Any,
}

impl Family {
    pub(crate) fn includes(self, ip: IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
            Self::Any => true,
        }
    }
}

/// The host of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Ip(IpAddr),
    Name(String, Family),
}

/// The protocols between the socket and the handshake of libp2p.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// None: the handshake is done on the TCP connection itself.
    Tcp,
    /// A WebSocket.
    #[cfg(feature = "websocket")]
    WebSocket,
    /// A WebSocket over TLS.
    #[cfg(feature = "websocket")]
    SecureWebSocket {
        /// The name in the certificate, if it is another than the host.
        sni: Option<String>,
    },
}

/// The end of a connection that an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A host, by name or number, and its port.
    Dialler,
    /// An address of this machine; port 0 lets the system choose.
    Listener,
}

/// The parts of an address before the peer ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) via: Via,
}

impl Route {
    /// Takes a route from the start of `parts`. After `None`, the next part is the first one that fits no route.
    pub(crate) fn take<'a>(
        parts: &mut Peekable<impl Iterator<Item = Protocol<'a>>>,
        end: End,
    ) -> Option<Self> {
        let host = match parts.peek()? {
            Protocol::Ip4(ip) => Host::Ip((*ip).into()),
            Protocol::Ip6(ip) => Host::Ip((*ip).into()),
            _ if end == End::Listener => return None,
            Protocol::Dns4(name) => Host::Name(name.to_string(), Family::V4),
            Protocol::Dns6(name) => Host::Name(name.to_string(), Family::V6),
            Protocol::Dns(name) => Host::Name(name.to_string(), Family::Any),
            _ => return None,
        };
        parts.next();
        let port = match parts.peek()? {
            Protocol::Tcp(0) if end == End::Dialler => return None,
            Protocol::Tcp(port) => *port,
            _ => return None,
        };
        parts.next();
        Some(Self { host, port, via: Via::take(parts)? })
    }

    /// The route of an address, whether or not a peer ID follows; `None` if there is none.
    pub(crate) fn of(address: &Multiaddr, end: End) -> Option<Self> {
        let mut parts = address.iter().peekable();
        let route = Self::take(&mut parts, end)?;
        parts.all(|part| matches!(part, Protocol::P2p(_))).then_some(route)
    }

    /// Host and port as a resolver reads them.
    pub(crate) fn host_port(&self) -> String {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).to_string(),
            Host::Name(name, _) => format!("{name}:{}", self.port),
        }
    }

    /// The families that the host may resolve to.
    pub(crate) const fn family(&self) -> Family {
        match &self.host {
            Host::Ip(_) => Family::Any,
            Host::Name(_, family) => *family,
        }
    }
}

impl Via {
    #[cfg(not(feature = "websocket"))]
    #[allow(clippy::unnecessary_wraps, reason = "another set of features has more to read")]
    fn take<'a>(_: &mut Peekable<impl Iterator<Item = Protocol<'a>>>) -> Option<Self> {
        Some(Self::Tcp)
    }

    #[cfg(feature = "websocket")]
    fn take<'a>(parts: &mut Peekable<impl Iterator<Item = Protocol<'a>>>) -> Option<Self> {
        let is_bare = |path: &str| path.is_empty() || path == "/";
        match parts.peek() {
            Some(Protocol::Ws(path)) if is_bare(path) => {
                parts.next();
                Some(Self::WebSocket)
            }
            Some(Protocol::Wss(path)) if is_bare(path) => {
                parts.next();
                Some(Self::SecureWebSocket { sni: None })
            }
            Some(Protocol::Tls) => {
                parts.next();
                let sni = match parts.peek() {
                    Some(Protocol::Sni(name)) => Some(name.to_string()),
                    _ => None,
                };
                if sni.is_some() {
                    parts.next();
                }
                parts.next_if(|part| matches!(part, Protocol::Ws(path) if is_bare(path)))?;
                Some(Self::SecureWebSocket { sni })
            }
            _ => Some(Self::Tcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str, end: End) -> Option<Route> {
        Route::of(&text.parse().unwrap(), end)
    }

    #[test]
    fn a_route_is_a_host_and_a_port_and_a_transport() {
        let tcp = |host| Some(Route { host, port: 80, via: Via::Tcp });
        let name = |family| Host::Name("localhost".to_owned(), family);
        for (text, expected) in [
            ("/dns4/localhost/tcp/80", tcp(name(Family::V4))),
            ("/dns6/localhost/tcp/80", tcp(name(Family::V6))),
            ("/dns/localhost/tcp/80", tcp(name(Family::Any))),
            ("/ip4/127.0.0.1/tcp/80", tcp(Host::Ip([127, 0, 0, 1].into()))),
            ("/dns4/localhost/udp/80", None),
            ("/memory/1", None),
            ("/ip4/127.0.0.1/tcp/0", None),
            ("/ip4/127.0.0.1/tcp/80/tls", None),
            ("/ip4/127.0.0.1/tcp/80/x-parity-ws/%2Fpath", None),
        ] {
            assert_eq!(route(text, End::Dialler), expected, "{text}");
        }
        let here = route("/ip6/::1/tcp/0", End::Listener).unwrap();
        assert_eq!(here.host_port(), "[::1]:0");
        assert_eq!(route("/dns4/localhost/tcp/80", End::Listener), None);
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn names_stay_in_the_route_of_a_secure_web_socket() {
        let via = |text: &str| route(text, End::Dialler).map(|route| route.via);
        let secure = |sni: Option<&str>| Some(Via::SecureWebSocket { sni: sni.map(str::to_owned) });
        assert_eq!(via("/ip4/127.0.0.1/tcp/80/ws"), Some(Via::WebSocket));
        assert_eq!(via("/dns4/h.example/tcp/443/wss"), secure(None));
        assert_eq!(via("/dns4/h.example/tcp/443/tls/ws"), secure(None));
        assert_eq!(via("/ip4/192.0.2.1/tcp/443/tls/sni/h.example/ws"), secure(Some("h.example")));
    }
}
