//! The duplicate filter: messages that were heard already, on whatever transport.
//!
//! # Invariants
//!
//! * A message is new once per window of its lane, so it is handled once and passed on once.
//! * A message whose window has passed is new again: a node that repeats an old vote to get out of a
//!   stall is heard.
//! * A message that was taken in and then lost before anybody judged it is forgotten, so that another
//!   copy is new. [`Sighting`] sees to that.
//! * A topic that asks about a message which is being judged gets the verdict when there is one.
//! * The memory of the filter is bounded in bytes; the oldest entry is forgotten first.
//! * Fingerprints are keyed with a secret of this process, so nobody can make two messages collide.

mod remembered;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gossip::{Lane, Tag, Validation};
use runtime::time::Instant;

use self::remembered::Remembered;
use crate::limits::Limits;

/// Questions of topics that wait for verdicts, of one lane. Chosen: as many as the swarm takes verdicts.
const MAX_PARKED: usize = 4_096;
/// Questions that wait for the verdict on one message. Chosen: a topic asks once, and there is one
/// topic for each transport that has any.
const MAX_PARKED_PER_MESSAGE: usize = 4;

/// A keyed hash of a message: its tag and its decompressed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(pub(crate) [u8; 16]);

/// Takes a verdict back to the topic that asked, once.
pub(crate) type Report = Box<dyn FnOnce(Validation) + Send>;

/// The filter's answer about a message that was just heard.
#[derive(Debug)]
pub(crate) enum Seen {
    /// The message is new, and remembered as long as the sighting is kept, or was settled.
    First(Sighting),
    /// The message was heard before, or is this node's own.
    Before(Before),
}

/// The fate of the first copy of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// The first copy is being judged.
    Pending,
    /// The first copy was judged, and not passed on.
    Judged(Validation),
    /// The first copy was to be passed on, and there was no room for it.
    Owed,
    /// The first copy was passed on to the peers that had joined by `generation`.
    Passed {
        /// The newest attachment of that moment.
        generation: u64,
    },
}

/// A message that was taken in for the first time. Dropped before the message was judged, it has it
/// forgotten: the next copy is new, and topics that asked are told to ignore theirs.
#[derive(Debug)]
#[must_use = "the message is forgotten"]
pub(crate) struct Sighting {
    filter: Arc<Duplicates>,
    lane: Lane,
    message: Fingerprint,
    /// The number under which it is remembered.
    number: u64,
    settled: bool,
}

impl Sighting {
    /// Settles what the message was judged to be, and answers whoever asked.
    pub(crate) fn settle(&mut self, verdict: Validation) {
        self.settled = true;
        let parked = {
            let mut window = self.filter.window(self.lane);
            if window.heard.get(self.message) == Some(Before::Pending) {
                window.heard.set(self.message, Before::Judged(verdict));
            }
            window.unpark(self.message)
        };
        parked.into_iter().for_each(|report| report(verdict));
    }
}

impl Drop for Sighting {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let parked = {
            let mut window = self.filter.window(self.lane);
            window.heard.lose(self.message, self.number);
            window.unpark(self.message)
        };
        parked.into_iter().for_each(|report| report(Validation::Ignore));
    }
}

/// The filter of a node, one window per lane.
pub(crate) struct Duplicates {
    key: [u8; 32],
    windows: [Mutex<Window>; 2],
}

impl std::fmt::Debug for Duplicates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Duplicates").finish_non_exhaustive()
    }
}

struct Window {
    heard: Remembered,
    /// Callers that wait for the verdicts on messages being judged.
    parked: HashMap<Fingerprint, Vec<Report>>,
    parked_count: usize,
}

