//! The end of a node's work, ordered before its end.
//!
//! # Invariants
//!
//! * A drain is never taken back. A second order may set an earlier end, or one where there was none, and no later one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{self, Instant},
};

/// The drain of a node. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    begun: AtomicBool,
    /// The time at which the node stops by itself, for the one who waits for it.
    end: watch::Sender<Option<Instant>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                begun: AtomicBool::new(false),
                end: watch::Sender::new(None),
            }),
        }
    }
}

impl Drain {
    /// The name of the reason in `/health`, and as a label of a metric.
    pub(crate) const LABEL: &'static str = "draining";

    /// Begins it, and returns the time until the node stops by itself, if it does.
    pub(crate) fn begin(&self, grace: Option<Duration>) -> Option<Duration> {
        self.shared.begun.store(true, Ordering::Relaxed);
        let now = Instant::now();
        if let Some(end) = grace.map(|grace| now + grace) {
            self.shared.end.send_if_modified(|set| {
                let is_earlier = set.is_none_or(|set| end < set);
                if is_earlier {
                    *set = Some(end);
                }
                is_earlier
            });
        }
        self.shared.end.borrow().map(|end| end.saturating_duration_since(now))
    }

    /// `true` once it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Resolves when the grace has ended; never without one.
    ///
    /// # Cancel safety
    ///
    /// Safe: the end stays.
    pub(crate) async fn over(&self) {
        let mut end = self.shared.end.subscribe();
        loop {
            let at = *end.borrow_and_update();
            let waited = async {
                match at {
                    Some(at) => time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = waited => return,
                // The sender is in `self`.
                _ = end.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_the_earliest_grace_and_without_one_never() {
        let (drain, minute) = (Drain::default(), Duration::from_secs(60));
        assert!(!drain.has_begun());
        assert_eq!(drain.begin(None), None);
        assert!(drain.has_begun());
        time::advance(minute).await;
        assert!(drain.over().now_or_never().is_none());
        assert_eq!(drain.begin(Some(2 * minute)), Some(2 * minute));
        assert_eq!(drain.begin(Some(3 * minute)), Some(2 * minute), "never later");
        assert_eq!(drain.begin(Some(minute)), Some(minute));
        assert_eq!(drain.begin(None), Some(minute), "never taken back");
        let began = Instant::now();
        drain.over().await;
        assert_eq!(began.elapsed(), minute);
        drain.over().now_or_never().unwrap();
    }
}
