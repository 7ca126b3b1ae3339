//! A queue in which everybody who feeds it has a share of their own, emptied in turn.
//!
//! ```text
//!   Share A [a a a a a]──┐
//!   Share B [b]        ──┼─▶ due: A B C ─▶ one of each in turn ─▶ consumers
//!   Share C [c c]      ──┘
//! ```
//!
//! # Invariants
//!
//! * A share that is full holds up whoever feeds it, and nobody else.
//! * As long as a share holds something it gets its turn, however much the others hold.
//! * Items leave a share in the order in which they came. With one item in hand at a time, they are
//!   handled in that order too, whatever the number of consumers.
//! * When the queue is dropped or cleared, nothing is left in any share.
//! * The lock of the queue is taken before that of a share, never while one is held.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

/// The state that all consumers of a queue share.
pub(crate) struct FairQueue<T> {
    turns: Arc<Turns<T>>,
}

impl<T> Clone for FairQueue<T> {
    fn clone(&self) -> Self {
        Self { turns: Arc::clone(&self.turns) }
    }
}

struct Turns<T> {
    due: Mutex<Due<T>>,
    /// Wakes a consumer for each share that becomes due.
    ready: Notify,
    /// Largest number of items of one share that may be in hand at a time.
    at_once: usize,
}

struct Due<T> {
    shares: VecDeque<Arc<State<T>>>,
    closed: bool,
}

/// The part of a queue that belongs to one of those who feed it.
pub(crate) struct Share<T> {
    state: Arc<State<T>>,
}

impl<T> Clone for Share<T> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state) }
    }
}

struct State<T> {
    held: Mutex<Held<T>>,
    /// Most items that wait or are in hand.
    bound: usize,
    /// Most items that are in hand at a time.
    at_once: usize,
    room: Notify,
    /// Weak, so that what waits in a share does not keep its queue alive.
    turns: Weak<Turns<T>>,
}

struct Held<T> {
    waiting: VecDeque<T>,
    in_hand: usize,
    /// `true` while the share is among those that are due, or about to be.
    due: bool,
    /// `true` while a caller waits for room.
    awaited: bool,
}

/// An item that was not taken, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The share is full.
    Full,
    /// The consumers are gone, so nothing empties the queue.
    Closed,
}

/// An item in hand. The share it came from may hand out the next one once this is dropped.
pub(crate) struct InHand<T> {
    state: Arc<State<T>>,
}

/// Clears the queue when the last consumer is gone.
pub(crate) struct Consumer<T> {
    queue: FairQueue<T>,
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.queue.clear();
    }
}

fn lock<S>(mutex: &Mutex<S>) -> MutexGuard<'_, S> {
    // No code of others runs under these locks, and what they guard is whole between any two lines.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> FairQueue<T> {
    /// A queue that hands out `at_once` items of one share at a time.
    pub(crate) fn new(at_once: usize) -> Self {
        let due = Due { shares: VecDeque::new(), closed: false };
        Self { turns: Arc::new(Turns { due: Mutex::new(due), ready: Notify::new(), at_once }) }
    }

    /// A share for somebody who may have `bound` items waiting or in hand.
    pub(crate) fn share(&self, bound: usize) -> Share<T> {
        let held = Held { waiting: VecDeque::new(), in_hand: 0, due: false, awaited: false };
        let (held, room, at_once) = (Mutex::new(held), Notify::new(), self.turns.at_once);
        let turns = Arc::downgrade(&self.turns);
        Share { state: Arc::new(State { held, bound, at_once, room, turns }) }
    }

    /// Held by all consumers together; the last one to go closes the queue.
    pub(crate) fn consumer(&self) -> Arc<Consumer<T>> {
        Arc::new(Consumer { queue: self.clone() })
    }

    /// Waits for the next item; `None` once the queue is closed and empty.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken before the future resolves.
    pub(crate) async fn next(&self) -> Option<(T, InHand<T>)> {
        loop {
            let ready = self.turns.ready.notified();
            tokio::pin!(ready);
            // Registered before the attempt, so that what becomes due in between is not missed.
            ready.as_mut().enable();
            if let Some(next) = self.try_next() {
                return Some(next);
            }
            if lock(&self.turns.due).closed {
                // The others that wait learn it too.
                self.turns.ready.notify_one();
                return None;
            }
            ready.await;
        }
    }

    fn try_next(&self) -> Option<(T, InHand<T>)> {
        loop {
            let state = lock(&self.turns.due).shares.pop_front()?;
            let (item, goes_on) = {
                let mut held = lock(&state.held);
                held.due = false;
                let item = held.waiting.pop_front();
                if item.is_some() {
                    held.in_hand += 1;
                }
                held.due = !held.waiting.is_empty() && held.in_hand < state.at_once;
                (item, held.due)
            };
            if goes_on {
                self.turns.make_due(&state);
            }
            if let Some(item) = item {
                return Some((item, InHand { state }));
            }
        }
    }

    /// Waits until something is due, or the queue is closed.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub(crate) async fn ready(&self) {
        loop {
            let ready = self.turns.ready.notified();
            tokio::pin!(ready);
            ready.as_mut().enable();
            {
                let due = lock(&self.turns.due);
                if due.closed || !due.shares.is_empty() {
                    return;
                }
            }
            ready.await;
        }
    }

    /// Moves at most `most` items to `items`, as many of each share as of the others if there are more.
    /// They are not in hand: whoever takes them is done with them at once.
    pub(crate) fn take_many(&self, most: usize, items: &mut Vec<T>) {
        let mut due = lock(&self.turns.due);
        let count = due.shares.len();
        let of_each = (most / count.max(1)).max(1);
        for _ in 0..count {
            if items.len() >= most {
                return;
            }
            let Some(state) = due.shares.pop_front() else { return };
            let goes_on = {
                let mut held = lock(&state.held);
                let take = of_each.min(held.waiting.len()).min(most - items.len());
                items.extend(held.waiting.drain(..take));
                held.due = !held.waiting.is_empty();
                if held.frees_room(state.bound) {
                    state.room.notify_waiters();
                }
                held.due
            };
            if goes_on {
                due.shares.push_back(state);
            }
        }
    }

    /// Takes nothing more from anybody. What is there can still be taken out.
    pub(crate) fn close(&self) {
        lock(&self.turns.due).closed = true;
        self.turns.ready.notify_waiters();
        self.turns.ready.notify_one();
    }

    /// Closes the queue and drops what is in it.
    fn clear(&self) {
        self.close();
        loop {
            // Dropped item by item, under no lock: what an item does then is its own affair.
            let Some(state) = lock(&self.turns.due).shares.pop_front() else { return };
            state.empty();
        }
    }
}