impl Duplicates {
    pub(crate) fn new(limits: &Limits, key: [u8; 32]) -> Self {
        let now = Instant::now();
        let window = |lane: Lane| {
            let bytes = limits.remembered_bytes / Lane::ALL.len();
            Mutex::new(Window {
                heard: Remembered::new(limits.window(lane), bytes, now),
                parked: HashMap::new(),
                parked_count: 0,
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

    /// Asks whether a message is new, and remembers it if it is. A `report` waits for the verdict on the
    /// message, whichever copy gets it; where that is known already, `report` is left to the caller.
    pub(crate) fn sight(
        self: &Arc<Self>,
        lane: Lane,
        message: Fingerprint,
        now: Instant,
        report: &mut Option<Report>,
    ) -> Seen {
        let mut window = self.window(lane);
        if let Some(before) = window.meet(message, now, report) {
            return Seen::Before(before);
        }
        let number = window.heard.insert(message, Before::Pending, now);
        window.park(message, report);
        drop(window);
        Seen::First(Sighting { filter: Arc::clone(self), lane, message, number, settled: false })
    }

    /// Looks a message up without remembering it. `report` as in [`Duplicates::sight`].
    pub(crate) fn meet(
        &self,
        lane: Lane,
        message: Fingerprint,
        now: Instant,
        report: &mut Option<Report>,
    ) -> Option<Before> {
        self.window(lane).meet(message, now, report)
    }

    /// Notes that a message is passed on to every peer that has joined by `generation`, whether it was
    /// heard or is this node's own.
    pub(crate) fn passed(&self, lane: Lane, message: Fingerprint, now: Instant, generation: u64) {
        self.note(lane, message, now, Before::Passed { generation });
    }

    /// Notes that a message should have been passed on and could not be: the next copy is to be.
    pub(crate) fn owed(&self, lane: Lane, message: Fingerprint, now: Instant) {
        self.note(lane, message, now, Before::Owed);
    }

    fn note(&self, lane: Lane, message: Fingerprint, now: Instant, state: Before) {
        let mut window = self.window(lane);
        window.heard.forget_until(now);
        if !window.heard.set(message, state) {
            window.heard.insert(message, state, now);
        }
    }
}

impl Window {
    fn meet(
        &mut self,
        message: Fingerprint,
        now: Instant,
        report: &mut Option<Report>,
    ) -> Option<Before> {
        self.heard.forget_until(now);
        let state = self.heard.get(message)?;
        if state == Before::Pending {
            self.park(message, report);
        }
        Some(state)
    }

    /// Keeps a question until there is a verdict; leaves it where too many wait.
    fn park(&mut self, message: Fingerprint, report: &mut Option<Report>) {
        if report.is_none() || self.parked_count >= MAX_PARKED {
            return;
        }
        let parked = self.parked.entry(message).or_default();
        if parked.len() < MAX_PARKED_PER_MESSAGE {
            parked.extend(report.take());
            self.parked_count += 1;
        }
    }

    fn unpark(&mut self, message: Fingerprint) -> Vec<Report> {
        if self.parked_count == 0 {
            return Vec::new();
        }
        let parked = self.parked.remove(&message).unwrap_or_default();
        self.parked_count -= parked.len();
        parked
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{remembered::ENTRY_BYTES, *};

    /// A filter that remembers so many messages of each lane.
    fn filter(messages: usize) -> Arc<Duplicates> {
        let remembered_bytes = 2 * messages * ENTRY_BYTES;
        Arc::new(Duplicates::new(&Limits { remembered_bytes, ..Limits::default() }, [1; 32]))
    }

    /// Sights a message and keeps it as judged if it is new.
    fn is_new(filter: &Arc<Duplicates>, lane: Lane, message: Fingerprint, now: Instant) -> bool {
        match filter.sight(lane, message, now, &mut None) {
            Seen::First(mut sighting) => {
                sighting.settle(Validation::Accept);
                true
            }
            Seen::Before(_) => false,
        }
    }

    type Log = Arc<Mutex<Vec<Validation>>>;

    fn asking() -> (Option<Report>, Log) {
        let log = Log::default();
        let answers = Arc::clone(&log);
        (Some(Box::new(move |verdict| answers.lock().unwrap().push(verdict))), log)
    }

    #[test]
    fn a_message_is_new_once_per_window_of_its_lane() {
        let (filter, start) = (filter(10), Instant::now());
        let vote = filter.fingerprint(Tag::AV, b"vote");
        let after = |ms| start + Duration::from_millis(ms);
        assert!(is_new(&filter, Lane::Priority, vote, start));
        assert!(!is_new(&filter, Lane::Priority, vote, after(9_999)));
        assert!(is_new(&filter, Lane::Priority, vote, after(10_000)));
        let txn = filter.fingerprint(Tag::TX, b"vote");
        assert_ne!(txn, vote, "the tag is part of the message");
        assert!(is_new(&filter, Lane::Bulk, txn, start));
        assert!(!is_new(&filter, Lane::Bulk, txn, after(29_999)));
        assert!(is_new(&filter, Lane::Bulk, txn, after(30_000)));
    }

    #[test]
    fn a_message_that_was_passed_on_knows_its_generation() {
        let (filter, now) = (filter(10), Instant::now());
        let vote = filter.fingerprint(Tag::AV, b"vote");
        assert!(is_new(&filter, Lane::Priority, vote, now));
        filter.passed(Lane::Priority, vote, now, 3);
        let known = |message| filter.meet(Lane::Priority, message, now, &mut None);
        assert_eq!(known(vote), Some(Before::Passed { generation: 3 }));
        let own = filter.fingerprint(Tag::AV, b"own");
        assert_eq!(known(own), None);
        filter.passed(Lane::Priority, own, now, 4);
        assert_eq!(known(own), Some(Before::Passed { generation: 4 }));
    }

    // Issue 9, 4.
    #[test]
    fn a_message_lost_before_its_verdict_is_new_and_has_a_window_of_its_own() {
        let (filter, start) = (filter(10), Instant::now());
        let vote = filter.fingerprint(Tag::AV, b"vote");
        let after = |ms| start + Duration::from_millis(ms);
        let lost = filter.sight(Lane::Priority, vote, start, &mut None);
        assert!(matches!(lost, Seen::First(_)));
        drop(lost);
        assert!(is_new(&filter, Lane::Priority, vote, after(4_000)));
        assert!(!is_new(&filter, Lane::Priority, vote, after(13_999)));
        assert!(is_new(&filter, Lane::Priority, vote, after(14_000)));
    }

    // Issue 9, 4.
    #[test]
    fn a_topic_that_asks_gets_the_verdict_of_the_copy_that_is_being_judged() {
        let (filter, now) = (filter(10), Instant::now());
        let txn = filter.fingerprint(Tag::TX, b"transaction");
        let Seen::First(mut sighting) = filter.sight(Lane::Bulk, txn, now, &mut None) else {
            panic!("it is new");
        };
        let (mut report, answers) = asking();
        assert_eq!(filter.meet(Lane::Bulk, txn, now, &mut report), Some(Before::Pending));
        assert!(report.is_none(), "it waits");
        assert_eq!(*answers.lock().unwrap(), []);
        sighting.settle(Validation::Reject);
        assert_eq!(*answers.lock().unwrap(), [Validation::Reject]);
        let before = filter.meet(Lane::Bulk, txn, now, &mut None);
        assert_eq!(before, Some(Before::Judged(Validation::Reject)));
    }

    #[test]
    fn a_topic_is_told_to_ignore_what_was_lost() {
        let (filter, now) = (filter(10), Instant::now());
        let txn = filter.fingerprint(Tag::TX, b"transaction");
        let (mut report, answers) = asking();
        drop(filter.sight(Lane::Bulk, txn, now, &mut report));
        assert_eq!(*answers.lock().unwrap(), [Validation::Ignore]);
    }

    #[test]
    fn no_more_questions_wait_than_there_may() {
        let (filter, now) = (filter(10_000), Instant::now());
        let txn = filter.fingerprint(Tag::TX, b"transaction");
        let _pending = filter.sight(Lane::Bulk, txn, now, &mut None);
        for number in 0..MAX_PARKED_PER_MESSAGE + 1 {
            let (mut report, _) = asking();
            let _ = filter.meet(Lane::Bulk, txn, now, &mut report);
            assert_eq!(report.is_some(), number == MAX_PARKED_PER_MESSAGE);
        }
    }

    #[test]
    fn the_oldest_is_forgotten_when_too_much_is_remembered() {
        let (filter, now) = (filter(2), Instant::now());
        let names = [&b"a"[..], b"b", b"c"].map(|name| filter.fingerprint(Tag::AV, name));
        for name in names {
            assert!(is_new(&filter, Lane::Priority, name, now));
        }
        assert!(!is_new(&filter, Lane::Priority, names[2], now));
        assert!(is_new(&filter, Lane::Priority, names[0], now));
    }
}
