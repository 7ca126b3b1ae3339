//! Errors as JavaScript gets them: an `Error` with a `code`, one of a few words.

use js_sys::{Error, Reflect};
use wasm_bindgen::JsValue;

/// The kinds of errors. Every one is in `tandem.d.ts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Address,
    Closed,
    Full,
    Http,
    Key,
    Network,
    NotConnected,
    Profile,
    Tag,
    Timeout,
    TooLarge,
    Topics,
    Transport,
    Unreachable,
}

impl Code {
    const fn text(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Closed => "closed",
            Self::Full => "full",
            Self::Http => "http",
            Self::Key => "key",
            Self::Network => "network",
            Self::NotConnected => "not-connected",
            Self::Profile => "profile",
            Self::Tag => "tag",
            Self::Timeout => "timeout",
            Self::TooLarge => "too-large",
            Self::Topics => "topics",
            Self::Transport => "transport",
            Self::Unreachable => "unreachable",
        }
    }

    /// The error of this kind that says `message`.
    pub(crate) fn because(self, message: impl ToString) -> JsValue {
        let error = Error::new(&message.to_string());
        // A new object takes any property.
        let _ = Reflect::set(&error, &"code".into(), &self.text().into());
        error.into()
    }
}
