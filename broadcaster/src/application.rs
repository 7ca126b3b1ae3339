//! Handlers and validators of the application, and their judgement of a message.
//!
//! # Invariants
//!
//! * A tag has one handler and one validator at most, and keeps those that a running node was given.
//! * A tag is awaited before they are there, so a message that passes no worker was seen by neither.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use gossip::{Handler, Inbound, Interest, Tag, TagTable, Validation, Validator};

use crate::metrics::Metrics;

/// Why a handler or a validator was not added to a running node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The network has no such tag, so it would never be called.
    #[error("{tag} is not a tag of this network")]
    UnknownTag {
        /// The tag as given.
        tag: Tag,
    },
    /// The tag has one already, and only one can be called.
    #[error("there is one for {tag} already")]
    Taken {
        /// The tag as given.
        tag: Tag,
    },
}

/// The handlers and validators of a node, by tag.
pub(crate) struct Application {
    tags: TagTable,
    /// In the order of `tags`. Read for every message that is handled.
    handlers: Vec<OnceLock<Arc<dyn Handler>>>,
    /// Likewise.
    validators: Vec<OnceLock<Arc<dyn Validator>>>,
    /// The tags whose messages have to pass a worker, as [`Interest::to_bits`] gives it.
    awaited: AtomicU32,
}

impl Application {
    pub(crate) fn new(tags: TagTable) -> Self {
        Self {
            tags,
            handlers: tags.rules().iter().map(|_rule| OnceLock::new()).collect(),
            validators: tags.rules().iter().map(|_rule| OnceLock::new()).collect(),
            awaited: AtomicU32::default(),
        }
    }

    /// Installs the handler of a tag, in place of an earlier one. An unknown tag is ignored.
    pub(crate) fn replace_handler(&mut self, tag: Tag, handler: Arc<dyn Handler>) {
        if let Some(at) = self.position(tag) {
            self.handlers[at] = OnceLock::from(handler);
            self.await_tag(tag);
        }
    }

    /// Installs the validator of a tag, in place of an earlier one. An unknown tag is ignored.
    pub(crate) fn replace_validator(&mut self, tag: Tag, validator: Arc<dyn Validator>) {
        if let Some(at) = self.position(tag) {
            self.validators[at] = OnceLock::from(validator);
            self.await_tag(tag);
        }
    }

    /// Installs the handler of a tag that has none, while messages come.
    pub(crate) fn add_handler(
        &self,
        tag: Tag,
        handler: Arc<dyn Handler>,
    ) -> Result<(), HandleError> {
        let at = self.position(tag).ok_or(HandleError::UnknownTag { tag })?;
        self.await_tag(tag);
        self.handlers[at].set(handler).map_err(|_handler| HandleError::Taken { tag })
    }

    /// Installs the validator of a tag that has none, while messages come.
    pub(crate) fn add_validator(
        &self,
        tag: Tag,
        validator: Arc<dyn Validator>,
    ) -> Result<(), HandleError> {
        let at = self.position(tag).ok_or(HandleError::UnknownTag { tag })?;
        self.await_tag(tag);
        self.validators[at].set(validator).map_err(|_validator| HandleError::Taken { tag })
    }

    /// The handler of a tag, if it has one by now.
    pub(crate) fn handler(&self, tag: Tag) -> Option<&Arc<dyn Handler>> {
        self.handlers[self.position(tag)?].get()
    }

    /// The tags of the network.
    pub(crate) const fn tags(&self) -> &TagTable {
        &self.tags
    }

    /// The tags that have a handler or a validator.
    pub(crate) fn awaited(&self) -> Interest {
        Interest::from_bits(self.awaited.load(Ordering::Acquire))
    }

    /// Returns whether the messages of a tag have to pass a worker before they can be passed on.
    pub(crate) fn awaits(&self, tag: Tag) -> bool {
        self.awaited().contains(&self.tags, tag)
    }

    /// The judgement of the tag's validator. Without one, every message is good.
    pub(crate) fn judge(&self, message: &Inbound, metrics: &Metrics) -> Validation {
        let validator = self.position(message.tag).and_then(|at| self.validators[at].get());
        let Some(validator) = validator else { return Validation::Accept };
        let judged = panic::catch_unwind(AssertUnwindSafe(|| validator.validate(message)));
        judged.unwrap_or_else(|_panic| {
            if let Some(left_out) = metrics.lines().validator_panicked.due() {
                let tag = message.tag;
                tracing::error!(%tag, left_out, "the validator panicked; the message is ignored");
            }
            Validation::Ignore
        })
    }

    fn position(&self, tag: Tag) -> Option<usize> {
        self.tags.rules().iter().position(|rule| rule.tag == tag)
    }

    fn await_tag(&self, tag: Tag) {
        let bits = Interest::NONE.with(&self.tags, tag).to_bits();
        self.awaited.fetch_or(bits, Ordering::AcqRel);
    }
}
