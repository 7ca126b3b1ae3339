//! The messages of the admin socket: one JSON object each.
//!
//! # Invariants
//!
//! * Fields are only ever added: programs read this.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant, SystemTime},
};

use gossip::{DialState, Inbound, PeerInfo, TopicInbound, wire::digest::Digest};
use mesh::{Ban, Record};
use serde::{Deserialize, Serialize};
use services::status::State;
use tandem::{
    DhtPeer, FoundValue, LaneTraffic, LinkTraffic, MappedPort, PeerAbout, Provider, TopicScore,
};

use super::rates::{LaneRates, PeerRates};

/// Answer to `GET /v1/node`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) network: String,
    pub(crate) profile: String,
    pub(crate) mode: String,
    pub(crate) peer_id: String,
    pub(crate) ws: Option<String>,
    pub(crate) p2p: Vec<String>,
    /// URL of the admin port.
    #[serde(default)]
    pub(crate) admin: Option<String>,
    pub(crate) peers: usize,
    pub(crate) uptime_ms: u64,
    pub(crate) lines_lost: LinesLost,
    pub(crate) state: State,
    /// The faults by their names.
    pub(crate) reasons: Vec<String>,
    /// Every peer that was configured.
    pub(crate) dials: Vec<Dial>,
    /// The ports of a router that lead to the node.
    #[serde(default)]
    pub(crate) mapped_ports: Vec<RouterPort>,
}

/// A port of a router that leads to the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouterPort {
    /// `tcp` or `udp`.
    pub(crate) transport: String,
    pub(crate) inside: String,
    pub(crate) outside: String,
    /// `nat-pmp` or `upnp`.
    pub(crate) protocol: String,
    pub(crate) gateway: String,
    /// The rest of the lease, which is asked for again when half of it is over.
    pub(crate) lifetime_ms: u64,
}

impl RouterPort {
    pub(crate) fn of(port: &MappedPort, now: Instant) -> Self {
        Self {
            transport: port.carrier.label().to_owned(),
            inside: port.inside.to_string(),
            outside: port.outside.to_string(),
            protocol: port.protocol.label().to_owned(),
            gateway: port.gateway.to_string(),
            lifetime_ms: millis(port.until.saturating_duration_since(now)),
        }
    }
}

impl fmt::Display for RouterPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, inside, outside, protocol, gateway, lifetime_ms } = self;
        let left = Duration::from_millis(*lifetime_ms).as_secs();
        write!(
            f,
            "{outside} ({transport}) leads to {inside}, by {protocol} of {gateway}, for {left} s"
        )
    }
}

/// Answer to `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    pub(crate) certificates: Certificates,
    /// Settings whose new values are in force.
    pub(crate) changed: Vec<String>,
    /// Settings whose new values are in force after a restart only.
    pub(crate) needs_restart: Vec<String>,
}

/// The outcome of reading the files of certificates again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Certificates {
    /// Others are in use from now on.
    Changed,
    /// They are what they were.
    Unchanged,
    /// The node has none.
    None,
}

impl Certificates {
    pub(crate) const fn of(reloaded: Option<bool>) -> Self {
        match reloaded {
            Some(true) => Self::Changed,
            Some(false) => Self::Unchanged,
            None => Self::None,
        }
    }
}

/// State of a configured peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dial {
    pub(crate) address: String,
    /// `pending`, `connected`, `connected_otherwise` or `failed`.
    pub(crate) outcome: String,
    /// Dials in a row that failed.
    pub(crate) failures: u64,
    /// Why the last of them did.
    pub(crate) last_error: Option<String>,
    /// In so many milliseconds it will be dialled again.
    pub(crate) next_try_ms: Option<u64>,
}

impl Dial {
    pub(crate) fn of(state: &DialState, now: Instant) -> Self {
        Self {
            address: state.address.clone(),
            outcome: state.outcome.label().to_owned(),
            failures: state.failures,
            last_error: state.last_error.clone(),
            next_try_ms: state.next_try.map(|at| millis(at.saturating_duration_since(now))),
        }
    }
}

/// Body of `POST /v1/dht/providers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Offer {
    /// The capability to announce.
    pub(crate) capability: String,
}

/// A node in the routing table of the DHT, in the answer to `GET /v1/dht/peers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableNode {
    pub(crate) peer_id: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) connected: bool,
}

