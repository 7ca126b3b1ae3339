//! The signs of life of a link: the time of its last message, and its round-trip time.
//!
//! # Invariants
//!
//! * Noting a sign is one store, without a lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime::time::Instant;

/// The last measured round-trip time of a connection, which its transport sets and the node reads. Clones share it.
///
/// WebSocket sets it from the answers to its pings and from the handshake of a dial, libp2p from its pings.
#[derive(Clone, Debug, Default)]
pub struct RoundTrip {
    /// In microseconds; zero before the first measurement.
    micros: Arc<AtomicU64>,
}

impl RoundTrip {
    /// Notes a measurement.
    pub fn set(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.store(micros.max(1), Ordering::Relaxed);
    }

    /// The last measurement; `None` before the first.
    #[must_use]
    pub fn get(&self) -> Option<Duration> {
        match self.micros.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}

/// The time of the last message of a link, in either direction.
#[derive(Debug)]
pub(crate) struct LastMessage {
    began: Instant,
    /// In milliseconds after `began`.
    last: AtomicU64,
}

impl LastMessage {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, last: AtomicU64::new(0) }
    }

    /// A message went over the link.
    pub(crate) fn note(&self, now: Instant) {
        let after = now.saturating_duration_since(self.began).as_millis();
        self.last.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The time since then, or since the link was made.
    pub(crate) fn quiet(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began).saturating_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_quiet_since_its_last_message() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let last = LastMessage::new(now);
        assert_eq!(last.quiet(now + 3 * second), 3 * second);
        last.note(now + 2 * second);
        assert_eq!(last.quiet(now + 3 * second), second);
    }

    #[test]
    fn a_round_trip_is_unknown_before_the_first_measurement() {
        let (cell, micro) = (RoundTrip::default(), Duration::from_micros(1));
        assert_eq!(cell.clone().get(), None);
        cell.clone().set(Duration::ZERO);
        assert_eq!(cell.get(), Some(micro), "a shorter time than can be told");
    }
}
