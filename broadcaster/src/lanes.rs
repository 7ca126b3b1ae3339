//! The two queues of one peer.
//!
//! ```text
//!   router ──offer──▶ [priority] ──┐
//!          ──offer──▶ [bulk]     ──┴─fill──▶ batch of the write loop
//! ```
//!
//! # Invariants
//!
//! * In each lane senders take turns, and messages of one sender leave in the order in which they entered.
//! * Priority goes first; after [`Limits::bulk_floor`] priority messages in a row one waiting bulk
//!   message goes, so that bulk cannot starve.
//! * A batch takes no further message once it holds [`Limits::batch_bytes`].
//! * A lane never holds more messages, or, one message apart, more bytes than its limits say.
//! * A full lane takes a message of one sender in the place of one of the sender that fills it.
//! * A greeting goes ahead of everything else, also of what another link left.

mod queue;

use std::sync::{Mutex, MutexGuard, PoisonError};

use gossip::{Admission, Lane};
use runtime::time::Instant;
use tokio::sync::Notify;

use self::queue::{Queue, Room};
use crate::{
    frame::Frame,
    limits::{LaneLimits, Limits},
    receipts::Receipt,
};

/// One message in a peer's queue.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) frame: Frame,
    pub(crate) receipt: Option<Receipt>,
}

/// Which lanes a write loop serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    Both,
    Only(Lane),
}

/// The queues of one peer, shared by the router and the peer's write loops.
#[derive(Debug)]
pub(crate) struct Lanes {
    state: Mutex<State>,
    /// Wakes the write loop of the lane; with one loop for both, only the first is used.
    ready: [Notify; 2],
    /// `true` if each lane has a write loop of its own.
    split: bool,
    limits: [LaneLimits; 2],
    batch_messages: usize,
    batch_bytes: usize,
    bulk_floor: u32,
}

#[derive(Debug, Default)]
struct State {
    lanes: [Queue; 2],
    /// Priority messages since the last bulk message went.
    streak: u32,
    closed: bool,
    inherited_at: Option<Instant>,
}

impl Lanes {
    /// Queues for one write loop that serves both lanes.
    pub(crate) fn shared(limits: &Limits) -> Self {
        Self {
            state: Mutex::default(),
            ready: [Notify::new(), Notify::new()],
            split: false,
            limits: [limits.peer_priority, limits.peer_bulk],
            batch_messages: limits.batch_messages,
            batch_bytes: limits.batch_bytes,
            bulk_floor: limits.bulk_floor,
        }
    }

