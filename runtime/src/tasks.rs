//! Who owns a task.
//!
//! # Invariants
//!
//! * [`TaskSet::spawn`] is the only door to spawn; the lint configuration forbids the others.
//! * A task ends before its set does: dropping the set aborts what still runs, [`TaskSet::stop`] asks first.
//! * A panic is never silent: it cancels the set at once, and stopping the set resumes it.
//! * What is started in an [`Opening`] is started whole: the set is stopped before it or after it.

use std::{
    any::Any,
    future::Future,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use futures::FutureExt;
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

type Panic = Box<dyn Any + Send>;

/// How a task set ended.
#[must_use = "a forced stop left work undone"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Every task ended by itself.
    Clean,
    /// So many tasks had to be aborted.
    Forced(usize),
}

impl Shutdown {
    /// The two ends in one: clean only if both were.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Clean, Self::Clean) => Self::Clean,
            (Self::Forced(a), Self::Forced(b)) => Self::Forced(a + b),
            (Self::Forced(n), Self::Clean) | (Self::Clean, Self::Forced(n)) => Self::Forced(n),
        }
    }
}

/// The tasks one component owns. Clones share the same tasks; the last one to be dropped aborts them.
#[derive(Clone, Debug)]
pub struct TaskSet {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Results are taken out whenever another task is spawned, so the set does not grow with the
    /// number of peers that ever were.
    tasks: Mutex<JoinSet<Option<Panic>>>,
    /// The first panic, until somebody resumes it.
    panic: Mutex<Option<Panic>>,
    cancel: CancellationToken,
    /// Read by openings; written, for a moment, by whoever stops the set.
    openings: RwLock<()>,
}

/// A moment in which a set is not stopped, so that several tasks that need each other can be started.
#[derive(Debug)]
pub struct Opening<'a> {
    shared: &'a Shared,
    _open: RwLockReadGuard<'a, ()>,
}

impl Opening<'_> {
    /// Starts a task. It may find its token cancelled.
    pub fn spawn<F, Fut>(&self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.shared.start(name, task(self.shared.cancel.clone()), Late::Started);
    }
}

/// What becomes of a task that is to be started when its set has been asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    Started,
    Dropped,
}

impl TaskSet {
    /// An empty set that is cancelled with `parent`.
    #[must_use]
    pub fn new(parent: &CancellationToken) -> Self {
        let cancel = parent.child_token();
        let shared = Shared {
            tasks: Mutex::default(),
            panic: Mutex::default(),
            cancel,
            openings: RwLock::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The token that asks every task of the set to end.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.shared.cancel
    }

    /// Starts a task, unless the set has been asked to stop. `task` gets the token to watch.
    pub fn spawn<F, Fut>(&self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        if self.shared.cancel.is_cancelled() {
            return;
        }
        self.shared.start(name, task(self.shared.cancel.clone()), Late::Dropped);
    }

    /// Keeps the set from being stopped for a moment; `None` if it has been asked to. Not to be held
    /// for long: whoever stops the set waits.
    #[must_use]
    pub fn open(&self) -> Option<Opening<'_>> {
        let open = self.shared.openings.read().unwrap_or_else(PoisonError::into_inner);
        let is_open = !self.shared.cancel.is_cancelled();
        is_open.then(|| Opening { shared: &self.shared, _open: open })
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        let mut tasks = self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            self.shared.note(ended.ok().flatten());
        }
        tasks.len()
    }

    /// Whether no task runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks every task to end, waits for at most `grace`, then aborts the rest.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of a task.
    ///
    /// # Cancel safety
    ///
    /// A dropped `stop` leaves the tasks cancelled; those it was waiting for are aborted.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        self.shared.cancel.cancel();
        drop(self.shared.openings.write().unwrap_or_else(PoisonError::into_inner));
        let mut tasks = {
            let mut shared = self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *shared)
        };
        let joined = time::timeout(grace, async {
            while let Some(ended) = tasks.join_next().await {
                self.shared.note(ended.ok().flatten());
            }
        });
        let outcome = if joined.await.is_ok() {
            Shutdown::Clean
        } else {
            let left = tasks.len();
            tasks.shutdown().await;
            Shutdown::Forced(left)
        };
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            panic::resume_unwind(panic);
        }
        outcome
    }
}

impl Shared {
    fn start(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
        late: Late,
    ) {
        let future = AssertUnwindSafe(task).catch_unwind();
        let cancel = self.cancel.clone();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked again under the lock: `stop` cancels first and takes the tasks then, so that a task
        // that starts here is among those it takes.
        if cancel.is_cancelled() && late == Late::Dropped {
            return;
        }
        while let Some(ended) = tasks.try_join_next() {
            self.note(ended.ok().flatten());
        }
        tasks.spawn(async move {
            let panic = future.await.err();
            if panic.is_some() {
                tracing::error!(task = name, "a task panicked; its component stops");
                cancel.cancel();
            }
            panic
        });
    }

    fn note(&self, panic: Option<Panic>) {
        if let Some(panic) = panic {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn obedient_tasks_end_cleanly() {
        let tasks = TaskSet::new(&CancellationToken::new());
        tasks.spawn("waits", |cancel| async move { cancel.cancelled().await });
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, Shutdown::Clean);
        assert!(tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "a bug")]
    async fn a_panic_in_a_task_cancels_the_set_and_reaches_whoever_stops_it() {
        let tasks = TaskSet::new(&CancellationToken::new());
        tasks.spawn("buggy", |_cancel| async { panic!("a bug") });
        tasks.token().cancelled().await;
        let _never = tasks.stop(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_cancellation_is_aborted_and_counted() {
        let tasks = TaskSet::new(&CancellationToken::new());
        tasks.spawn("deaf", |_cancel| std::future::pending());
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, Shutdown::Forced(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_started_in_an_opening_is_started_although_the_set_is_asked_to_end() {
        let tasks = TaskSet::new(&CancellationToken::new());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let opening = tasks.open().unwrap();
        tasks.token().cancel();
        opening.spawn("late", |cancel| async move {
            cancel.cancelled().await;
            sender.send(()).unwrap();
        });
        drop(opening);
        assert!(tasks.open().is_none());
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, Shutdown::Clean);
        assert_eq!(receiver.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_starts_in_a_set_that_was_stopped() {
        let tasks = TaskSet::new(&CancellationToken::new());
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, Shutdown::Clean);
        tasks.spawn("late", |_cancel| std::future::pending());
        assert!(tasks.is_empty());
    }
}
