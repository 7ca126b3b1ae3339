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

/// Limits with durations among them. A constructor or builder that takes such limits calls [`Durations::check`]
/// where it can return an error, and [`Durations::bounded`] where it cannot.
pub trait Durations: Clone {
    /// Calls `visit` with the name and the value of each duration.
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration));

    /// Checks every duration: none may be under [`SHORTEST_LIMIT`] or over [`LONGEST_LIMIT`].
    ///
    /// # Errors
    ///
    /// [`LimitError`] for the first one that is.
    fn check(&self) -> Result<(), LimitError> {
        let (mut copy, mut checked) = (self.clone(), Ok(()));
        copy.each_duration(&mut |setting, given| {
            checked = checked.and_then(|()| check_durations([(setting, *given)]));
        });
        checked
    }

    /// Returns the limits with every duration brought between [`SHORTEST_LIMIT`] and [`LONGEST_LIMIT`].
    #[must_use]
    fn bounded(mut self) -> Self {
        self.each_duration(&mut |_, given| *given = (*given).clamp(SHORTEST_LIMIT, LONGEST_LIMIT));
        self
    }
}

/// Implements a `with_` method for each field of a struct of limits. The struct can then be `#[non_exhaustive]`,
/// so that a new field breaks no code that sets others.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($limits:ident { $($method:ident => $field:ident: $of:ty),+ $(,)? }) => {
        impl $limits {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $method(mut self, $field: $of) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
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
