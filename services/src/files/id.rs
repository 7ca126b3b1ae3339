//! The name of a file.
//!
//! # Invariants
//!
//! * One file, one name: only the 64 lower-case digits are a name, so a name holds no dot, no slash and
//!   no second spelling.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The BLAKE3 hash of a file's content, which is its name: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub [u8; 32]);

impl FileId {
    /// The name of this content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(blake3::hash(content).into())
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that names no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a file is named by 64 lower-case hexadecimal digits, the BLAKE3 hash of its content")]
pub struct FileIdError;

impl FromStr for FileId {
    type Err = FileIdError;

    fn from_str(text: &str) -> Result<Self, FileIdError> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(FileIdError);
        }
        blake3::Hash::from_hex(text).map(|hash| Self(hash.into())).map_err(|_| FileIdError)
    }
}

impl Serialize for FileId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_survives_its_text(bytes: [u8; 32]) {
            let id = FileId(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert!(id.to_string().to_uppercase().parse::<FileId>().is_err()
                || !id.to_string().contains(|c: char| c.is_ascii_alphabetic()));
        }

        #[test]
        fn an_accepted_name_is_a_name(text in "[0-9a-fA-F./%\\\\]{0,80}|.{0,80}|[0-9a-f]{64}") {
            if let Ok(id) = text.parse::<FileId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn other_texts_are_no_names() {
        let id = FileId::of(b"").to_string();
        let texts = ["", "..", &id[1..], &format!("{id}0"), &format!("{id}\n"), &id.to_uppercase()];
        for text in texts {
            assert_eq!(text.parse::<FileId>(), Err(FileIdError), "{text:?}");
        }
    }
}
