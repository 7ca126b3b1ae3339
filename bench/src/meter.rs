//! Counts received messages, and makes the publisher wait for the slowest receiver.
//!
//! ```text
//!   publisher ◀──permits── [window] ◀──last receiver of a block── Tally (one per receiver)
//! ```
//!
//! # Invariants
//!
//! * The publisher is at most [`WINDOW`] messages ahead of the slowest receiver.
//! * Every receiver gets every message once and in order, or the measurement fails: a dropped message is never
//!   counted as delivered.
//! * A receiver updates one shared counter per [`BLOCK`] messages, so that counting costs nothing.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Semaphore;

use crate::error::Failure;

/// Number of messages after which a receiver reports. Chosen: small beside the window.
pub(crate) const BLOCK: u64 = 64;

/// Size of the window, in blocks.
const WINDOW_BLOCKS: usize = 4;

/// Largest number of messages that the publisher is ahead of the slowest receiver.
pub(crate) const WINDOW: usize = WINDOW_BLOCKS * BLOCK as usize;

/// The counts of one measurement, shared by the publisher and all receivers.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Messages received by each receiver, each count on its own cache line.
    counts: Box<[Count]>,
    /// Number of receivers that have finished a block, by block modulo twice the window.
    finished: [AtomicUsize; 2 * WINDOW_BLOCKS],
    /// One permit for each block that may be published.
    window: Semaphore,
    failure: OnceLock<String>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Count(AtomicU64);

impl Meter {
    /// Creates a meter for `receivers` receivers.
    pub(crate) fn new(receivers: usize) -> Arc<Self> {
        Arc::new(Self {
            counts: (0..receivers).map(|_| Count::default()).collect(),
            finished: Default::default(),
            window: Semaphore::new(WINDOW_BLOCKS),
            failure: OnceLock::new(),
        })
    }

    /// Waits until the next block may be published.
    ///
    /// # Errors
    ///
    /// The failure that a receiver or the publisher has reported.
    ///
    /// # Cancel safety
    ///
    /// Safe: a permit that was not returned is returned by the next call.
    pub(crate) async fn next_block(&self) -> Result<(), Failure> {
        match self.window.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_closed) => return Err(self.failure().unwrap_or("the measurement is over").into()),
        }
        Ok(())
    }

    /// Number of messages received by all receivers together.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
    }

    /// Fails the measurement. The first reason is kept.
    pub(crate) fn fail(&self, reason: impl Into<String>) {
        // Later reasons follow from the first one, so they are dropped.
        let _ = self.failure.set(reason.into());
        self.window.close();
    }

    /// Records that a receiver has ended, which is a failure while the measurement runs.
    pub(crate) fn ended(&self, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => self.fail("a connection ended"),
            Err(error) => self.fail(error.to_string()),
        }
    }

    /// The reason why the measurement failed.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    fn finish_block(&self, block: u64) {
        let slot = usize::try_from(block).unwrap_or(0) % self.finished.len();
        let before = self.finished[slot].fetch_add(1, Ordering::AcqRel);
        if before + 1 == self.counts.len() {
            // The slot is reused one window later at the earliest.
            self.finished[slot].store(0, Ordering::Release);
            self.window.add_permits(1);
        }
    }
}

/// The count of one receiver.
#[derive(Debug)]
pub(crate) struct Tally {
    meter: Arc<Meter>,
    receiver: usize,
    next: u64,
}

impl Tally {
    /// The count of receiver number `receiver`.
    pub(crate) fn new(meter: &Arc<Meter>, receiver: usize) -> Self {
        Self { meter: Arc::clone(meter), receiver, next: 0 }
    }

    /// Counts one message, whose body starts with its number.
    ///
    /// # Errors
    ///
    /// When the number is not the next one: a message was lost, duplicated or reordered.
    pub(crate) fn take(&mut self, body: &[u8]) -> Result<(), Failure> {
        let number = body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if number != Some(self.next) {
            let (receiver, next) = (self.receiver, self.next);
            return Err(format!("receiver {receiver} got {number:?} in place of {next}").into());
        }
        self.next += 1;
        if self.next.is_multiple_of(BLOCK) {
            self.meter.finish_block(self.next / BLOCK - 1);
        }
        Ok(())
    }

    /// Publishes the count to the meter. Called once per read.
    pub(crate) fn settle(&self) {
        if let Some(count) = self.meter.counts.get(self.receiver) {
            count.0.store(self.next, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[track_caller]
    fn take_block(tally: &mut Tally) {
        for _ in 0..BLOCK {
            let number = tally.next.to_le_bytes();
            tally.take(&number).unwrap();
        }
        tally.settle();
    }

    #[test]
    fn the_window_moves_when_the_slowest_receiver_has_finished_a_block() {
        let meter = Meter::new(2);
        let (mut fast, mut slow) = (Tally::new(&meter, 0), Tally::new(&meter, 1));
        let open = || meter.next_block().now_or_never().is_some();
        assert_eq!((0..10).filter(|_| open()).count(), WINDOW_BLOCKS);
        for _ in 0..20 {
            take_block(&mut fast);
            assert!(!open());
            take_block(&mut slow);
            assert!(open());
            assert!(!open());
        }
        assert_eq!(meter.total(), 2 * 20 * BLOCK);
    }

    #[test]
    fn a_gap_a_duplicate_and_a_short_body_fail() {
        let meter = Meter::new(1);
        for wrong in [&1_u64.to_le_bytes()[..], &[0; 3], &[]] {
            assert!(Tally::new(&meter, 0).take(wrong).is_err());
        }
        let mut tally = Tally::new(&meter, 0);
        tally.take(&[0; 200]).unwrap();
        assert!(tally.take(&[0; 200]).is_err());
    }

    #[test]
    fn a_failed_meter_stops_the_publisher_with_the_first_reason() {
        let meter = Meter::new(1);
        meter.fail("first");
        meter.fail("second");
        let error = meter.next_block().now_or_never().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "first");
    }
}
