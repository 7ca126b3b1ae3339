//! Where a node can be reached: `host:port`, a URL, or a multiaddr.

use std::fmt;

/// An address of a node, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NodeAddress {
    /// The WebSocket network of a node.
    WebSocket(url::Url),
    /// A multiaddr. Only its shape is checked here; the libp2p network parses it.
    Multiaddr(String),
}

/// An address that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no address: write host:port, an http, https, ws or wss URL, or a multiaddr with /p2p/ID"
)]
pub struct AddressError {
    /// The text as given.
    pub text: String,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WebSocket(url) => write!(f, "{url}"),
            Self::Multiaddr(text) => f.write_str(text),
        }
    }
}
