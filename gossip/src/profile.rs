//! A network's names and numbers. Two profiles, one protocol.
//!
//! [`NetworkProfile::ALGORAND`] speaks to existing Algorand nodes byte for byte;
//! [`NetworkProfile::TANDEM`] is the same protocol under its own names, for a network of one's own.

use crate::tag::{Compression, Forwarding, Lane, Route, Tag, TagRule, TagTable};

/// Largest message, tag included, in bytes: 6 MiB.
///
/// Source: wire facts 1.7 and 8.5, the read limit of every existing node on both transports.
pub const MAX_MESSAGE_BYTES: usize = 6 * 1024 * 1024;

/// Largest GossipSub message, in bytes, protobuf framing included.
///
/// Source: wire facts 8.6. Existing nodes drop anything larger without an error.
pub const MAX_TOPIC_BYTES: usize = 1024 * 1024;

/// When a node takes part in the identity exchange over WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityRule {
    /// On every connection.
    Always,
    /// Only where the node has a name to be recognised by: a public address, or a libp2p identity.
    /// Source: wire facts 6.1.
    WhenNamed,
}

/// Which of two links to the same identity is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRule {
    /// Both ends compute the same winner from what both know of the links.
    Ranked,
    /// The link verified first stays. Source: wire facts 6.3, how existing nodes decide.
    FirstVerified,
}

/// How many requests a stream of a libp2p connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamUse {
    /// One after the other, for as long as both ends like.
    KeptAlive,
    /// One. Source: wire facts 9.1.
    OneRequest,
}

/// How the names of headers are spelled in answers over HTTP. Readers have to take either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderCase {
    /// `Content-Type`, as existing nodes write them.
    Canonical,
    /// `content-type`, which costs nothing to write.
    Lower,
}

/// The names and numbers of a network protocol. Data only: no code may ask which profile it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkProfile {
    /// Name of the profile in configuration.
    pub name: &'static str,
    /// What every header of the handshake starts with, in canonical spelling, e.g. `X-Algorand-`.
    pub header_prefix: &'static str,
    /// The protocol version announced and required, `major.minor`.
    pub version: &'static str,
    /// Gossip stream protocols of libp2p with the header handshake.
    pub stream_protocol: &'static str,
    /// The older stream protocol with the one-byte handshake, where a network has one.
    pub legacy_stream_protocol: Option<&'static str>,
    /// Protocol of the second gossip stream, for bulk, where the network has one. It is opened only
    /// to peers that list it, since a second stream makes other nodes drop the connection.
    pub bulk_stream_protocol: Option<&'static str>,
    /// Stream protocol of HTTP/1.1. Source: wire facts 9.1.
    pub http_protocol: &'static str,
    /// The service's name in the document of `/.well-known/libp2p/protocols`.
    pub http_service: &'static str,
    /// How many requests one of its streams carries.
    pub http_streams: StreamUse,
    /// How the names of headers are spelled in answers over TCP.
    pub header_case: HeaderCase,
    /// When the identity exchange takes part.
    pub identity: IdentityRule,
    /// Which of two links to one identity stays.
    pub claims: ClaimRule,
    /// Name of the key file in the data directory.
    pub key_file: &'static str,
    /// The live tags.
    pub tags: TagTable,
}

impl NetworkProfile {
    /// The protocol of existing Algorand nodes. Source: wire facts, sections 1, 2, 6 and 8.
    pub const ALGORAND: Self = Self {
        name: "algorand",
        header_prefix: "X-Algorand-",
        version: "2.2",
        stream_protocol: "/algorand-ws/2.2.0",
        legacy_stream_protocol: Some("/algorand-ws/1.0.0"),
        bulk_stream_protocol: None,
        http_protocol: "/http/1.1",
        http_service: "/algorand-http/1.0.0",
        http_streams: StreamUse::OneRequest,
        header_case: HeaderCase::Canonical,
        identity: IdentityRule::WhenNamed,
        claims: ClaimRule::FirstVerified,
        key_file: "peerIDPrivKey.key",
        tags: TagTable::new(&tags("algotx01")),
    };

    /// The same protocol under its own names. The default.
    pub const TANDEM: Self = Self {
        name: "tandem",
        header_prefix: "X-Tandem-",
        version: "2.2",
        stream_protocol: "/tandem/gossip/1.0.0",
        legacy_stream_protocol: None,
        bulk_stream_protocol: Some("/tandem/bulk/1.0.0"),
        http_protocol: "/http/1.1",
        http_service: "/tandem-http/1.0.0",
        http_streams: StreamUse::KeptAlive,
        header_case: HeaderCase::Lower,
        identity: IdentityRule::Always,
        claims: ClaimRule::Ranked,
        key_file: "identity.pem",
        tags: TagTable::new(&tags("tandem/tx/1")),
    };

    /// Every profile, the default first.
    pub const ALL: [&'static Self; 2] = [&Self::TANDEM, &Self::ALGORAND];

    /// The profile of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }
}

/// The twelve live tags. Source: wire facts 2.1 (bounds, lanes, default send set) and 8.5 (topic).
const fn tags(tx_topic: &'static str) -> [TagRule; 12] {
    use Forwarding::{Gossip, HopLocal};
    use Lane::{Bulk, Priority};
    const fn rule(tag: Tag, lane: Lane, max_payload: usize, forwarding: Forwarding) -> TagRule {
        let (route, compression) = (Route::Streams, Compression::None);
        let sent_by_default = true;
        TagRule { tag, lane, max_payload, route, compression, forwarding, sent_by_default }
    }
    let tx = rule(Tag::TX, Bulk, 5_000_000, Gossip);
    let pp = rule(Tag::PP, Priority, 0x50_1e3a, Gossip);
    let sp = rule(Tag::SP, Bulk, 6_378, Gossip);
    [
        rule(Tag::AV, Priority, 1_228, Gossip),
        rule(Tag::MI, Priority, 48, HopLocal),
        rule(Tag::MS, Bulk, 69, HopLocal),
        rule(Tag::NI, Priority, 215, HopLocal),
        rule(Tag::NP, Priority, 850, HopLocal),
        TagRule { compression: Compression::Zstd, ..pp },
        TagRule { sent_by_default: false, ..sp },
        rule(Tag::TS, Bulk, MAX_MESSAGE_BYTES, HopLocal),
        TagRule { route: Route::Topic(tx_topic), ..tx },
        rule(Tag::UE, Bulk, 67, HopLocal),
        rule(Tag::VB, Bulk, MAX_MESSAGE_BYTES, Gossip),
        rule(Tag::VP, Priority, 1_228, HopLocal),
    ]
}
