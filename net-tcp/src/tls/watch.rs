//! The task that reads the files of the listener's certificate again.

use std::time::Duration;

use tokio::{
    task,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::identity::{Reread, TlsIdentity};

/// Reads the files of `identity` at this interval until the network stops. A file system that hangs holds up one
/// thread, and nothing else.
///
/// # Cancel safety
///
/// Safe: the look that is under way is finished without the caller.
pub async fn watch(identity: TlsIdentity, interval: Duration, cancel: CancellationToken) {
    let mut look = time::interval(interval);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if cancel.run_until_cancelled(look.tick()).await.is_none() {
            return;
        }
        let looked = identity.clone();
        let reading = task::spawn_blocking(move || looked.reread());
        match cancel.run_until_cancelled(reading).await {
            None => return,
            Some(Ok(Reread::Taken)) => {
                tracing::info!(?identity, "a new certificate is in use");
            }
            Some(Ok(Reread::Refused(error))) => {
                let error = with_cause(&error);
                tracing::warn!(error, "the changed certificate cannot be used; the old one stays");
            }
            // The runtime drops the read only when it ends itself.
            Some(Ok(Reread::Unchanged) | Err(_)) => {}
        }
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