impl TableNode {
    pub(crate) fn of(peer: &DhtPeer) -> Self {
        Self {
            peer_id: peer.identity.to_string(),
            addresses: peer.addresses.iter().map(ToString::to_string).collect(),
            connected: peer.connected,
        }
    }
}

/// Body of `POST /v1/dht/values`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValueToPut {
    /// The name under which the node signs it; none for a value that is found by its hash.
    pub(crate) name: Option<String>,
    /// The value in hexadecimal digits.
    pub(crate) content_hex: String,
}

/// Answer to `POST /v1/dht/values`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredValue {
    pub(crate) key: String,
    /// Other nodes that say they took it.
    pub(crate) nodes: usize,
}

/// A value of the DHT, in the answer to `GET /v1/dht/values`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundContent {
    /// The value in hexadecimal digits, without its signature.
    pub(crate) content_hex: String,
    /// The number of a signed value: the time at which it was put, in milliseconds since 1970.
    pub(crate) sequence: Option<u64>,
}

impl FoundContent {
    pub(crate) fn of(found: FoundValue) -> Self {
        Self { content_hex: hex::encode(found.content), sequence: found.sequence }
    }
}

/// A node that was found in the DHT, in the answer to `GET /v1/dht/providers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundProvider {
    pub(crate) peer_id: String,
    /// Where it may be reached; empty if nobody told.
    pub(crate) addresses: Vec<String>,
}

impl FoundProvider {
    pub(crate) fn of(provider: &Provider) -> Self {
        Self {
            peer_id: provider.identity.to_string(),
            addresses: provider.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Lines that were dropped because nobody read them, or because they could not be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinesLost {
    /// Of the log, on standard error.
    pub(crate) log: u64,
    /// Of the events, on standard output.
    pub(crate) out: u64,
}

/// Answer to `POST /v1/send`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) tag: String,
    pub(crate) bytes: usize,
    /// Hex of the digest of tag and body.
    pub(crate) digest: String,
    /// Peers that were connected.
    pub(crate) peers: usize,
    /// Peers it was sent to, over their connection or on a topic.
    pub(crate) written: usize,
    /// Peers it was meant for and not written to.
    pub(crate) given_up: usize,
}

/// A line of `GET /v1/listen`, and of `GET /v1/topics/listen` with its own kind of message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line<M> {
    /// The first line: every message from now on is told.
    Listening,
    /// A message was heard.
    Message(M),
    /// The reader fell behind, and so many messages, of all tags or topics, were left out.
    Missed {
        /// Their number.
        messages: u64,
    },
}

/// Answer to `POST /v1/topics/publish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) bytes: usize,
    /// Peers it was sent to: those that are subscribed.
    pub(crate) peers: usize,
}

/// Longest body that is shown as a text, in bytes. Chosen: a screenful.
const MAX_TEXT_BYTES: usize = 4_096;

/// A message that was heard on a topic of the node's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeardOnTopic {
    pub(crate) topic: String,
    /// Length of the body.
    pub(crate) size: usize,
    /// Peer ID of the author; proved only on a topic with signatures.
    pub(crate) author: Option<String>,
    pub(crate) sequence: Option<u64>,
    /// Peer ID of the node that passed the message on.
    pub(crate) from: Option<String>,
    /// The body, if it is a text of at most 4,096 bytes.
    pub(crate) text: Option<String>,
}

impl HeardOnTopic {
    /// The description of a message.
    pub(crate) fn of(message: &TopicInbound) -> Self {
        let text = std::str::from_utf8(&message.body).ok();
        let text = text.filter(|text| text.len() <= MAX_TEXT_BYTES);
        Self {
            topic: message.topic.to_string(),
            size: message.body.len(),
            author: message.author.map(|author| author.to_string()),
            sequence: message.sequence,
            from: message.from.map(|from| from.to_string()),
            text: text.map(str::to_owned),
        }
    }
}

/// A message that was heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heard {
    pub(crate) tag: String,
    /// Length of the body, decompressed.
    pub(crate) size: usize,
    /// Hex of the digest of tag and body.
    pub(crate) digest: String,
    /// Number of the peer it came from; none for a topic heard through a stranger.
    pub(crate) peer: Option<u64>,
    pub(crate) transport: String,
}

