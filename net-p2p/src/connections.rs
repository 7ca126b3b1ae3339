//! The tasks that drive connections, and their owner.
//!
//! # Invariants
//!
//! * A panic in one of them ends this swarm, and with it the other connections; the supervisor starts a new
//!   one.
//! * The tasks end with their set, in any state.

use std::panic::AssertUnwindSafe;

use futures::{FutureExt, future::BoxFuture};
use libp2p::swarm::Executor;
use runtime::TaskSet;
use tokio_util::sync::CancellationToken;

/// Spawns the tasks of connections in a set of their own. Clones share the set.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionTasks {
    tasks: TaskSet,
    panicked: CancellationToken,
}

impl ConnectionTasks {
    /// Spawns tasks in `tasks`, and cancels `panicked` when one of them panics.
    pub(crate) const fn new(tasks: TaskSet, panicked: CancellationToken) -> Self {
        Self { tasks, panicked }
    }

    /// Spawns a task, unless the set has been asked to stop. It is boxed, because the wait for either end would hold it
    /// twice.
    pub(crate) fn start(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        let panicked = self.panicked.clone();
        self.tasks.spawn(name, |cancel| async move {
            let task = AssertUnwindSafe(task).catch_unwind();
            let ended = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                ended = task => ended,
            };
            if ended.is_err() {
                // The swarm would wait for this connection for ever, so the swarm has to end.
                panicked.cancel();
            }
        });
    }
}

impl Executor for ConnectionTasks {
    fn exec(&self, task: BoxFuture<'static, ()>) {
        self.start("connection", task);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_and_the_set_goes_on() {
        let (tasks, panicked) = (TaskSet::new(&CancellationToken::new()), CancellationToken::new());
        let connections = ConnectionTasks::new(tasks.clone(), panicked.clone());
        connections.start("well", Box::pin(std::future::pending()));
        connections.start("buggy", Box::pin(async { panic!("a bug") }));
        time::timeout(Duration::from_secs(20), panicked.cancelled()).await.unwrap();
        assert!(!tasks.token().is_cancelled());
        assert_eq!(tasks.stop(Duration::from_secs(20)).await, runtime::Shutdown::Clean);
    }
}
