//! The answers of the admin API that are made of others, and the orders it takes.
//!
//! # Invariants
//!
//! * Fields are only ever added: programs read this.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use tandem::{HttpPermits, Incident, TopicMesh};

use super::{
    journal::Noted,
    wire::{Peer, micros},
};

/// Answer to `GET /v1/peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerPage {
    /// Peers that there are, before paging.
    pub(crate) total: usize,
    /// Those of them that were left out at the beginning.
    pub(crate) offset: usize,
    /// Most peers of a page.
    pub(crate) limit: usize,
    pub(crate) peers: Vec<Peer>,
}

/// The body of `POST /v1/peers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connect {
    pub(crate) address: String,
}

/// Answer to `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventPage {
    /// Number of the newest event that there is; zero before the first.
    pub(crate) last: u64,
    /// Events that were asked for and are not kept any more.
    pub(crate) missed: u64,
    /// Readers of the stream that were dropped because they fell behind.
    pub(crate) dropped_readers: u64,
    pub(crate) events: Vec<Noted>,
}

/// Answer to `GET /v1/latency`: the messages since the node began, by the time that they took in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) priority: LaneLatency,
    pub(crate) bulk: LaneLatency,
}

/// The times of one lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneLatency {
    /// From the arrival of a message to the end of its handler, or until it was accepted where there is none.
    pub(crate) handling: Vec<Bucket>,
    /// From when a message was sent or accepted to its write to one peer.
    pub(crate) sending: Vec<Bucket>,
}

/// Messages that took at most so long, and longer than those of the bucket before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    /// In microseconds; none for all that took longer.
    pub(crate) up_to_us: Option<u64>,
    pub(crate) messages: u64,
}

impl Bucket {
    /// The buckets of a histogram.
    pub(crate) fn of(durations: &[(Duration, u64)]) -> Vec<Self> {
        let up_to = |time: Duration| (time < Duration::MAX).then(|| micros(time));
        let bucket = |(time, messages): &_| Self { up_to_us: up_to(*time), messages: *messages };
        durations.iter().map(bucket).collect()
    }
}

/// Answer to `GET /v1/links`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Links that have claimed an identity, also those that are not attached yet.
    pub(crate) claims: usize,
    pub(crate) links: Vec<LinkState>,
}

/// A link in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkState {
    /// Its number, as a peer if it is one.
    pub(crate) link: u64,
    /// `used`, or `benched` if another link to the same node is.
    pub(crate) standing: Standing,
    pub(crate) transport: String,
    pub(crate) direction: String,
    pub(crate) address: String,
    pub(crate) peer_id: Option<String>,
    /// The link by which its identity is reached.
    pub(crate) holder: Option<u64>,
    pub(crate) connected_ms: u64,
}

/// The standing of a link among those to the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    Used,
    Benched,
}

/// A topic, in the answer to `GET /v1/topics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Topic {
    /// The tag whose messages go over it; none for a topic of the node's own.
    pub(crate) tag: Option<String>,
    pub(crate) topic: String,
    /// Connected peers that are subscribed.
    pub(crate) subscribed: usize,
    /// Peer IDs of those of them in the mesh.
    pub(crate) mesh: Vec<String>,
}

impl Topic {
    pub(super) fn of(mesh: &TopicMesh) -> Self {
        Self {
            tag: mesh.tag.map(|tag| tag.to_string()),
            topic: mesh.topic.clone(),
            subscribed: mesh.subscribed,
            mesh: mesh.mesh.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Answer to `GET /v1/http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpState {
    /// Connections that have a permit.
    pub(crate) connections: usize,
    /// Connections that wait for one.
    pub(crate) connections_waiting: usize,
    /// Requests that are being answered.
    pub(crate) requests: usize,
    /// Requests that reached a service since the start.
    pub(crate) requests_total: u64,
    /// Connections and requests that ended otherwise than by an answer.
    pub(crate) incidents: BTreeMap<String, u64>,
}

impl HttpState {
    pub(super) fn of(permits: &HttpPermits) -> Self {
        let metrics = permits.metrics();
        let incidents = Incident::ALL.map(|why| (why.label().to_owned(), metrics.count(why)));
        Self {
            connections: permits.connections(),
            connections_waiting: permits.waiting(),
            requests: permits.requests(),
            requests_total: metrics.requests(),
            incidents: incidents.into_iter().collect(),
        }
    }
}

/// Answer to `GET /v1/dht`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DhtState {
    /// The part that the configuration gives the node: `off`, `client`, `server` or `auto`.
    pub(crate) part: String,
    /// Connected peers that serve the DHT, as they say.
    pub(crate) servers: usize,
}

/// Answer to `GET /v1/limits`: numbers by name, those of durations in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimitsInForce {
    /// Queues, budget and deadlines of messages.
    pub(crate) messages: BTreeMap<String, u64>,
    /// Places for connections.
    pub(crate) door: BTreeMap<String, u64>,
    /// Those of them that are taken.
    pub(crate) door_taken: BTreeMap<String, u64>,
    /// Dials.
    pub(crate) mesh: BTreeMap<String, u64>,
}

/// Answer to `GET /v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigInForce {
    pub(crate) settings: Vec<SettingInForce>,
    /// Variables of the environment that look like settings and are none.
    pub(crate) unknown: Vec<String>,
}

/// A setting and the origin of its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SettingInForce {
    pub(crate) key: String,
    /// The texts of its value: one, but for a list; none if it is not set.
    pub(crate) value: Vec<String>,
    /// `default`, a file and its line, a variable or a flag.
    pub(crate) origin: String,
}

/// Answer to `GET /v1/log`, and the body of `PUT /v1/log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogFilter {
    /// Such as `info` or `warn,tandem_net_ws=debug`.
    pub(crate) filter: String,
}

/// The body of `POST /v1/drain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainOrder {
    /// Seconds after which the node stops by itself. It goes on until it is stopped if left out.
    #[serde(default)]
    pub(crate) grace_s: Option<u64>,
}

/// Answer to `POST /v1/drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Draining {
    /// Peers that are still connected.
    pub(crate) peers: usize,
    /// Time until the node stops by itself, in milliseconds.
    pub(crate) stops_in_ms: Option<u64>,
}
