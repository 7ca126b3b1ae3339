//! Keys of values in the DHT.

use std::{fmt, str::FromStr};

use gossip::Identity;
use libp2p::kad::RecordKey;
use sha2::{Digest, Sha256};

/// Longest key, in bytes. Source: py-libp2p 0.8.1, which looks up no longer ones. A signed value has 125 at most: a peer ID
/// has 53, and its name 64.
pub(super) const MAX_KEY_BYTES: usize = 128;

/// Longest name of a signed value, in bytes. Chosen: a host name has 63 bytes in a label.
const MAX_NAME_BYTES: usize = 64;

/// The key of a value: `/NAMESPACE/REST`, of 4 to 128 printable ASCII characters without spaces. The namespace decides
/// which values are valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueKey(Box<str>);

/// A text that is no key of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is /NAMESPACE/REST, at most {MAX_KEY_BYTES} printable characters without spaces")]
pub struct ValueKeyError;

impl ValueKey {
    /// The namespace of values that are found by their own hash.
    pub const CONTENT: &'static str = "content";

    /// The namespace of values that their owner signs.
    pub const SIGNED: &'static str = "signed";

    /// The key of a value by its content: `/content/` and its SHA-256 in hexadecimal digits.
    #[must_use]
    pub fn of_content(value: &[u8]) -> Self {
        use fmt::Write;
        let mut text = format!("/{}/", Self::CONTENT);
        for byte in Sha256::digest(value) {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }

    /// The key of a value that `owner` signs: `/signed/PEER-ID/NAME`.
    ///
    /// # Errors
    ///
    /// [`ValueKeyError`] unless the name is 1 to 64 printable ASCII characters without spaces and slashes.
    pub fn of_owner(owner: &Identity, name: &str) -> Result<Self, ValueKeyError> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('/') {
            return Err(ValueKeyError);
        }
        format!("/{}/{owner}/{name}", Self::SIGNED).parse()
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace, and what follows it.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        self.0.get(1..).and_then(|text| text.split_once('/')).unwrap_or_default()
    }

    pub(super) fn of_record(key: &RecordKey) -> Option<Self> {
        std::str::from_utf8(key.as_ref()).ok()?.parse().ok()
    }

    pub(super) fn record_key(&self) -> RecordKey {
        RecordKey::from(self.0.as_bytes().to_vec())
    }
}

impl FromStr for ValueKey {
    type Err = ValueKeyError;

    fn from_str(text: &str) -> Result<Self, ValueKeyError> {
        let is_short =
            text.len() <= MAX_KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        let parts = text.strip_prefix('/').and_then(|text| text.split_once('/'));
        match parts {
            Some((namespace, rest)) if is_short && !namespace.is_empty() && !rest.is_empty() => {
                Ok(Self(text.into()))
            }
            _ => Err(ValueKeyError),
        }
    }
}

impl fmt::Display for ValueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_namespace_and_a_rest() {
        for bad in ["", "/", "//", "/a", "/a/", "//a", "a/b", "/a/b c", "/a/\u{e9}", "/a/\n"] {
            assert_eq!(bad.parse::<ValueKey>(), Err(ValueKeyError), "{bad:?}");
        }
        let long = format!("/a/{}", "b".repeat(MAX_KEY_BYTES));
        assert_eq!(long.parse::<ValueKey>(), Err(ValueKeyError));
        let key: ValueKey = "/app/a/b".parse().unwrap();
        assert_eq!(key.parts(), ("app", "a/b"));
        assert_eq!(ValueKey::of_record(&key.record_key()), Some(key));
    }

    #[test]
    fn the_key_of_a_content_is_its_hash() {
        let key = ValueKey::of_content(b"abc");
        // Source: FIPS 180-2, appendix B.1.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key.as_str(), format!("/content/{hash}"));
    }

    #[test]
    fn the_key_of_an_owner_has_a_plain_name() {
        let owner = Identity::from_ed25519([1; 32]);
        for bad in ["", "a/b", "a b", &"a".repeat(65)] {
            assert_eq!(ValueKey::of_owner(&owner, bad), Err(ValueKeyError), "{bad:?}");
        }
        let key = ValueKey::of_owner(&owner, "head").unwrap();
        assert_eq!(key.as_str(), format!("/signed/{owner}/head"));
    }
}