    /// Queues for a write loop per lane.
    pub(crate) fn per_lane(limits: &Limits) -> Self {
        Self { split: true, ..Self::shared(limits) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while it holds the lock, and a queue is whole between any two lines.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, lane: Lane) -> &Notify {
        &self.ready[if self.split { lane.index() } else { 0 }]
    }

    /// Queues a message that belongs to the start of the link, whatever the limits say.
    pub(crate) fn greet(&self, frame: Frame) {
        let lane = frame.lane();
        {
            let mut state = self.lock();
            state.lanes[lane.index()].greet(Queued { frame, receipt: None });
        }
        self.notify(lane).notify_one();
    }

    /// Queues a message of the greeting in place of an earlier one with its tag that still waits: there is one at most.
    pub(crate) fn renew(&self, frame: Frame) {
        let lane = frame.lane();
        let earlier = {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            state.lanes[lane.index()].renew(Queued { frame, receipt: None })
        };
        self.notify(lane).notify_one();
        // Not under the lock: dropping a message may run other code.
        drop(earlier);
    }

    /// Queues a message of the link itself ahead of all others of its lane, whatever the limits say.
    pub(crate) fn urge(&self, frame: Frame) {
        let lane = frame.lane();
        {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            state.lanes[lane.index()].urge(Queued { frame, receipt: None });
        }
        self.notify(lane).notify_one();
    }

    /// Queues one message. Never waits.
    pub(crate) fn offer(&self, message: Queued) -> Admission {
        let mut admission = Admission::Closed;
        // Closed is in the admission; the message itself is of no further use.
        let _ = self.offer_all(std::iter::once(message), |_, outcome| admission = outcome);
        admission
    }

    /// Queues many messages under one lock, and says of each what became of it. Gives back those that
    /// came too late because the queues are closed.
    pub(crate) fn offer_all(
        &self,
        messages: impl Iterator<Item = Queued>,
        mut outcome: impl FnMut(&Frame, Admission),
    ) -> Vec<Queued> {
        let mut woken = [false; 2];
        // Kept until the lock is released: dropping a refused message may run other code.
        let (mut refused, mut late) = (Vec::new(), Vec::new());
        {
            let mut state = self.lock();
            for message in messages {
                let lane = message.frame.lane().index();
                let limits = self.limits[lane];
                let is_closed = state.closed;
                let queue = &mut state.lanes[lane];
                let admission = if is_closed {
                    Admission::Closed
                } else if queue.make_room(&message.frame, limits, |displaced| {
                    outcome(&displaced.frame, Admission::Full);
                    refused.push(displaced);
                }) {
                    Admission::Queued
                } else {
                    Admission::Full
                };
                outcome(&message.frame, admission);
                match admission {
                    Admission::Queued => {
                        woken[lane] |= queue.is_empty();
                        queue.push(message);
                    }
                    Admission::Full => refused.push(message),
                    Admission::Closed => late.push(message),
                }
            }
        }
        for lane in Lane::ALL {
            if woken[lane.index()] {
                self.notify(lane).notify_one();
            }
        }
        late
    }

    /// Waits until a lane that `serves` names holds a message, or the queues are closed.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub(crate) async fn ready(&self, serves: Serves) {
        let notify = match serves {
            Serves::Both => self.notify(Lane::Priority),
            Serves::Only(lane) => self.notify(lane),
        };
        loop {
            {
                let state = self.lock();
                let waiting = |lane: Lane| !state.lanes[lane.index()].is_empty();
                let any = match serves {
                    Serves::Both => Lane::ALL.into_iter().any(waiting),
                    Serves::Only(lane) => waiting(lane),
                };
                if any || state.closed {
                    return;
                }
            }
            notify.notified().await;
        }
    }

    /// Adds waiting messages to `batch`, which is empty, as many as one write takes.
    pub(crate) fn fill(&self, serves: Serves, batch: &mut Vec<Queued>) {
        let mut room = Room::new(self.batch_messages, self.batch_bytes);
        let mut state = self.lock();
        loop {
            let (lane, run) = match serves {
                Serves::Only(lane) => (lane.index(), usize::MAX),
                Serves::Both => state.turn(self.bulk_floor),
            };
            if state.take_many(lane, run, &mut room, batch) == 0 {
                return;
            }
        }
    }

    /// Takes out what waits, in the order it would have gone, and stays open.
    pub(crate) fn drain(&self) -> Vec<Queued> {
        self.lock().drain()
    }

    /// Closes the queues and takes out what waits, in the order it would have gone. Later offers are
    /// [`Admission::Closed`].
    pub(crate) fn close(&self) -> Vec<Queued> {
        let left = {
            let mut state = self.lock();
            state.closed = true;
            state.drain()
        };
        for notify in &self.ready {
            notify.notify_one();
        }
        left
    }

    /// Puts messages of another link to the same peer ahead of what waits here, and says of each that
    /// was not taken why. The bounds hold.
    pub(crate) fn inherit(
        &self,
        messages: Vec<Queued>,
        mut outcome: impl FnMut(&Frame, Admission),
    ) {
        if messages.is_empty() {
            return;
        }
        let mut refused = Vec::new();
        {
            let mut state = self.lock();
            state.inherited_at = Some(Instant::now());
            let (priority, bulk): (Vec<_>, Vec<_>) =
                messages.into_iter().partition(|message| message.frame.lane() == Lane::Priority);
            let admission = if state.closed { Admission::Closed } else { Admission::Full };
            for (lane, messages) in [priority, bulk].into_iter().enumerate() {
                let left = match admission {
                    Admission::Closed => messages,
                    _ => state.lanes[lane].inherit(messages, self.limits[lane]),
                };
                left.iter().for_each(|message| outcome(&message.frame, admission));
                refused.extend(left);
            }
        }
        for notify in &self.ready {
            notify.notify_one();
        }
        drop(refused);
    }

