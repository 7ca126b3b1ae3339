//! A wait for cancellation beside work that is polled often.
//!
//! # Invariants
//!
//! * The token is looked at when the task changes and when the token woke it, and at no other poll: looking takes two
//!   locks, which a loop that is woken a hundred thousand times a second would pay each time.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Resolves when a token is cancelled. A poll before that costs a comparison and a load.
///
/// It is meant for a task of its own: each change of the task that polls it costs an allocation.
#[derive(Debug)]
pub struct CancelWatch {
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None` before the first poll.
    bell: Option<Arc<Bell>>,
}

/// The waker that the token gets: it remembers that it was the token that woke the task.
#[derive(Debug)]
struct Bell {
    has_rung: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl CancelWatch {
    /// Waits for `token`.
    #[must_use]
    pub fn new(token: &CancellationToken) -> Self {
        Self { cancelled: Box::pin(token.clone().cancelled_owned()), bell: None }
    }

    /// Runs `work` until it is done, or until `token` is cancelled: then the result is `None`, and `work` is dropped.
    ///
    /// # Cancel safety
    ///
    /// The same as that of `work`.
    pub async fn run<F: Future>(token: &CancellationToken, work: F) -> Option<F::Output> {
        let (mut watch, mut work) = (Self::new(token), pin!(work));
        poll_fn(|context| match Pin::new(&mut watch).poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => work.as_mut().poll(context).map(Some),
        })
        .await
    }
}

impl Future for CancelWatch {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let known = this.bell.as_ref().filter(|bell| bell.task.will_wake(context.waker()));
        let bell = match known {
            Some(bell) if !bell.has_rung.load(Ordering::Acquire) => return Poll::Pending,
            Some(bell) => {
                // Before the look, so that a wake after it is not missed.
                bell.has_rung.store(false, Ordering::Release);
                Arc::clone(bell)
            }
            None => {
                let (has_rung, task) = (AtomicBool::new(false), context.waker().clone());
                let bell = Arc::new(Bell { has_rung, task });
                Arc::clone(this.bell.insert(bell))
            }
        };
        ready!(this.cancelled.as_mut().poll(&mut Context::from_waker(&Waker::from(bell))));
        // Every later poll looks again, and finds the token cancelled.
        this.bell = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, time::Duration};

    use futures::FutureExt;
    use tokio::time::timeout;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(watch: &mut CancelWatch, task: &Arc<Count>) -> Poll<()> {
        let waker = Waker::from(Arc::clone(task));
        watch.poll_unpin(&mut Context::from_waker(&waker))
    }

    #[test]
    fn the_task_that_polled_last_is_woken() {
        let (token, tasks) = (CancellationToken::new(), [(); 2].map(|()| Arc::<Count>::default()));
        let mut watch = CancelWatch::new(&token);
        for task in [0, 0, 1, 0, 1, 1] {
            assert!(poll(&mut watch, &tasks[task]).is_pending());
        }
        token.cancel();
        let woken = tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 1]);
        for task in [1, 0, 1] {
            assert!(poll(&mut watch, &tasks[task]).is_ready(), "and stays ready");
        }
    }

    #[test]
    fn a_token_that_was_cancelled_before_is_noticed_at_the_first_poll() {
        let token = CancellationToken::new();
        token.cancel();
        assert!(poll(&mut CancelWatch::new(&token), &Arc::default()).is_ready());
    }

    #[tokio::test]
    async fn work_ends_with_its_result_or_with_the_token() {
        let token = CancellationToken::new();
        assert_eq!(CancelWatch::run(&token, async { 7 }).await, Some(7));
        let cancelling = async {
            tokio::task::yield_now().await;
            token.cancel();
        };
        let waiting = CancelWatch::run(&token, std::future::pending::<()>());
        let both = async { tokio::join!(waiting, cancelling) };
        let (ended, ()) = timeout(Duration::from_secs(30), both).await.expect("it is woken");
        assert_eq!(ended, None);
    }
}
