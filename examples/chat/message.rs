//! A message: a name and a text, signed by the identity that says it.
//!
//! The signature is in the message itself, so that it proves as much in the history of a peer as on the topic.

use serde::{Deserialize, Serialize};
use tandem::gossip::{Identity, Keypair};

/// Longest name, in bytes.
const MAX_NAME: usize = 32;

/// Longest text, in bytes.
pub(crate) const MAX_TEXT: usize = 1_000;

/// Longest message on the wire, in bytes: everything in it may be escaped.
pub(crate) const MAX_MESSAGE: usize = 8 * 1024;

/// A message whose bounds and signature are right: there is no other one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    author: String,
    name: String,
    text: String,
    /// Milliseconds since 1970, as the author has it.
    at: u64,
    signature: String,
}

/// The same as it came, before it was judged.
#[derive(Deserialize)]
struct Claimed {
    author: String,
    name: String,
    text: String,
    at: u64,
    signature: String,
}

/// The reason why something is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it is no message")]
    NoMessage,
    #[error("a name has {MAX_NAME} bytes at most, and a text {MAX_TEXT}")]
    TooLong,
    #[error("its author has not signed it")]
    WrongSignature,
}

/// The bytes that are signed. Their beginning keeps them apart from everything else that a node signs with its key.
fn signed(name: &str, text: &str, at: u64) -> Vec<u8> {
    serde_json::to_vec(&("tandem chat 1", name, text, at)).unwrap_or_default()
}

fn is_too_long(name: &str, text: &str) -> bool {
    name.len() > MAX_NAME || text.len() > MAX_TEXT
}

impl Message {
    /// Signs a message of one's own.
    pub(crate) fn sign(key: &Keypair, name: &str, text: &str, at: u64) -> Result<Self, Fault> {
        if is_too_long(name, text) {
            return Err(Fault::TooLong);
        }
        let signature = hex::encode(key.sign(&signed(name, text, at)));
        let author = key.identity().to_string();
        Ok(Self { author, name: name.to_owned(), text: text.to_owned(), at, signature })
    }

    /// Reads a message of somebody else.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Fault::TooLong);
        }
        let Claimed { author, name, text, at, signature } =
            serde_json::from_slice(bytes).map_err(|_| Fault::NoMessage)?;
        let identity: Identity = author.parse().map_err(|_| Fault::NoMessage)?;
        let proof = hex::decode(&signature).map_err(|_| Fault::NoMessage)?;
        if is_too_long(&name, &text) {
            return Err(Fault::TooLong);
        }
        let verified = identity.verify(&signed(&name, &text, at), &proof);
        verified.map_err(|_| Fault::WrongSignature)?;
        // One form of an identity and of a signature, so that one message is one message.
        let (author, signature) = (identity.to_string(), hex::encode(proof));
        Ok(Self { author, name, text, at, signature })
    }

    /// The message on the wire.
    pub(crate) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The order of messages in a history: by time, then by signature.
    pub(crate) fn place(&self) -> (u64, &str) {
        (self.at, &self.signature)
    }

    pub(crate) fn author(&self) -> &str {
        &self.author
    }

    /// The message as a line. The end of the identity stands behind the name, because anybody may take any name.
    pub(crate) fn shown(&self) -> String {
        let (_, end) = self.author.split_at(self.author.len().saturating_sub(6));
        format!("{} ({end}): {}", harmless(&self.name), harmless(&self.text))
    }
}

/// A text without letters on which a terminal would act, or that would change how the rest is shown.
fn harmless(text: &str) -> String {
    let escaped = |letter: char| match letter {
        '\'' | '"' => letter.to_string(),
        _ => letter.escape_debug().to_string(),
    };
    text.chars().map(escaped).collect()
}
