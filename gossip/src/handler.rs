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

/// Judges messages of one tag before they are handled or passed on.
///
/// Runs on a worker, so it may compute, but must not block.
pub trait Validator: Send + Sync + 'static {
    /// Judges one message.
    fn validate(&self, message: &Inbound) -> Validation;
}

impl<F> Validator for F
where
    F: Fn(&Inbound) -> Validation + Send + Sync + 'static,
{
    fn validate(&self, message: &Inbound) -> Validation {
        self(message)
    }
}

/// The step that a handler asks for after it is done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing more.
    Ignore,
    /// Pass the message on to every other peer, if this node relays and it was not passed on before.
    Relay,
    /// Answer the sender. Only for a request; ignored and counted otherwise.
    Respond(Topics),
    /// End the connection it came from.
    Disconnect(ApplicationReason),
}

/// Handles messages of one tag.
///
/// Every message is handled on one of a bounded number of workers, under a deadline. A handler that
/// panics or outlives the deadline loses that message only. Messages of one tag may be handled
/// concurrently and out of order.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message and says what to do with it.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at the deadline, and when the node stops.
    fn handle(&self, message: Inbound) -> BoxFuture<'_, Verdict>;
}

impl<F, Fut> Handler for F
where
    F: Fn(Inbound) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Verdict> + Send + 'static,
{
    fn handle(&self, message: Inbound) -> BoxFuture<'_, Verdict> {
        Box::pin(self(message))
    }
}
