//! The counters of the broadcaster. Every drop has exactly one counter, with a reason from a closed set.

mod latency;
mod votes;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use gossip::{DisconnectReason, Lane, Tag, TagTable, Transport};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use runtime::Rarely;

use self::latency::Latency;

pub(crate) use self::{latency::BatchTimes, votes::PackedSum};
pub use self::{
    latency::{Durations, LatencyStage},
    votes::{AbortedBy, VoteForm, VoteMetrics},
};

/// Why a message went no further. A closed set, so that it can label a metric.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The router's queue was full.
    IntakeFull,
    /// A peer's lane was full.
    PeerFull,
    /// The node's byte budget was used up.
    BudgetFull,
    /// The message waited longer than its lane's age limit.
    Aged,
    /// The peer left before it was written.
    PeerGone,
    /// The peer has not asked for its tag.
    NotInterested,
    /// The peer has said that it has the message.
    PeerHasIt,
    /// The message was heard before, within the window of its lane.
    Duplicate,
    /// Its tag is unknown.
    UnknownTag,
    /// The message is longer than its tag allows; refused on sending.
    Oversized,
    /// The tag has no handler, and the message is not passed on.
    Unhandled,
    /// A validator called it of no use.
    Ignored,
    /// A validator called it malformed.
    Rejected,
    /// The worker's queue was full, for a message from a topic, which cannot wait.
    WorkerFull,
    /// Its handler panicked.
    HandlerPanicked,
    /// Its handler took too long.
    HandlerTimedOut,
    /// A handler answered a message that was not a request.
    NotARequest,
    /// An answer that nobody waits for any more.
    LateAnswer,
    /// The topic could not take it.
    TopicFull,
    /// An observer did not keep up.
    ObserverLagged,
    /// Its sender has too many requests under way.
    RequestsFull,
    /// The message came faster than its sender may send in a topic, where nobody can be held back; or it was handled
    /// but not passed on, because this node passes on as much as it may, and its sender sends much.
    OverRate,
    /// A bug: reading it from a connection, or writing it to one, panicked.
    LinkPanicked,
    /// A packed vote that cannot be unpacked, or came where none is expected; or a message that its receiver would
    /// take for a packed vote.
    PackedVote,
}

impl DropReason {
    /// The number of reasons.
    pub(crate) const COUNT: usize = 24;

    const ALL: [Self; Self::COUNT] = [
        Self::IntakeFull,
        Self::PeerFull,
        Self::BudgetFull,
        Self::Aged,
        Self::PeerGone,
        Self::NotInterested,
        Self::PeerHasIt,
        Self::Duplicate,
        Self::UnknownTag,
        Self::Oversized,
        Self::Unhandled,
        Self::Ignored,
        Self::Rejected,
        Self::WorkerFull,
        Self::HandlerPanicked,
        Self::HandlerTimedOut,
        Self::NotARequest,
        Self::LateAnswer,
        Self::TopicFull,
        Self::ObserverLagged,
        Self::RequestsFull,
        Self::OverRate,
        Self::LinkPanicked,
        Self::PackedVote,
    ];

    /// Every reason, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    /// Returns the value of the `reason` label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::IntakeFull => "intake_full",
            Self::PeerFull => "peer_full",
            Self::BudgetFull => "budget_full",
            Self::Aged => "aged",
            Self::PeerGone => "peer_gone",
            Self::NotInterested => "not_interested",
            Self::PeerHasIt => "peer_has_it",
            Self::Duplicate => "duplicate",
            Self::UnknownTag => "unknown_tag",
            Self::Oversized => "oversized",
            Self::Unhandled => "unhandled",
            Self::Ignored => "ignored",
            Self::Rejected => "rejected",
            Self::WorkerFull => "worker_full",
            Self::HandlerPanicked => "handler_panicked",
            Self::HandlerTimedOut => "handler_timed_out",
            Self::NotARequest => "not_a_request",
            Self::LateAnswer => "late_answer",
            Self::TopicFull => "topic_full",
            Self::ObserverLagged => "observer_lagged",
            Self::RequestsFull => "requests_full",
            Self::OverRate => "over_rate",
            Self::LinkPanicked => "link_panicked",
            Self::PackedVote => "packed_vote",
        }
    }
}