impl<T> Turns<T> {
    /// Puts a share in the line; false if the queue is closed.
    fn make_due(&self, state: &Arc<State<T>>) -> bool {
        {
            let mut due = lock(&self.due);
            if due.closed {
                return false;
            }
            due.shares.push_back(Arc::clone(state));
        }
        self.ready.notify_one();
        true
    }
}

impl<T> State<T> {
    /// Drops what waits, and lets go of whoever waits for room: there is no use in waiting.
    fn empty(&self) {
        let waiting = {
            let mut held = lock(&self.held);
            held.due = false;
            std::mem::take(&mut held.waiting)
        };
        drop(waiting);
        self.room.notify_waiters();
    }
}

impl<T> Held<T> {
    fn count(&self) -> usize {
        self.waiting.len() + self.in_hand
    }

    /// Returns `true` if a caller that waits for room is to go on. Only once a quarter is free: waking one
    /// for each item would cost more than the item.
    fn frees_room(&mut self, bound: usize) -> bool {
        let enough = self.awaited && self.count() + bound / 4 < bound;
        if enough {
            self.awaited = false;
        }
        enough
    }
}

impl<T> Share<T> {
    /// Returns `true` if one more item fits.
    pub(crate) fn has_room(&self) -> bool {
        lock(&self.state.held).count() < self.state.bound
    }

    /// Returns `true` if nothing waits or is in hand.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.state.held).count() == 0
    }

    /// Waits until one more item may come, or the queue is closed. As nothing is kept free, the item
    /// has to follow before anything else is waited for.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub(crate) async fn room(&self) {
        loop {
            let room = self.state.room.notified();
            tokio::pin!(room);
            // Registered before the look, so that room made in between is not missed.
            room.as_mut().enable();
            if self.is_closed() {
                return;
            }
            {
                let mut held = lock(&self.state.held);
                if held.count() < self.state.bound {
                    return;
                }
                held.awaited = true;
            }
            room.await;
        }
    }

    /// Must not be called with the share's lock held.
    fn is_closed(&self) -> bool {
        self.state.turns.upgrade().is_none_or(|turns| lock(&turns.due).closed)
    }

    /// Adds the item for which [`Share::room`] was waited for. Where several do that for one share, it
    /// may hold one item more than its bound for each of them.
    pub(crate) fn push(&self, item: T) -> Result<(), Refused> {
        self.add(usize::MAX, || item)
    }

    /// Makes an item and adds it if there is room for it.
    ///
    /// `make` runs under the lock of the share, so that what it does is undone by nobody: it must be
    /// short.
    pub(crate) fn try_push_with(&self, make: impl FnOnce() -> T) -> Result<(), Refused> {
        self.add(self.state.bound, make)
    }

    fn add(&self, bound: usize, make: impl FnOnce() -> T) -> Result<(), Refused> {
        let becomes_due = {
            let mut held = lock(&self.state.held);
            if held.count() < bound {
                held.waiting.push_back(make());
                let becomes_due = !held.due && held.in_hand < self.state.at_once;
                held.due |= becomes_due;
                Some(becomes_due)
            } else {
                None
            }
        };
        let Some(becomes_due) = becomes_due else {
            return Err(if self.is_closed() { Refused::Closed } else { Refused::Full });
        };
        if becomes_due {
            let turns = self.state.turns.upgrade();
            if !turns.is_some_and(|turns| turns.make_due(&self.state)) {
                self.state.empty();
                return Err(Refused::Closed);
            }
        }
        Ok(())
    }
}

