//! In place of tokio's set of tasks, on the one thread of a page.
//!
//! # Invariants
//!
//! * A task whose handle was dropped is dropped itself when it is next polled, and its outcome goes nowhere.

use std::convert::Infallible;

use futures::{FutureExt, StreamExt, future::RemoteHandle, stream::FuturesUnordered};

/// Tasks, and the outcomes of those that have ended. A panic ends the page's instance, so no task ends by one.
#[derive(Debug, Default)]
pub(super) struct JoinSet<T: 'static>(FuturesUnordered<RemoteHandle<T>>);

impl<T: Send + 'static> JoinSet<T> {
    pub(super) fn spawn(&mut self, task: impl Future<Output = T> + 'static) {
        let (task, handle) = task.remote_handle();
        self.0.push(handle);
        wasm_bindgen_futures::spawn_local(task);
    }

    pub(super) fn try_join_next(&mut self) -> Option<Result<T, Infallible>> {
        self.0.next().now_or_never().flatten().map(Ok)
    }

    pub(super) async fn join_next(&mut self) -> Option<Result<T, Infallible>> {
        self.0.next().await.map(Ok)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[expect(clippy::unused_async, reason = "as tokio's, which waits for other threads")]
    pub(super) async fn shutdown(&mut self) {
        self.0.clear();
    }
}