/// A label with one of a closed set of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Label(&'static str);

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: Label,
    lane: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    reason: Label,
    transport: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    lane: Label,
    transport: Label,
}

/// Messages and bytes of one lane of one transport, resolved once so that counting is one addition.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    messages: [Counter; 2],
    bytes: [Counter; 2],
}

impl Traffic {
    pub(crate) fn count(&self, lane: Lane, bytes: usize) {
        let lane = usize::from(lane == Lane::Bulk);
        self.messages[lane].inc();
        self.bytes[lane].inc_by(bytes as u64);
    }

    /// Counts a whole batch, and returns the messages and bytes of each lane: the counters are shared by all peers, so
    /// every addition is dear.
    pub(crate) fn count_all(&self, batch: impl Iterator<Item = (Lane, usize)>) -> [(u64, u64); 2] {
        let mut sums = [(0_u64, 0_u64); 2];
        for (lane, len) in batch {
            let (messages, bytes) = &mut sums[usize::from(lane == Lane::Bulk)];
            *messages += 1;
            *bytes += len as u64;
        }
        for (lane, (messages, bytes)) in sums.into_iter().enumerate().filter(|(_, sum)| sum.0 > 0) {
            self.messages[lane].inc_by(messages);
            self.bytes[lane].inc_by(bytes);
        }
        sums
    }
}

/// The counters of the broadcaster. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    shared: Arc<Shared>,
}

impl Default for Metrics {
    fn default() -> Self {
        let drops = Family::<ReasonLabels, Counter>::default();
        let counter = |reason: DropReason, lane: Lane| {
            let labels = ReasonLabels { reason: Label(reason.label()), lane: Label(lane.label()) };
            drops.get_or_create(&labels).clone()
        };
        let drop_counters =
            DropReason::ALL.map(|reason| Lane::ALL.map(|lane| counter(reason, lane)));
        let shared = Shared {
            drops,
            drop_counters,
            ends: Family::default(),
            peers: Family::default(),
            sent: Family::default(),
            sent_bytes: Family::default(),
            received: Family::default(),
            received_bytes: Family::default(),
            handled: Family::default(),
            over_rate: Family::default(),
            stalled_seconds: Counter::default(),
            identity_contested: Counter::default(),
            traces_left_out: Counter::default(),
            latency: Latency::default(),
            votes: VoteMetrics::default(),
            lines: SendersLines::default(),
        };
        shared.show_zeros();
        Self { shared: Arc::new(shared) }
    }
}

