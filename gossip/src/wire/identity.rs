//! The identity exchange: three signed messages by which two nodes learn each other's key.
//!
//! ```text
//!   dialer ── 1: challenge, address dialled, key ──────────────────▶ listener    request header
//!          ◀── 2: the challenge, its own challenge, its key ────────             response header
//!          ── 3: the listener's challenge ─────────────────────────▶             NI message
//! ```
//!
//! # Invariants
//!
//! * A signature is checked over the canonical form of what was read, so the form it came in does not
//!   matter. Keys of small order are refused: anybody can sign for them.
//! * A listener that issued no challenge accepts no verification, not even one of zeros.
//! * The exchange is not bound to the connection, so somebody on the path can pass it on. It tells duplicates apart, and
//!   grants at most a place that is bounded for each identity.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::msgpack::{self, Fields, MsgpackError, Reader, read_struct};
pub use crate::keypair::Keypair;
use crate::{identity::Identity, reason::DisconnectReason};

/// Longest address in a challenge, in bytes. Source: wire facts 6.2.
pub const MAX_ADDRESS_BYTES: usize = 288;

/// The marks that tell the three messages apart. Source: wire facts 6.2.
struct Kind {
    /// Key of the inner map.
    inner: &'static str,
    /// Bytes that the signature covers before the inner map.
    domain: [u8; 3],
}

const REQUEST: Kind = Kind { inner: "ic", domain: *b"NIC" };
const RESPONSE: Kind = Kind { inner: "icr", domain: *b"NIR" };
const VERIFICATION: Kind = Kind { inner: "ivm", domain: *b"NIV" };

/// An inner map whose fields are all missing.
const EMPTY_MAP: [u8; 1] = [0x80];

/// Random bytes that the other end must return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Challenge(pub [u8; 32]);

/// Why a message of the exchange is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The header is not base64 of the standard alphabet with padding.
    #[error("the identity header is not base64")]
    Base64,
    /// The message is not msgpack of the expected kind.
    #[error("the identity message cannot be read")]
    Msgpack(#[from] MsgpackError),
    /// The address is longer than [`MAX_ADDRESS_BYTES`].
    #[error(
        "the address in the identity message has {bytes} bytes, {MAX_ADDRESS_BYTES} are allowed"
    )]
    AddressTooLong {
        /// Its length.
        bytes: usize,
    },
    /// It returns another challenge than the one that was sent.
    #[error("the identity message returns another challenge")]
    WrongChallenge,
    /// The signature is not by the key of the message, or that key is one anybody can sign for.
    #[error("the signature of the identity message is wrong")]
    BadSignature,
    /// A verification came though no challenge was sent.
    #[error("an identity was verified that was never asked for")]
    NotAsked,
}

/// Message 1 as a header, for the node that is dialled under `address`, which is lower-cased here.
///
/// An address that no reader would accept is left out: the listener then goes on without identity.
#[must_use]
pub fn request_header(key: &Keypair, address: &str, challenge: Challenge) -> String {
    let address = address.to_lowercase();
    let address = Some(address.as_bytes()).filter(|address| address.len() <= MAX_ADDRESS_BYTES);
    let inner = request_inner(address.unwrap_or_default(), &challenge, &key.public());
    STANDARD.encode(REQUEST.seal(&inner, key))
}

/// Message 1, read and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeSeen {
    /// The challenge to return.
    pub challenge: Challenge,
    /// The key that signed.
    pub key: Identity,
    /// Address that the dialer means to reach. At most [`MAX_ADDRESS_BYTES`].
    pub address: Vec<u8>,
}

/// Reads message 1 and verifies its signature. Whether the address is ours is still to be asked.
///
/// # Errors
///
/// [`IdentityError`] when it cannot be read or the signature is wrong.
pub fn read_request_header(header: &str) -> Result<ChallengeSeen, IdentityError> {
    let bytes = from_base64(header)?;
    let (mut challenge, mut key, mut address) = (Challenge([0; 32]), [0; 32], &[][..]);
    // The order of the fields in the form without names. Source: wire facts, primitive conventions.
    let fields = Fields::NamedOrOrdered(&["pk", "c", "a"]);
    let signature = REQUEST.open(&bytes, fields, |reader, field| {
        match field {
            "pk" => key = reader.fixed()?,
            "c" => challenge.0 = reader.fixed()?,
            _ => {
                address = reader.bytes()?;
                if address.len() > MAX_ADDRESS_BYTES {
                    return Err(IdentityError::AddressTooLong { bytes: address.len() });
                }
            }
        }
        Ok(())
    })?;
    let inner = request_inner(address, &challenge, &key);
    let key = Identity::from_ed25519(key);
    REQUEST.verify(&inner, &signature, &key)?;
    Ok(ChallengeSeen { challenge, key, address: address.to_vec() })
}

