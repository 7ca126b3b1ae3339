//! The one way in: how a message of others enters this node, whatever carried it.
//!
//! ```text
//!   read loop ──┐                                  ┌─ heard before ─▶ newcomers, or nobody
//!               ├─▶ unpack ─▶ room in the share ─▶ duplicate filter
//!   topic     ──┘   of its sender                  └─ new ─▶ share of a worker, or passed on at once
//! ```
//!
//! # Invariants
//!
//! * A message is handed on at most once per window of the duplicate filter, whatever carried it.
//! * A message counts as heard once there is a place for it, and nothing is waited for after that. So what
//!   a stalled peer sent is taken from another one, and what is lost before it was judged is new again.
//! * It is announced to others when it has its place, not before.
//! * A read loop waits for its place, a topic does not: nobody can be held up there. That is the only
//!   difference between them.
//! * A topic that asks about a message gets the verdict on it, whichever copy was judged.

pub(crate) mod rate;
pub(crate) mod topics;
pub(crate) mod unpack;
pub(crate) mod work;

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use gossip::{DisconnectReason, Identity, Inbound, Lane, Tag, TagRule, Transport, Validation};
use tokio::time::{self, Instant};

use crate::{
    assembler::MessageMemory,
    duplicates::{Before, Report, Seen, Sighting},
    inbound::{
        unpack::Unpacked,
        work::{HeardOn, Held, Shares, Work},
    },
    metrics::{DropReason, Metrics},
    peer::Peer,
    shared::Shared,
};

/// Where a message comes from.
#[derive(Clone)]
pub(crate) struct Source {
    /// The gossip peer, if it is one.
    pub(crate) peer: Option<Arc<Peer>>,
    /// The node that passed it on in a topic, which need not be a gossip peer.
    pub(crate) forwarder: Option<Identity>,
    pub(crate) transport: Transport,
    pub(crate) heard_on: HeardOn,
    /// The sender's shares of the queues.
    pub(crate) shares: Arc<Shares>,
}

/// A gossip message that has just come.
pub(crate) struct Arrival {
    pub(crate) rule: &'static TagRule,
    /// The whole message, tag included, if it came as one.
    pub(crate) wire: Option<Bytes>,
    /// The bytes behind the tag.
    pub(crate) payload: Bytes,
    /// The memory that the message lies in.
    pub(crate) memory: MessageMemory,
    pub(crate) source: Source,
}

/// The way in which the bringer of a message meets a full queue: a connection waits, a topic cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It waits, at most [`Limits::inbound_wait`](crate::Limits::inbound_wait) for each thing.
    Waits,
    /// It does not.
    Hurries,
}

/// Why a message was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There was no room for it; it was counted.
    NoRoom,
    /// Its sender is to be disconnected.
    End(DisconnectReason),
}

impl Patience {
    /// Waits for what a message needs to go on. If it gets nothing, or nobody waits any more, the message
    /// is counted as lost.
    pub(crate) async fn wait<T>(
        self,
        shared: &Shared,
        lane: Lane,
        lost: DropReason,
        wait: impl Future<Output = T>,
    ) -> Result<T, Refusal> {
        let mut lost = Lost { metrics: &shared.metrics, lane, reason: Some(lost) };
        let got = match self {
            Self::Hurries => wait.now_or_never().ok_or(Refusal::NoRoom)?,
            Self::Waits => time::timeout(shared.limits.inbound_wait, wait)
                .await
                .map_err(|_elapsed| Refusal::End(DisconnectReason::Stalled))?,
        };
        lost.reason = None;
        Ok(got)
    }
}

/// Counts a message that is lost while it waits.
struct Lost<'a> {
    metrics: &'a Metrics,
    lane: Lane,
    reason: Option<DropReason>,
}

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            self.metrics.dropped(reason, self.lane);
        }
    }
}