impl<T> Drop for InHand<T> {
    fn drop(&mut self) {
        let state = &self.state;
        let becomes_due = {
            let mut held = lock(&state.held);
            held.in_hand -= 1;
            if held.frees_room(state.bound) {
                state.room.notify_waiters();
            }
            let becomes_due = !held.due && !held.waiting.is_empty();
            held.due |= becomes_due;
            becomes_due
        };
        if becomes_due && !state.turns.upgrade().is_some_and(|turns| turns.make_due(state)) {
            state.empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use futures::FutureExt;

    use super::*;

    // Before, a feeder that found its share full asked whether the queue was closed with the lock of the share in
    // hand, while a consumer took from that share with the lock of the queue in hand. The whole node stood still.
    #[test]
    fn feeders_of_a_full_share_and_consumers_do_not_block_each_other() {
        const ROUNDS: u32 = 100_000;
        let queue = FairQueue::new(1);
        let share = queue.share(1);
        let (done, ended) = mpsc::channel();
        let feeder = done.clone();
        thread::spawn(move || {
            for number in 0..ROUNDS {
                let _full = share.try_push_with(|| number);
                let _room = share.room().now_or_never();
            }
            feeder.send(()).unwrap();
        });
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                let _taken = taken(&queue, 4);
            }
            done.send(()).unwrap();
        });
        for _ in 0..2 {
            ended.recv_timeout(Duration::from_secs(30)).expect("neither waits for the other");
        }
    }

    fn taken(queue: &FairQueue<u32>, most: usize) -> Vec<u32> {
        let mut items = Vec::new();
        queue.take_many(most, &mut items);
        items
    }

    // Issue 8, 24.
    #[test]
    fn a_busy_feeder_takes_no_turn_of_others() {
        let queue = FairQueue::new(1);
        let (flood, honest) = (queue.share(1_000), queue.share(10));
        for number in 0..1_000 {
            flood.push(number).unwrap();
        }
        assert_eq!(flood.try_push_with(|| 0), Err(Refused::Full));
        honest.try_push_with(|| 5_000).unwrap();
        honest.try_push_with(|| 5_001).unwrap();
        assert_eq!(taken(&queue, 4), [0, 1, 5_000, 5_001]);
        assert_eq!(taken(&queue, 3), [2, 3, 4], "who is alone gets everything");
    }

    #[test]
    fn items_of_one_feeder_are_in_hand_one_after_the_other() {
        let queue = FairQueue::new(1);
        let (one, other) = (queue.share(10), queue.share(10));
        for number in 0..2 {
            one.push(number).unwrap();
            other.push(10 + number).unwrap();
        }
        let next = || queue.next().now_or_never().flatten();
        let (first, in_hand) = next().unwrap();
        let (second, also_in_hand) = next().unwrap();
        assert_eq!((first, second), (0, 10));
        assert!(next().is_none(), "the next one of each waits for the one before");
        drop(also_in_hand);
        assert_eq!(next().unwrap().0, 11);
        drop(in_hand);
        assert_eq!(next().unwrap().0, 1);
    }

    #[tokio::test]
    async fn a_waiting_feeder_gets_room_when_a_quarter_is_free() {
        let queue = FairQueue::new(1);
        let share = queue.share(4);
        for number in 0..4 {
            share.push(number).unwrap();
        }
        let room = share.room();
        tokio::pin!(room);
        assert!(futures::poll!(room.as_mut()).is_pending());
        assert_eq!(taken(&queue, 2), [0, 1]);
        assert!(futures::poll!(room.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn a_queue_that_nobody_empties_holds_nothing_and_takes_nothing() {
        let queue = FairQueue::new(1);
        let consumer = queue.consumer();
        let item = Arc::new(());
        let share = queue.share(1);
        share.push(Arc::clone(&item)).unwrap();
        drop(consumer);
        assert_eq!(Arc::strong_count(&item), 1);
        assert_eq!(share.push(Arc::clone(&item)), Err(Refused::Closed));
        share.room().await;
        assert!(queue.next().await.is_none());
    }

    #[test]
    fn items_of_a_closed_queue_can_be_taken_out() {
        let queue = FairQueue::new(1);
        let share = queue.share(4);
        share.push(1).unwrap();
        queue.close();
        assert_eq!(taken(&queue, 9), [1]);
        assert_eq!(share.push(2), Err(Refused::Closed));
    }
}