/// Message 2 as a header: the answer to a challenge that was addressed to us.
#[must_use]
pub fn response_header(
    key: &Keypair,
    seen: &ChallengeSeen,
    response_challenge: Challenge,
) -> String {
    let inner = response_inner(&seen.challenge, &key.public(), &response_challenge);
    STANDARD.encode(RESPONSE.seal(&inner, key))
}

/// Message 2, read and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseSeen {
    /// The key that signed.
    pub key: Identity,
    /// The challenge to return in message 3.
    pub response_challenge: Challenge,
}

/// Reads message 2 and verifies that it answers the challenge that was sent.
///
/// # Errors
///
/// [`IdentityError`] when it cannot be read, answers another challenge, or the signature is wrong.
pub fn read_response_header(header: &str, sent: &Challenge) -> Result<ResponseSeen, IdentityError> {
    let bytes = from_base64(header)?;
    let (mut challenge, mut key) = (Challenge([0; 32]), [0; 32]);
    let mut response_challenge = Challenge([0; 32]);
    // The order of the fields without names is not known, and no node writes that form.
    let signature = RESPONSE.open(&bytes, Fields::Named(&["c", "pk", "rc"]), |reader, field| {
        match field {
            "c" => challenge.0 = reader.fixed()?,
            "pk" => key = reader.fixed()?,
            _ => response_challenge.0 = reader.fixed()?,
        }
        Ok(())
    })?;
    if challenge != *sent {
        return Err(IdentityError::WrongChallenge);
    }
    let inner = response_inner(&challenge, &key, &response_challenge);
    let key = Identity::from_ed25519(key);
    RESPONSE.verify(&inner, &signature, &key)?;
    Ok(ResponseSeen { key, response_challenge })
}

/// Message 3, the payload of an NI: returns the listener's challenge.
#[must_use]
pub fn verification(key: &Keypair, response_challenge: Challenge) -> Bytes {
    Bytes::from(VERIFICATION.seal(&verification_inner(&response_challenge), key))
}

/// Checks message 3: it must return the challenge and be signed by the key of message 1.
///
/// # Errors
///
/// [`IdentityError`] when it cannot be read, returns another challenge, or the signature is wrong.
pub fn check_verification(
    payload: &[u8],
    expected_key: &Identity,
    response_challenge: &Challenge,
) -> Result<(), IdentityError> {
    let mut returned = Challenge([0; 32]);
    let signature = VERIFICATION.open(payload, Fields::NamedOrOrdered(&["rc"]), |reader, _| {
        returned.0 = reader.fixed()?;
        Ok(())
    })?;
    if returned != *response_challenge {
        return Err(IdentityError::WrongChallenge);
    }
    VERIFICATION.verify(&verification_inner(&returned), &signature, expected_key)
}

/// The listener's side of one connection, from the upgrade to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerIdentity {
    /// No challenge was issued.
    Anonymous,
    /// Message 2 was sent.
    Challenged {
        /// The key that message 3 must be signed by.
        key: Identity,
        /// The challenge that message 3 must return.
        response_challenge: Challenge,
    },
    /// Message 3 came and is right.
    Verified {
        /// The key of the dialler, which has signed message 3.
        key: Identity,
    },
}

/// A listener's answer to message 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Introduction {
    /// Go on, and send this header back.
    Accept {
        /// Message 2.
        header: String,
    },
    /// Go on without a header: there was no challenge, or it was not for us.
    ContinueWithoutIdentity,
    /// Refuse the connection. How: wire facts 1.6, row 14.
    Refuse(IdentityError),
}

