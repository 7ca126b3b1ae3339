//! Ownership of tasks: every task belongs to a set that joins it.
//!
//! # Invariants
//!
//! * [`TaskSet::spawn`] is the only door to spawn; the lint configuration forbids the others.
//! * A task ends before its set does: dropping the set aborts what still runs, [`TaskSet::stop`] asks first.
//! * A panic is never silent: it cancels the set at once, and stopping the set resumes it.
//! * A task that has to last as long as its set, and ends unasked, is a fault like a panic: it cancels the
//!   set, and whoever watches the set is told which task it was.
//! * Tasks of an [`Opening`] start together: the set is stopped before all of them or after all of them.

#[cfg(target_family = "wasm")]
mod page;

use std::{
    any::Any,
    fmt,
    future::Future,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::CatchUnwind};
use pin_project_lite::pin_project;
#[cfg(not(target_family = "wasm"))]
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::time;
#[cfg(target_family = "wasm")]
use page::JoinSet;

type Panic = Box<dyn Any + Send>;

/// The end of a task set.
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

/// A task that ended although nobody had asked its set to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the task, as it was given when it was started.
    pub task: &'static str,
    /// Way in which it ended.
    pub how: FaultKind,
}

/// The way in which a task ended unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// It panicked.
    Panicked,
    /// It returned, although it was to last.
    Returned,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            FaultKind::Panicked => "panicked",
            FaultKind::Returned => "ended unasked",
        };
        write!(f, "its task {:?} {how}", self.task)
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
    fault: FirstFault,
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
        let task = task(self.shared.cancel.clone());
        self.shared.start(name, task, Late::Started, Lasting::No);
    }
}

/// The first fault of a set. Clones share it.
#[derive(Clone, Debug, Default)]
struct FirstFault {
    fault: Arc<OnceLock<Fault>>,
    /// Cancelled once it is there.
    told: CancellationToken,
}

impl FirstFault {
    fn tell(&self, fault: Fault) {
        // One that came first stays.
        let _ = self.fault.set(fault);
        self.told.cancel();
    }

    fn get(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    async fn wait(&self) -> Fault {
        self.told.cancelled().await;
        match self.get() {
            Some(fault) => fault,
            // Never: it is set before it is told.
            None => std::future::pending().await,
        }
    }
}

/// The expected lifetime of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasting {
    Yes,
    No,
}

/// The fate of a task that is to be started when its set has been asked to stop.
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
            fault: FirstFault::default(),
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
        self.launch(name, task, Lasting::No);
    }

    /// Starts a task as [`TaskSet::spawn`] does, that has to run as long as the set does: if it ends before
    /// the set is asked to stop, that is a [`Fault`], and the set is asked to stop.
    pub fn spawn_lasting<F, Fut>(&self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.launch(name, task, Lasting::Yes);
    }

    fn launch<F, Fut>(&self, name: &'static str, task: F, lasting: Lasting)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        if self.shared.cancel.is_cancelled() {
            return;
        }
        let task = task(self.shared.cancel.clone());
        self.shared.start(name, task, Late::Dropped, lasting);
    }

    /// The first fault of a task of this set, if there was one.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.shared.fault.get()
    }

    /// Waits for the first fault of a task of this set, for ever if there is none.
    ///
    /// # Cancel safety
    ///
    /// Safe: a fault stays.
    pub async fn faulted(&self) -> Fault {
        self.shared.fault.wait().await
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

    /// Returns `true` if no task runs.
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
        lasting: Lasting,
    ) {
        let (cancel, fault) = (self.cancel.clone(), self.fault.clone());
        let watched =
            Watched { task: AssertUnwindSafe(task).catch_unwind(), name, lasting, cancel, fault };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked again under the lock: `stop` cancels first and takes the tasks then, so that a task
        // that starts here is among those it takes.
        if self.cancel.is_cancelled() && late == Late::Dropped {
            return;
        }
        while let Some(ended) = tasks.try_join_next() {
            self.note(ended.ok().flatten());
        }
        tasks.spawn(watched);
    }

    fn note(&self, panic: Option<Panic>) {
        if let Some(panic) = panic {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }
}

pin_project! {
    /// A task as its set spawns it. An async block would keep the future of the task twice, as it was captured and as
    /// it is awaited, and thousands of tasks wait for peers that say nothing.
    struct Watched<F> {
        #[pin]
        task: CatchUnwind<AssertUnwindSafe<F>>,
        name: &'static str,
        lasting: Lasting,
        cancel: CancellationToken,
        fault: FirstFault,
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = Option<Panic>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Panic>> {
        let this = self.project();
        let panic = ready!(this.task.poll(context)).err();
        let how = match (&panic, *this.lasting) {
            (Some(_), _) => FaultKind::Panicked,
            (None, Lasting::Yes) if !this.cancel.is_cancelled() => FaultKind::Returned,
            (None, _) => return Poll::Ready(None),
        };
        // Told before it is logged: a log that panics hides no fault.
        this.fault.tell(Fault { task: this.name, how });
        this.cancel.cancel();
        tracing::error!(task = *this.name, ?how, "a task ended unasked; its component stops");
        Poll::Ready(panic)
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

    // Issue 8, 1.
    #[tokio::test(start_paused = true)]
    async fn a_lasting_task_that_ends_unasked_is_a_fault_of_its_set() {
        let tasks = TaskSet::new(&CancellationToken::new());
        tasks.spawn("short", |_cancel| async {});
        tasks.spawn_lasting("lasting", |_cancel| async {
            time::sleep(Duration::from_secs(1)).await
        });
        assert_eq!(tasks.fault(), None);
        let fault = tasks.faulted().await;
        assert_eq!(fault, Fault { task: "lasting", how: FaultKind::Returned });
        assert!(tasks.token().is_cancelled());
        assert_eq!(fault.to_string(), "its task \"lasting\" ended unasked");
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, Shutdown::Clean);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_task_that_ends_when_asked_is_no_fault() {
        let tasks = TaskSet::new(&CancellationToken::new());
        tasks.spawn_lasting("lasting", |cancel| async move { cancel.cancelled().await });
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, Shutdown::Clean);
        assert_eq!(tasks.fault(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_cancellation_is_aborted_and_counted() {
        let tasks = TaskSet::new(&CancellationToken::new());
        tasks.spawn("deaf", |_cancel| std::future::pending());
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, Shutdown::Forced(1));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_of_an_opening_start_although_the_set_is_asked_to_end() {
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

    // Issue 10, "Shown by": it was kept twice.
    #[test]
    fn a_task_keeps_its_future_once() {
        fn beside<F: Future<Output = ()>>(_future: F) -> usize {
            size_of::<Watched<F>>() - size_of::<F>()
        }
        let large = async {
            let memory = [0_u8; 4_096];
            std::future::pending::<()>().await;
            std::hint::black_box(memory);
        };
        assert!(beside(large) < 128);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_starts_in_a_set_that_was_stopped() {
        let tasks = TaskSet::new(&CancellationToken::new());
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, Shutdown::Clean);
        tasks.spawn("late", |_cancel| std::future::pending());
        assert!(tasks.is_empty());
    }
}
