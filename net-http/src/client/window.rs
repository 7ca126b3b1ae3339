//! The sliding window over new requests: a pure state machine.
//!
//! # Invariants
//!
//! * In no period as long as the window are more than `requests` admitted.
//! * A refusal names the earliest time at which the request could be admitted.

use std::{collections::VecDeque, time::Duration};

use gossip::Instant;

use super::RequestWindow;

/// Delay before the next try if the window is longer than the clock can express.
const FAR: Duration = Duration::from_secs(3600);

/// The start times of the latest requests.
#[derive(Debug)]
pub(super) struct Window {
    limit: RequestWindow,
    /// Oldest first, at most `limit.requests`.
    starts: VecDeque<Instant>,
}

impl Window {
    pub(super) const fn new(limit: RequestWindow) -> Self {
        Self { limit, starts: VecDeque::new() }
    }

    /// Admits a request now, or returns the time at which it can be admitted. If `now` goes back, the latest
    /// time seen is used.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Instant> {
        let now = self.starts.back().map_or(now, |&latest| latest.max(now));
        if self.starts.len() >= self.limit.requests.get() {
            let oldest = self.starts.front().copied().unwrap_or(now);
            let opens = oldest.checked_add(self.limit.window).unwrap_or(now + FAR);
            if opens > now {
                return Err(opens);
            }
            self.starts.pop_front();
        }
        self.starts.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::*;

    fn window(requests: usize, window_ms: u64) -> Window {
        let requests = NonZeroUsize::new(requests).unwrap();
        Window::new(RequestWindow { requests, window: Duration::from_millis(window_ms) })
    }

    #[test]
    fn a_full_window_opens_when_its_oldest_request_leaves_it() {
        let mut window = window(2, 1000);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(window.admit(at(0)), Ok(()));
        assert_eq!(window.admit(at(400)), Ok(()));
        assert_eq!(window.admit(at(500)), Err(at(1000)));
        assert_eq!(window.admit(at(999)), Err(at(1000)));
        assert_eq!(window.admit(at(1000)), Ok(()));
        assert_eq!(window.admit(at(1000)), Err(at(1400)));
    }

    #[test]
    fn the_default_lets_sixty_requests_through_in_a_second() {
        let mut window = Window::new(RequestWindow::default());
        let now = Instant::now();
        assert_eq!((0..100).filter(|_| window.admit(now).is_ok()).count(), 60);
        assert_eq!(window.admit(now), Err(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_clock_that_goes_back_opens_nothing() {
        let mut window = window(1, 1000);
        let start = Instant::now() + Duration::from_secs(5);
        assert_eq!(window.admit(start), Ok(()));
        assert_eq!(
            window.admit(start - Duration::from_secs(4)),
            Err(start + Duration::from_secs(1))
        );
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_in_any_window(
            requests in 1_usize..8,
            window_ms in 1_u64..50,
            steps in prop::collection::vec(0_u64..20, 1..300),
        ) {
            let mut window = window(requests, window_ms);
            let start = Instant::now();
            let (mut clock_ms, mut admitted) = (0, Vec::<u64>::new());
            for step in steps {
                clock_ms += step;
                let inside = |from: u64, to: u64| {
                    admitted.iter().filter(|&&at| from <= at && at < to).count()
                };
                match window.admit(start + Duration::from_millis(clock_ms)) {
                    Ok(()) => admitted.push(clock_ms),
                    Err(opens) => {
                        let opens_ms = u64::try_from((opens - start).as_millis()).unwrap();
                        prop_assert!(opens_ms > clock_ms);
                        // Not later than necessary: one millisecond earlier the window was full.
                        let from = opens_ms.saturating_sub(window_ms);
                        prop_assert_eq!(inside(from, opens_ms), requests);
                    }
                }
            }
            for &from in &admitted {
                let inside = admitted.iter().filter(|&&at| from <= at && at < from + window_ms);
                prop_assert!(inside.count() <= requests);
            }
        }
    }
}
