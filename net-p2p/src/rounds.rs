//! Rounds of the swarm task: it gets round to everything that it has to do, however fast its peers publish.
//!
//! ```text
//!   swarm task     polled, polled, … nothing left │ polled, … nothing left │
//!   topic streams  read 8 KiB each, then wait     │ read again             │
//! ```
//!
//! The library looks for events of connections before it looks at new connections, dials and listeners. Handling the
//! messages of an RPC takes longer than reading it, so a single peer that always has another RPC ready kept all of those
//! waiting for as long as it liked.
//!
//! # Invariants
//!
//! * In one round a connection's topic stream is read up to [`SHARE_BYTES`]. A round ends when the swarm has nothing left
//!   to do.
//! * No stream waits while the swarm is idle, so a round always comes to its end.

use std::{
    mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Bytes that a connection's topic stream is read in one round. Chosen: the library reads as many at a time, and the swarm
/// task handles as many of small messages in a millisecond or two.
const SHARE_BYTES: usize = 8 * 1024;

/// The rounds of one swarm task. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Number of the round.
    number: u64,
    /// The tasks that read topic streams and have had their share.
    waiting: Vec<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// The swarm had nothing left to do when it was last polled.
    #[default]
    Idle,
    /// The swarm is being polled, or has more to do.
    Working,
}

impl Rounds {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the swarm for its next event. A round ends when there is none.
    ///
    /// # Cancel safety
    ///
    /// The same as that of `part`.
    pub(crate) async fn during<F: Future>(&self, part: F) -> F::Output {
        let mut part = pin!(part);
        std::future::poll_fn(|context| {
            self.state().phase = Phase::Working;
            let polled = part.as_mut().poll(context);
            if polled.is_pending() {
                self.end();
            }
            polled
        })
        .await
    }

    fn end(&self) {
        let waiting = {
            let mut state = self.state();
            state.phase = Phase::Idle;
            state.number = state.number.wrapping_add(1);
            mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The share of a connection.
    pub(crate) fn share(&self) -> ReadShare {
        ReadShare { rounds: self.clone(), round: None, left: 0, is_waiting: false }
    }
}

/// The bytes that the topic stream of one connection may still be read in this round.
#[derive(Debug)]
pub(crate) struct ReadShare {
    rounds: Rounds,
    /// The round of the share; `None` before the first one.
    round: Option<u64>,
    left: usize,
    is_waiting: bool,
}

impl ReadShare {
    /// Resolves with the number of bytes that may be read now, at least one.
    pub(crate) fn poll_left(&mut self, context: &Context<'_>) -> Poll<usize> {
        if self.left > 0 {
            return Poll::Ready(self.left);
        }
        let mut state = self.rounds.state();
        if state.phase == Phase::Working && self.round == Some(state.number) {
            // The task of a connection stays the same.
            if !mem::replace(&mut self.is_waiting, true) {
                state.waiting.push(context.waker().clone());
            }
            return Poll::Pending;
        }
        (self.round, self.left, self.is_waiting) = (Some(state.number), SHARE_BYTES, false);
        Poll::Ready(SHARE_BYTES)
    }

    /// Notes that bytes were read.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};

    use futures::FutureExt;

    use super::*;

    fn left(share: &mut ReadShare) -> Option<usize> {
        poll_fn(|context| share.poll_left(context)).now_or_never()
    }

    #[test]
    fn a_stream_that_had_its_share_waits_for_the_end_of_the_round() {
        let rounds = Rounds::default();
        let (mut greedy, mut modest) = (rounds.share(), rounds.share());
        for _ in 0..3 {
            assert!(rounds.during(ready(())).now_or_never().is_some(), "an event");
            assert_eq!(left(&mut greedy), Some(SHARE_BYTES));
            greedy.spend(SHARE_BYTES - 1);
            assert_eq!(left(&mut greedy), Some(1));
            greedy.spend(1);
            assert_eq!(left(&mut greedy), None);
            assert!(rounds.during(ready(())).now_or_never().is_some(), "another event");
            assert_eq!(left(&mut greedy), None);
            assert_eq!(left(&mut modest), Some(SHARE_BYTES));
            assert!(rounds.during(pending::<()>()).now_or_never().is_none(), "nothing left");
        }
    }

    #[test]
    fn no_stream_waits_for_an_idle_swarm() {
        let rounds = Rounds::default();
        let mut share = rounds.share();
        for _ in 0..3 {
            assert_eq!(left(&mut share), Some(SHARE_BYTES));
            share.spend(SHARE_BYTES);
        }
    }

    #[tokio::test]
    async fn a_stream_that_waits_wakes_at_the_end_of_the_round() {
        let rounds = Rounds::default();
        let mut share = rounds.share();
        rounds.during(ready(())).await;
        assert_eq!(left(&mut share), Some(SHARE_BYTES));
        share.spend(SHARE_BYTES);
        let wait = poll_fn(|context| share.poll_left(context));
        let end = rounds.during(pending::<()>());
        tokio::select! {
            biased;
            left = wait => assert_eq!(left, SHARE_BYTES),
            () = end => unreachable!("it never ends"),
        }
    }
}
