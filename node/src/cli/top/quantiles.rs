//! The times that messages took since the last look, from histograms that only grow.

use std::time::Duration;

use crate::admin::report::{Bucket, LaneLatency};

/// The times of one part of the way of messages through the node: the median, and the one that 99 in 100 stay below.
pub(super) type Times = Option<(Duration, Duration)>;

/// The messages that a lane had since it was `before`: handled, and sent.
pub(super) fn since(before: &LaneLatency, now: &LaneLatency) -> [Times; 2] {
    let of = |before: &[Bucket], now: &[Bucket]| {
        // A node that was started again counts from zero.
        let earlier = |at: usize| before.get(at).map_or(0, |bucket| bucket.messages);
        let counts = now.iter().enumerate();
        let counts: Vec<(Option<u64>, u64)> = counts
            .map(|(at, now)| (now.up_to_us, now.messages.saturating_sub(earlier(at))))
            .collect();
        Some((quantile(&counts, 50)?, quantile(&counts, 99)?))
    };
    [of(&before.handling, &now.handling), of(&before.sending, &now.sending)]
}

/// The time that so many in a hundred stay below, as if the messages of a bucket were spread evenly over it.
fn quantile(counts: &[(Option<u64>, u64)], percent: u64) -> Option<Duration> {
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let rank = (all as f64 * percent as f64 / 100.0).max(1.0);
    let (mut below, mut lower) = (0.0, 0_u64);
    for (upper, count) in counts.iter().filter(|_| all > 0) {
        let (upper, count) = (upper.unwrap_or(lower), *count as f64);
        if count > 0.0 && below + count >= rank {
            let part = (rank - below) / count;
            let us = lower as f64 + part * upper.saturating_sub(lower) as f64;
            return Some(Duration::from_micros(us as u64));
        }
        below += count;
        lower = upper;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_messages_since_the_last_look() {
        let lane = |counts: [u64; 4]| {
            let bounds = [Some(64), Some(128), Some(256), None];
            let bucket = |(up_to_us, messages)| Bucket { up_to_us, messages };
            let buckets = || bounds.into_iter().zip(counts).map(bucket).collect();
            LaneLatency { handling: buckets(), sending: Vec::new() }
        };
        let (before, now) = (lane([1_000, 0, 0, 0]), lane([1_000, 98, 0, 2]));
        let [handled, sent] = since(&before, &now);
        let (median, most) = handled.unwrap();
        assert!((64..=128).contains(&median.as_micros()), "{median:?}");
        assert_eq!((most, sent), (Duration::from_micros(256), None));
        assert_eq!(since(&now, &now), [None, None]);
        assert!(since(&now, &before)[0].is_none(), "another node");
    }
}
