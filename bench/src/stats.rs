//! Medians and percentiles.

use std::{fs, time::Duration};

use hdrhistogram::Histogram;

/// Unit of the times in `/proc`, in ticks per second: the same on every Linux in use.
const TICKS_PER_S: f64 = 100.0;

/// Longest latency that is told apart. Chosen: anything longer counts as lost.
const MAX_LATENCY: Duration = Duration::from_secs(60);

/// The median: the middle value, or the mean of the two in the middle; `None` if there are no values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted.get(middle - 1).map(|lower| f64::midpoint(*lower, upper))
}

/// Processor time used by this process, in seconds; `None` if the system does not report it.
pub(crate) fn cpu_seconds() -> Option<f64> {
    cpu_of(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// User and system time from a line of `/proc/PID/stat`, in seconds. The name in it may contain any character.
pub(crate) fn cpu_of(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_S)
}

/// A histogram of latencies with three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    micros: Histogram<u64>,
}

impl Latencies {
    /// Creates an empty histogram.
    ///
    /// # Panics
    ///
    /// Never: the histogram accepts these constant bounds.
    pub(crate) fn new() -> Self {
        let max = u64::try_from(MAX_LATENCY.as_micros()).unwrap_or(u64::MAX);
        let micros = Histogram::new_with_bounds(1, max, 3).expect("valid bounds");
        Self { micros }
    }

    /// Adds one latency; one beyond the bound counts as the bound.
    pub(crate) fn note(&mut self, latency: Duration) {
        self.micros
            .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Removes all latencies.
    pub(crate) fn clear(&mut self) {
        self.micros.clear();
    }

    /// Adds the latencies of another histogram.
    pub(crate) fn add(&mut self, other: &Self) {
        self.micros += &other.micros;
    }

    /// Number of latencies.
    pub(crate) fn len(&self) -> u64 {
        self.micros.len()
    }

    /// The latency that the fraction `share` does not exceed, in milliseconds; `None` if there is none.
    pub(crate) fn quantile_ms(&self, share: f64) -> Option<f64> {
        Some(self.quantile_us(share)? / 1e3)
    }

    /// The latency that the fraction `share` does not exceed, in microseconds; `None` if there is none.
    pub(crate) fn quantile_us(&self, share: f64) -> Option<f64> {
        let micros = (self.len() > 0).then(|| self.micros.value_at_quantile(share))?;
        Some(Duration::from_micros(micros).as_secs_f64() * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn the_processor_time_is_read_after_the_name() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu_of(stat), Some(2.0));
        assert_eq!(cpu_of("42 (a"), None);
        assert_eq!(cpu_of("42 (a) S 1"), None);
    }

    #[test]
    fn quantiles_are_in_milliseconds_and_none_without_latencies() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantile_ms(0.5), None);
        for ms in 1..=100 {
            latencies.note(Duration::from_millis(ms));
        }
        let near = |share, expected: f64| {
            let found = latencies.quantile_ms(share).unwrap();
            assert!((found - expected).abs() < expected / 500.0, "{found} is not {expected}");
        };
        near(0.5, 50.0);
        near(0.99, 99.0);
        assert_eq!(latencies.len(), 100);
    }

    #[test]
    fn histograms_are_added_and_cleared() {
        let (mut all, mut some) = (Latencies::new(), Latencies::new());
        some.note(Duration::from_millis(5));
        all.add(&some);
        all.add(&some);
        some.clear();
        assert_eq!((all.len(), some.len()), (2, 0));
        assert!(all.quantile_us(0.5).is_some_and(|us| (us - 5_000.0).abs() < 10.0));
    }

    #[test]
    fn a_latency_over_the_bound_counts_as_the_bound() {
        let mut latencies = Latencies::new();
        latencies.note(Duration::from_secs(3_600));
        assert!(latencies.quantile_ms(1.0).unwrap() >= 60_000.0);
    }
}
