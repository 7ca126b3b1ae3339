//! The time that messages take in this node, by lane.
//!
//! # Invariants
//!
//! * The buckets are powers of two of a microsecond, so that finding one is a look at the leading zeros.
//! * A batch is counted with an addition for each bucket that it touches: the counters are shared by all peers.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gossip::Lane;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric, family::Family},
    registry::{Registry, Unit},
};

use super::Label;

/// Buckets of a histogram, without the one for all that is longer. Chosen: from 64 µs, less than a task waits for its
/// turn, to 33 s, longer than a message may wait.
const BUCKETS: usize = 20;

/// The logarithm of the first bound in microseconds.
const FIRST: u32 = 6;

/// A part of the way of a message through this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LatencyStage {
    /// From its arrival to the end of its handler, or until it was accepted where there is none.
    Handling,
    /// From when it was sent or accepted to its write to one peer.
    Sending,
}

impl LatencyStage {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Handling, Self::Sending];
}

/// The number of messages by the time that they took: those of each pair took at most so long, and longer than those of
/// the pair before.
pub type Durations = Vec<(Duration, u64)>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabel {
    lane: Label,
}

/// The counts of one histogram. Clones share them.
#[derive(Clone, Debug, Default)]
struct Histogram(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// The last one is of all that took longer.
    counts: [AtomicU64; BUCKETS + 1],
    sum_us: AtomicU64,
}

/// The upper bound of a bucket.
fn bound(bucket: usize) -> Duration {
    Duration::from_micros(1 << (FIRST as usize + bucket))
}

/// The bucket of a time in microseconds.
const fn bucket(us: u64) -> usize {
    // The bound of a bucket belongs to it.
    let bits = u64::BITS - us.saturating_sub(1).leading_zeros();
    let bucket = bits.saturating_sub(FIRST) as usize;
    if bucket < BUCKETS { bucket } else { BUCKETS }
}

fn micros(time: Duration) -> u64 {
    // Without the division of 128 bits that `as_micros` makes: this is for every message to every peer.
    time.as_secs() * 1_000_000 + u64::from(time.subsec_micros())
}

/// The times of a batch of messages, which are added to the counters at once.
#[derive(Debug, Default)]
pub(crate) struct BatchTimes([Batch; 2]);

#[derive(Debug, Default)]
struct Batch {
    counts: [u32; BUCKETS + 1],
    /// A bit for each bucket that holds something.
    touched: u32,
    sum_us: u64,
}

