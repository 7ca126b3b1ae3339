//! The wakes of one connection: which task polls it, and whether a read can bring anything.
//!
//! hyper reads in each of its turns, also when nothing can have come since the last one. Over TLS such a read passes
//! five layers, and three of five reads of a short exchange were such.
//!
//! # Invariants
//!
//! * A read is left out only if the last one would have blocked and the stream has woken nobody since.
//! * The stream knows one waker, for reading and for writing, so that no call replaces that of another.
//! * Whichever task polls the connection, the stream and hyper keep the same wakers, so that it can change with one
//!   registration.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;

/// The wakes of one connection. A cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Readiness {
    state: Arc<State>,
    /// The waker of the stream.
    stream: Waker,
}

#[derive(Debug)]
struct State {
    /// The stream has called its waker since the last read began, or that read brought something.
    woken: AtomicBool,
    task: AtomicWaker,
}

/// Wakes the task, and notes that the stream did.
struct OfStream(Arc<State>);

/// Wakes the task.
struct OfHyper(Arc<State>);

impl Wake for OfStream {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.woken.store(true, SeqCst);
        self.0.task.wake();
    }
}

impl Wake for OfHyper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.task.wake();
    }
}

impl Readiness {
    /// Of a stream that was not read yet.
    pub(super) fn new() -> Self {
        let state = Arc::new(State { woken: AtomicBool::new(true), task: AtomicWaker::new() });
        let stream = Waker::from(Arc::new(OfStream(Arc::clone(&state))));
        Self { state, stream }
    }

    /// A waker of the task that does not make the stream readable.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(Arc::new(OfHyper(Arc::clone(&self.state))))
    }

    /// The next wake goes to this task. To be called before each poll of the connection.
    pub(super) fn wake_next(&self, task: &Waker) {
        self.state.task.register(task);
    }

    /// Wakes go nowhere, until the next [`Readiness::wake_next`]. For a caller that polls anyway.
    pub(super) fn wake_nobody(&self) {
        drop(self.state.task.take());
    }

    /// Wakes the task.
    pub(super) fn wake(&self) {
        self.state.task.wake();
    }

    /// Returns `true` if a read may bring something.
    pub(super) fn is_readable(&self) -> bool {
        self.state.woken.load(SeqCst)
    }

    /// Reads, unless that would block for certain.
    pub(super) fn poll_read<T>(&self, read: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if !self.state.woken.swap(false, SeqCst) {
            return Poll::Pending;
        }
        let poll = self.poll(read);
        if poll.is_ready() {
            self.state.woken.store(true, SeqCst);
        }
        poll
    }

    /// Polls the stream for anything else.
    pub(super) fn poll<T>(&self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        poll(&mut Context::from_waker(&self.stream))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Debug, Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    // Issue 9, 8.
    #[test]
    fn a_read_that_would_block_is_tried_again_after_a_wake_of_the_stream_only() {
        let wakes = Arc::new(Wakes::default());
        let readiness = Readiness::new();
        readiness.wake_next(&Waker::from(Arc::clone(&wakes)));
        let (mut reads, mut held) = (0, None);
        let mut read = |answer: Poll<u8>| {
            let got = readiness.poll_read(|context| {
                reads += 1;
                held = Some(context.waker().clone());
                answer
            });
            (got, reads)
        };
        assert_eq!(read(Poll::Ready(1)), (Poll::Ready(1), 1));
        assert_eq!(read(Poll::Pending), (Poll::Pending, 2), "there may be more");
        assert_eq!(read(Poll::Ready(2)), (Poll::Pending, 2), "the stream woke nobody");
        readiness.waker().wake();
        assert_eq!(read(Poll::Ready(2)), (Poll::Pending, 2), "hyper woke its task, not the stream");
        assert_eq!(wakes.0.load(SeqCst), 1);
        let stream = held.take().unwrap();
        readiness.wake_next(&Waker::from(Arc::clone(&wakes)));
        stream.wake_by_ref();
        assert_eq!(wakes.0.load(SeqCst), 2);
        assert!(readiness.is_readable());
        let again = readiness.poll_read(|_| {
            // Woken while it is read: what came then is read in the next turn.
            stream.wake_by_ref();
            Poll::<u8>::Pending
        });
        assert_eq!(again, Poll::Pending);
        assert_eq!(readiness.poll_read(|_| Poll::Ready(3)), Poll::Ready(3));
    }

    // A stream may keep one waker for both directions, so that of a write must let a read through.
    #[test]
    fn a_wake_of_a_write_lets_a_read_through() {
        let readiness = Readiness::new();
        assert!(readiness.poll_read(|_| Poll::<()>::Pending).is_pending());
        let mut held = None;
        let written = readiness.poll(|context| {
            held = Some(context.waker().clone());
            Poll::<()>::Pending
        });
        assert!(written.is_pending());
        held.unwrap().wake();
        assert_eq!(readiness.poll_read(|_| Poll::Ready(4)), Poll::Ready(4));
    }

    #[test]
    fn a_wake_reaches_the_task_that_polls_now_and_nobody_else() {
        let [first, second] = [(); 2].map(|()| Arc::new(Wakes::default()));
        let (readiness, waker) = (Readiness::new(), |wakes| Waker::from(Arc::clone(wakes)));
        readiness.wake_next(&waker(&first));
        readiness.wake_next(&waker(&second));
        readiness.waker().wake();
        readiness.wake_next(&waker(&second));
        readiness.wake_nobody();
        readiness.waker().wake();
        assert_eq!([&first, &second].map(|wakes| wakes.0.load(SeqCst)), [0, 1]);
    }
}
