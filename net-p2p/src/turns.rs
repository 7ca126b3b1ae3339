//! Turns of handshakes: those of strangers are computed few at a time, with everything else in between.
//!
//! A Noise handshake takes some tenths of a millisecond in two or three steps. With sixty hosts that come at once, each
//! of the tasks that a vote passes through would wait in the runtime's queue behind sixty such steps.
//!
//! # Invariants
//!
//! * At most as many steps as there are turns stand in the runtime's queue at any time, each behind what stood there.
//! * A handshake holds its turn for one step only, never while it waits for its peer.

use std::{
    future::poll_fn,
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    thread,
};

use tokio::{sync::Semaphore, task};

/// The turns of a node's inbound handshakes. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    free: Arc<Semaphore>,
}

impl Turns {
    /// Turns for half of the processors, at least one.
    pub(crate) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { free: Arc::new(Semaphore::new((processors / 2).max(1))) }
    }

    /// Runs a handshake, each step of it when it is its turn.
    ///
    /// # Cancel safety
    ///
    /// The same as that of `handshake`.
    pub(crate) async fn run<F: Future>(&self, mut handshake: Pin<Box<F>>) -> F::Output {
        loop {
            // The semaphore is never closed.
            let turn = self.free.acquire().await.ok();
            // To the end of the queue, so that everything that is ready runs before the step.
            task::yield_now().await;
            let step = poll_fn(|context| Poll::Ready(handshake.as_mut().poll(context))).await;
            drop(turn);
            if let Poll::Ready(output) = step {
                return output;
            }
            woken().await;
        }
    }
}

/// Resolves when the task is polled again.
async fn woken() {
    let mut is_again = false;
    let mut once = pin!(poll_fn(|_context| {
        if std::mem::replace(&mut is_again, true) { Poll::Ready(()) } else { Poll::Pending }
    }));
    once.as_mut().await;
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures::future::join_all;
    use runtime::TaskSet;
    use tokio::{sync::oneshot, time::timeout};
    use tokio_util::sync::CancellationToken;

    use super::*;

    // Issue 10, "Shown by": 64 hosts that come at once.
    #[tokio::test]
    async fn others_run_between_the_steps_of_handshakes() {
        let (tasks, steps) =
            (TaskSet::new(&CancellationToken::new()), Arc::<AtomicUsize>::default());
        let turns = Turns { free: Arc::new(Semaphore::new(1)) };
        for _ in 0..64 {
            let (turns, steps) = (turns.clone(), Arc::clone(&steps));
            let handshake = Box::pin(async move {
                for _ in 0..5 {
                    steps.fetch_add(1, Ordering::Relaxed);
                    task::yield_now().await;
                }
            });
            tasks.spawn("handshake", |_cancel| async move { turns.run(handshake).await });
        }
        let (mut before, mut most) = (0, 0);
        timeout(Duration::from_secs(20), async {
            while before < 64 * 5 {
                task::yield_now().await;
                let now = steps.load(Ordering::Relaxed);
                most = most.max(now - before);
                before = now;
            }
        })
        .await
        .expect("all handshakes end");
        assert_eq!(most, 1, "steps in a row");
    }

    #[tokio::test]
    async fn a_handshake_that_waits_for_its_peer_holds_no_turn() {
        let turns = Turns { free: Arc::new(Semaphore::new(1)) };
        let (answers, answered): (Vec<_>, Vec<_>) =
            (0..3).map(|_| oneshot::channel::<usize>()).unzip();
        let waiting = join_all(answered.into_iter().map(|answer| turns.run(Box::pin(answer))));
        let answer = async {
            task::yield_now().await;
            for (number, to) in answers.into_iter().enumerate().rev() {
                // The handshake waits for it.
                let _ = to.send(number);
                task::yield_now().await;
            }
        };
        let both = async { tokio::join!(waiting, answer).0 };
        let told = timeout(Duration::from_secs(20), both).await.expect("all handshakes end");
        assert_eq!(told, [Ok(0), Ok(1), Ok(2)]);
        assert_eq!(turns.free.available_permits(), 1);
    }
}