/// Takes a message in. A `report` that is left was not answered: the message was refused.
///
/// # Cancel safety
///
/// Dropped, it leaves no trace of the message but its count.
pub(crate) async fn take_in(
    shared: &Arc<Shared>,
    arrival: Arrival,
    patience: Patience,
    report: &mut Option<Report>,
) -> Result<(), Refusal> {
    let (rule, lane) = (arrival.rule, arrival.rule.lane);
    let unpacked = shared.unpacker.unpack(shared, rule, &arrival.payload, patience).await?;
    let message = unpacked.fingerprint;
    if unpacked.gained > 0 {
        let rate = shared.limits.rates.unpacked_bytes;
        arrival.source.shares.charge(unpacked.gained, rate).map_err(Refusal::End)?;
    }
    let shares = Arc::clone(&arrival.source.shares);
    let is_awaited = shared.application.awaits(rule.tag);
    let has_room =
        if is_awaited { shares.work(lane).has_room() } else { shares.intake(lane).has_room() };
    if unpacked.body.is_none() || !has_room {
        // A copy needs no place.
        if let Some(before) = shared.duplicates.meet(lane, message, Instant::now(), report) {
            heard_before(shared, lane, before, report, || arrival.work(unpacked, None));
            return Ok(());
        }
    }
    if !has_room {
        let room = async {
            if is_awaited {
                shares.work(lane).room().await
            } else {
                shares.intake(lane).room().await
            }
        };
        patience.wait(shared, lane, DropReason::WorkerFull, room).await?;
    }
    // From here on nothing is waited for.
    match shared.duplicates.sight(lane, message, Instant::now(), report) {
        Seen::First(sighting) => {
            let mut work = arrival.work(unpacked, Some(sighting));
            shared.announce(&work);
            if is_awaited {
                // Refused only when the node stops.
                let _ = shares.work(lane).push(work);
            } else {
                shared.accepted(&mut work, None);
            }
        }
        Seen::Before(before) => {
            heard_before(shared, lane, before, report, || arrival.work(unpacked, None));
        }
    }
    Ok(())
}

/// Deals with a copy of a message that was heard before, and answers the topic that asked.
fn heard_before(
    shared: &Shared,
    lane: Lane,
    before: Before,
    report: &mut Option<Report>,
    copy: impl FnOnce() -> Work,
) {
    shared.metrics.dropped(DropReason::Duplicate, lane);
    let verdict = match before {
        Before::Judged(verdict) => Some(verdict),
        Before::Owed | Before::Passed { .. } => Some(Validation::Accept),
        // The report waits for the verdict, unless too many ask already.
        Before::Pending => None,
    };
    if let Some(verdict) = verdict
        && let Some(report) = report.take()
    {
        report(verdict);
    }
    match before {
        Before::Passed { generation } => shared.forward_to_newcomers(generation, copy),
        Before::Owed => shared.forward_late(copy),
        Before::Judged(_) | Before::Pending => {}
    }
}

impl Arrival {
    fn work(self, unpacked: Unpacked, sighting: Option<Sighting>) -> Work {
        let Self { rule, wire, payload, memory, source } = self;
        let Source { peer, forwarder, transport, heard_on, shares } = source;
        let Unpacked { fingerprint, body, digest, held: _body, gained: _ } = unpacked;
        let message = Inbound {
            tag: rule.tag,
            body: body.unwrap_or_default(),
            from: peer.as_ref().map(|peer| peer.id),
            identity: forwarder.or_else(|| peer.as_ref()?.identity()),
            transport,
            received: Instant::now().into_std(),
        };
        let wire = wire.unwrap_or_else(|| {
            let mut wire = Vec::with_capacity(Tag::BYTES + payload.len());
            wire.extend_from_slice(&rule.tag.0);
            wire.extend_from_slice(&payload);
            wire.into()
        });
        Work {
            message,
            wire,
            fingerprint: Some(fingerprint),
            digest,
            lane: rule.lane,
            peer,
            _held: Held { _wire: memory, _body },
            heard_on,
            shares,
            sighting,
        }
    }
}
