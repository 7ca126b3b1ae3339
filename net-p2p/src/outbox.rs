//! The way of messages into GossipSub's queues: at a pace, and charged for as long as the library keeps them.
//!
//! ```text
//!   publications ─────────────┐
//!                             ├──paced──▶ GossipSub, which copies each to the queue of every peer
//!   received and accepted ────┘                │
//!                                              └──▶ charged for as long as the library keeps it
//! ```
//!
//! The library accepts every message, drops it for peers whose queue is full, and keeps it for [`KEPT_FOR`].
//! So it is given no more than its queues take, and the memory stays charged to the node's budget until the
//! library frees it.
//!
//! # Invariants
//!
//! * Messages that GossipSub keeps are charged until it forgets them. Their charge is at most
//!   [`MAX_KEPT_BYTES`] or a quarter of the budget.
//! * At most [`BURST_MESSAGES`] and [`BURST_BYTES`] are passed to peers at once, and [`MESSAGES_PER_SECOND`] and
//!   [`BYTES_PER_SECOND`] over time, whether they are published or were received.
//! * Messages of the priority lane go before all others, where a network carries votes on topics.
//! * Peers take turns. A peer that floods leaves room for others in the queues and in the memory of GossipSub.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use broadcaster::{Bucket, Rate, Reservation};
use gossip::Lane;
use libp2p::PeerId;
use runtime::time::Instant;

use crate::{
    backlog,
    command::Verdict,
    ledger::leaves_room,
    origin::Origin,
    publications::{Publication, ToPublish},
    waiting::LaneQueues,
};

/// Time for which GossipSub keeps a message. Source: wire facts 8.6, heartbeat and history length.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(10);

/// Memory of a message besides its body, in bytes: its entries in the library's caches and in the queues of
/// peers. Chosen: three times the figure measured for one peer.
const MESSAGE_BYTES: usize = 1_024;

/// Largest charge for messages that GossipSub keeps, in bytes. Chosen: 6.4 MiB a second, several times the
/// traffic of a busy network, and less than
/// [`PEER_BYTES_PER_SECOND`](crate::topic_rates::PEER_BYTES_PER_SECOND).
pub(crate) const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;

/// Largest charge for messages that wait to be published, and for received ones that wait to be passed on, in
/// bytes. Chosen: 12,000 transactions, which are several blocks, and a sixteenth of the budget.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Messages passed to peers at once. Chosen: half the library's queue for one peer.
const BURST_MESSAGES: u64 = 4_096;

/// Messages passed to peers per second over time. Chosen: twice the rate known to do no harm.
const MESSAGES_PER_SECOND: u64 = 10_000;

/// The pace in messages: there is room for one more as long as the bucket holds less than the burst.
const MESSAGES: Rate = Rate::new(MESSAGES_PER_SECOND, BURST_MESSAGES - 1);

/// Bytes passed to peers at once, as they are charged; one message more may exceed it. Chosen: less than may wait for
/// one peer, so that no peer loses a message of a burst.
const BURST_BYTES: usize = 6 * 1024 * 1024;
const _: () = assert!(BURST_BYTES < backlog::MAX_WAITING_BYTES);

/// Bytes passed to peers per second over time. Chosen: several times the charge that GossipSub may keep, and a fraction
/// of what one connection carries.
const BYTES_PER_SECOND: u64 = 32 * 1024 * 1024;

/// The pace in bytes, as they are charged.
const BYTES: Rate = Rate::new(BYTES_PER_SECOND, BURST_BYTES as u64);

/// Origins that are tried in a row when the first one has no room. Chosen: the next message continues with the
/// others.
const TRIES: usize = 16;

/// Time after which a message is looked for again while there is none with room. Chosen: no delay that matters.
const RETRY: Duration = Duration::from_millis(5);

/// The charge for a message with a body of `body_bytes`, in bytes.
pub(crate) const fn cost(body_bytes: usize) -> usize {
    body_bytes.saturating_add(MESSAGE_BYTES)
}