/// A peer, in the answer to `GET /v1/peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) peer: u64,
    pub(crate) transport: String,
    pub(crate) direction: String,
    /// `direct`, or `relayed` through a relay.
    pub(crate) path: String,
    pub(crate) address: String,
    pub(crate) peer_id: Option<String>,
    pub(crate) connected_ms: u64,
    pub(crate) queued_bytes: usize,
    /// `configured`, `relay`: the parts it plays, as far as they are known.
    pub(crate) roles: Vec<String>,
    /// Its round-trip time in microseconds, once it was measured.
    pub(crate) rtt_us: Option<u64>,
    /// Its weight, as the node's priority scheme tells; zero without one.
    pub(crate) weight: u64,
    /// Where HTTP calls reach it, if that is known.
    pub(crate) http: Option<String>,
    /// The state of the configured address that leads to it, if there is one.
    pub(crate) dial: Option<Dial>,
    /// Its score on topics, over libp2p.
    pub(crate) topic_score: Option<f64>,
    /// `true` if the score is too low for the peer to be served on topics.
    pub(crate) topic_muted: bool,
    /// Program and version as the peer says, over libp2p.
    pub(crate) agent: Option<String>,
    /// The stream protocols that it says it serves, over libp2p.
    pub(crate) protocols: Vec<String>,
    /// The address at which it says it sees this node, over libp2p.
    pub(crate) observed: Option<String>,
    pub(crate) lanes: Lanes,
    /// Messages of it, or for it, that went no further.
    pub(crate) dropped: u64,
    /// The same by reason; only those that occurred.
    pub(crate) drops: BTreeMap<String, u64>,
}

/// The lanes of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lanes {
    pub(crate) priority: Lane,
    pub(crate) bulk: Lane,
}

/// The queue of a lane, what went over it, and how much of that went in the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lane {
    pub(crate) queued_messages: usize,
    pub(crate) queued_bytes: usize,
    pub(crate) received_messages: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_messages: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_messages_per_s: f64,
    pub(crate) received_bytes_per_s: f64,
    pub(crate) sent_messages_per_s: f64,
    pub(crate) sent_bytes_per_s: f64,
}

impl Lane {
    fn of(traffic: &LaneTraffic, rates: LaneRates) -> Self {
        let [received_messages_per_s, received_bytes_per_s, sent_messages_per_s, sent_bytes_per_s] =
            rates;
        Self {
            queued_messages: traffic.queued_messages,
            queued_bytes: traffic.queued_bytes,
            received_messages: traffic.received.messages,
            received_bytes: traffic.received.bytes,
            sent_messages: traffic.sent.messages,
            sent_bytes: traffic.sent.bytes,
            received_messages_per_s,
            received_bytes_per_s,
            sent_messages_per_s,
            sent_bytes_per_s,
        }
    }
}

/// The things that are known of a peer beside its [`PeerInfo`].
#[derive(Debug, Default)]
pub(super) struct About<'a> {
    pub(super) topics: Option<TopicScore>,
    pub(super) words: Option<PeerAbout>,
    pub(super) traffic: Option<&'a LinkTraffic>,
    pub(super) rates: PeerRates,
}

/// An address of the phonebook, in the answer to `GET /v1/phonebook`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) address: String,
    /// The roles it is listed for, such as `relay` and `archival`.
    pub(crate) roles: Vec<String>,
    /// The sources that list it, such as `configuration` and `dns:example.org`.
    pub(crate) sources: Vec<String>,
    /// Identity that was last found there.
    pub(crate) peer_id: Option<String>,
    /// `true` if a link to it is up, or was when the node stopped.
    pub(crate) connected: bool,
    /// `true` if a link to it was stable once.
    pub(crate) worked: bool,
    /// Dials in a row that failed.
    pub(crate) failures: u32,
    /// Time at which a link to it was last up, in seconds of Unix time.
    pub(crate) last_seen: Option<u64>,
    /// Time before which it is not dialled, in seconds of Unix time.
    pub(crate) retry_at: Option<u64>,
    /// Round-trip time that was observed last, in microseconds.
    pub(crate) rtt_us: Option<u64>,
}

