//! A network's names and numbers. Two profiles, one protocol.
//!
//! [`NetworkProfile::ALGORAND`] speaks to existing Algorand nodes byte for byte;
//! [`NetworkProfile::TANDEM`] is the same protocol under its own names, for a network of one's own. A network with
//! messages of its own builds a profile with [`ProfileBuilder`].

mod builder;
mod on_topics;

pub use builder::{ProfileBuilder, ProfileError};
pub use on_topics::TagTopicError;

use crate::{
    tag::{Compression, Forwarding, Lane, Route, Tag, TagRule, TagTable},
    wire::features::{self, VoteCompression},
};

/// Largest message, tag included, in bytes: 6 MiB.
///
/// Source: wire facts 1.7 and 8.5, the read limit of every existing node on both transports.
pub const MAX_MESSAGE_BYTES: usize = 6 * 1024 * 1024;

/// Largest GossipSub message, in bytes, protobuf framing included.
///
/// Source: wire facts 8.6. Existing nodes drop anything larger without an error.
pub const MAX_TOPIC_BYTES: usize = 1024 * 1024;

/// Largest request outside the `algorand` profile, in bytes on the wire: 64 KiB.
///
/// Chosen: any topics an application may want to ask with, and few enough that sixteen waiting requests of a
/// thousand peers stay within a gigabyte.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The rule by which a node takes part in the identity exchange over WebSocket.
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

/// The number of requests that a stream of a libp2p connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamUse {
    /// One after the other, for as long as both ends like.
    KeptAlive,
    /// One. Source: wire facts 9.1.
    OneRequest,
}

/// The spelling of header names in answers over HTTP. Readers have to take either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderCase {
    /// `Content-Type`, as existing nodes write them.
    Canonical,
    /// `content-type`, which costs nothing to write.
    Lower,
}

/// The strictness with which a node reads the reply to its request for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyRule {
    /// `Upgrade` and `Connection` are lists of tokens, in any number of lines, and the head may have 8,192
    /// bytes. Source: RFC 6455, section 4.1.
    Tokens,
    /// The first line of either header counts, as a whole, and the head may have 4,096 bytes. Source: wire
    /// facts 1.3, how existing nodes read it.
    FirstLine,
}

impl ReplyRule {
    /// Longest head of a reply, in bytes: status line, headers and blank line.
    #[must_use]
    pub const fn max_head_bytes(self) -> usize {
        match self {
            Self::Tokens => 8192,
            Self::FirstLine => 4096,
        }
    }
}

/// The places of a request for a WebSocket in which a node looks for the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloPlace {
    /// The headers, as existing nodes do it. A query is not looked at.
    Headers,
    /// The headers, or, in a request without any of them, the query of the URL: pages in a browser can set no headers. The
    /// answer to such a hello is the first message.
    HeadersOrQuery {
        /// The sub-protocol that a page may ask for, which is then answered. It names the form of the hello.
        sub_protocol: &'static str,
    },
}

/// The sub-protocol of the hello in a query.
pub(crate) const SUB_PROTOCOL: &str = "tandem-gossip.1";

/// The rule by which proposals go to a peer that does not announce that it reads compressed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalRule {
    /// Compressed all the same. Source: wire facts 1.5, how existing nodes do it.
    AlwaysCompressed,
    /// As they are.
    AsAnnounced,
}

/// The freedom to carry tags on GossipSub topics that the network carries on streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicChoice {
    /// Each tag goes the way that the network has for it. Source: wire facts 8.5: existing nodes subscribe to one topic
    /// and to no other.
    Fixed,
    /// The nodes of a network may agree on other topics.
    Free,
}

/// The rule by which peers are scored on topics, beside their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicScoring {
    /// By their messages alone, as existing nodes do it. Source: wire facts 8.6, peer scoring.
    Plain,
    /// Peers of a crowded subnet count less than others, and none of them is left out for that.
    Strong,
}

/// The names under which DNS leads to the nodes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsService {
    /// The service whose SRV records name relays, below the name of a bootstrap.
    pub relays: &'static str,
    /// The service whose SRV records name archives: nodes with every block.
    pub archives: &'static str,
    /// Bootstrap of the protocol's public networks, for an operator who asks for one by its name; `None` if there
    /// are none. `<network>` stands for the name.
    pub public: Option<&'static str>,
    /// Public networks with a bootstrap of their own, by name.
    pub special: &'static [(&'static str, &'static str)],
}

