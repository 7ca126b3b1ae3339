//! The streams that hold up their connection because nobody reads them.
//!
//! SCTP has one window for all streams, so bytes that stay there keep the peer from sending on every other stream. A reader
//! that is slow slows the connection down; one that has stopped would stop it. The specification of libp2p has no flow control
//! for single streams, and go-libp2p 0.51 stops; js-libp2p 3.3 resets a stream with 4 MiB that were not read.
//!
//! # Invariants
//!
//! * A stream is reset only after [`LIMIT`] in which the connection was held up and the stream's reader took less than
//!   [`LEAST_TAKEN`].

use std::time::Duration;

use runtime::time::StdInstant as Instant;

/// Longest time for which a stream that nobody reads holds up its connection. Chosen: shorter than what peers wait for an answer
/// to a ping (10 s), and longer than any reader of this node is busy with a message.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Bytes that a reader takes in that time at least. Chosen: as much as is kept for it beside SCTP's window.
const LEAST_TAKEN: usize = 64 * 1024;

/// The time for which a connection is held up.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    since: Option<Instant>,
}

impl Pressure {
    /// Notes if the connection is held up now.
    pub(super) fn note(&mut self, is_held_up: bool, now: Instant) {
        self.since = is_held_up.then(|| self.since.unwrap_or(now));
    }

    /// The moment at which streams are to be reset, unless the connection goes on before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + LIMIT)
    }

    /// Returns `true` if it is time.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Counts from now on.
    pub(super) fn begin_again(&mut self, now: Instant) {
        self.since = self.since.map(|_| now);
    }
}

/// The progress of the reader of a stream.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The moment from which on it has taken `taken` bytes; `None` while there is nothing to read.
    since: Option<Instant>,
    taken: usize,
}

impl Progress {
    /// Notes that bytes have come.
    pub(super) fn arrived(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Notes that `bytes` were read, and `left` are still there.
    pub(super) fn read(&mut self, bytes: usize, left: usize, now: Instant) {
        self.taken += bytes;
        if left == 0 || self.taken >= LEAST_TAKEN {
            *self = Self { since: (left > 0).then_some(now), taken: 0 };
        }
    }

    /// Returns `true` if nobody reads, or as good as nobody.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| since + LIMIT <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_held_up_from_the_first_moment_on_until_it_goes_on() {
        let (begun, mut pressure) = (Instant::now(), Pressure::default());
        pressure.note(true, begun);
        pressure.note(true, begun + LIMIT / 2);
        assert!(!pressure.is_due(begun + LIMIT / 2) && pressure.is_due(begun + LIMIT));
        pressure.note(false, begun + LIMIT);
        pressure.note(true, begun + LIMIT);
        assert_eq!(pressure.due(), Some(begun + LIMIT * 2));
        pressure.begin_again(begun + LIMIT * 2);
        assert_eq!(pressure.due(), Some(begun + LIMIT * 3));
    }

    #[test]
    fn a_slow_reader_is_not_stuck_and_one_that_takes_next_to_nothing_is() {
        let (begun, step) = (Instant::now(), LIMIT / 4);
        for (bytes, is_stuck) in [(LEAST_TAKEN / 3, false), (1, true)] {
            let mut progress = Progress::default();
            progress.arrived(begun);
            for turn in 1..=8 {
                progress.read(bytes, 1_000_000, begun + step * turn);
            }
            assert_eq!(progress.is_stuck(begun + step * 8), is_stuck);
        }
        let mut progress = Progress::default();
        progress.arrived(begun);
        progress.read(10, 0, begun);
        assert!(!progress.is_stuck(begun + LIMIT * 9), "there is nothing to read");
    }
}
