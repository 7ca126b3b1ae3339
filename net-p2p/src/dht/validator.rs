//! The values that a namespace admits: contents under their hash, signed values, and those of an application.
//!
//! # Invariants
//!
//! * A value is checked before it is stored, sent or returned, so a node that lies cannot pass off another value.
//! * A signed value counts under one key in one network only, and a newer one is never replaced by an older one.

use std::{collections::BTreeMap, fmt, sync::Arc};

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey},
};

use super::key::ValueKey;

/// Begins what is signed, so that a signature counts for nothing else.
const DOMAIN: &[u8] = b"tandem signed value 1\0";

/// Longest public key in a signed value, in bytes. Chosen: one of RSA with 4,096 bits has 560.
const MAX_KEY_BYTES: usize = 1_024;

/// Longest signature, in bytes. Chosen: one of RSA with 4,096 bits has 512.
const MAX_SIGNATURE_BYTES: usize = 512;

/// A value that its namespace does not admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidValue {
    /// No validator of this node knows the namespace.
    #[error("no value of this namespace is known here")]
    UnknownNamespace,
    /// The value is empty, or longer than a value may be.
    #[error("a value is 1 to {max} bytes", max = super::MAX_VALUE_BYTES)]
    Size,
    /// The value is not the one of the key.
    #[error("the value is not the one of its key")]
    NotOfKey,
    /// The value does not have the form of its namespace.
    #[error("the value does not have the form of its namespace")]
    Malformed,
}

/// The values that one namespace admits.
///
/// None of these methods waits, and none panics: values and keys are those of strangers.
pub trait ValueValidator: fmt::Debug + Send + Sync + 'static {
    /// Checks the value of a key.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for one that is neither stored nor returned.
    fn check(&self, key: &ValueKey, value: &[u8]) -> Result<(), InvalidValue>;

    /// Says which of two valid values counts.
    fn compare(&self, key: &ValueKey, new: &[u8], old: &[u8]) -> Preference;
}

/// The one of two valid values of a key that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// The newer one takes the place of the other.
    New,
    /// The older one stays.
    Old,
    /// A key has one valid value, so a search ends with the first.
    Only,
}

/// The namespaces whose values a node stores and returns.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces {
    validators: BTreeMap<Box<str>, Arc<dyn ValueValidator>>,
}

impl Namespaces {
    /// Contents under their hash, and values that their owner signs for this network.
    pub(super) fn of(network: &str) -> Self {
        let signed: Arc<dyn ValueValidator> = Arc::new(Signed { network: network.into() });
        let content: Arc<dyn ValueValidator> = Arc::new(Content);
        let built_in = [(ValueKey::CONTENT, content), (ValueKey::SIGNED, signed)];
        let validators = built_in.into_iter().map(|(name, each)| (name.into(), each));
        Self { validators: validators.collect() }
    }

    /// Admits the values of another namespace, or of one of these by other rules.
    pub(super) fn add(&mut self, name: &str, validator: Arc<dyn ValueValidator>) {
        self.validators.insert(name.into(), validator);
    }

    fn validator(&self, key: &ValueKey) -> Result<&dyn ValueValidator, InvalidValue> {
        let found = self.validators.get(key.parts().0).ok_or(InvalidValue::UnknownNamespace)?;
        Ok(&**found)
    }

    /// Checks that values of the namespace of a key are known.
    pub(super) fn check_key(&self, key: &ValueKey) -> Result<(), InvalidValue> {
        self.validator(key).map(drop)
    }

    /// Checks the size of a value, and what its namespace says.
    pub(super) fn check(&self, key: &ValueKey, value: &[u8]) -> Result<(), InvalidValue> {
        let validator = self.validator(key)?;
        if value.is_empty() || value.len() > super::MAX_VALUE_BYTES {
            return Err(InvalidValue::Size);
        }
        validator.check(key, value)
    }

    /// Returns the value that counts of two valid ones.
    pub(super) fn compare(&self, key: &ValueKey, new: &[u8], old: &[u8]) -> Preference {
        self.validator(key).map_or(Preference::Old, |each| each.compare(key, new, old))
    }