/// A listener's judgement of message 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verification {
    /// The key is the peer's. Whether another link has it already is for the caller to find out.
    Verified(Identity),
    /// It was verified before; the message was not looked at.
    Ignored,
    /// End the connection.
    Disconnect(DisconnectReason, IdentityError),
}

impl ListenerIdentity {
    /// Looks at message 1, if there is one, and says what to do and what to remember.
    ///
    /// `names` are the addresses this node is known under, lower-case; without any, it takes no part.
    /// An empty header counts as none. `response_challenge` must be fresh for each connection.
    pub fn meet(
        header: Option<&str>,
        names: &[String],
        key: &Keypair,
        response_challenge: Challenge,
    ) -> (Self, Introduction) {
        let header = header.filter(|header| !header.is_empty() && !names.is_empty());
        let Some(header) = header else {
            return (Self::Anonymous, Introduction::ContinueWithoutIdentity);
        };
        let seen = match read_request_header(header) {
            Ok(seen) => seen,
            Err(error) => return (Self::Anonymous, Introduction::Refuse(error)),
        };
        if !names.iter().any(|name| !name.is_empty() && name.as_bytes() == seen.address) {
            return (Self::Anonymous, Introduction::ContinueWithoutIdentity);
        }
        let header = response_header(key, &seen, response_challenge);
        let next = Self::Challenged { key: seen.key, response_challenge };
        (next, Introduction::Accept { header })
    }

    /// Looks at message 3.
    pub fn verify(&mut self, payload: &[u8]) -> Verification {
        let checked = match self {
            Self::Verified { .. } => return Verification::Ignored,
            Self::Anonymous => Err(IdentityError::NotAsked),
            Self::Challenged { key, response_challenge } => {
                check_verification(payload, key, response_challenge).map(|()| *key)
            }
        };
        match checked {
            Ok(key) => {
                *self = Self::Verified { key };
                Verification::Verified(key)
            }
            Err(error) => Verification::Disconnect(DisconnectReason::BadIdentity, error),
        }
    }

    /// The verified identity, once there is one.
    #[must_use]
    pub const fn verified(&self) -> Option<Identity> {
        match self {
            Self::Verified { key } => Some(*key),
            Self::Anonymous | Self::Challenged { .. } => None,
        }
    }
}

impl Kind {
    /// The whole message: the inner map and its signature.
    fn seal(&self, inner: &[u8], key: &Keypair) -> Vec<u8> {
        let signature = key.sign(&self.signed(inner));
        let mut out = Vec::with_capacity(inner.len() + 80);
        if inner == EMPTY_MAP {
            // A map without fields counts as missing, like a field of zeros.
            msgpack::put_map(&mut out, 1);
        } else {
            msgpack::put_map(&mut out, 2);
            msgpack::put_str(&mut out, self.inner);
            out.extend_from_slice(inner);
        }
        msgpack::put_str(&mut out, "sig");
        msgpack::put_bin(&mut out, &signature);
        out
    }

    /// Reads a message: calls `read` for each inner field, and gives the signature.
    fn open<'a>(
        &self,
        bytes: &'a [u8],
        inner: Fields<'_>,
        mut read: impl FnMut(&mut Reader<'a>, &str) -> Result<(), IdentityError>,
    ) -> Result<[u8; 64], IdentityError> {
        let mut signature = [0; 64];
        let outer = [self.inner, "sig"];
        read_struct(&mut Reader::new(bytes), Fields::NamedOrOrdered(&outer), |reader, field| {
            if field == self.inner {
                return read_struct(reader, inner, &mut read);
            }
            signature = reader.fixed()?;
            Ok(())
        })?;
        Ok(signature)
    }

    fn verify(&self, inner: &[u8], sig: &[u8; 64], key: &Identity) -> Result<(), IdentityError> {
        // The exchange carries 32 bytes of key, so another kind has signed none of its messages.
        key.verify(&self.signed(inner), sig).map_err(|_| IdentityError::BadSignature)
    }

    fn signed(&self, inner: &[u8]) -> Vec<u8> {
        [&self.domain, inner].concat()
    }
}

