//! The way of a message through a node, as the admin API tells it.
//!
//! # Invariants
//!
//! * Fields are only ever added: programs read this.

use serde::{Deserialize, Serialize};
use tandem::{Trace, TraceEvent};

use super::wire::micros;

/// Answer to `GET /v1/traces`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traces {
    /// The rate of the sample: one message in so many, zero for none.
    pub(crate) one_in: u64,
    /// The newest first.
    pub(crate) traces: Vec<Summary>,
    /// Messages that are kept and as asked for, on all pages.
    #[serde(default)]
    pub(crate) total: usize,
    /// Those that stand before this page.
    #[serde(default)]
    pub(crate) offset: usize,
}

/// The body of `POST /v1/traces/{digest}/tree`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TreeOrder {
    /// Further nodes to ask: data directories, or admin ports with their tokens.
    pub(crate) nodes: Vec<String>,
}

/// Answer to it: the way of a message through several nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tree {
    /// A line for the message, and one for each node, below the one from which it had its first copy.
    pub(crate) lines: Vec<String>,
    /// The nodes that did not tell of the message.
    pub(crate) missing: Vec<Missing>,
}

/// A node that did not tell of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    /// Its name, without a token.
    pub(crate) node: String,
    pub(crate) error: String,
}

/// A message whose way is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Hex of the digest of tag and body.
    pub(crate) digest: String,
    pub(crate) tag: String,
    /// Length of the body.
    pub(crate) bytes: usize,
    /// Time of the first step, in microseconds of Unix time.
    pub(crate) began_us: u64,
    /// Copies that came.
    pub(crate) copies: usize,
    /// Time until it was handled, in microseconds, if it was; until it was accepted, where nobody handles it.
    pub(crate) handled_us: Option<u64>,
    /// Peers that it was written to.
    pub(crate) written: usize,
    /// Times that it, or a copy of it, went no further.
    pub(crate) dropped: usize,
}

/// Answer to `GET /v1/traces/{digest}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// Peer ID of the node that answers.
    pub(crate) peer_id: String,
    pub(crate) digest: String,
    pub(crate) tag: String,
    /// Length of the body.
    pub(crate) bytes: usize,
    /// Time of the first step, in microseconds of Unix time by this node's clock.
    pub(crate) began_us: u64,
    pub(crate) steps: Vec<Step>,
    /// Steps that were not kept, because there were too many.
    pub(crate) left_out: u64,
}

/// One step of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Microseconds since the first step.
    pub(crate) after_us: u64,
    pub(crate) event: Event,
    /// Why it was dropped, if it was.
    pub(crate) reason: Option<String>,
    /// The peer that it happened with.
    pub(crate) peer: Option<StepPeer>,
}

/// A thing that happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// The application of the node sent it.
    Submitted,
    /// A copy came over a connection.
    Came,
    /// A copy came on a topic.
    Heard,
    Accepted,
    Handled,
    /// It was published on the topic of its tag.
    Published,
    /// It was queued for a peer.
    Queued,
    /// It was written to a peer's connection.
    Written,
    Dropped,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// A peer that a step names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepPeer {
    /// Its number; none for a node that passed a message on in a topic and is no gossip peer.
    pub(crate) peer: Option<u64>,
    pub(crate) peer_id: Option<String>,
    pub(crate) transport: String,
    /// Its address, while it is connected.
    pub(crate) address: Option<String>,
}

/// The body of `PUT /v1/traces`, and the answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SampleOrder {
    /// One message in so many, zero for none.
    pub(crate) one_in: u64,
}

/// The body of `POST /v1/traces`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WatchOrder {
    /// Hex of the digest of the message.
    pub(crate) digest: String,
    /// Seconds for which it is waited for, 600 if left out.
    #[serde(default = "ten_minutes")]
    pub(crate) wait_s: u64,
}

const fn ten_minutes() -> u64 {
    600
}

impl Event {
    /// The event, and why the message was dropped if it was.
    fn of(event: TraceEvent) -> (Self, Option<String>) {
        let event = match event {
            TraceEvent::Submitted => Self::Submitted,
            TraceEvent::Came => Self::Came,
            TraceEvent::Heard => Self::Heard,
            TraceEvent::Accepted => Self::Accepted,
            TraceEvent::Handled => Self::Handled,
            TraceEvent::Published => Self::Published,
            TraceEvent::Queued => Self::Queued,
            TraceEvent::Written => Self::Written,
            TraceEvent::Dropped(reason) => return (Self::Dropped, Some(reason.label().to_owned())),
            _ => Self::Other,
        };
        (event, None)
    }
}

impl Summary {
    /// The summary of a way.
    pub(super) fn of(trace: &Trace) -> Self {
        let count = |which: fn(TraceEvent) -> bool| {
            trace.steps.iter().filter(|step| which(step.event)).count()
        };
        let first = |event| trace.steps.iter().find(|step| step.event == event);
        let handled = first(TraceEvent::Handled).or_else(|| first(TraceEvent::Accepted));
        Self {
            digest: trace.digest.to_string(),
            tag: trace.tag.to_string(),
            bytes: trace.bytes,
            began_us: micros(trace.began),
            copies: count(|event| matches!(event, TraceEvent::Came | TraceEvent::Heard)),
            handled_us: handled.map(|step| micros(step.after)),
            written: count(|event| event == TraceEvent::Written),
            dropped: count(|event| matches!(event, TraceEvent::Dropped(_))),
        }
    }
}

impl Way {
    /// The way through the node with an identity, whose peers have the addresses that `address` tells.
    pub(super) fn of(
        trace: &Trace,
        peer_id: &str,
        address: impl Fn(gossip::LinkId) -> Option<String>,
    ) -> Self {
        let step = |step: &tandem::TraceStep| {
            let (event, reason) = Event::of(step.event);
            let peer = step.peer.map(|peer| StepPeer {
                peer: peer.link.map(|link| link.0),
                peer_id: peer.identity.map(|identity| identity.to_string()),
                transport: peer.transport.label().to_owned(),
                address: peer.link.and_then(&address),
            });
            Step { after_us: micros(step.after), event, reason, peer }
        };
        Self {
            peer_id: peer_id.to_owned(),
            digest: trace.digest.to_string(),
            tag: trace.tag.to_string(),
            bytes: trace.bytes,
            began_us: micros(trace.began),
            steps: trace.steps.iter().map(step).collect(),
            left_out: trace.left_out,
        }
    }
}
