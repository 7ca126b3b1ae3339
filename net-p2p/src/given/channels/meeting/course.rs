//! The order in which the signals of one end may come, without I/O.
//!
//! # Invariants
//!
//! * The first signal of an end is its description, and there is one: an offer of the end that begins, an answer of the other.
//! * At most [`MAX_CANDIDATES`] candidates follow, each of at most [`MAX_CANDIDATE_BYTES`].

use super::{
    MeetingRole,
    signal::{Signal, SignalFault},
};

/// Candidates of one end, at most. Chosen: both address families of 32 interfaces.
pub(super) const MAX_CANDIDATES: usize = 64;

/// Longest candidate, in bytes. Chosen: some seven times that of a browser.
const MAX_CANDIDATE_BYTES: usize = 2 * 1024;

/// The signals of one end.
#[derive(Debug)]
pub(super) struct Course {
    role: MeetingRole,
    is_described: bool,
    candidates: usize,
}

impl Course {
    /// Those of the end with this role.
    pub(super) const fn of(role: MeetingRole) -> Self {
        Self { role, is_described: false, candidates: 0 }
    }

    /// Returns `true` once the end has described itself.
    pub(super) const fn is_described(&self) -> bool {
        self.is_described
    }

    /// Takes the next signal.
    ///
    /// # Errors
    ///
    /// [`SignalFault`], after which the meeting has failed.
    pub(super) fn take(&mut self, signal: &Signal) -> Result<(), SignalFault> {
        match (signal, self.role) {
            (Signal::Offer(_), MeetingRole::Offers) | (Signal::Answer(_), MeetingRole::Answers)
                if !self.is_described =>
            {
                self.is_described = true;
                Ok(())
            }
            (Signal::Candidate(data), _) if self.is_described => {
                self.candidates += 1;
                if data.len() > MAX_CANDIDATE_BYTES {
                    return Err(SignalFault::TooLong);
                }
                if self.candidates > MAX_CANDIDATES {
                    return Err(SignalFault::TooMany);
                }
                Ok(())
            }
            _ => Err(SignalFault::Misplaced),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Signal {
        Signal::Offer("v=0".to_owned())
    }

    fn answer() -> Signal {
        Signal::Answer("v=0".to_owned())
    }

    fn candidate() -> Signal {
        Signal::Candidate("{}".to_owned())
    }

    #[test]
    fn a_description_comes_first_and_once() {
        for (role, own, other) in
            [(MeetingRole::Offers, offer(), answer()), (MeetingRole::Answers, answer(), offer())]
        {
            let mut course = Course::of(role);
            for early in [&other, &candidate()] {
                assert_eq!(course.take(early), Err(SignalFault::Misplaced));
            }
            assert!(!course.is_described());
            assert_eq!(course.take(&own), Ok(()));
            assert!(course.is_described());
            assert_eq!(course.take(&candidate()), Ok(()));
            for late in [&own, &other] {
                assert_eq!(course.take(late), Err(SignalFault::Misplaced));
            }
        }
    }

    #[test]
    fn candidates_are_bounded_in_number_and_length() {
        let mut course = Course::of(MeetingRole::Offers);
        course.take(&offer()).unwrap();
        for _ in 0..MAX_CANDIDATES {
            assert_eq!(course.take(&candidate()), Ok(()));
        }
        assert_eq!(course.take(&candidate()), Err(SignalFault::TooMany));
        let mut course = Course::of(MeetingRole::Offers);
        course.take(&offer()).unwrap();
        let long = Signal::Candidate("x".repeat(MAX_CANDIDATE_BYTES + 1));
        assert_eq!(course.take(&long), Err(SignalFault::TooLong));
    }
}
