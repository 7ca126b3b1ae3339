//! The events of late, for those who ask and those who follow.
//!
//! # Invariants
//!
//! * An event has a number of its own, one more than the event before.
//! * The journal keeps [`MAX_KEPT`] events; a reader that asks for older ones is told how many it missed.
//! * A reader that falls [`MAX_BEHIND`] events behind is dropped and counted, and delays nobody.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::broadcast;

use super::wire::unix_millis;

/// Events that are kept. Chosen: an hour of a network in which a peer comes or goes every few seconds, in a megabyte.
pub(crate) const MAX_KEPT: usize = 1_024;

/// Events that a reader may fall behind. Chosen: all peers of a large relay that come back after a partition, a tenth
/// at a time.
const MAX_BEHIND: usize = 256;

/// An event, as readers get it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Noted {
    /// Its number, from one.
    pub(crate) seq: u64,
    /// The time, in milliseconds of Unix time.
    pub(crate) at_ms: u64,
    /// Its name, such as `peer_connected`.
    pub(crate) event: String,
    /// The further facts of the event, by name.
    #[serde(flatten)]
    pub(crate) details: Map<String, Value>,
}

/// The events of late. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    live: broadcast::Sender<Arc<Noted>>,
    dropped_readers: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    events: VecDeque<Arc<Noted>>,
}

impl Default for Journal {
    fn default() -> Self {
        let (kept, live) = (Mutex::default(), broadcast::Sender::new(MAX_BEHIND));
        let dropped_readers = AtomicU64::new(0);
        Self { shared: Arc::new(Shared { kept, live, dropped_readers }) }
    }
}

/// The events after some number: those that are kept, and how many are not.
#[derive(Clone, Debug)]
pub(super) struct Since {
    pub(super) events: Vec<Arc<Noted>>,
    /// Events after the number that are not kept any more.
    pub(super) missed: u64,
    /// Number of the newest event; zero before the first.
    pub(super) last: u64,
}

impl Journal {
    /// Notes an event, an object with its name under `event`. Anything else is no event, and is left out.
    pub(crate) fn note(&self, event: &impl Serialize) {
        let Ok(Value::Object(mut details)) = serde_json::to_value(event) else { return };
        let Some(Value::String(name)) = details.remove("event") else { return };
        let mut kept = self.kept();
        kept.last += 1;
        let at_ms = unix_millis(runtime::WallClock::system().now());
        let noted = Arc::new(Noted { seq: kept.last, at_ms, event: name, details });
        if kept.events.len() >= MAX_KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(Arc::clone(&noted));
        // Under the lock, so that events are told in order. Nobody may be listening.
        let _ = self.shared.live.send(noted);
    }

    /// The events after a number, and a receiver of those that follow.
    pub(super) fn follow(&self, after: u64) -> (Since, Reader) {
        let kept = self.kept();
        let events = self.shared.live.subscribe();
        let reader = Reader { events, shared: Arc::clone(&self.shared), lagged: false };
        (kept.since(after), reader)
    }

    /// The events after a number.
    pub(super) fn since(&self, after: u64) -> Since {
        self.kept().since(after)
    }

    /// Readers that were dropped because they fell behind.
    pub(crate) fn dropped_readers(&self) -> u64 {
        self.shared.dropped_readers.load(Ordering::Relaxed)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn since(&self, after: u64) -> Since {
        // A number of another run of the node may be higher than any of this one.
        let after = if after > self.last { 0 } else { after };
        let events = self.events.iter().filter(|event| event.seq > after);
        let events: Vec<_> = events.cloned().collect();
        let missed = (self.last - after).saturating_sub(events.len() as u64);
        Since { events, missed, last: self.last }
    }
}

/// A reader of the events that follow.
#[derive(Debug)]
pub(super) struct Reader {
    events: broadcast::Receiver<Arc<Noted>>,
    shared: Arc<Shared>,
    lagged: bool,
}

impl Reader {
    /// The next event; `None` once the reader has fallen too far behind.
    ///
    /// # Cancel safety
    ///
    /// Safe: an event that was not returned is returned by the next call.
    pub(super) async fn next(&mut self) -> Option<Arc<Noted>> {
        match self.events.recv().await {
            Ok(event) => Some(event),
            // The other end of the channel is in `shared`, so it is not closed.
            Err(_lagged) => {
                self.lagged = true;
                None
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // A connection whose reader takes nothing ends by its deadline, without another call of `next`.
        if self.lagged || self.events.len() > MAX_BEHIND {
            self.shared.dropped_readers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seqs(since: &Since) -> Vec<u64> {
        since.events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn events_are_numbered_and_the_oldest_are_forgotten() {
        let journal = Journal::default();
        assert_eq!(journal.since(7).last, 0);
        for number in 0..MAX_KEPT + 10 {
            journal.note(&json!({"event": "tick", "number": number}));
        }
        journal.note(&json!({"no": "event"}));
        let since = journal.since(0);
        assert_eq!((since.missed, since.last), (10, MAX_KEPT as u64 + 10));
        assert_eq!(since.events.first().map(|event| event.seq), Some(11));
        let since = journal.since(since.last - 2);
        assert_eq!((seqs(&since), since.missed), (vec![1_033, 1_034], 0));
        assert_eq!(journal.since(1_000_000).events.len(), MAX_KEPT, "a number of another run");
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_dropped_and_counted() {
        let journal = Journal::default();
        let (_, mut quick) = journal.follow(0);
        let (_, slow) = journal.follow(0);
        let (_, mut late) = journal.follow(0);
        for _ in 0..=MAX_BEHIND {
            journal.note(&json!({"event": "tick"}));
            assert!(quick.next().await.is_some());
        }
        assert!(late.next().await.is_none());
        drop((quick, slow, late));
        assert_eq!(journal.dropped_readers(), 2);
    }
}