    /// The time at which messages of another link were last added, which had waited there.
    pub(crate) fn inherited_at(&self) -> Option<Instant> {
        self.lock().inherited_at
    }

    /// Messages that wait and their bytes, of the priority and of the bulk lane.
    pub(crate) fn queued(&self) -> [(usize, usize); 2] {
        let state = self.lock();
        [0, 1].map(|lane| (state.lanes[lane].count(), state.lanes[lane].bytes()))
    }

    /// Bytes that wait.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().lanes.iter().map(Queue::bytes).sum()
    }
}

impl State {
    fn drain(&mut self) -> Vec<Queued> {
        let mut left = Vec::new();
        for queue in &mut self.lanes {
            left.extend(queue.drain());
        }
        left
    }

    /// Returns the index of the lane whose turn it is, and the number of its messages that may go in a row.
    fn turn(&self, bulk_floor: u32) -> (usize, usize) {
        let [priority, bulk] = &self.lanes;
        match (priority.is_empty(), bulk.is_empty()) {
            (false, true) => (0, usize::MAX),
            (true, _) => (1, usize::MAX),
            (false, false) if self.streak >= bulk_floor => (1, 1),
            (false, false) => (0, bulk_floor.abs_diff(self.streak) as usize),
        }
    }

    /// Takes the next messages of a lane, and returns their number. The streak matters only where one write loop serves
    /// both.
    fn take_many(
        &mut self,
        lane: usize,
        run: usize,
        room: &mut Room,
        batch: &mut Vec<Queued>,
    ) -> usize {
        let taken = self.lanes[lane].take_many(run, room, batch);
        self.streak = match lane {
            0 => self.streak.saturating_add(u32::try_from(taken).unwrap_or(u32::MAX)),
            _ if taken > 0 => 0,
            _ => self.streak,
        };
        taken
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use gossip::Tag;
    use proptest::prelude::*;

    use super::*;

    fn message(lane: Lane, len: usize) -> Queued {
        let tag = if lane == Lane::Priority { Tag::AV } else { Tag::TX };
        Queued { frame: Frame::control(tag, lane, &vec![0; len - Tag::BYTES]), receipt: None }
    }

    fn tags(batch: &[Queued]) -> String {
        batch
            .iter()
            .map(|message| if message.frame.lane() == Lane::Priority { 'p' } else { 'b' })
            .collect()
    }

    fn small() -> Limits {
        let lane = LaneLimits { messages: 100, bytes: 10_000 };
        Limits {
            peer_priority: lane,
            peer_bulk: lane,
            batch_messages: 8,
            batch_bytes: 100,
            bulk_floor: 3,
            ..Limits::default()
        }
    }

    #[track_caller]
    fn batches(lanes: &Lanes, expected: &[&str]) {
        for expected in expected {
            let mut batch = Vec::new();
            lanes.fill(Serves::Both, &mut batch);
            assert_eq!(tags(&batch), *expected);
        }
    }

    #[test]
    fn priority_overtakes_bulk_and_bulk_still_gets_every_fourth_place() {
        let lanes = Lanes::shared(&small());
        for _ in 0..3 {
            assert_eq!(lanes.offer(message(Lane::Bulk, 10)), Admission::Queued);
        }
        for _ in 0..7 {
            assert_eq!(lanes.offer(message(Lane::Priority, 10)), Admission::Queued);
        }
        batches(&lanes, &["pppbpppb", "pb", ""]);
    }

    #[test]
    fn a_batch_stops_at_its_bytes_and_a_long_message_goes_alone() {
        let lanes = Lanes::shared(&small());
        for len in [60, 30, 30, 500, 10] {
            assert_eq!(lanes.offer(message(Lane::Bulk, len)), Admission::Queued);
        }
        batches(&lanes, &["bb", "b", "b", "b"]);
    }

    #[test]
    fn a_lane_is_full_by_count_or_by_bytes_and_the_other_stays_open() {
        let lane = LaneLimits { messages: 2, bytes: 50 };
        let lanes = Lanes::shared(&Limits { peer_priority: lane, peer_bulk: lane, ..small() });
        assert_eq!(lanes.offer(message(Lane::Bulk, 500)), Admission::Queued, "alone it may pass");
        assert_eq!(lanes.offer(message(Lane::Bulk, 10)), Admission::Full);
        assert_eq!(lanes.offer(message(Lane::Priority, 10)), Admission::Queued);
        assert_eq!(lanes.offer(message(Lane::Priority, 10)), Admission::Queued);
        assert_eq!(lanes.offer(message(Lane::Priority, 10)), Admission::Full);
        assert_eq!(lanes.queued_bytes(), 520);
    }

    #[tokio::test]
    async fn ready_wakes_for_a_message_of_the_lane_and_for_the_end() {
        let lanes = Lanes::per_lane(&small());
        assert_eq!(lanes.offer(message(Lane::Bulk, 10)), Admission::Queued);
        assert!(lanes.ready(Serves::Only(Lane::Priority)).now_or_never().is_none());
        lanes.ready(Serves::Only(Lane::Bulk)).await;
        assert_eq!(lanes.close().len(), 1);
        lanes.ready(Serves::Only(Lane::Priority)).await;
        assert_eq!(lanes.offer(message(Lane::Bulk, 10)), Admission::Closed);
    }

    #[test]
    fn inherited_messages_go_first_in_their_own_order() {
        let lanes = Lanes::shared(&small());
        lanes.greet(message(Lane::Priority, 13).frame);
        assert_eq!(lanes.offer(message(Lane::Priority, 12)), Admission::Queued);
        let left = vec![message(Lane::Priority, 10), message(Lane::Priority, 11)];
        lanes.inherit(left, |_, admission| assert_eq!(admission, Admission::Queued));
        assert_eq!(lanes.queued_bytes(), 46);
        let mut batch = Vec::new();
        lanes.fill(Serves::Both, &mut batch);
        let lens: Vec<usize> = batch.iter().map(|queued| queued.frame.wire().len()).collect();
        assert_eq!(lens, [13, 10, 11, 12], "behind the greeting");
    }

    #[test]
    fn frames_that_cannot_be_handed_over_are_told() {
        let lane = LaneLimits { messages: 3, bytes: 1_000 };
        let lanes = Lanes::shared(&Limits { peer_priority: lane, ..small() });
        assert_eq!(lanes.offer(message(Lane::Priority, 12)), Admission::Queued);
        let inherit = |lens: &[usize]| {
            let mut refused = Vec::new();
            let left = lens.iter().map(|len| message(Lane::Priority, *len)).collect();
            lanes.inherit(left, |frame, admission| match admission {
                Admission::Queued => {}
                admission => refused.push((frame.wire().len(), admission)),
            });
            refused
        };
        assert_eq!(inherit(&[10, 11, 13]), [(13, Admission::Full)], "the newest");
        assert_eq!(lanes.close().len(), 3);
        assert_eq!(inherit(&[10]), [(10, Admission::Closed)]);
    }

    proptest! {
        #[test]
        fn every_queued_message_leaves_once_and_in_order(
            offers in prop::collection::vec((any::<bool>(), 2_usize..300), 0..200)
        ) {
            let lanes = Lanes::shared(&small());
            let mut expected = [Vec::new(), Vec::new()];
            for (bulk, len) in offers {
                let lane = if bulk { Lane::Bulk } else { Lane::Priority };
                if lanes.offer(message(lane, len)) == Admission::Queued {
                    expected[lane.index()].push(len);
                }
            }
            let mut got = [Vec::new(), Vec::new()];
            loop {
                let mut batch = Vec::new();
                lanes.fill(Serves::Both, &mut batch);
                if batch.is_empty() { break }
                let bytes: usize = batch.iter().map(|queued| queued.frame.wire().len()).sum();
                prop_assert!(batch.len() == 1 || bytes <= 100);
                prop_assert!(batch.len() <= 8);
                for queued in batch {
                    got[queued.frame.lane().index()].push(queued.frame.wire().len());
                }
            }
            prop_assert_eq!(got, expected);
            prop_assert_eq!(lanes.queued_bytes(), 0);
        }
    }
}
