//! Who is at the other end.

use std::{fmt, time::Instant};

/// Names one connected peer for as long as the process lives. Never reused, never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The Ed25519 public key by which a node is recognised on either transport.
///
/// Its text form is the libp2p peer ID, `12D3KooW…`. On plain WebSocket an identity tells
/// duplicates apart and grants nothing: the exchange is not bound to the channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(pub [u8; 32]);

impl Identity {
    /// What precedes the key in the bytes of a peer ID: an identity multihash of the protobuf
    /// encoding of an Ed25519 public key. Source: wire facts 8.2.
    const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

    /// The raw bytes of the peer ID.
    #[must_use]
    pub fn peer_id_bytes(&self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&Self::PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// The identity behind the raw bytes of a peer ID; `None` if it does not embed an Ed25519 key.
    #[must_use]
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&Self::PEER_ID_PREFIX)?;
        Some(Self(key.try_into().ok()?))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not the peer ID of an Ed25519 key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the peer ID of an Ed25519 key (12D3KooW…)")]
pub struct IdentityParseError {
    /// The text as given.
    pub text: String,
}

impl std::str::FromStr for Identity {
    type Err = IdentityParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || IdentityParseError { text: text.chars().take(80).collect() };
        let bytes = (text.len() <= 64)
            .then(|| bs58::decode(text).into_vec().ok())
            .flatten()
            .ok_or_else(error)?;
        Self::from_peer_id_bytes(&bytes).ok_or_else(error)
    }
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// A WebSocket over TCP.
    WebSocket,
    /// Streams of a libp2p connection.
    Libp2p,
    /// A pipe inside this process, for tests and embedders.
    Memory,
}

impl Transport {
    /// Label used in metrics and in output for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::WebSocket => "ws",
            Self::Libp2p => "p2p",
            Self::Memory => "memory",
        }
    }
}

/// Which end dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

impl Direction {
    /// Label used in metrics and in output for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Inbound => "in",
            Self::Outbound => "out",
        }
    }
}

/// A selection of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerClass {
    /// Every connected peer.
    Connected,
    /// Connected peers that we dialled.
    ConnectedOut,
    /// Connected peers that dialled us.
    ConnectedIn,
    /// Connected peers carried by one transport.
    Carried(Transport),
}

impl PeerClass {
    /// Whether a peer belongs to the class.
    #[must_use]
    pub fn includes(self, peer: &PeerInfo) -> bool {
        match self {
            Self::Connected => true,
            Self::ConnectedOut => peer.direction == Direction::Outbound,
            Self::ConnectedIn => peer.direction == Direction::Inbound,
            Self::Carried(transport) => peer.transport == transport,
        }
    }
}

/// What is known of a connected peer. A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Name of the connection.
    pub id: LinkId,
    /// What carries it.
    pub transport: Transport,
    /// Who dialled.
    pub direction: Direction,
    /// The address dialled, or the one the peer came from. Text of the peer's may be in it: show it, never parse it.
    pub address: String,
    /// The verified identity, once there is one.
    pub identity: Option<Identity>,
    /// When the connection was attached.
    pub connected_at: Instant,
    /// Bytes that wait in this node for the peer to read them.
    pub queued_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_and_its_peer_id_are_two_forms_of_one_thing() {
        let identity = Identity([7; 32]);
        assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
        assert!(identity.to_string().starts_with("12D3KooW"));
    }

    #[test]
    fn a_peer_id_of_another_kind_of_key_is_refused() {
        for bad in ["", "12D3KooW", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "0OIl"] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
