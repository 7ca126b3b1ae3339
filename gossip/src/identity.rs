//! Identities of nodes: libp2p peer IDs of any kind.
//!
//! ```text
//!   00 LEN │ protobuf public key        a key of up to 42 bytes stands in the ID: Ed25519, secp256k1
//!   12  20 │ SHA-256 of the same        a longer one is hashed: ECDSA, RSA
//! ```
//!
//! # Invariants
//!
//! * Two identities are equal exactly if their bytes are, and ordered as their bytes are.
//! * The printed form of an identity reads as the same identity.

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signature, VerifyingKey};

/// Longest peer ID, in bytes: code, length, and a public key of 42.
/// Source: libp2p specification, peer IDs, "Peer Ids".
const MAX_BYTES: usize = 2 + 42;

/// Longest text of a peer ID, in characters: base58 of [`MAX_BYTES`].
const MAX_CHARS: usize = 64;

/// Code of the identity multihash: what follows is the public key itself.
const INLINE: u8 = 0x00;

/// Code and length of a SHA-256 multihash.
const HASHED: [u8; 2] = [0x12, 0x20];

/// The bytes that precede an Ed25519 key in its peer ID. Source: wire facts 8.2.
const ED25519_PREFIX: [u8; 6] = [INLINE, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The identity of a node on either transport: a libp2p peer ID.
///
/// Nodes of this kind have Ed25519 keys, `12D3KooW…`; other libp2p hosts may have secp256k1, ECDSA or
/// RSA keys. The text form is base58; the bytes are those of the multihash. The order is that of the
/// bytes.
///
/// On plain WebSocket an identity tells duplicates apart and grants nothing: the exchange is not bound
/// to the channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Zeros follow the last byte. The length stands in the second byte, so no peer ID is the beginning
    /// of another one, and comparing all of it compares the peer IDs.
    bytes: [u8; MAX_BYTES],
    len: u8,
}

/// The relation of the public key to a peer ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// An Ed25519 key, which the peer ID embeds.
    Ed25519,
    /// A secp256k1 key, which the peer ID embeds.
    Secp256k1,
    /// A key of which the peer ID is a hash: ECDSA or RSA.
    Hashed,
    /// The peer ID embeds something else.
    Other,
}

/// A signature proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It is not the signature of this identity under this message.
    #[error("the signature is wrong")]
    BadSignature,
    /// The identity has no Ed25519 key, and no other signatures are checked here.
    #[error(
        "only signatures of Ed25519 keys can be checked, this is a key of another kind ({kind:?})"
    )]
    UnsupportedKey {
        /// The kind of key it has.
        kind: KeyKind,
    },
}

impl Identity {
    /// The identity of an Ed25519 public key. Whether the bytes are a point of the curve shows when a
    /// signature is checked.
    #[must_use]
    pub const fn from_ed25519(key: [u8; 32]) -> Self {
        let mut bytes = [0; MAX_BYTES];
        let (prefix, rest) = bytes.split_at_mut(ED25519_PREFIX.len());
        prefix.copy_from_slice(&ED25519_PREFIX);
        rest.split_at_mut(key.len()).0.copy_from_slice(&key);
        Self { bytes, len: 38 }
    }

    /// The identity behind the bytes of a peer ID: an identity multihash of 1 to 42 bytes, or a SHA-256
    /// multihash. `None` if they are neither.
    #[must_use]
    pub fn from_peer_id_bytes(from: &[u8]) -> Option<Self> {
        let well_formed = match from {
            [INLINE, len, key @ ..] => !key.is_empty() && usize::from(*len) == key.len(),
            [code, len, hash @ ..] => [*code, *len] == HASHED && hash.len() == 32,
            _ => false,
        };
        let mut bytes = [0; MAX_BYTES];
        bytes.get_mut(..from.len()).filter(|_| well_formed)?.copy_from_slice(from);
        Some(Self { bytes, len: u8::try_from(from.len()).ok()? })
    }

    /// The bytes of the peer ID: 3 to 44 of them, 38 for an Ed25519 key.
    #[must_use]
    pub fn peer_id_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The Ed25519 public key, if this is one. Where a wire demands such a key, this is the check.
    #[must_use]
    pub fn ed25519(&self) -> Option<[u8; 32]> {
        self.peer_id_bytes().strip_prefix(&ED25519_PREFIX)?.try_into().ok()
    }

    /// Returns the relation of the public key to the peer ID.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match self.peer_id_bytes() {
            // A protobuf message: field 1 is the kind of key, field 2 the key.
            [INLINE, 36, 0x08, 1, 0x12, 32, ..] => KeyKind::Ed25519,
            [INLINE, 37, 0x08, 2, 0x12, 33, ..] => KeyKind::Secp256k1,
            [INLINE, ..] => KeyKind::Other,
            _ => KeyKind::Hashed,
        }
    }

    /// Checks that `signature` is this identity's under `message`, in constant memory.
    ///
    /// Strict: keys of small order and signatures in more than one form are refused, so a signature
    /// that passes here passes everywhere.
    ///
    /// # Errors
    ///
    /// [`VerifyError::BadSignature`], also for bytes that are no signature or a key that is no point of
    /// the curve; [`VerifyError::UnsupportedKey`] for every identity without an Ed25519 key: a peer ID
    /// may not even contain another kind of key.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let key =
            self.ed25519().ok_or_else(|| VerifyError::UnsupportedKey { kind: self.kind() })?;
        let bad = |_| VerifyError::BadSignature;
        let key = VerifyingKey::from_bytes(&key).map_err(bad)?;
        let signature = Signature::from_slice(signature).map_err(bad)?;
        key.verify_strict(message, &signature).map_err(bad)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no peer ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no peer ID (12D3KooW…, 16Uiu2HA… or Qm…)")]