/// Largest charge for messages that GossipSub keeps, in a node with this budget.
pub(crate) fn max_kept_bytes(budget_bytes: usize) -> usize {
    (budget_bytes / 4).min(MAX_KEPT_BYTES)
}

/// Largest charge for messages in each of the queues in front of GossipSub, in a node with this budget.
pub(crate) fn max_waiting_bytes(budget_bytes: usize) -> usize {
    (budget_bytes / 16).min(MAX_WAITING_BYTES)
}

/// A message that may go to GossipSub's queues now.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// One to publish.
    Publish(Publication),
    /// A received one to pass on.
    PassOn(Verdict),
}

impl Outgoing {
    fn bytes(&self) -> usize {
        match self {
            Self::Publish(publication) => publication.held.bytes(),
            Self::PassOn(verdict) => verdict.held.bytes(),
        }
    }
}

/// The pace of publishing and passing on, and the charges for one swarm's GossipSub.
#[derive(Debug)]
pub(crate) struct Outbox {
    to_publish: ToPublish,
    /// Received messages that were accepted.
    to_pass_on: LaneQueues<PeerId, Verdict>,
    /// `true` if the next turn is that of the received ones.
    passes_on_next: bool,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// The part of it that each origin has.
    kept_of: HashMap<Origin, usize>,
    max_kept_bytes: usize,
    /// The messages passed to peers of late, and their bytes.
    messages: Bucket,
    bytes: Bucket,
    /// The time at which these were last looked at.
    counted: Instant,
}

#[derive(Debug)]
struct Kept {
    origin: Origin,
    until: Instant,
    bytes: usize,
    _held: Reservation,
}

impl Outbox {
    /// An outbox of what comes out of `to_publish`. `budget_bytes` is the budget of the whole node.
    pub(crate) fn new(to_publish: ToPublish, budget_bytes: usize, now: Instant) -> Self {
        Self {
            to_publish,
            to_pass_on: LaneQueues::new(max_waiting_bytes(budget_bytes)),
            passes_on_next: false,
            kept: VecDeque::new(),
            kept_bytes: 0,
            kept_of: HashMap::new(),
            max_kept_bytes: max_kept_bytes(budget_bytes),
            messages: Bucket::new(now),
            bytes: Bucket::new(now),
            counted: now,
        }
    }

    /// Adds a received message that was accepted, and returns those for which there is no room.
    pub(crate) fn pass_on(&mut self, verdict: Verdict) -> Vec<Verdict> {
        let queue = self.to_pass_on.of_mut(verdict.lane);
        queue.push(verdict.from, verdict.held.bytes(), verdict)
    }

