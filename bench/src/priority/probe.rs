//! The counts of the receiving end.
//!
//! # Invariants
//!
//! * Priority messages count if they were sent within the measurement, whenever they arrive.
//! * The goodput is measured from the first whole bulk message of the measurement to the last, so that large
//!   messages are not rounded.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{error::Failure, http::Paced, stats::Latencies};

/// Length of a stamp, in bytes: the number of the message and the time at which it was sent.
const STAMP_BYTES: usize = 16;

/// The counts of one measurement, shared by both ends.
#[derive(Debug)]
pub(super) struct Probe {
    start: Instant,
    heard: Mutex<Heard>,
}

#[derive(Debug)]
struct Heard {
    /// The period of the measurement. Before it starts nothing counts.
    from: Option<Instant>,
    until: Option<Instant>,
    latencies: Latencies,
    /// Number of priority messages received at any time, which shows that the contender is connected.
    greetings: u64,
    bulk: Option<Bulk>,
}

/// Bulk that arrived after the message at `first`.
#[derive(Clone, Copy, Debug)]
struct Bulk {
    first: Instant,
    last: Instant,
    bytes: u64,
}

/// The result of one measurement.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    /// Number of priority messages that did not arrive.
    pub(super) lost: u64,
    /// Bulk per second, in bytes.
    pub(super) goodput: f64,
    /// The HTTP requests during the measurement.
    pub(super) http: Option<Load>,
}

/// The results of HTTP requests during the measurement.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Answered requests per second.
    pub(super) per_s: f64,
    pub(super) paced: Paced,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(p50), Some(p99)) = (self.p50_ms, self.p99_ms) {
            write!(f, "priority p50 {p50:.1} ms, p99 {p99:.1} ms, {} lost, ", self.lost)?;
        }
        write!(f, "bulk {:.1} MB/s", self.goodput / 1e6)?;
        let Some(Load { per_s, paced }) = &self.http else { return Ok(()) };
        write!(f, ", {per_s:.0} HTTP requests/s, {} failed", paced.failed)?;
        paced.first_failure.iter().try_for_each(|first| write!(f, ", first: {first}"))
    }
}

impl Probe {
    /// Creates a probe whose measurement has not started.
    pub(super) fn new() -> Self {
        let heard = Heard {
            from: None,
            until: None,
            latencies: Latencies::new(),
            greetings: 0,
            bulk: None,
        };
        Self { start: Instant::now(), heard: Mutex::new(heard) }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A body of `bytes` bytes that is unlike every other one, stamped with the current time.
    pub(super) fn body(&self, number: u64, bytes: usize) -> Bytes {
        let mut body = vec![0; bytes.max(STAMP_BYTES)];
        let sent = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        body[..8].copy_from_slice(&number.to_le_bytes());
        body[8..STAMP_BYTES].copy_from_slice(&sent.to_le_bytes());
        Bytes::from(body)
    }

    /// Counts a priority message that has just arrived.
    pub(super) fn priority(&self, body: &[u8]) {
        let now = Instant::now();
        let stamp = body.get(8..STAMP_BYTES).and_then(|bytes| bytes.first_chunk());
        let Some(stamp) = stamp.map(|bytes| u64::from_le_bytes(*bytes)) else { return };
        let sent = self.start + Duration::from_nanos(stamp);
        let mut heard = self.lock();
        heard.greetings += 1;
        if heard.measures(sent) {
            heard.latencies.note(now.saturating_duration_since(sent));
        }
    }

    /// Counts a whole bulk message that has just arrived.
    pub(super) fn bulk(&self, bytes: usize) {
        let now = Instant::now();
        let mut heard = self.lock();
        if !heard.measures(now) {
            return;
        }
        let bytes = u64::try_from(bytes).unwrap_or(0);
        heard.bulk = Some(match heard.bulk {
            None => Bulk { first: now, last: now, bytes: 0 },
            Some(bulk) => Bulk { last: now, bytes: bulk.bytes + bytes, ..bulk },
        });
    }

    /// Number of priority messages received at any time.
    pub(super) fn greetings(&self) -> u64 {
        self.lock().greetings
    }

    /// Number of priority messages of the measurement that arrived.
    pub(super) fn heard(&self) -> u64 {
        self.lock().latencies.len()
    }

    /// Starts the measurement.
    pub(super) fn begin(&self) {
        self.lock().from = Some(Instant::now());
    }

    /// Ends the measurement: later messages do not count.
    pub(super) fn end(&self) {
        self.lock().until = Some(Instant::now());
    }

    /// The results, given the number of priority messages sent in the measurement.
    ///
    /// # Errors
    ///
    /// When no bulk arrived.
    pub(super) fn report(&self, sent: u64) -> Result<Report, Failure> {
        let heard = self.lock();
        let bulk = heard.bulk.filter(|bulk| bulk.bytes > 0).ok_or("no bulk arrived")?;
        Ok(Report {
            p50_ms: heard.latencies.quantile_ms(0.5),
            p99_ms: heard.latencies.quantile_ms(0.99),
            lost: sent.saturating_sub(heard.latencies.len()),
            goodput: bulk.bytes as f64 / (bulk.last - bulk.first).as_secs_f64(),
            http: None,
        })
    }
}

impl Heard {
    fn measures(&self, moment: Instant) -> bool {
        self.from.is_some_and(|from| moment >= from)
            && self.until.is_none_or(|until| moment < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_sent_within_the_measurement_count() {
        let probe = Probe::new();
        let (early, bulk) = (probe.body(0, 256), 1_000);
        probe.priority(&early);
        probe.bulk(bulk);
        probe.begin();
        probe.priority(&early);
        let counted = probe.body(1, 256);
        for _ in 0..3 {
            probe.bulk(bulk);
        }
        probe.end();
        let late = probe.body(2, 256);
        probe.priority(&late);
        probe.priority(&counted);
        let report = probe.report(3).unwrap();
        assert_eq!((probe.greetings(), report.lost), (4, 2));
        assert!(report.p99_ms.is_some() && report.goodput > 0.0);
    }

    #[test]
    fn without_bulk_there_is_no_report() {
        let probe = Probe::new();
        probe.begin();
        probe.bulk(1_000);
        assert!(probe.report(0).is_err());
    }
}
