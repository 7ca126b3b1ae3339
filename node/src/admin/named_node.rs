//! A node as people name it: by its data directory, or by its admin port with the token.
//!
//! # Invariants
//!
//! * The token stands in no name and in no error.

use std::path::Path;

use super::client::{AdminUrl, Client};

/// Another node of this machine, or of another one, and a client of its admin API.
#[derive(Debug)]
pub(crate) struct NamedNode {
    /// Its name for people: its directory, or host and port.
    pub(crate) name: String,
    pub(crate) client: Client,
}

/// The text names no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a node is a data directory, or http://HOST:PORT/#token=TOKEN as tandem dashboard prints it"
)]
pub(crate) struct NotANode;

impl NamedNode {
    /// The node that `text` names.
    pub(crate) fn of(text: &str) -> Result<Self, NotANode> {
        if text.is_empty() {
            return Err(NotANode);
        }
        if !text.contains("://") {
            return Ok(Self { name: text.to_owned(), client: Client::new(Path::new(text)) });
        }
        let url = AdminUrl::parse(text).ok_or(NotANode)?;
        Ok(Self { name: url.authority().to_owned(), client: Client::of(url) })
    }
}
