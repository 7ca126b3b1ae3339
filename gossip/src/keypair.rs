//! The key of a node: what it signs with, and how it is kept in a file.
//!
//! # Invariants
//!
//! * The secret part is shown nowhere: neither by `Debug` nor in an error.
//! * One key has one file form, the one that existing nodes write.

use std::fmt;

use ed25519_dalek::{
    Signer, SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding},
};

use crate::identity::Identity;

/// The Ed25519 key by which a node is recognised on either transport.
#[derive(Clone)]
pub struct Keypair(SigningKey);

/// The key has no file form, or a file has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key in PKCS#8 form between PRIVATE KEY lines")]
pub struct KeyError;

impl Keypair {
    /// The key of a seed, which is the secret part of it.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// Reads the text of a key file. Source: wire facts 8.2.
    ///
    /// # Errors
    ///
    /// [`KeyError`] unless it is one PEM block with an Ed25519 key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        SigningKey::from_pkcs8_pem(text).map(Self).map_err(|_| KeyError)
    }

    /// The text of a key file. Whoever writes it keeps others from reading it.
    ///
    /// The public part is left out: not every reader knows the form that has it.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if the encoder fails, which no key is known to cause.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let bytes = KeypairBytes { secret_key: self.seed(), public_key: None };
        let text = bytes.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError)?;
        Ok(text.to_string())
    }

    /// The secret part.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public part, as peers name it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::from_ed25519(self.public())
    }

    /// The public part, 32 bytes.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs some bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for Keypair {
    /// Shows the public part only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keypair").field(&self.identity()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_part_of_a_key_is_not_shown() {
        let text = format!("{:?}", Keypair::from_seed([0xab; 32]));
        assert!(text.starts_with("Keypair(12D3KooW"), "{text}");
        assert!(!text.contains("ab, ab") && !text.contains("171"), "{text}");
    }

    #[test]
    fn a_key_survives_its_file() {
        let key = Keypair::from_seed([9; 32]);
        let text = key.to_pem().unwrap();
        assert_eq!(Keypair::from_pem(&text).unwrap().seed(), key.seed());
        for broken in ["", "no key", &text[1..], &text.replace("PRIVATE", "PUBLIC")] {
            assert_eq!(Keypair::from_pem(broken).unwrap_err(), KeyError, "{broken}");
        }
    }
}
