//! The rule for the durations among limits, which every crate goes by where limits are set.
//!
//! # Invariants
//!
//! * A duration that was checked can be waited for, and added to any time of the clock.

use std::time::Duration;

/// Shortest duration of a limit. Chosen: no limit means anything below a millisecond.
pub const SHORTEST_LIMIT: Duration = Duration::from_millis(1);

/// Longest duration of a limit. Chosen: no limit means anything above a year, and a year can be added to any
/// time of the clock.
pub const LONGEST_LIMIT: Duration = Duration::from_secs(365 * 86_400);

/// A duration that no limit may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` is {given:?}: it must be between 1 ms and 365 days")]
pub struct LimitError {
    /// Name of the limit.
    pub setting: &'static str,
    /// The duration as given.
    pub given: Duration,
}

/// Checks durations, each with the name of its limit: none may be under [`SHORTEST_LIMIT`] or over
/// [`LONGEST_LIMIT`].
///
/// # Errors
///
/// [`LimitError`] for the first one that is.
pub fn check_durations(
    durations: impl IntoIterator<Item = (&'static str, Duration)>,
) -> Result<(), LimitError> {
    let wrong = |given: &Duration| *given < SHORTEST_LIMIT || *given > LONGEST_LIMIT;
    match durations.into_iter().find(|(_, given)| wrong(given)) {
        Some((setting, given)) => Err(LimitError { setting, given }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 9, 11.
    #[test]
    fn a_duration_lies_between_a_millisecond_and_a_year() {
        for good in [SHORTEST_LIMIT, Duration::from_secs(5), LONGEST_LIMIT] {
            assert_eq!(check_durations([("a", good)]), Ok(()));
        }
        let nano = Duration::from_nanos(1);
        for given in [Duration::ZERO, SHORTEST_LIMIT - nano, LONGEST_LIMIT + nano, Duration::MAX] {
            let checked = check_durations([("good", SHORTEST_LIMIT), ("bad", given)]);
            assert_eq!(checked, Err(LimitError { setting: "bad", given }));
        }
        let told = check_durations([("head_time", Duration::ZERO)]).unwrap_err().to_string();
        assert_eq!(told, "`head_time` is 0ns: it must be between 1 ms and 365 days");
    }
}
