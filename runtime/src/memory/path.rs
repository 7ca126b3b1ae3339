//! The paths between hosts, and the cuts in them.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

/// The two hosts of a path, the smaller address first.
pub(super) type Ends = (IpAddr, IpAddr);

pub(super) fn between(one: IpAddr, other: IpAddr) -> Ends {
    (one.min(other), one.max(other))
}

/// The paths that are cut. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Cuts(Arc<Mutex<CutState>>);

#[derive(Debug, Default)]
struct CutState {
    cut: BTreeSet<Ends>,
    /// Tasks that wait for a cut to be mended.
    waiting: Vec<Waker>,
}

impl Cuts {
    pub(super) fn cut(&self, ends: Ends) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cut.insert(ends);
    }

    pub(super) fn mend(&self, ends: Ends) {
        let waiting = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.cut.remove(&ends);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// The path between two hosts.
#[derive(Clone)]
pub(super) struct Path {
    between: Ends,
    delay: Duration,
    cuts: Cuts,
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Path").field("between", &self.between).finish_non_exhaustive()
    }
}

impl Path {
    pub(super) const fn new(between: Ends, delay: Duration, cuts: Cuts) -> Self {
        Self { between, delay, cuts }
    }

    pub(super) const fn delay(&self) -> Duration {
        self.delay
    }

    /// Returns `true` while nothing passes; then `context` is woken when something may.
    pub(super) fn is_cut(&self, context: &Context<'_>) -> bool {
        let mut state = self.cuts.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_cut = state.cut.contains(&self.between);
        if is_cut {
            state.waiting.push(context.waker().clone());
        }
        is_cut
    }

    /// Resolves when the path is not cut.
    pub(super) async fn whole(&self) {
        let poll = |context: &mut Context<'_>| {
            if self.is_cut(context) { Poll::Pending } else { Poll::Ready(()) }
        };
        std::future::poll_fn(poll).await;
    }
}
