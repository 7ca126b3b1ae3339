//! What was heard already, on whatever transport.
//!
//! # Invariants
//!
//! * A message is new once per window of its lane, so it is handled once and passed on once.
//! * A message whose window has passed is new again: a node that repeats an old vote to get out of a
//!   stall is heard.
//! * What is remembered is bounded in number; the oldest is forgotten first.
//! * Fingerprints are keyed with a secret of this process, so nobody can make two messages collide.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gossip::{Lane, Tag};
use tokio::time::Instant;

use crate::limits::Limits;

/// A keyed hash of a message: its tag and its decompressed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 16]);

/// What is known of a message that was just heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is new, and from now on it is remembered.
    First,
    /// It was heard before and passed on to the peers that had joined by `generation`.
    Passed { generation: u64 },
    /// It was heard before, and is being judged or was found not to be passed on.
    Held,
}

/// The filter of a node, one window per lane.
#[derive(Debug)]
pub(crate) struct Duplicates {
    key: [u8; 32],
    windows: [Mutex<Window>; 2],
}

#[derive(Debug)]
struct Window {
    length: Duration,
    capacity: usize,
    heard: HashMap<Fingerprint, Heard>,
    order: VecDeque<(Instant, Fingerprint)>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Instant,
    /// The generation up to which it was passed on, where it was.
    passed: Option<u64>,
}

impl Duplicates {
    pub(crate) fn new(limits: &Limits, key: [u8; 32]) -> Self {
        let window = |lane: Lane| {
            Mutex::new(Window {
                length: limits.window(lane),
                capacity: limits.remembered.max(1),
                heard: HashMap::new(),
                order: VecDeque::new(),
            })
        };
        Self { key, windows: Lane::ALL.map(window) }
    }

    pub(crate) fn fingerprint(&self, tag: Tag, body: &[u8]) -> Fingerprint {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&tag.0);
        hasher.update(body);
        let mut half = [0; 16];
        hasher.finalize_xof().fill(&mut half);
        Fingerprint(half)
    }

    fn window(&self, lane: Lane) -> MutexGuard<'_, Window> {
        let window = &self.windows[usize::from(lane == Lane::Bulk)];
        window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether a message is new, and remembers it if it is.
    pub(crate) fn sight(&self, lane: Lane, message: Fingerprint, now: Instant) -> Seen {
        let mut window = self.window(lane);
        window.forget_until(now);
        match window.heard.get(&message) {
            Some(Heard { passed: Some(generation), .. }) => {
                Seen::Passed { generation: *generation }
            }
            Some(Heard { passed: None, .. }) => Seen::Held,
            None => {
                window.remember(message, None, now);
                Seen::First
            }
        }
    }

    /// Notes that a message was passed on to every peer that had joined by `generation`, whether it
    /// was heard or is this node's own.
    pub(crate) fn passed(&self, lane: Lane, message: Fingerprint, now: Instant, generation: u64) {
        let mut window = self.window(lane);
        window.forget_until(now);
        match window.heard.get_mut(&message) {
            Some(heard) => heard.passed = Some(generation),
            None => window.remember(message, Some(generation), now),
        }
    }

    /// Forgets a message that was sighted and could not be taken in, so that the next copy is new.
    pub(crate) fn forget(&self, lane: Lane, message: Fingerprint) {
        self.window(lane).heard.remove(&message);
    }
}

impl Window {
    fn remember(&mut self, message: Fingerprint, passed: Option<u64>, now: Instant) {
        if self.order.len() >= self.capacity {
            self.forget_oldest();
        }
        self.heard.insert(message, Heard { at: now, passed });
        self.order.push_back((now, message));
    }

    fn forget_until(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(heard, _)| now.duration_since(*heard) >= self.length)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((at, message)) = self.order.pop_front() {
            // Heard again after it was forgotten, it has a place further back.
            if self.heard.get(&message).is_some_and(|heard| heard.at == at) {
                self.heard.remove(&message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(remembered: usize) -> Duplicates {
        Duplicates::new(&Limits { remembered, ..Limits::default() }, [1; 32])
    }

    #[test]
    fn a_message_is_new_once_per_window_of_its_lane() {
        let (filter, start) = (filter(10), Instant::now());
        let vote = filter.fingerprint(Tag::AV, b"vote");
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(filter.sight(Lane::Priority, vote, start), Seen::First);
        assert_eq!(filter.sight(Lane::Priority, vote, after(9_999)), Seen::Held);
        assert_eq!(filter.sight(Lane::Priority, vote, after(10_000)), Seen::First);
        let txn = filter.fingerprint(Tag::TX, b"vote");
        assert_ne!(txn, vote, "the tag is part of the message");
        assert_eq!(filter.sight(Lane::Bulk, txn, start), Seen::First);
        assert_eq!(filter.sight(Lane::Bulk, txn, after(29_999)), Seen::Held);
        assert_eq!(filter.sight(Lane::Bulk, txn, after(30_000)), Seen::First);
    }

    #[test]
    fn what_was_passed_on_says_to_which_generation() {
        let (filter, now) = (filter(10), Instant::now());
        let vote = filter.fingerprint(Tag::AV, b"vote");
        assert_eq!(filter.sight(Lane::Priority, vote, now), Seen::First);
        filter.passed(Lane::Priority, vote, now, 3);
        assert_eq!(filter.sight(Lane::Priority, vote, now), Seen::Passed { generation: 3 });
        let own = filter.fingerprint(Tag::AV, b"own");
        filter.passed(Lane::Priority, own, now, 4);
        assert_eq!(filter.sight(Lane::Priority, own, now), Seen::Passed { generation: 4 });
    }

    #[test]
    fn what_was_forgotten_is_new_and_has_a_window_of_its_own() {
        let (filter, start) = (filter(10), Instant::now());
        let vote = filter.fingerprint(Tag::AV, b"vote");
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(filter.sight(Lane::Priority, vote, start), Seen::First);
        filter.forget(Lane::Priority, vote);
        assert_eq!(filter.sight(Lane::Priority, vote, after(4_000)), Seen::First);
        assert_eq!(filter.sight(Lane::Priority, vote, after(13_999)), Seen::Held);
        assert_eq!(filter.sight(Lane::Priority, vote, after(14_000)), Seen::First);
    }

    #[test]
    fn the_oldest_is_forgotten_when_too_much_is_remembered() {
        let (filter, now) = (filter(2), Instant::now());
        let names = [&b"a"[..], b"b", b"c"].map(|name| filter.fingerprint(Tag::AV, name));
        for name in names {
            assert_eq!(filter.sight(Lane::Priority, name, now), Seen::First);
        }
        assert_eq!(filter.sight(Lane::Priority, names[2], now), Seen::Held);
        assert_eq!(filter.sight(Lane::Priority, names[0], now), Seen::First);
    }
}