    /// Waits for a message to publish, if none waits yet. May return without one.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub(crate) async fn came(&self) {
        self.to_publish.came().await;
    }

    /// Takes the next message; `None` if there is none, or not before [`due`](Self::due).
    pub(crate) fn next(&mut self, now: Instant) -> Option<Outgoing> {
        self.counted = now;
        if !self.pause(now).is_zero() {
            return None;
        }
        self.forget(now);
        let next = Lane::ALL.into_iter().find_map(|lane| self.next_of(lane))?;
        // The next message waits for what is beyond the burst.
        let _over = self.messages.fill(1, MESSAGES, now);
        let _over = self.bytes.fill(next.bytes() as u64, BYTES, now);
        self.passes_on_next = matches!(next, Outgoing::Publish(_));
        Some(next)
    }

    /// The time until the pace allows another message.
    fn pause(&self, now: Instant) -> Duration {
        self.messages.over(MESSAGES, now).max(self.bytes.over(BYTES, now))
    }

    fn next_of(&mut self, lane: Lane) -> Option<Outgoing> {
        if self.passes_on_next {
            self.next_received(lane).or_else(|| self.next_publication(lane))
        } else {
            self.next_publication(lane).or_else(|| self.next_received(lane))
        }
    }

    fn next_publication(&self, lane: Lane) -> Option<Outgoing> {
        let next = self.to_publish.next(lane, TRIES, |origin, bytes| self.fits(origin, bytes));
        next.map(Outgoing::Publish)
    }

    fn next_received(&mut self, lane: Lane) -> Option<Outgoing> {
        for _ in 0..self.to_pass_on.of(lane).origins().min(TRIES) {
            let (from, verdict) = self.to_pass_on.of(lane).front()?;
            if self.fits(Origin::Peer(from), verdict.held.bytes()) {
                return self.to_pass_on.of_mut(lane).pop().map(Outgoing::PassOn);
            }
            self.to_pass_on.of_mut(lane).skip();
        }
        None
    }

    /// The time at which the next message may go; `None` if none waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let published = self.to_publish.front();
        let received = Lane::ALL.iter().find_map(|lane| self.to_pass_on.of(*lane).front());
        let received = received.map(|(from, verdict)| (Origin::Peer(from), verdict.held.bytes()));
        let waiting = published.into_iter().chain(received);
        let is_full =
            waiting.map(|(origin, bytes)| !self.fits(origin, bytes)).reduce(|a, b| a && b)?;
        let turn = self.counted + self.pause(self.counted).max(MESSAGES.time_of(1));
        let room = self.kept.front().filter(|_| is_full).map(|kept| kept.until);
        // There may be room for an origin that is not the first, or that comes.
        Some(room.map_or(turn, |room| room.min(self.counted + RETRY).max(turn)))
    }

    fn forget(&mut self, now: Instant) {
        while let Some(kept) = self.kept.front().filter(|kept| kept.until <= now) {
            self.kept_bytes -= kept.bytes;
            if let Some(of_origin) = self.kept_of.get_mut(&kept.origin) {
                *of_origin -= kept.bytes;
                if *of_origin == 0 {
                    self.kept_of.remove(&kept.origin);
                }
            }
            self.kept.pop_front();
        }
    }

    /// Returns `true` if GossipSub may be given a message of this origin with a charge of `bytes`. A message larger
    /// than the whole bound has to wait until nothing is kept.
    fn fits(&self, origin: Origin, bytes: usize) -> bool {
        if self.kept.is_empty() {
            return true;
        }
        let free = self.max_kept_bytes.saturating_sub(self.kept_bytes);
        let of_origin = self.kept_of.get(&origin).copied().unwrap_or(0);
        leaves_room(origin, of_origin, bytes, free)
    }

    /// Keeps the charge until GossipSub forgets the message.
    pub(crate) fn keep(&mut self, origin: Origin, held: Reservation, now: Instant) {
        let bytes = held.bytes();
        self.kept_bytes += bytes;
        *self.kept_of.entry(origin).or_default() += bytes;
        self.kept.push_back(Kept { origin, until: now + KEPT_FOR, bytes, _held: held });
    }
}

#[cfg(test)]
mod tests {
    use broadcaster::{ByteBudget, TopicReceipt};
    use gossip::LinkId;
    use libp2p::gossipsub::{MessageAcceptance, MessageId, TopicHash};

    use super::*;
    use crate::publications::{Publications, Receipt, publications};

    const BUDGET: usize = 64 * 1024 * 1024;

    fn outbox(budget: usize, now: Instant) -> (Publications, Outbox) {
        let (publications, to_publish) = publications(max_waiting_bytes(budget));
        (publications, Outbox::new(to_publish, budget, now))
    }

    fn message(budget: &ByteBudget, origin: Origin, bytes: usize) -> Publication {
        let held = budget.try_reserve(cost(bytes), Lane::Bulk).unwrap();
        let topic = TopicHash::from_raw("t");
        let receipt = Receipt::Broadcast(TopicReceipt::unwanted());
        let (body, lane) = (vec![0; bytes].into(), Lane::Bulk);
        Publication { origin, topic, lane, body, held, receipt }
    }