pub struct IdentityParseError {
    /// The text as given, cut to 80 characters.
    pub text: String,
}

impl FromStr for Identity {
    type Err = IdentityParseError;

    /// Reads the base58 form, at most 64 characters. The form as a CID is not read.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || IdentityParseError { text: text.chars().take(80).collect() };
        let bytes = (text.len() <= MAX_CHARS)
            .then(|| bs58::decode(text).into_vec().ok())
            .flatten()
            .ok_or_else(error)?;
        Self::from_peer_id_bytes(&bytes).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keypair::Keypair;

    /// Peer IDs of each kind; the first and the last are those of the libp2p specification.
    const KNOWN: [(&str, KeyKind); 3] = [
        ("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA", KeyKind::Ed25519),
        ("16Uiu2HAm6gx1FwDtG1Rbn4GrAhY8ux7CXNDN59Pt8YCKHxHCkPu9", KeyKind::Secp256k1),
        ("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", KeyKind::Hashed),
    ];

    #[test]
    fn every_kind_of_peer_id_is_an_identity() {
        for (text, kind) in KNOWN {
            let identity: Identity = text.parse().unwrap();
            assert_eq!((identity.to_string().as_str(), identity.kind()), (text, kind));
            assert_eq!(identity.ed25519().is_some(), kind == KeyKind::Ed25519, "{text}");
            assert_eq!(Identity::from_peer_id_bytes(identity.peer_id_bytes()), Some(identity));
        }
    }

    #[test]
    fn the_longest_key_that_is_embedded_is_one_of_42_bytes() {
        let of =
            |len: u8| Identity::from_peer_id_bytes(&[&[0, len][..], &vec![9; len.into()]].concat());
        let longest = of(42).unwrap();
        assert_eq!(longest.to_string().parse(), Ok(longest));
        assert_eq!((of(0), of(43), longest.kind()), (None, None, KeyKind::Other));
    }

    #[test]
    fn a_text_that_is_no_peer_id_is_refused() {
        for bad in [
            "",
            "12D3KooW",
            "0OIl",
            "Qm",
            "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
        let error = "x".repeat(1_000).parse::<Identity>().unwrap_err();
        assert_eq!(error.text.len(), 80);
        let sha2_512 = [&[0x13, 0x40][..], &[7; 64]].concat();
        assert_eq!(Identity::from_peer_id_bytes(&sha2_512), None);
    }

    #[test]
    fn a_signature_is_checked_and_a_key_of_another_kind_is_told_apart() {
        let key = Keypair::from_seed([3; 32]);
        let (identity, signature) = (key.identity(), key.sign(b"hello"));
        assert_eq!(identity.verify(b"hello", &signature), Ok(()));
        for (message, signature) in
            [(&b"hallo"[..], &signature[..]), (b"hello", &signature[1..]), (b"hello", b"")]
        {
            assert_eq!(identity.verify(message, signature), Err(VerifyError::BadSignature));
        }
        let small_order = Identity::from_ed25519([0; 32]);
        assert_eq!(small_order.verify(b"", &[0; 64]), Err(VerifyError::BadSignature));
        for (text, kind) in &KNOWN[1..] {
            let other: Identity = text.parse().unwrap();
            let unsupported = VerifyError::UnsupportedKey { kind: *kind };
            assert_eq!(other.verify(b"hello", &signature), Err(unsupported));
        }
    }

    fn any_peer_id() -> impl Strategy<Value = Vec<u8>> {
        let inline = prop::collection::vec(any::<u8>(), 1..=42)
            .prop_map(|key| [&[0, u8::try_from(key.len()).unwrap()][..], &key].concat());
        let hashed = any::<[u8; 32]>().prop_map(|hash| [&HASHED[..], &hash].concat());
        prop_oneof![inline, hashed]
    }

    proptest! {
        #[test]
        fn bytes_and_text_are_two_forms_of_one_thing(bytes in any_peer_id()) {
            let identity = Identity::from_peer_id_bytes(&bytes).unwrap();
            prop_assert_eq!(identity.peer_id_bytes(), &bytes);
            prop_assert_eq!(identity.to_string().parse(), Ok(identity));
            prop_assert_eq!(identity.ed25519().is_some(), identity.kind() == KeyKind::Ed25519);
        }

        #[test]
        fn identities_are_ordered_as_their_bytes(one in any_peer_id(), other in any_peer_id()) {
            let of = |bytes: &[u8]| Identity::from_peer_id_bytes(bytes).unwrap();
            prop_assert_eq!(of(&one).cmp(&of(&other)), one.cmp(&other));
        }

        #[test]
        fn no_bytes_and_no_text_can_break_the_reader(bytes: Vec<u8>, text: String) {
            if let Some(identity) = Identity::from_peer_id_bytes(&bytes) {
                prop_assert_eq!(identity.peer_id_bytes(), &bytes);
            }
            let _: Result<Identity, _> = text.parse();
        }
    }
}
