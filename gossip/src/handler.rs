//! Handlers and validators: an application judges the messages it hears, and acts on them.

use std::{future::Future, pin::Pin};

use crate::{message::Inbound, reason::ApplicationReason, wire::topics::Topics};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The judgement of a validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// Well-formed and worth passing on.
    Accept,
    /// Of no use, and nobody's fault: neither handled nor passed on.
    Ignore,
    /// Malformed or forged: neither handled nor passed on, and held against the sender.
    Reject,
}

/// Judges messages of one tag, or of one topic of the application's own, before they are handled or passed on. `M` is the
/// message: [`Inbound`] of a tag, [`TopicInbound`](crate::TopicInbound) of a topic.
///
/// Runs on a worker, so it may compute, but must not block.
pub trait Validator<M = Inbound>: Send + Sync + 'static {
    /// Judges one message.
    fn validate(&self, message: &M) -> Validation;
}

impl<M, F> Validator<M> for F
where
    F: Fn(&M) -> Validation + Send + Sync + 'static,
{
    fn validate(&self, message: &M) -> Validation {
        self(message)
    }
}

/// The step that a handler asks for after it is done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing more.
    Ignore,
    /// Pass the message on to every other peer, if this node relays and it was not passed on before. Without effect on a
    /// topic of the application's own, where accepted messages are passed on in any case.
    Relay,
    /// Answer the sender. Only for a request; ignored and counted otherwise.
    Respond(Topics),
    /// End the connection it came from.
    Disconnect(ApplicationReason),
}

/// Handles messages of one tag, or of one topic of the application's own. `M` is the message: [`Inbound`] of a tag,
/// [`TopicInbound`](crate::TopicInbound) of a topic.
///
/// Every message is handled on one of a bounded number of workers, under a deadline. A handler that
/// panics or outlives the deadline loses that message only. Messages of one tag may be handled
/// concurrently and out of order.
pub trait Handler<M = Inbound>: Send + Sync + 'static {
    /// Handles one message and says what to do with it.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at the deadline, and when the node stops.
    fn handle(&self, message: M) -> BoxFuture<'_, Verdict>;
}

impl<M, F, Fut> Handler<M> for F
where
    F: Fn(M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Verdict> + Send + 'static,
{
    fn handle(&self, message: M) -> BoxFuture<'_, Verdict> {
        Box::pin(self(message))
    }
}
