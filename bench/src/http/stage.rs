//! The terms between a race and its contenders.

use std::{sync::Arc, time::Duration};

use runtime::TaskSet;
use tokio::time::{self, Instant};

use super::{Plan, app::Wanted, score::Score};
use crate::error::Failure;

/// Pause of a caller after a failure, so that a dead contender does not flood the log.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// Keeps a contender running while it is measured.
pub(super) type Keep = Box<dyn Send>;

/// Sends requests one at a time.
pub(super) trait Caller: Send + 'static {
    /// Sends a request and checks the response.
    fn call(&mut self, wanted: Wanted) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The parts from which a contender is set up.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) plan: Plan,
    pub(super) score: Arc<Score>,
    pub(super) tasks: TaskSet,
}

impl Stage {
    /// Starts the task of each caller.
    pub(super) fn start(&self, callers: impl IntoIterator<Item = impl Caller>) {
        let wanted = Wanted::new(self.plan);
        for (number, mut caller) in callers.into_iter().enumerate() {
            let score = Arc::clone(&self.score);
            self.tasks.spawn("caller", |_cancel| async move {
                while score.next() {
                    let began = Instant::now();
                    match caller.call(wanted).await {
                        Ok(()) => score.answered(number, began.elapsed()),
                        Err(error) => {
                            score.failed(1, || chain(&*error));
                            time::sleep(AFTER_FAILURE).await;
                        }
                    }
                }
                score.ended();
            });
        }
    }
}

/// The text of an error with all its sources.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