impl Shared {
    /// Makes every counter whose labels are known, so that a collector sees it before it counts anything.
    fn show_zeros(&self) {
        for transport in [Transport::WebSocket, Transport::Libp2p] {
            let transport = Label(transport.label());
            drop(self.peers.get_or_create(&TransportLabels { transport }));
            for reason in DisconnectReason::LABELS {
                drop(self.ends.get_or_create(&EndLabels { reason: Label(reason), transport }));
            }
            for lane in Lane::ALL {
                let labels = LaneLabels { lane: Label(lane.label()), transport };
                drop(self.sent.get_or_create(&labels));
                drop(self.sent_bytes.get_or_create(&labels));
                drop(self.received.get_or_create(&labels));
                drop(self.received_bytes.get_or_create(&labels));
                drop(self.over_rate.get_or_create(&labels));
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    drops: Family<ReasonLabels, Counter>,
    /// The counters of `drops` by reason and lane, so that counting a drop is one addition.
    drop_counters: [[Counter; 2]; DropReason::ALL.len()],
    ends: Family<EndLabels, Counter>,
    peers: Family<TransportLabels, Gauge>,
    sent: Family<LaneLabels, Counter>,
    sent_bytes: Family<LaneLabels, Counter>,
    received: Family<LaneLabels, Counter>,
    received_bytes: Family<LaneLabels, Counter>,
    handled: Family<TagLabels, Counter>,
    over_rate: Family<LaneLabels, Counter>,
    stalled_seconds: Counter<f64, AtomicU64>,
    identity_contested: Counter,
    traces_left_out: Counter,
    latency: Latency,
    votes: VoteMetrics,
    lines: SendersLines,
}

/// Lines about bugs that whoever finds one can cause with each message, so that each comes rarely. What they tell
/// of is counted as a drop or an end each time.
#[derive(Debug, Default)]
pub(crate) struct SendersLines {
    /// Handlers panicked.
    pub(crate) handler_panicked: Rarely,
    /// Handlers took too long.
    pub(crate) handler_timed_out: Rarely,
    /// Validators panicked.
    pub(crate) validator_panicked: Rarely,
    /// Reading, unpacking or writing a message panicked, or the closing of a link.
    pub(crate) link_panicked: Rarely,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransportLabels {
    transport: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TagLabels {
    tag: String,
}

impl Metrics {
    /// Registers the counters, under the names and with the help texts that the docs list.
    pub fn register(&self, registry: &mut Registry) {
        let shared = &self.shared;
        registry.register("dropped", "Messages that went no further", shared.drops.clone());
        registry.register("disconnects", "Connections that ended", shared.ends.clone());
        registry.register("peers", "Connected peers", shared.peers.clone());
        registry.register("sent", "Messages written to peers", shared.sent.clone());
        registry.register("sent_bytes", "Bytes written to peers", shared.sent_bytes.clone());
        registry.register("received", "Messages read from peers", shared.received.clone());
        registry.register("received_bytes", "Bytes read from peers", shared.received_bytes.clone());
        registry.register("handled", "Messages handled, by tag", shared.handled.clone());
        let too_fast = "Messages that came faster than their sender may send them";
        let stalled = "Seconds in which this node stood still";
        registry.register("stalled_seconds", stalled, shared.stalled_seconds.clone());
        registry.register("over_rate", too_fast, shared.over_rate.clone());
        let contested = "Links that contested an identity with another session of it";
        registry.register("identity_contested", contested, shared.identity_contested.clone());
        let left_out =
            "Messages of the sample whose way was not kept, because there were too many at once";
        registry.register("traces_left_out", left_out, shared.traces_left_out.clone());
        shared.latency.register(registry);
        shared.votes.register(registry);
    }

    /// Counts a message that went no further. Transports call it for what they drop themselves.
    pub fn dropped(&self, reason: DropReason, lane: Lane) {
        self.shared.drop_counters[reason as usize][usize::from(lane == Lane::Bulk)].inc();
    }

    /// The number of messages that went no further for `reason`, both lanes together.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.shared.drop_counters[reason as usize].iter().map(Counter::get).sum()
    }

    /// The number of connections that ended for `reason`.
    #[must_use]
    pub fn disconnects(&self, reason: DisconnectReason) -> u64 {
        let of = |transport: Transport| {
            let labels =
                EndLabels { reason: Label(reason.label()), transport: Label(transport.label()) };
            self.shared.ends.get_or_create(&labels).get()
        };
        [Transport::WebSocket, Transport::Libp2p, Transport::Memory].into_iter().map(of).sum()
    }

    /// The number of messages that came over connections faster than their senders may send them.
    #[must_use]
    pub fn over_rate(&self) -> u64 {
        let of = |transport: Transport| Lane::ALL.map(|lane| (transport, lane));
        let all = [Transport::WebSocket, Transport::Libp2p, Transport::Memory];
        let counters = all.into_iter().flat_map(of);
        counters.map(|(transport, lane)| self.over_rate_of(transport, lane).get()).sum()
    }

    /// For how long this node stood still, in all: its threads were kept by somebody, the machine was
    /// busy, or the process was stopped.
    #[must_use]
    pub fn stalled(&self) -> Duration {
        Duration::from_secs_f64(self.shared.stalled_seconds.get())
    }

    /// The number of links that took an identity over from another session of it, or were refused although that one is
    /// alive. A node that restarts, or comes back on a new connection, makes one; a number that keeps growing tells of
    /// two nodes that run with one key.
    #[must_use]
    pub fn identity_contested(&self) -> u64 {
        self.shared.identity_contested.get()
    }

    /// The counters of packed votes.
    #[must_use]
    pub fn votes(&self) -> &VoteMetrics {
        &self.shared.votes
    }

    /// The number of messages that took so long for a part of their way, by powers of two of the time. The last one is of all that
    /// took longer.
    #[must_use]
    pub fn durations(&self, stage: LatencyStage, lane: Lane) -> Durations {
        self.shared.latency.durations(stage, lane)
    }

    /// The number of messages of the sample whose way was not kept, because more than 64 began in a second.
    #[must_use]
    pub fn traces_left_out(&self) -> u64 {
        self.shared.traces_left_out.get()
    }

    /// Counts a message whose way is not kept.
    pub(crate) fn trace_left_out(&self) {
        self.shared.traces_left_out.inc();
    }

    /// The times that messages take.
    pub(crate) fn latency(&self) -> &Latency {
        &self.shared.latency
    }

    /// Counts a link that contests an identity with another session.
    pub(crate) fn contested(&self) {
        self.shared.identity_contested.inc();
    }

    /// Counts time in which this node stood still.
    pub(crate) fn stood_still(&self, time: Duration) {
        self.shared.stalled_seconds.inc_by(time.as_secs_f64());
    }

    /// Counts a message that came faster than its sender may send.
    pub(crate) fn came_too_fast(&self, transport: Transport, lane: Lane) {
        self.over_rate_of(transport, lane).inc();
    }

    fn over_rate_of(&self, transport: Transport, lane: Lane) -> Counter {
        let labels = LaneLabels { lane: Label(lane.label()), transport: Label(transport.label()) };
        self.shared.over_rate.get_or_create(&labels).clone()
    }

    /// The lines that senders of messages can cause.
    pub(crate) fn lines(&self) -> &SendersLines {
        &self.shared.lines
    }

    pub(crate) fn connected(&self, transport: Transport) {
        self.peers(transport).inc();
    }

    pub(crate) fn disconnected(&self, transport: Transport, reason: DisconnectReason) {
        self.peers(transport).dec();
        let labels =
            EndLabels { reason: Label(reason.label()), transport: Label(transport.label()) };
        self.shared.ends.get_or_create(&labels).inc();
    }

    fn peers(&self, transport: Transport) -> Gauge {
        let labels = TransportLabels { transport: Label(transport.label()) };
        self.shared.peers.get_or_create(&labels).clone()
    }

    pub(crate) fn sending(&self, transport: Transport) -> Traffic {
        Self::traffic(&self.shared.sent, &self.shared.sent_bytes, transport)
    }

    pub(crate) fn receiving(&self, transport: Transport) -> Traffic {
        Self::traffic(&self.shared.received, &self.shared.received_bytes, transport)
    }

    /// Shows the counters of the tags of a network, so that a collector sees them before a message is handled.
    pub(crate) fn show_tags(&self, tags: &TagTable) {
        for rule in tags.rules() {
            drop(self.shared.handled.get_or_create(&TagLabels { tag: rule.tag.to_string() }));
        }
    }

    pub(crate) fn handled(&self, tag: Tag) {
        // Only known tags are handled, so the label is of a closed set.
        self.shared.handled.get_or_create(&TagLabels { tag: tag.to_string() }).inc();
    }

    fn traffic(
        messages: &Family<LaneLabels, Counter>,
        bytes: &Family<LaneLabels, Counter>,
        transport: Transport,
    ) -> Traffic {
        let of = |family: &Family<LaneLabels, Counter>, lane: Lane| {
            let labels =
                LaneLabels { lane: Label(lane.label()), transport: Label(transport.label()) };
            family.get_or_create(&labels).clone()
        };
        Traffic {
            messages: Lane::ALL.map(|lane| of(messages, lane)),
            bytes: Lane::ALL.map(|lane| of(bytes, lane)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let metrics = Metrics::default();
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            metrics.dropped(reason, Lane::Bulk);
            assert_eq!(metrics.drops(reason), 1, "{}", reason.label());
        }
    }
}
