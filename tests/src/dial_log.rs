//! The dials that a process has logged, by the address that was dialled.

use std::collections::BTreeMap;

/// The log filter with which a process logs its dials, and little else.
pub const DIALS: &str = "tandem_broadcaster::mesh_handle=debug,warn";

/// Milliseconds since midnight at which each address was dialled, in order.
#[derive(Clone, Debug, Default)]
pub struct DialLog {
    by_address: BTreeMap<String, Vec<u64>>,
    /// Midnights since the first line.
    days: u64,
    last: u64,
}

impl DialLog {
    /// Reads the dials in the log of one process. Other lines are left out.
    #[must_use]
    pub fn read(lines: &[String]) -> Self {
        let mut log = Self::default();
        for line in lines {
            if let Some((stamp, rest)) = line.split_once(' ')
                && let Some((_, to)) = rest.split_once("mesh_handle: dialling to=")
                && let Some(at) = milliseconds(stamp)
            {
                if at + 3_600_000 < log.last % 86_400_000 {
                    log.days += 1;
                }
                log.last = at + log.days * 86_400_000;
                log.by_address.entry(to.to_owned()).or_default().push(log.last);
            }
        }
        log
    }

    /// All dials.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_address.values().map(Vec::len).sum()
    }

    /// The most dials of one address within a window, with the address.
    #[must_use]
    pub fn most_within(&self, window_ms: u64) -> (usize, &str) {
        let most = self.by_address.iter().map(|(address, times)| {
            let from = |end: usize| times[..end].partition_point(|at| at + window_ms <= times[end]);
            let most = (0..times.len()).map(|end| end + 1 - from(end)).max();
            (most.unwrap_or_default(), address.as_str())
        });
        most.max().unwrap_or_default()
    }
}

/// `2026-11-29T17:36:49.329614Z` is so many milliseconds past midnight.
fn milliseconds(stamp: &str) -> Option<u64> {
    let (_, time) = stamp.trim_end_matches('Z').split_once('T')?;
    let mut parts = time.split(':');
    let (hours, minutes) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
    let seconds = parts.next()?.parse::<f64>().ok()?;
    Some((hours * 60 + minutes) * 60_000 + (seconds * 1e3) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stamp: &str, to: &str) -> String {
        format!("{stamp} DEBUG tandem_broadcaster::mesh_handle: dialling to={to}")
    }

    #[test]
    fn dials_are_counted_by_address_and_window_also_over_midnight() {
        let lines = [
            line("2026-11-29T23:59:59.500000Z", "a:1"),
            line("2026-11-29T23:59:59.600000Z", "b:1"),
            "2026-11-29T23:59:59.7Z DEBUG tandem: something else".to_owned(),
            line("2026-11-30T00:00:00.400000Z", "a:1"),
            line("2026-11-30T00:00:00.500000Z", "a:1"),
        ];
        let log = DialLog::read(&lines);
        assert_eq!((log.count(), log.most_within(1_000)), (4, (2, "a:1")));
        assert_eq!(log.most_within(2_000), (3, "a:1"));
    }
}