/// The canonical map of `fields`, sorted by name; fields without a value are left out.
fn canonical(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let present = || fields.iter().filter(|(_, value)| !value.is_empty());
    let mut out = Vec::with_capacity(160);
    msgpack::put_map(&mut out, present().count());
    for (name, value) in present() {
        msgpack::put_str(&mut out, name);
        msgpack::put_bin(&mut out, value);
    }
    out
}

fn request_inner(address: &[u8], challenge: &Challenge, key: &[u8; 32]) -> Vec<u8> {
    canonical(&[("a", address), ("c", unless_zero(&challenge.0)), ("pk", unless_zero(key))])
}

fn response_inner(challenge: &Challenge, key: &[u8; 32], response: &Challenge) -> Vec<u8> {
    let (challenge, key) = (unless_zero(&challenge.0), unless_zero(key));
    canonical(&[("c", challenge), ("pk", key), ("rc", unless_zero(&response.0))])
}

fn verification_inner(response: &Challenge) -> Vec<u8> {
    canonical(&[("rc", unless_zero(&response.0))])
}

/// A value of fixed length, or nothing where it is all zeros: so it counts as missing.
fn unless_zero(value: &[u8; 32]) -> &[u8] {
    if *value == [0; 32] { &[] } else { value }
}

/// Existing nodes skip line ends within base64. Source: wire facts 6.2.
fn from_base64(header: &str) -> Result<Vec<u8>, IdentityError> {
    let text: String = header.chars().filter(|char| !matches!(char, '\r' | '\n')).collect();
    STANDARD.decode(text).map_err(|_| IdentityError::Base64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dialer() -> Keypair {
        Keypair::from_seed([0; 32])
    }

    fn listener() -> Keypair {
        Keypair::from_seed([1; 32])
    }

    #[test]
    fn a_node_without_names_takes_no_part() {
        let header = request_header(&dialer(), "", Challenge([1; 32]));
        for names in [vec![], vec![String::new()]] {
            let met =
                ListenerIdentity::meet(Some(&header), &names, &listener(), Challenge([2; 32]));
            assert_eq!(met, (ListenerIdentity::Anonymous, Introduction::ContinueWithoutIdentity));
        }
    }

    #[test]
    fn an_address_at_the_bound_is_sent_and_a_longer_one_is_left_out() {
        for (len, expected) in [(MAX_ADDRESS_BYTES, MAX_ADDRESS_BYTES), (MAX_ADDRESS_BYTES + 1, 0)]
        {
            let header = request_header(&dialer(), &"a".repeat(len), Challenge([1; 32]));
            assert_eq!(read_request_header(&header).unwrap().address.len(), expected);
        }
    }

    #[test]
    fn the_address_dialled_is_sent_in_lower_case() {
        let header = request_header(&dialer(), "RELAY.Example:4160", Challenge([1; 32]));
        assert_eq!(read_request_header(&header).unwrap().address, b"relay.example:4160");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn two_nodes_learn_each_others_key(seeds: [[u8; 32]; 2], c: [u8; 32], rc: [u8; 32]) {
            let [dialer, listener] = seeds.map(Keypair::from_seed);
            let (challenge, response_challenge) = (Challenge(c), Challenge(rc));
            let names = ["relay.example:4160".to_owned()];
            let header = request_header(&dialer, &names[0], challenge);
            let (mut state, introduction) =
                ListenerIdentity::meet(Some(&header), &names, &listener, response_challenge);
            let Introduction::Accept { header } = introduction else {
                return Err(TestCaseError::fail("not accepted"));
            };
            let seen = read_response_header(&header, &challenge).unwrap();
            prop_assert_eq!(seen, ResponseSeen { key: listener.identity(), response_challenge });
            let payload = verification(&dialer, seen.response_challenge);
            let key = dialer.identity();
            prop_assert_eq!(state.verify(&payload), Verification::Verified(key));
            prop_assert_eq!(state.verified(), Some(key));
            prop_assert_eq!(state.verify(b"again"), Verification::Ignored);
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>, text: String) {
            let challenge = Challenge([0; 32]);
            for header in [STANDARD.encode(&bytes), text] {
                let _: Result<_, _> = read_request_header(&header);
                let _: Result<_, _> = read_response_header(&header, &challenge);
            }
            let _: Result<_, _> = check_verification(&bytes, &Identity::from_ed25519([0; 32]), &challenge);
        }
    }
}
