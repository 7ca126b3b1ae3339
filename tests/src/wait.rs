//! Polling for a state, with a deadline.

use std::{future::Future, time::Duration};

use tokio::time::{self, Instant};

/// Longest wait for anything that must happen. Chosen: far more than it takes with both cores busy, and short
/// enough that a hang is noticed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Interval at which a state is checked.
const INTERVAL: Duration = Duration::from_millis(5);

/// Polls until `check` returns a value.
///
/// # Panics
///
/// If it returns none before the deadline.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut check: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        time::sleep(INTERVAL).await;
    }
}

/// Polls until `check` holds.
///
/// # Panics
///
/// If it does not hold within [`PATIENCE`].
pub async fn until(what: &str, mut check: impl FnMut() -> bool) {
    eventually(what, PATIENCE, || check().then_some(())).await;
}

/// Awaits a future that must resolve within [`PATIENCE`].
///
/// # Panics
///
/// If it does not.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = time::timeout(PATIENCE, future).await else {
        panic!("not within {PATIENCE:?}: {what}");
    };
    value
}
