//! The ways of traced messages as spans.
//!
//! ```text
//!   digest of the message ──▶ trace ID, at every node
//!   digest, peer ID of a node ──▶ span ID of the message at that node
//! ```
//!
//! # Invariants
//!
//! * The spans of a message at all nodes belong to one trace, and each is the child of that of the node from which its first copy
//!   came, without a word about it on the wire: both IDs follow from what the nodes know.
//! * A message is told once, when its steps are over as far as can be expected.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use blake3::Hasher;
use broadcaster::{Broadcaster, Trace, TraceEvent, TracePeer, TraceStep};
use gossip::{Identity, wire::digest::Digest};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::queue::Queue;

/// Interval at which the kept messages are looked at. Chosen: of the 256 that are kept none is forgotten unseen, as 64 at most
/// begin in a second.
const LOOK: Duration = Duration::from_secs(1);

/// Time after its first step at which a message is told. Chosen: copies of it have come from everywhere by then.
const SETTLED: Duration = Duration::from_secs(2);

/// Tells the messages of a node whose way is kept, until `cancel`.
pub(super) async fn tell(
    broadcaster: Broadcaster,
    local: Identity,
    queue: Queue,
    cancel: CancellationToken,
) {
    let clock = broadcaster.environment().clock();
    let (mut told, mut looks) = (HashSet::new(), time::interval(LOOK));
    while cancel.run_until_cancelled(looks.tick()).await.is_some() {
        let traces = broadcaster.tracer().traces();
        let now = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        for trace in traces.iter().filter(|trace| trace.began + SETTLED <= now) {
            if told.insert(trace.digest) {
                queue.offer(span_of(trace, &local));
            }
        }
        told.retain(|digest| traces.iter().any(|trace| trace.digest == *digest));
    }
}

/// The span of a message at the node `local`.
fn span_of(trace: &Trace, local: &Identity) -> SpanData {
    let began = SystemTime::UNIX_EPOCH + trace.began;
    let first = trace.steps.first();
    let parent = first
        .filter(|step| matches!(step.event, TraceEvent::Came | TraceEvent::Heard))
        .and_then(|step| step.peer?.identity)
        .map_or(SpanId::INVALID, |from| span_id(&trace.digest, &from));
    let is_own = first.is_some_and(|step| step.event == TraceEvent::Submitted);
    let mut events = SpanEvents::default();
    events.events = trace.steps.iter().map(|step| event(step, began)).collect();
    events.dropped_count = u32::try_from(trace.left_out).unwrap_or(u32::MAX);
    SpanData {
        span_context: SpanContext::new(
            trace_id(&trace.digest),
            span_id(&trace.digest, local),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: parent,
        parent_span_is_remote: parent != SpanId::INVALID,
        span_kind: if is_own { SpanKind::Producer } else { SpanKind::Consumer },
        name: format!("message {}", trace.tag).into(),
        start_time: began,
        end_time: began + trace.steps.last().map_or(Duration::ZERO, |step| step.after),
        attributes: vec![
            KeyValue::new("digest", trace.digest.to_string()),
            KeyValue::new("tag", trace.tag.to_string()),
            KeyValue::new("bytes", i64::try_from(trace.bytes).unwrap_or(i64::MAX)),
        ],
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("tandem").build(),
    }
}

/// A step as an event of the span.
fn event(step: &TraceStep, began: SystemTime) -> Event {
    let mut attributes = Vec::new();
    if let TraceEvent::Dropped(reason) = step.event {
        attributes.push(KeyValue::new("reason", reason.label()));
    }
    if let Some(TracePeer { link, identity, transport, .. }) = step.peer {
        attributes.push(KeyValue::new("transport", transport.label()));
        attributes.extend(identity.map(|peer| KeyValue::new("peer_id", peer.to_string())));
        let number = |link: gossip::LinkId| i64::try_from(link.0).unwrap_or(i64::MAX);
        attributes.extend(link.map(|link| KeyValue::new("peer", number(link))));
    }
    Event::new(step.event.label(), began + step.after, attributes, 0)
}

/// The trace of a message: the first bytes of its digest.
fn trace_id(digest: &Digest) -> TraceId {
    TraceId::from_bytes(first_bytes(&digest.0))
}

/// The span of a message at a node.
fn span_id(digest: &Digest, node: &Identity) -> SpanId {
    let hash = Hasher::new().update(&digest.0).update(node.to_string().as_bytes()).finalize();
    SpanId::from_bytes(first_bytes(hash.as_bytes()))
}

fn first_bytes<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|at| bytes[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    // The tree of several nodes is looked at with real ones, in `program spans::`.
    #[test]
    fn nodes_agree_about_the_ids_of_a_message() {
        let (digest, other) = (Digest([7; 32]), Digest([8; 32]));
        let [one, two] = [1, 2].map(|seed| Identity::from_ed25519([seed; 32]));
        assert_eq!(trace_id(&digest).to_string(), "07".repeat(16));
        assert_eq!(span_id(&digest, &one), span_id(&digest, &one));
        assert_ne!(span_id(&digest, &one), span_id(&digest, &two));
        assert_ne!(span_id(&digest, &one), span_id(&other, &one));
    }
}