    /// Returns `true` if a key of this namespace has one valid value.
    pub(super) fn is_only(&self, key: &ValueKey, value: &[u8]) -> bool {
        self.compare(key, value, value) == Preference::Only
    }
}

/// Values whose key is their hash.
#[derive(Debug)]
struct Content;

impl ValueValidator for Content {
    fn check(&self, key: &ValueKey, value: &[u8]) -> Result<(), InvalidValue> {
        if ValueKey::of_content(value) == *key { Ok(()) } else { Err(InvalidValue::NotOfKey) }
    }

    fn compare(&self, _key: &ValueKey, _new: &[u8], _old: &[u8]) -> Preference {
        Preference::Only
    }
}

/// Values that the owner of their key signs.
#[derive(Debug)]
struct Signed {
    network: Box<str>,
}

impl ValueValidator for Signed {
    fn check(&self, key: &ValueKey, value: &[u8]) -> Result<(), InvalidValue> {
        let owner = key.parts().1.split_once('/').ok_or(InvalidValue::NotOfKey)?.0;
        let signed = SignedValue::decode(value).ok_or(InvalidValue::Malformed)?;
        let public =
            PublicKey::try_decode_protobuf(signed.key).map_err(|_| InvalidValue::Malformed)?;
        if owner.parse::<PeerId>().ok() != Some(PeerId::from_public_key(&public)) {
            return Err(InvalidValue::NotOfKey);
        }
        let message = message(&self.network, key, signed.sequence, signed.content);
        let is_signed = public.verify(&message, signed.signature);
        if is_signed { Ok(()) } else { Err(InvalidValue::NotOfKey) }
    }

    fn compare(&self, _key: &ValueKey, new: &[u8], old: &[u8]) -> Preference {
        let sequence = |value| SignedValue::decode(value).map(|signed| signed.sequence);
        // Of two with one number the same counts at every node.
        if (sequence(new), new) > (sequence(old), old) { Preference::New } else { Preference::Old }
    }
}

/// A signed value: its sequence number, key, signature and content, each but the last with a length of fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SignedValue<'a> {
    pub(super) sequence: u64,
    key: &'a [u8],
    signature: &'a [u8],
    pub(super) content: &'a [u8],
}

impl<'a> SignedValue<'a> {
    /// Reads a value. Returns `None` for one that has another form.
    pub(super) fn decode(value: &'a [u8]) -> Option<Self> {
        let (sequence, rest) = value.split_first_chunk::<8>()?;
        let (key, rest) = part(rest, MAX_KEY_BYTES)?;
        let (signature, content) = part(rest, MAX_SIGNATURE_BYTES)?;
        Some(Self { sequence: u64::from_be_bytes(*sequence), key, signature, content })
    }
}

/// Takes a part with a length of two bytes before it.
fn part(value: &[u8], most: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = value.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length > most { None } else { rest.split_at_checked(length) }
}

fn message(network: &str, key: &ValueKey, sequence: u64, content: &[u8]) -> Vec<u8> {
    let mut message = DOMAIN.to_vec();
    for text in [network, key.as_str()] {
        message.extend_from_slice(&(text.len() as u64).to_be_bytes());
        message.extend_from_slice(text.as_bytes());
    }
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(content);
    message
}

/// Signs a value for a network. Of two values of a key the one with the higher `sequence` counts.
pub(super) fn sign(
    by: &Keypair,
    network: &str,
    key: &ValueKey,
    sequence: u64,
    content: &[u8],
) -> Vec<u8> {
    let public = by.public().encode_protobuf();
    // A key of Ed25519 signs everything; a value without signature is refused before it is put.
    let signature = by.sign(&message(network, key, sequence, content)).unwrap_or_default();
    let mut value = sequence.to_be_bytes().to_vec();
    for part in [&public, &signature] {
        // A key and a signature of Ed25519 have 36 and 64 bytes.
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        value.extend_from_slice(&length.to_be_bytes());
        value.extend_from_slice(part);
    }
    value.extend_from_slice(content);
    value
}

