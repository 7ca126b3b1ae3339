//! What the application installed, and what it says of a message.

use std::{
    collections::HashMap,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use gossip::{Handler, Inbound, Interest, Tag, TagTable, Validation, Validator};

/// The handlers and validators of a node, by tag.
#[derive(Clone, Default)]
pub(crate) struct Application {
    pub(crate) handlers: HashMap<Tag, Arc<dyn Handler>>,
    pub(crate) validators: HashMap<Tag, Arc<dyn Validator>>,
}

impl Application {
    /// The tags whose messages have to pass a worker before they can be passed on.
    pub(crate) fn awaited(&self, table: &TagTable) -> Interest {
        let tags = self.handlers.keys().chain(self.validators.keys());
        tags.fold(Interest::NONE, |set, tag| set.with(table, *tag))
    }

    /// What the validator of its tag says of a message. Without one, every message is good.
    pub(crate) fn judge(&self, message: &Inbound) -> Validation {
        let Some(validator) = self.validators.get(&message.tag) else {
            return Validation::Accept;
        };
        let judged = panic::catch_unwind(AssertUnwindSafe(|| validator.validate(message)));
        judged.unwrap_or_else(|_panic| {
            tracing::error!(tag = %message.tag, "the validator panicked; the message is ignored");
            Validation::Ignore
        })
    }
}
