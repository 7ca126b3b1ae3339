//! Notes to the service manager: that the node is ready, that it still runs, and that it is about to stop.
//!
//! # Invariants
//!
//! * Without `NOTIFY_SOCKET` in the environment nothing is sent. Source: sd_notify(3).
//! * A manager that does not read its socket delays neither the node nor its stop.
//! * Signs of life come from the task that hears signals, so a manager that gets them can stop the node.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::{task, time};

/// Longest time for a note. Chosen: a manager reads at once, or hangs.
const PATIENCE: Duration = Duration::from_millis(500);

/// Time that a stop takes beside the grace of a drain. Chosen: twice the longest stop.
const STOP_SPARE: Duration = Duration::from_secs(10);

async fn send(notes: Vec<NotifyState<'static>>) -> Result<(), String> {
    let sent = task::spawn_blocking(move || sd_notify::notify(&notes));
    match time::timeout(PATIENCE, sent).await {
        Ok(Ok(sent)) => sent.map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("it does not read".to_owned()),
    }
}

/// Says that the node listens and takes orders. A manager that cannot be told gets one line in the log.
pub(crate) async fn ready() {
    if let Err(error) = send(vec![NotifyState::Ready, NotifyState::Status("running")]).await {
        tracing::warn!(error, "the service manager cannot be told that the node is ready");
    }
}

/// Says that the node stops once `grace` has passed, so that the manager waits for it.
pub(crate) async fn draining(grace: Duration) {
    let patience = u32::try_from((grace + STOP_SPARE).as_micros()).unwrap_or(u32::MAX);
    let notes = vec![NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(patience)];
    // The manager was there at the start; one that has gone needs no word.
    let _ = send(notes).await;
}

/// Says that the node stops.
pub(crate) async fn stopping() {
    // As above.
    let _ = send(vec![NotifyState::Stopping, NotifyState::Status("stopping")]).await;
}

/// Sends signs of life, twice in the time after which the manager would take the node for dead. Never ends.
pub(crate) async fn signs_of_life() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut beats = time::interval(limit / 2);
    loop {
        beats.tick().await;
        // As above.
        let _ = send(vec![NotifyState::Watchdog]).await;
    }
}