#[cfg(test)]
mod tests {
    use gossip::Keypair;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::{super::testing::sign, *};

    fn signed(sequence: u64, content: &[u8]) -> (ValueKey, Vec<u8>) {
        let owner = Keypair::from_seed([1; 32]);
        let key = ValueKey::of_owner(&owner.identity(), "head").unwrap();
        let value = sign(&owner, "net", &key, sequence, content);
        (key, value)
    }

    #[test]
    fn a_content_is_valid_under_its_hash_alone() {
        let namespaces = Namespaces::of("net");
        let key = ValueKey::of_content(b"one");
        assert_eq!(namespaces.check(&key, b"one"), Ok(()));
        assert_eq!(namespaces.check(&key, b"two"), Err(InvalidValue::NotOfKey));
        assert!(namespaces.is_only(&key, b"one"));
    }

    #[test]
    fn values_of_unknown_namespaces_empty_and_long_ones_are_refused() {
        let namespaces = Namespaces::of("net");
        let unknown = "/app/one".parse().unwrap();
        assert_eq!(namespaces.check(&unknown, b"one"), Err(InvalidValue::UnknownNamespace));
        for value in [Vec::new(), vec![0; super::super::MAX_VALUE_BYTES + 1]] {
            let key = ValueKey::of_content(&value);
            assert_eq!(namespaces.check(&key, &value), Err(InvalidValue::Size));
        }
    }

    #[test]
    fn a_signed_value_is_valid_under_its_key_and_in_its_network_alone() {
        let (key, value) = signed(7, b"content");
        assert_eq!(Namespaces::of("net").check(&key, &value), Ok(()));
        assert_eq!(Namespaces::of("other").check(&key, &value), Err(InvalidValue::NotOfKey));
        let owner = Keypair::from_seed([1; 32]).identity();
        let another = ValueKey::of_owner(&owner, "tail").unwrap();
        assert_eq!(Namespaces::of("net").check(&another, &value), Err(InvalidValue::NotOfKey));
        let thief = Keypair::from_seed([2; 32]).identity();
        let stolen = ValueKey::of_owner(&thief, "head").unwrap();
        assert_eq!(Namespaces::of("net").check(&stolen, &value), Err(InvalidValue::NotOfKey));
    }

    #[test]
    fn no_changed_byte_of_a_signed_value_passes() {
        let (key, value) = signed(7, b"content");
        let namespaces = Namespaces::of("net");
        for place in 0..value.len() {
            let mut changed = value.clone();
            changed[place] ^= 1;
            assert!(namespaces.check(&key, &changed).is_err(), "byte {place}");
            assert!(namespaces.check(&key, &value[..place]).is_err(), "{place} bytes");
        }
    }

    #[test]
    fn noise_is_no_signed_value_and_does_no_harm() {
        let (key, _) = signed(7, b"content");
        let (namespaces, mut random) = (Namespaces::of("net"), StdRng::seed_from_u64(5));
        for _ in 0..2_000 {
            let noise: Vec<u8> =
                (0..random.random_range(0..200)).map(|_| random.random()).collect();
            assert!(namespaces.check(&key, &noise).is_err());
            let _ = namespaces.compare(&key, &noise, b"");
        }
    }

    #[test]
    fn the_higher_sequence_number_counts_and_ties_have_one_winner() {
        let namespaces = Namespaces::of("net");
        let ((key, old), (_, new)) = (signed(7, b"a"), signed(8, b"b"));
        assert_eq!(namespaces.compare(&key, &new, &old), Preference::New);
        assert_eq!(namespaces.compare(&key, &old, &new), Preference::Old);
        let (one, other) = (signed(7, b"a").1, signed(7, b"b").1);
        let both = [(&one, &other), (&other, &one)];
        let news = both.map(|(new, old)| namespaces.compare(&key, new, old) == Preference::New);
        assert_eq!(news.iter().filter(|is_new| **is_new).count(), 1);
    }
}
