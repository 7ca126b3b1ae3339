//! The doubt whether a link is alive, raised by newcomers that prove the same identity.
//!
//! # Invariants
//!
//! * One ping of a link is out at a time, however many newcomers doubt it; all of them get its result.
//! * Time in which this node stood still is not held against the link.
//! * A link that has answered is believed for a while by newcomers that have proved less than it: somebody who passes
//!   their exchange on could otherwise ask again and again, until the link is too busy to answer once.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt,
    future::{Shared, WeakShared},
};
use gossip::BoxFuture;
use runtime::time::Instant;

use crate::pulse::Pulse;

/// Time for which a link that has answered is believed. Chosen: the time in which a silent link is found without any
/// newcomer.
pub(crate) const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// A ping that is out; resolves to its result.
type Ping = Shared<BoxFuture<'static, Life>>;

/// The result of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The peer answered in time.
    Shown,
    /// The time is over.
    NotShown,
}

/// The doubts of one link.
#[derive(Default)]
pub(crate) struct Doubt {
    ping: Mutex<Option<WeakShared<BoxFuture<'static, Life>>>>,
    is_confirmed: AtomicBool,
    /// The time of the last answer.
    dispelled: Mutex<Option<Instant>>,
}

impl fmt::Debug for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doubt").field("is_raised", &self.is_raised()).finish()
    }
}

impl Doubt {
    /// Returns `true` while a ping is out.
    pub(crate) fn is_raised(&self) -> bool {
        out(&self.ping()).is_some()
    }

    /// Joins the ping that is out, or pings by `sign_of_life`, and gives the peer `limit` to answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: the ping goes on for as long as anybody awaits it.
    pub(crate) fn raise(
        &self,
        sign_of_life: impl FnOnce() -> BoxFuture<'static, ()>,
        limit: Duration,
        pulse: &Arc<Pulse>,
    ) -> Ping {
        let mut current = self.ping();
        if let Some(ping) = out(&current) {
            return ping;
        }
        let (answered, pulse) = (sign_of_life(), Arc::clone(pulse));
        let ping: BoxFuture<'static, Life> = Box::pin(async move {
            tokio::select! {
                biased;
                () = answered => Life::Shown,
                () = pulse.passes(limit) => Life::NotShown,
            }
        });
        let ping = ping.shared();
        *current = ping.downgrade();
        ping
    }

    /// Records that the link has answered.
    pub(crate) fn dispel(&self, now: Instant) {
        *self.dispelled.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Returns `true` if the link has answered within [`BELIEVED_FOR`].
    pub(crate) fn was_dispelled_lately(&self, now: Instant) -> bool {
        let dispelled = *self.dispelled.lock().unwrap_or_else(PoisonError::into_inner);
        dispelled.is_some_and(|at| now.saturating_duration_since(at) < BELIEVED_FOR)
    }

    /// Records that the link is dead, and so makes room for a newcomer.
    pub(crate) fn confirm(&self) {
        self.is_confirmed.store(true, Ordering::Release);
    }

    /// Returns `true` if the link is dead, and a newcomer is about to take its place.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.is_confirmed.load(Ordering::Acquire)
    }

    fn ping(&self) -> MutexGuard<'_, Option<WeakShared<BoxFuture<'static, Life>>>> {
        self.ping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ping, if its result is not known yet.
fn out(current: &Option<WeakShared<BoxFuture<'static, Life>>>) -> Option<Ping> {
    current.as_ref()?.upgrade().filter(|ping| ping.peek().is_none())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::{sync::Notify, time};

    use super::*;
    use crate::pulse::Moment;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A peer that counts the pings, and answers when it is told to.
    #[derive(Default)]
    struct Pinged {
        pings: AtomicUsize,
        answer: Arc<Notify>,
    }

    impl Pinged {
        fn ping(&self) -> BoxFuture<'static, ()> {
            self.pings.fetch_add(1, Ordering::Relaxed);
            let answer = Arc::clone(&self.answer);
            Box::pin(async move { answer.notified().await })
        }
    }

    fn pulse() -> Arc<Pulse> {
        Arc::new(Pulse::new(Moment::now()))
    }

    // Issue 9, 6.
    #[tokio::test(start_paused = true)]
    async fn many_newcomers_share_one_ping_and_its_result() {
        let (doubt, pinged, pulse) = (Doubt::default(), Pinged::default(), pulse());
        let raise = || doubt.raise(|| pinged.ping(), LIMIT, &pulse);
        let began = time::Instant::now();
        let first = raise();
        let late = async {
            time::sleep(LIMIT / 2).await;
            raise().await
        };
        assert_eq!(tokio::join!(first, late), (Life::NotShown, Life::NotShown));
        assert_eq!(began.elapsed(), LIMIT, "the late one does not begin anew");
        assert_eq!(pinged.pings.load(Ordering::Relaxed), 1);
        pinged.answer.notify_one();
        assert_eq!(raise().await, Life::Shown, "a result is not kept for the next doubt");
        assert_eq!(pinged.pings.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_that_gives_up_takes_no_answer_from_the_others() {
        let (doubt, pinged, pulse) = (Doubt::default(), Pinged::default(), pulse());
        let raise = || doubt.raise(|| pinged.ping(), LIMIT, &pulse);
        let (first, second) = (raise(), raise());
        assert_eq!(time::timeout(LIMIT / 2, first).await.ok(), None);
        pinged.answer.notify_one();
        assert_eq!(second.await, Life::Shown);
        drop(raise());
        assert!(!doubt.is_raised(), "nobody awaits it any more");
    }
}