    fn own(budget: &ByteBudget, bytes: usize) -> Publication {
        message(budget, Origin::Own, bytes)
    }

    fn received(budget: &ByteBudget, from: PeerId, bytes: usize) -> Verdict {
        let held = budget.try_reserve(cost(bytes), Lane::Bulk).unwrap();
        let acceptance = MessageAcceptance::Accept;
        let (message, topic) = (MessageId::new(b"m"), TopicHash::from_raw("t"));
        Verdict { message, from, acceptance, held, topic, lane: Lane::Bulk }
    }

    /// Sends every message that may be sent now, and returns their origins.
    fn send(outbox: &mut Outbox, now: Instant) -> Vec<Origin> {
        let mut sent = Vec::new();
        while let Some(next) = outbox.next(now) {
            let (origin, held) = match next {
                Outgoing::Publish(publication) => (publication.origin, publication.held),
                Outgoing::PassOn(verdict) => (Origin::Peer(verdict.from), verdict.held),
            };
            outbox.keep(origin, held, now);
            sent.push(origin);
        }
        sent
    }

    // Issue 11, 3: votes on topics waited behind the transactions of their own node.
    #[test]
    fn messages_of_the_priority_lane_go_before_all_others() {
        let (budget, now) = (ByteBudget::new(BUDGET), Instant::now());
        let (publications, mut outbox) = outbox(BUDGET, now);
        let peer = PeerId::random();
        for _ in 0..3 {
            let _ = publications.offer(own(&budget, 1));
            assert!(outbox.pass_on(received(&budget, peer, 1)).is_empty());
        }
        let vote =
            Publication { lane: Lane::Priority, ..message(&budget, Origin::Link(LinkId(7)), 1) };
        assert_eq!(publications.offer(vote), Ok(0));
        let heard = PeerId::random();
        let vote = Verdict { lane: Lane::Priority, ..received(&budget, heard, 1) };
        assert!(outbox.pass_on(vote).is_empty());
        let sent = send(&mut outbox, now);
        assert_eq!(sent[..2], [Origin::Link(LinkId(7)), Origin::Peer(heard)]);
        assert_eq!(sent.len(), 8);
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_its_pace() {
        let (budget, now) = (ByteBudget::new(4 * BUDGET), Instant::now());
        let (publications, mut outbox) = outbox(4 * BUDGET, now);
        let fit = MAX_WAITING_BYTES / cost(1);
        for _ in 0..fit {
            assert!(publications.offer(own(&budget, 1)).is_ok());
        }
        assert!(publications.offer(own(&budget, 1)).is_err(), "one too many");
        assert_eq!(send(&mut outbox, now).len(), BURST_MESSAGES as usize);
        let due = outbox.due().unwrap();
        assert!(due > now && due < now + Duration::from_millis(1));
        assert_eq!(send(&mut outbox, now + Duration::from_millis(100)).len(), 1_000);
    }

    #[test]
    fn a_kept_message_is_charged_until_gossipsub_forgets_it() {
        let (budget, start) = (ByteBudget::new(BUDGET), Instant::now());
        let (publications, mut outbox) = outbox(BUDGET, start);
        let fit = BUDGET / 4 / cost(100_000);
        let (mut now, mut sent) = (start, 0);
        for _ in 0..fit + 10 {
            assert!(publications.offer(own(&budget, 100_000)).is_ok());
            now += Duration::from_millis(4);
            sent += send(&mut outbox, now).len();
        }
        assert_eq!(sent, fit);
        assert_eq!(outbox.due(), Some(now + RETRY));
        assert_eq!(send(&mut outbox, start + KEPT_FOR), []);
        assert_eq!(budget.used(), (fit + 10) * cost(100_000));
        assert_eq!(send(&mut outbox, now + KEPT_FOR).len(), 10);
        assert_eq!(budget.used(), 10 * cost(100_000));
        assert!(outbox.due().is_none());
        assert_eq!(send(&mut outbox, now + 2 * KEPT_FOR), []);
        assert_eq!(budget.used(), 0);
    }

    // Issue 8, 22.
    #[test]
    fn large_messages_go_at_a_pace_in_bytes() {
        let (budget, start) = (ByteBudget::new(4 * BUDGET), Instant::now());
        let (publications, mut outbox) = outbox(4 * BUDGET, start);
        for _ in 0..100 {
            assert!(publications.offer(own(&budget, 100_000)).is_ok());
        }
        assert_eq!(send(&mut outbox, start).len(), BURST_BYTES / cost(100_000) + 1);
        let due = outbox.due().unwrap();
        assert!(due > start && due < start + Duration::from_millis(4), "{:?}", due - start);
        assert_eq!(send(&mut outbox, due).len(), 1, "one message at a time");
    }

    #[test]
    fn a_message_larger_than_the_bound_is_published_alone() {
        let (budget, now) = (ByteBudget::new(BUDGET), Instant::now());
        let (publications, mut outbox) = outbox(1_000_000, now);
        assert!(publications.offer(own(&budget, 900_000)).is_ok());
        assert_eq!(send(&mut outbox, now).len(), 1);
        assert!(publications.offer(own(&budget, 900_000)).is_ok());
        assert_eq!(send(&mut outbox, now).len(), 0);
        assert_eq!(send(&mut outbox, now + KEPT_FOR).len(), 1);
    }

    // Issue 8, 24: the transactions of one peer were nine tenths of all, and of others so many were lost.
    #[test]
    fn a_flood_of_one_peer_delays_and_displaces_nothing_of_another() {
        let (budget, start) = (ByteBudget::new(4 * BUDGET), Instant::now());
        let (publications, mut outbox) = outbox(4 * BUDGET, start);
        let of = |link| Origin::Link(LinkId(link));
        for ms in 0..20_000_u64 {
            let now = start + Duration::from_millis(ms);
            // 50,000 a second, and a hundred.
            for _ in 0..50 {
                // The flood loses what there is no room for.
                let _ = publications.offer(message(&budget, of(1), 10));
            }
            let is_due = ms % 10 == 0;
            if is_due {
                let offered = publications.offer(message(&budget, of(2), 300));
                assert!(offered.is_ok(), "an honest message is lost after {ms} ms");
            }
            let sent = send(&mut outbox, now);
            assert_eq!(sent.contains(&of(2)), is_due, "an honest message waits after {ms} ms");
        }
        assert!(outbox.kept_bytes <= MAX_KEPT_BYTES);
    }

    // Issue 8, 24: messages that a peer floods a topic with were passed on at once, as many as came.
    #[test]
    fn received_messages_are_paced_and_take_turns_with_published_ones() {
        let (budget, now) = (ByteBudget::new(4 * BUDGET), Instant::now());
        let (publications, mut outbox) = outbox(4 * BUDGET, now);
        let (flood, honest) = (PeerId::random(), PeerId::random());
        let mut refused = 0;
        for _ in 0..20_000 {
            refused += outbox.pass_on(received(&budget, flood, 10)).len();
        }
        assert_eq!(refused, 20_000 - MAX_WAITING_BYTES / cost(10));
        let displaced = outbox.pass_on(received(&budget, honest, 10));
        assert!(displaced.iter().all(|refused| refused.from == flood));
        for _ in 0..2 {
            assert!(publications.offer(own(&budget, 300)).is_ok());
        }
        let sent = send(&mut outbox, now);
        assert_eq!(sent.len(), BURST_MESSAGES as usize);
        let (flood, honest) = (Origin::Peer(flood), Origin::Peer(honest));
        assert_eq!(sent[..5], [Origin::Own, flood, Origin::Own, honest, flood]);
    }
}
