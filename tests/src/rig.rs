//! The set-up of tests that drive one node over memory links: a node, a gate in front of its handlers, a topic.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broadcaster::{
    Broadcaster, Limits, Setup, TopicAdmission, TopicMessage, TopicReceipt, TopicSink,
};
use bytes::Bytes;
use gossip::{Handler, Inbound, LinkId, NetworkProfile, Tag, Transport, Validation};
use tokio::{sync::Semaphore, task, time};

use crate::{harness::network, memory::MemoryNetwork, recorder::Recorder};

/// A node of the `tandem` profile with these limits, not started yet.
pub fn setup(limits: Limits) -> Setup {
    Setup::new(&NetworkProfile::TANDEM).limits(limits)
}

/// Starts a node over memory links.
#[must_use]
pub fn start(setup: Setup) -> (MemoryNetwork, Broadcaster) {
    let node = MemoryNetwork::start(network(), setup);
    let broadcaster = node.broadcaster().clone();
    (node, broadcaster)
}

/// Lets every task run until it waits for something, and every thread until it is done. Takes three milliseconds
/// of a paused clock, which stands still while a thread works.
pub async fn settle() {
    for _ in 0..3 {
        for _ in 0..100 {
            task::yield_now().await;
        }
        time::sleep(Duration::from_millis(1)).await;
    }
}

/// A handler that waits for a permit, and then writes down the message.
///
/// # Panics
///
/// Its call does, if the gate was closed.
#[must_use]
pub fn gated(gate: &Arc<Semaphore>, recorder: &Recorder) -> Arc<dyn Handler> {
    let (gate, recorder) = (Arc::clone(gate), recorder.clone());
    Arc::new(move |message: Inbound| {
        let (gate, recorder) = (Arc::clone(&gate), recorder.clone());
        async move {
            gate.acquire().await.expect("the gate stays").forget();
            Handler::handle(&recorder, message).await
        }
    })
}

/// A topic that takes whatever is published on it, and writes it down.
#[derive(Debug, Default)]
pub struct Topic(Mutex<Vec<Bytes>>);

impl Topic {
    /// The bodies that were published so far.
    pub fn published(&self) -> Vec<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TopicSink for Topic {
    fn publish(
        &self,
        body: Bytes,
        _from: Option<LinkId>,
        _receipt: TopicReceipt,
    ) -> TopicAdmission {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(body);
        TopicAdmission::Queued
    }
}

/// The verdicts that came back on a message of a topic.
pub type Verdicts = Arc<Mutex<Vec<Validation>>>;

/// A message that was heard on the topic of transactions, and the list of its verdicts.
pub fn heard_on_topic(body: impl Into<Bytes>) -> (TopicMessage, Verdicts) {
    let verdicts = Verdicts::default();
    let log = Arc::clone(&verdicts);
    let report = Box::new(move |verdict| {
        log.lock().unwrap_or_else(PoisonError::into_inner).push(verdict);
    });
    let (tag, body, transport) = (Tag::TX, body.into(), Transport::Libp2p);
    (TopicMessage { tag, body, from: None, transport, report }, verdicts)
}