impl Entry {
    /// The description of an address.
    pub(crate) fn of(record: &Record) -> Self {
        let roles = record.listings.iter().flat_map(|(_, roles)| roles.iter());
        let roles: BTreeSet<String> = roles.map(ToString::to_string).collect();
        Self {
            address: record.address.to_string(),
            roles: roles.into_iter().collect(),
            sources: record.listings.iter().map(|(source, _)| source.to_string()).collect(),
            peer_id: record.identity.map(|identity| identity.to_string()),
            connected: record.anchor,
            worked: record.worked,
            failures: record.failures,
            last_seen: record.last_seen.map(unix),
            retry_at: record.retry_at.map(unix),
            rtt_us: record.rtt.map(micros),
        }
    }
}

/// The body of `POST /v1/phonebook`: addresses to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Additions {
    pub(crate) addresses: Vec<String>,
    pub(crate) roles: Vec<String>,
}

/// The body of `POST /v1/bans`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BanOrder {
    /// A peer ID, an IP address, a network such as `192.0.2.0/24`, or the address of a node.
    pub(crate) subject: String,
    /// The length of the ban, in seconds; a year at most counts.
    pub(crate) for_s: u64,
    /// The reason in words, for an operator to read.
    pub(crate) reason: String,
}

/// A ban, in the answer to `GET /v1/bans`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Banned {
    pub(crate) subject: String,
    /// The end of the ban, in seconds of Unix time.
    pub(crate) until: u64,
    /// `operator`, or `misbehaviour` for a peer that is not dialled and may come by itself.
    pub(crate) cause: String,
    pub(crate) reason: String,
}

impl Banned {
    /// The description of a ban.
    pub(crate) fn of(ban: &Ban) -> Self {
        Self {
            subject: ban.subject.to_string(),
            until: unix(ban.until),
            cause: ban.cause.label().to_owned(),
            reason: ban.reason.clone(),
        }
    }
}

/// The body of `POST /v1/members`: the members of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberSet {
    pub(crate) epoch: u64,
    pub(crate) members: Vec<NamedMember>,
}

/// A member in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedMember {
    pub(crate) peer_id: String,
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
}

/// Answer to `GET /v1/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembersNow {
    /// The newest epoch whose members were set.
    pub(crate) epoch: Option<u64>,
    /// Every member: those of that epoch, and of the one set before it.
    pub(crate) peer_ids: Vec<String>,
}

impl Heard {
    /// The description of a message.
    pub(crate) fn of(message: &Inbound) -> Self {
        Self {
            tag: message.tag.to_string(),
            size: message.body.len(),
            digest: Digest::of(message.tag, &message.body).to_string(),
            peer: message.from.map(|peer| peer.0),
            transport: message.transport.label().to_owned(),
        }
    }
}

impl Peer {
    /// The description of a peer.
    pub(super) fn of(peer: &PeerInfo, about: About<'_>, now: Instant) -> Self {
        let About { topics, words, traffic, rates: [priority, bulk] } = about;
        let PeerAbout { agent, protocols, observed, .. } = words.clone().unwrap_or_default();
        let drops = traffic.map(|link| link.drops.as_slice()).unwrap_or_default();
        let drops = drops.iter().map(|(reason, count)| (reason.label().to_owned(), *count));
        let drops: BTreeMap<String, u64> = drops.collect();
        let lanes = traffic.map(|link| Lanes {
            priority: Lane::of(&link.priority, priority),
            bulk: Lane::of(&link.bulk, bulk),
        });
        Self {
            peer: peer.id.0,
            transport: peer.transport.label().to_owned(),
            direction: peer.direction.label().to_owned(),
            path: peer.path.label().to_owned(),
            address: peer.address.clone(),
            peer_id: peer.identity.map(|identity| identity.to_string()),
            connected_ms: millis(now.saturating_duration_since(peer.connected_at)),
            queued_bytes: peer.queued_bytes,
            roles: peer.roles.labels().map(str::to_owned).collect(),
            rtt_us: peer.rtt.map(micros),
            weight: peer.weight,
            http: peer.http_address.as_ref().map(ToString::to_string),
            dial: peer.dial.as_ref().map(|dial| Dial::of(dial, now)),
            topic_score: topics.map(|topics| topics.score),
            topic_muted: topics.is_some_and(|topics| topics.is_muted),
            agent: words.is_some().then_some(agent),
            protocols,
            observed: words.is_some().then_some(observed),
            lanes: lanes.unwrap_or_default(),
            dropped: drops.values().sum(),
            drops,
        }
    }
}

/// A time in seconds of Unix time.
fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time in milliseconds of Unix time.
pub(super) fn unix_millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

/// Whole microseconds of a duration.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A duration as a number of milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