/// The names and numbers of a network protocol. Data only: no code may ask which profile it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkProfile {
    /// Name of the profile in configuration.
    pub name: &'static str,
    /// The start of every header of the handshake, in canonical spelling, e.g. `X-Algorand-`.
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
    /// Number of requests that one of its streams carries.
    pub http_streams: StreamUse,
    /// Spelling of header names in answers over HTTP.
    pub header_case: HeaderCase,
    /// Strictness with which the reply to a request for a WebSocket is read.
    pub reply_rule: ReplyRule,
    /// Places in which the hello of a request for a WebSocket may stand.
    pub hello: HelloPlace,
    /// Rule by which proposals go to peers that announce nothing about compression.
    pub proposals: ProposalRule,
    /// Rule by which a node takes part in the identity exchange over WebSocket.
    pub identity: IdentityRule,
    /// Which of two links to one identity stays.
    pub claims: ClaimRule,
    /// Packing of votes where nobody sets it. Votes of other networks are not those that the packing knows.
    pub votes: VoteCompression,
    /// Name of the key file in the data directory.
    pub key_file: &'static str,
    /// Freedom to carry further tags on topics.
    pub topics: TopicChoice,
    /// Rule by which peers are scored on topics.
    pub topic_scoring: TopicScoring,
    /// Names under which DNS leads to nodes. Nobody is asked for them unless an operator says so.
    pub dns: DnsService,
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
        reply_rule: ReplyRule::FirstLine,
        hello: HelloPlace::Headers,
        proposals: ProposalRule::AlwaysCompressed,
        identity: IdentityRule::WhenNamed,
        claims: ClaimRule::FirstVerified,
        votes: VoteCompression::Stateful(features::MAX_TABLE as u32),
        key_file: "peerIDPrivKey.key",
        topics: TopicChoice::Fixed,
        topic_scoring: TopicScoring::Plain,
        // Source: wire facts 10.4.
        dns: DnsService {
            relays: "_algobootstrap._tcp",
            archives: "_archive._tcp",
            public: Some(
                "<network>.algorand.network?backup=<network>.algorand.net&dedup=<name>.algorand-<network>.(network|net)",
            ),
            special: &[
                ("devnet", "<network>.algodev.network"),
                ("betanet", "<network>.algodev.network"),
                ("alphanet", "<network>.algodev.network"),
            ],
        },
        tags: TagTable::new(&tags("algotx01", 67)),
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
        reply_rule: ReplyRule::Tokens,
        hello: HelloPlace::HeadersOrQuery { sub_protocol: SUB_PROTOCOL },
        proposals: ProposalRule::AsAnnounced,
        identity: IdentityRule::Always,
        claims: ClaimRule::Ranked,
        votes: VoteCompression::Off,
        key_file: "identity.pem",
        topics: TopicChoice::Free,
        topic_scoring: TopicScoring::Strong,
        dns: DnsService {
            relays: "_tandem._tcp",
            archives: "_tandem-archive._tcp",
            public: None,
            special: &[],
        },
        tags: TagTable::new(&tags("tandem/tx/1", MAX_REQUEST_BYTES)),
    };

    /// Every profile, the default first.
    pub const ALL: [&'static Self; 2] = [&Self::TANDEM, &Self::ALGORAND];

    /// The profile of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }
}

/// A tag of a connection itself, which is never passed on.
const fn hop_local(tag: Tag, lane: Lane, max_payload: usize) -> TagRule {
    TagRule { forwarding: Forwarding::HopLocal, ..TagRule::new(tag, lane, max_payload) }
}

/// The tags that the protocol itself uses. Source: wire facts 2.1 (bounds, lanes, default send set).
const fn protocol_tags(max_request: usize) -> [TagRule; 7] {
    use Lane::{Bulk, Priority};
    [
        hop_local(Tag::MI, Priority, 48),
        hop_local(Tag::MS, Bulk, 69),
        hop_local(Tag::NI, Priority, 215),
        hop_local(Tag::NP, Priority, 850),
        hop_local(Tag::TS, Bulk, MAX_MESSAGE_BYTES),
        hop_local(Tag::UE, Bulk, max_request),
        hop_local(Tag::VP, Priority, 1_228),
    ]
}

/// The twelve live tags. Source: wire facts 2.1 (bounds, lanes, default send set) and 8.5 (topic).
const fn tags(tx_topic: &'static str, max_request: usize) -> [TagRule; 12] {
    use Lane::{Bulk, Priority};
    let [mi, ms, ni, np, ts, ue, vp] = protocol_tags(max_request);
    let tx = TagRule::new(Tag::TX, Bulk, 5_000_000);
    let pp = TagRule::new(Tag::PP, Priority, 0x50_1e3a);
    let sp = TagRule::new(Tag::SP, Bulk, 6_378);
    [
        TagRule::new(Tag::AV, Priority, 1_228),
        mi,
        ms,
        ni,
        np,
        TagRule { compression: Compression::Zstd, ..pp },
        TagRule { sent_by_default: false, ..sp },
        ts,
        TagRule { route: Route::Topic(tx_topic), ..tx },
        ue,
        TagRule::new(Tag::VB, Bulk, MAX_MESSAGE_BYTES),
        vp,
    ]
}