impl BatchTimes {
    /// Notes a message that took so many microseconds.
    #[inline]
    pub(crate) fn note(&mut self, lane: Lane, us: u64) {
        let batch = &mut self.0[lane.index()];
        let bucket = bucket(us);
        batch.counts[bucket] += 1;
        batch.touched |= 1 << bucket;
        batch.sum_us += us;
    }
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let us = micros(time);
        self.0.counts[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    fn add(&self, batch: &mut Batch) {
        if batch.touched == 0 {
            return;
        }
        while batch.touched != 0 {
            let bucket = batch.touched.trailing_zeros() as usize;
            let count = u64::from(std::mem::take(&mut batch.counts[bucket]));
            self.0.counts[bucket].fetch_add(count, Ordering::Relaxed);
            batch.touched &= batch.touched - 1;
        }
        self.0.sum_us.fetch_add(std::mem::take(&mut batch.sum_us), Ordering::Relaxed);
    }

    fn counts(&self) -> [u64; BUCKETS + 1] {
        array::from_fn(|bucket| self.0.counts[bucket].load(Ordering::Relaxed))
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.counts();
        let sum = self.0.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        let upper = |bucket| if bucket < BUCKETS { bound(bucket).as_secs_f64() } else { f64::MAX };
        let buckets: Vec<(f64, u64)> =
            counts.iter().enumerate().map(|(bucket, count)| (upper(bucket), *count)).collect();
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

/// The histograms of both stages and lanes.
#[derive(Debug)]
pub(crate) struct Latency {
    handling: Family<LaneLabel, Histogram>,
    sending: Family<LaneLabel, Histogram>,
    /// The same by stage and lane, so that no label is looked up.
    by_stage: [[Histogram; 2]; 2],
}

impl Default for Latency {
    fn default() -> Self {
        let (handling, sending) = (Family::default(), Family::default());
        let of = |family: &Family<LaneLabel, Histogram>| {
            Lane::ALL
                .map(|lane| family.get_or_create(&LaneLabel { lane: Label(lane.label()) }).clone())
        };
        let by_stage = [of(&handling), of(&sending)];
        Self { handling, sending, by_stage }
    }
}

impl Latency {
    fn of(&self, stage: LatencyStage, lane: Lane) -> &Histogram {
        let stage = usize::from(stage == LatencyStage::Sending);
        &self.by_stage[stage][lane.index()]
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let handling = "Time from the arrival of a message until it was handled, or accepted where nobody handles it, by lane";
        registry.register_with_unit("handling", handling, Unit::Seconds, self.handling.clone());
        let sending =
            "Time from when a message was sent or accepted to its write to one peer, by lane";
        registry.register_with_unit("sending", sending, Unit::Seconds, self.sending.clone());
    }

    /// A message was handled.
    pub(crate) fn handled(&self, lane: Lane, time: Duration) {
        self.of(LatencyStage::Handling, lane).observe(time);
    }

    /// A batch was written. The batch is empty afterwards.
    pub(crate) fn written(&self, times: &mut BatchTimes) {
        for (lane, batch) in Lane::ALL.into_iter().zip(&mut times.0) {
            self.of(LatencyStage::Sending, lane).add(batch);
        }
    }

    /// The messages so far. The last pair is of all that took longer than the one before it.
    pub(super) fn durations(&self, stage: LatencyStage, lane: Lane) -> Durations {
        let counts = self.of(stage, lane).counts().into_iter().enumerate();
        let upper = |bucket| if bucket < BUCKETS { bound(bucket) } else { Duration::MAX };
        counts.map(|(bucket, count)| (upper(bucket), count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 12, 4.
    #[test]
    fn a_time_falls_into_the_bucket_that_it_is_at_most_as_long_as() {
        for us in
            (0..200).chain([1_000, 1_024, 1_025, 1 << 25, (1 << 25) + 1, u64::MAX / 2_000_000])
        {
            let bucket = bucket(us);
            let time = Duration::from_micros(us);
            assert!(bucket == BUCKETS || time <= bound(bucket), "{us}");
            assert!(bucket == 0 || time > bound(bucket - 1), "{us}");
        }
    }

    #[test]
    fn a_batch_counts_as_its_messages_do_one_by_one() {
        let (one, all) = (Latency::default(), Latency::default());
        let mut times = BatchTimes::default();
        for us in [0, 3, 70, 70, 5_000, 90_000_000] {
            let time = Duration::from_micros(us);
            one.of(LatencyStage::Sending, Lane::Bulk).observe(time);
            times.note(Lane::Bulk, us);
        }
        all.written(&mut times);
        all.written(&mut times);
        let durations = |latency: &Latency| latency.durations(LatencyStage::Sending, Lane::Bulk);
        assert_eq!(durations(&one), durations(&all));
        assert_eq!(durations(&all).iter().map(|(_, count)| count).sum::<u64>(), 6);
        assert_eq!(durations(&all).last(), Some(&(Duration::MAX, 1)));
        assert!(
            all.durations(LatencyStage::Sending, Lane::Priority)
                .iter()
                .all(|(_, count)| *count == 0)
        );
        let sum = |latency: &Latency| {
            latency.of(LatencyStage::Sending, Lane::Bulk).0.sum_us.load(Ordering::Relaxed)
        };
        assert_eq!((sum(&one), sum(&all)), (90_005_143, 90_005_143));
    }
}
