//! Receipts: the delivery of a broadcast that its caller waits for.
//!
//! # Invariants
//!
//! * Every copy of the message holds one [`Receipt`]; the wait ends when the last one is gone.
//! * A receipt that is dropped without being signed counts as given up, so no path can forget to tell.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use gossip::Delivery;
use tokio::sync::oneshot;

/// One copy's proof of delivery.
#[derive(Debug)]
pub(crate) struct Receipt {
    ledger: Arc<Ledger>,
    signed: bool,
}

#[derive(Debug)]
struct Ledger {
    written: AtomicUsize,
    given_up: AtomicUsize,
    done: Mutex<Option<oneshot::Sender<Delivery>>>,
}

/// Hands out the receipts of one broadcast.
#[derive(Debug)]
pub(crate) struct Receipts {
    ledger: Arc<Ledger>,
}

impl Receipts {
    /// The receipts, and what resolves when all of them and this are gone.
    pub(crate) fn new() -> (Self, oneshot::Receiver<Delivery>) {
        let (sender, receiver) = oneshot::channel();
        let ledger = Ledger {
            written: AtomicUsize::new(0),
            given_up: AtomicUsize::new(0),
            done: Mutex::new(Some(sender)),
        };
        (Self { ledger: Arc::new(ledger) }, receiver)
    }

    /// The receipt of a topic.
    pub(crate) fn topic(&self) -> TopicReceipt {
        TopicReceipt { ledger: Some(Arc::clone(&self.ledger)) }
    }

    /// The receipt of one more copy.
    pub(crate) fn issue(&self) -> Receipt {
        Receipt { ledger: Arc::clone(&self.ledger), signed: false }
    }
}

/// Counts the peers that a topic brings a broadcast to. One that is dropped counts nobody, and ends the
/// wait of whoever sent the message, as far as the topic goes.
#[derive(Debug)]
pub struct TopicReceipt {
    ledger: Option<Arc<Ledger>>,
}

impl TopicReceipt {
    /// Creates the receipt of a message whose sender does not wait.
    #[must_use]
    pub const fn unwanted() -> Self {
        Self { ledger: None }
    }

    /// Tells the sender to how many peers the message was sent.
    pub fn reached(self, peers: usize) {
        if let Some(ledger) = self.ledger {
            ledger.written.fetch_add(peers, Ordering::Relaxed);
        }
    }
}

impl Receipt {
    /// Says that the copy was written.
    pub(crate) fn sign(mut self) {
        self.signed = true;
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let count = if self.signed { &self.ledger.written } else { &self.ledger.given_up };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let done = self.done.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let delivery =
            Delivery { written: *self.written.get_mut(), given_up: *self.given_up.get_mut() };
        if let Some(done) = done {
            // The send fails only when the caller has stopped waiting, which is fine.
            let _ = done.send(delivery);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_wait_ends_with_the_last_receipt_and_counts_both_kinds() {
        let (receipts, mut waiting) = Receipts::new();
        let (a, b, c) = (receipts.issue(), receipts.issue(), receipts.issue());
        drop(receipts);
        a.sign();
        drop(b);
        assert!(waiting.try_recv().is_err());
        c.sign();
        assert_eq!(waiting.await.unwrap(), Delivery { written: 2, given_up: 1 });
    }

    #[tokio::test]
    async fn a_topic_counts_whom_it_reached_and_one_that_gives_up_counts_nobody() {
        let (receipts, mut waiting) = Receipts::new();
        let (one, other) = (receipts.topic(), receipts.topic());
        drop(receipts);
        one.reached(19);
        assert!(waiting.try_recv().is_err(), "the other topic may still reach somebody");
        drop(other);
        assert_eq!(waiting.await.unwrap(), Delivery { written: 19, given_up: 0 });
    }

    #[tokio::test]
    async fn a_broadcast_to_nobody_is_done_at_once() {
        let (receipts, waiting) = Receipts::new();
        drop(receipts);
        assert_eq!(waiting.await.unwrap(), Delivery::default());
    }
}
