//! The stream on which a connection carries GossipSub's messages to the peer.
//!
//! ```text
//!   GossipSub's handler ──▶ TopicStream ──▶ Yamux            while the connection takes them
//!                               └──▶ TopicQueue ──▶ Yamux    the rest, when it takes bytes again
//! ```
//!
//! # Invariants
//!
//! * A message of this node leaves with the author and the signature that the policy of its topic asks for.
//! * The handler never waits for the peer, so the library's own queue, which has no bound in bytes, is empty after
//!   every turn of the connection's task.
//! * Waiting bytes are counted in the backlog, and sent in order.
//! * A stream that has ended is open no more as soon as that shows, and the debt of its peer is not paid then.
//! * The peer's own streams of GossipSub are read in shares (`rounds.rs`).
//! * Nothing that the peer says on them is read before it accepts the one of this node:
//!   the answers to IWANT would pile up in the library's queue.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, ready},
};

use futures::task::AtomicWaker;
use runtime::time::Instant;

use crate::{
    backlog::{Kept, Offer, StreamHandle, TopicQueue, taken_away},
    metrics::P2pEvent,
    outbox::cost,
    own_topics::Stamp,
    rounds::ReadShare,
    topic_debts::Debt,
};

/// The topic stream of one connection, once there is one. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicStream(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stream: Mutex<Option<StreamHandle>>,
    /// The task that sends what waits.
    task: AtomicWaker,
    /// The task that reads what the peer says.
    reader: AtomicWaker,
    /// The bytes published to the peer that have not reached the connection.
    debt: OnceLock<Debt>,
    /// Changes this node's own messages by the policies of their topics.
    stamp: OnceLock<Stamp>,
    /// Bounds the reading of the peer's own streams.
    share: OnceLock<Mutex<ReadShare>>,
}

/// Sends as much as the connection takes.
fn poll_send(handle: &StreamHandle, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut kept = handle.lock();
    let Kept { stream: Some(stream), topic, .. } = &mut *kept else { return taken_away() };
    while let Some(front) = topic.front() {
        match handle.poll_write_frame(stream, context, front) {
            Poll::Ready(Ok(bytes)) => {
                if let Some(cost) = topic.advance(bytes) {
                    handle.give_back(cost);
                }
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(()))
}

impl TopicStream {
    /// Pays `debt` as messages of GossipSub reach the connection.
    pub(super) fn pays(&self, debt: Debt) {
        // A connection gets its debt once, when it is made.
        let _ = self.0.debt.set(debt);
    }

    /// Changes this node's own messages by `stamp`.
    pub(super) fn stamps(&self, stamp: Stamp) {
        // A connection gets its stamp once, when it is made.
        let _ = self.0.stamp.set(stamp);
    }

    /// Has the peer's own streams read in shares.
    pub(super) fn shares(&self, share: ReadShare) {
        // A connection gets its share once, when it is made.
        let _ = self.0.share.set(Mutex::new(share));
    }

    /// Reads one of the peer's own streams by `poll_read`, which is handed the number of bytes that are asked for.
    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        wanted: usize,
        poll_read: impl FnOnce(&mut Context<'_>, usize) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Some(share) = self.0.share.get() else { return poll_read(context, wanted) };
        let mut share = share.lock().unwrap_or_else(PoisonError::into_inner);
        let left = ready!(share.poll_left(context));
        let read = poll_read(context, wanted.min(left));
        if let Poll::Ready(Ok(bytes)) = read {
            share.spend(bytes);
        }
        read
    }

    /// Notes that the stream has ended. The handler gets the error with its next message, and opens another stream.
    fn ended(&self) {
        *self.stream() = None;
        if let Some(debt) = self.0.debt.get() {
            debt.closed();
        }
    }

    fn stream(&self) -> MutexGuard<'_, Option<StreamHandle>> {
        self.0.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one RPC, or an error if the stream was evicted or has ended.
    pub(super) fn poll_write(
        &self,
        handle: &StreamHandle,
        context: &mut Context<'_>,
        rpc: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.stream().replace(handle.clone()).is_none() {
            if let Some(debt) = self.0.debt.get() {
                debt.opened();
            }
            self.0.reader.wake();
        }
        if let Poll::Ready(Err(error)) = poll_send(handle, context) {
            self.ended();
            return Poll::Ready(Err(error));
        }
        let taken = rpc.len();
        let stamped = self.0.stamp.get().map(|stamp| stamp.stamped(rpc));
        let rpc = stamped.as_deref().unwrap_or(rpc);
        let offer = {
            let mut kept = handle.lock();
            let Kept { stream: Some(stream), topic, .. } = &mut *kept else { return taken_away() };
            let mut rest = rpc;
            while topic.is_empty() && !rest.is_empty() {
                match handle.poll_write_frame(stream, context, rest) {
                    Poll::Ready(Ok(bytes)) => rest = rest.get(bytes..).unwrap_or_default(),
                    Poll::Ready(Err(error)) => {
                        drop(kept);
                        self.ended();
                        return Poll::Ready(Err(error));
                    }
                    Poll::Pending => break,
                }
            }
            match rest.len() {
                0 => Offer::Waits(0),
                whole if whole == rpc.len() => {
                    let is_counted = handle.try_keep(cost(whole));
                    let offer = topic.offer(rpc, is_counted);
                    match offer {
                        Offer::Waits(bytes) if !is_counted => handle.keep(bytes),
                        Offer::Dropped | Offer::Exceeded if is_counted => {
                            handle.give_back(cost(whole));
                        }
                        _ => {}
                    }
                    offer
                }
                _ => {
                    let bytes = topic.push(rest);
                    handle.keep(bytes);
                    Offer::Waits(bytes)
                }
            }
        };
        if let Some(debt) = self.0.debt.get() {
            debt.pay_part(cost(taken), Instant::now());
        }
        let connection = handle.connection();
        connection.settle();
        match offer {
            Offer::Waits(0) => {}
            Offer::Waits(_) => self.0.task.wake(),
            Offer::Dropped => connection.metrics().note(P2pEvent::TopicPeerFull),
            Offer::Exceeded => {
                connection.metrics().note(P2pEvent::BacklogConnection);
                connection.evict();
            }
        }
        Poll::Ready(Ok(taken))
    }

    /// Resolves when this node's messages are accepted.
    pub(super) fn poll_open(&self, context: &Context<'_>) -> Poll<()> {
        self.0.reader.register(context.waker());
        if self.stream().is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Sends what waits, and registers the calling task. If there is a topic stream, the library's queue to this peer
    /// was empty when the handler was last polled, so that nothing is owed.
    pub(super) fn poll(&self, context: &mut Context<'_>) {
        self.0.task.register(context.waker());
        let Some(handle) = self.stream().clone() else { return };
        let sent = poll_send(&handle, context);
        handle.connection().settle();
        if matches!(sent, Poll::Ready(Err(_))) {
            self.ended();
            let mut kept = handle.lock();
            return drop(std::mem::take::<TopicQueue>(&mut kept.topic));
        }
        if let Some(debt) = self.0.debt.get() {
            debt.pay();
        }
    }
}
