//! Timers of a browser, called as tokio's are. Each is a timeout of its own.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::{Either, select};
use futures_timer::Delay;
pub use web_time::Instant;

/// Longest timeout that is asked of the browser, which takes those of more than 24 days for none. Chosen: below that.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// In place of a moment that no clock shows.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The refusal of a wait that took too long.
pub mod error {
    /// The time was over before the future was ready.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
    #[error("deadline has elapsed")]
    pub struct Elapsed(pub(super) ());

    impl From<Elapsed> for std::io::Error {
        fn from(_: Elapsed) -> Self {
            std::io::ErrorKind::TimedOut.into()
        }
    }
}

/// A wait until a moment.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Sleep {
    deadline: Instant,
    delay: Delay,
}

impl Sleep {
    /// The moment at which it ends.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns `true` once the moment has come.
    #[must_use]
    pub fn is_elapsed(&self) -> bool {
        left_until(self.deadline).is_zero()
    }

    /// Ends at another moment from now on.
    pub fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.deadline = deadline;
        self.delay.reset(left_until(deadline));
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // A timer that has fired is not polled again: a wait that is over stays so, as tokio's does.
        while !self.is_elapsed() {
            ready!(Pin::new(&mut self.delay).poll(context));
            // A browser counts whole milliseconds, and may be early by a part of one.
            let left = left_until(self.deadline);
            self.delay.reset(left);
        }
        Poll::Ready(())
    }
}

fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).min(LONGEST)
}

fn after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or_else(|| now + FAR)
}

/// Waits for so long.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(after(duration))
}

/// Waits until a moment.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, delay: Delay::new(left_until(deadline)) }
}

/// Waits for a future for so long.
///
/// # Errors
///
/// [`error::Elapsed`] if it is not ready by then.
///
/// # Cancel safety
///
/// The same as that of the future.
pub fn timeout<F: IntoFuture>(
    duration: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, error::Elapsed>> {
    timeout_at(after(duration), future)
}

/// Waits for a future until a moment.
///
/// # Errors
///
/// [`error::Elapsed`] if it is not ready by then.
///
/// # Cancel safety
///
/// The same as that of the future.
pub async fn timeout_at<F: IntoFuture>(
    deadline: Instant,
    future: F,
) -> Result<F::Output, error::Elapsed> {
    match select(pin!(future.into_future()), sleep_until(deadline)).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(_) => Err(error::Elapsed(())),
    }
}

/// When an interval ticks after ticks that were missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissedTickBehavior {
    /// They come one after the other. Default.
    #[default]
    Burst,
    /// The next one comes a whole period after the one that was late.
    Delay,
}

/// Ticks at once, and then once in every period.
#[derive(Debug)]
pub struct Interval {
    next: Instant,
    period: Duration,
    missed: MissedTickBehavior,
}

/// Ticks at once, and then once in every `period`. Ticks that were missed come one after the other.
#[must_use]
pub fn interval(period: Duration) -> Interval {
    Interval { next: Instant::now(), period, missed: MissedTickBehavior::Burst }
}

impl Interval {
    /// Sets when it ticks after ticks that were missed.
    pub const fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }

    /// Waits for the next tick, and returns its moment.
    ///
    /// # Cancel safety
    ///
    /// Safe: a tick that nobody waited for comes with the next call.
    pub async fn tick(&mut self) -> Instant {
        let at = self.next;
        sleep_until(at).await;
        let last = match self.missed {
            MissedTickBehavior::Burst => at,
            MissedTickBehavior::Delay => Instant::now(),
        };
        self.next = last + self.period;
        at
    }
}
