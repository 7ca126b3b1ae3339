//! Monotonic time: tokio's, which tests pause; in WebAssembly that of the browser.

#[cfg(target_family = "wasm")]
mod page;

use std::time::SystemTime;

/// The moment as other rooms take it.
#[cfg(not(target_family = "wasm"))]
pub type StdInstant = std::time::Instant;

/// The moment as other rooms take it.
#[cfg(target_family = "wasm")]
pub type StdInstant = web_time::Instant;

#[cfg(target_family = "wasm")]
pub use page::*;
#[cfg(not(target_family = "wasm"))]
pub use tokio::time::*;

/// Turns a moment of this clock into one that other rooms take.
#[must_use]
#[inline]
pub fn into_std(at: Instant) -> StdInstant {
    #[cfg(not(target_family = "wasm"))]
    return at.into_std();
    #[cfg(target_family = "wasm")]
    return at;
}

/// Turns a moment of another room into one of this clock.
#[must_use]
#[inline]
pub fn from_std(at: StdInstant) -> Instant {
    #[cfg(not(target_family = "wasm"))]
    return Instant::from_std(at);
    #[cfg(target_family = "wasm")]
    return at;
}

/// The system's time of day.
#[cfg(not(target_family = "wasm"))]
#[expect(clippy::disallowed_methods, reason = "this is where the system is asked")]
pub(crate) fn of_day() -> SystemTime {
    SystemTime::now()
}

/// The host's time of day; its beginning, if the host shows an earlier one.
#[cfg(target_family = "wasm")]
pub(crate) fn of_day() -> SystemTime {
    use web_time::{SystemTime as Host, UNIX_EPOCH};
    SystemTime::UNIX_EPOCH + Host::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Lets other tasks run.
#[cfg(not(target_family = "wasm"))]
pub(crate) async fn give_way() {
    tokio::task::yield_now().await;
}

/// Lets other tasks run, and the page, which a task that only wakes itself would keep from its events.
#[cfg(target_family = "wasm")]
pub(crate) async fn give_way() {
    sleep(std::time::Duration::from_millis(1)).await;
}
