//! The priority response: a peer proves that it holds voting keys, and is ranked by their weight.
//!
//! ```text
//!   listener ── challenge ─────────────────────────────────────────▶ dialler     response header
//!            ◀─ the challenge, a round, an account, one-time signature ──         NP message
//!
//!   account's vote key ──signs──▶ key of a batch ──signs──▶ key of an offset ──signs──▶ the challenge
//! ```
//!
//! # Invariants
//!
//! * A signature is checked over the canonical form of what was read, so the form it came in does not matter.
//! * The keys of the batch and of the offset are bound to the round of the response by the two upper signatures.
//! * The response grants a rank and nothing else: it is bound to a challenge, not to the connection.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::msgpack::{self, Fields, MsgpackError, Reader, read_struct};
use crate::{identity::Identity, keypair::Keypair};

/// Longest challenge in a response, in bytes. Source: wire facts 7.
pub const MAX_CHALLENGE_BYTES: usize = 44;

/// Bytes that the signature of the challenge covers before it. Source: wire facts 7, as the two below.
const CHALLENGE_DOMAIN: [u8; 3] = *b"NPR";
const OFFSET_DOMAIN: [u8; 3] = *b"OT2";
const BATCH_DOMAIN: [u8; 3] = *b"OT1";

/// The text of a challenge, from bytes drawn for one connection.
#[must_use]
pub fn challenge(bytes: [u8; 32]) -> String {
    STANDARD.encode(bytes)
}

/// The keys by which the votes of an account are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Public part of the account's vote key.
    pub vote_key: [u8; 32],
    /// Rounds for which one batch of one-time keys lasts; at least one.
    pub key_dilution: u64,
}

/// Why a priority response is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PriorityError {
    /// The message is not msgpack of the expected kind.
    #[error("the priority response cannot be read")]
    Msgpack(#[from] MsgpackError),
    /// The challenge is longer than [`MAX_CHALLENGE_BYTES`].
    #[error(
        "the challenge in the priority response has {bytes} bytes, {MAX_CHALLENGE_BYTES} are allowed"
    )]
    LongChallenge {
        /// Its length.
        bytes: usize,
    },
    /// It answers another challenge than the one that was sent.
    #[error("the priority response answers another challenge")]
    WrongChallenge,
    /// The account has no vote key in that round, as far as this node knows.
    #[error("the account of the priority response does not vote")]
    NoVoter,
    /// One of the three signatures is wrong, or a key is one that anybody can sign for.
    #[error("a signature of the priority response is wrong")]
    BadSignature,
}

/// A signature by a key that is used for one round only, with the chain up to the account's vote key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneTimeSignature {
    /// Public key of the offset, which signed the challenge.
    pub offset_key: [u8; 32],
    /// Signature of [`OneTimeSignature::offset_key`] by the key of the batch.
    pub offset_key_signature: [u8; 64],
    /// Public key of the batch.
    pub batch_key: [u8; 32],
    /// Signature of [`OneTimeSignature::batch_key`] by the account's vote key.
    pub batch_key_signature: [u8; 64],
    /// Signature of the challenge by the key of the offset.
    pub signature: [u8; 64],
}

/// A priority response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityResponse {
    /// The challenge that it answers, as it came. At most [`MAX_CHALLENGE_BYTES`].
    pub challenge: String,
    /// The round for which the one-time key is.
    pub round: u64,
    /// The account that votes with it.
    pub account: [u8; 32],
    /// The proof.
    pub signature: OneTimeSignature,
}

/// The bytes that the key of an offset signs.
#[must_use]
pub fn signed_challenge(challenge: &str) -> Vec<u8> {
    let mut out = CHALLENGE_DOMAIN.to_vec();
    put_challenge(&mut out, challenge);
    out
}

/// The bytes that the key of a batch signs.
#[must_use]
pub fn signed_offset_key(batch: u64, offset: u64, offset_key: &[u8; 32]) -> Vec<u8> {
    let mut out = OFFSET_DOMAIN.to_vec();
    msgpack::put_map(&mut out, 3);
    msgpack::put_str(&mut out, "batch");
    msgpack::put_uint(&mut out, batch);
    msgpack::put_str(&mut out, "off");
    msgpack::put_uint(&mut out, offset);
    msgpack::put_str(&mut out, "pk");
    msgpack::put_bin(&mut out, offset_key);
    out
}

/// The bytes that an account's vote key signs.
#[must_use]
pub fn signed_batch_key(batch: u64, batch_key: &[u8; 32]) -> Vec<u8> {
    let mut out = BATCH_DOMAIN.to_vec();
    msgpack::put_map(&mut out, 2);
    msgpack::put_str(&mut out, "batch");
    msgpack::put_uint(&mut out, batch);
    msgpack::put_str(&mut out, "pk");
    msgpack::put_bin(&mut out, batch_key);
    out
}

impl Voter {
    /// The batch of a round, and the offset within it. A dilution of zero counts as one.
    #[must_use]
    pub const fn key_number(&self, round: u64) -> (u64, u64) {
        let dilution = if self.key_dilution == 0 { 1 } else { self.key_dilution };
        (round / dilution, round % dilution)
    }
}

impl OneTimeSignature {
    /// Signs a challenge with keys that are all at hand. A node whose vote key is elsewhere fills the fields itself,
    /// with signatures of [`signed_batch_key`] and [`signed_offset_key`] that were made in advance.
    #[must_use]
    pub fn sign(
        challenge: &str,
        (batch, offset): (u64, u64),
        [vote_key, batch_key, offset_key]: [&Keypair; 3],
    ) -> Self {
        let (batch_public, offset_public) = (batch_key.public(), offset_key.public());
        Self {
            offset_key: offset_public,
            offset_key_signature: batch_key.sign(&signed_offset_key(batch, offset, &offset_public)),
            batch_key: batch_public,
            batch_key_signature: vote_key.sign(&signed_batch_key(batch, &batch_public)),
            signature: offset_key.sign(&signed_challenge(challenge)),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let fields: [(&str, &[u8]); 6] = [
            ("p", &self.offset_key),
            ("p1s", &self.offset_key_signature),
            ("p2", &self.batch_key),
            ("p2s", &self.batch_key_signature),
            // A signature of an older form, always of zeros.
            ("ps", &[0; 64]),
            ("s", &self.signature),
        ];
        msgpack::put_map(out, fields.len());
        for (name, value) in fields {
            msgpack::put_str(out, name);
            msgpack::put_bin(out, value);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, PriorityError> {
        let mut read = Self {
            offset_key: [0; 32],
            offset_key_signature: [0; 64],
            batch_key: [0; 32],
            batch_key_signature: [0; 64],
            signature: [0; 64],
        };
        let fields = Fields::NamedOrOrdered(&["p", "p1s", "p2", "p2s", "ps", "s"]);
        read_struct::<PriorityError>(reader, fields, |reader, field| {
            match field {
                "p" => read.offset_key = reader.fixed()?,
                "p1s" => read.offset_key_signature = reader.fixed()?,
                "p2" => read.batch_key = reader.fixed()?,
                "p2s" => read.batch_key_signature = reader.fixed()?,
                "s" => read.signature = reader.fixed()?,
                // The value of the older form counts for nothing.
                _ => drop(reader.fixed::<64>()?),
            }
            Ok(())
        })?;
        Ok(read)
    }
}

impl PriorityResponse {
    /// The payload of the message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let has_account = self.account != [0; 32];
        let mut out = Vec::with_capacity(480);
        msgpack::put_map(&mut out, 2 + usize::from(self.round > 0) + usize::from(has_account));
        msgpack::put_str(&mut out, "Response");
        put_challenge(&mut out, &self.challenge);
        if self.round > 0 {
            msgpack::put_str(&mut out, "Round");
            msgpack::put_uint(&mut out, self.round);
        }
        if has_account {
            msgpack::put_str(&mut out, "Sender");
            msgpack::put_bin(&mut out, &self.account);
        }
        msgpack::put_str(&mut out, "Sig");
        self.signature.put(&mut out);
        out.into()
    }

    /// Reads the payload of a message. Fields that are missing are zero, and bytes after the end are ignored.
    ///
    /// # Errors
    ///
    /// [`PriorityError`] when it cannot be read.
    pub fn decode(payload: &[u8]) -> Result<Self, PriorityError> {
        let (mut challenge, mut round, mut account) = (&[][..], 0, [0; 32]);
        let mut signature = OneTimeSignature::read(&mut Reader::new(&[0x80]))?;
        let fields = Fields::NamedOrOrdered(&["Response", "Round", "Sender", "Sig"]);
        read_struct::<PriorityError>(&mut Reader::new(payload), fields, |reader, field| {
            match field {
                "Response" => challenge = read_challenge(reader)?,
                "Round" => round = reader.uint()?,
                "Sender" => account = reader.fixed()?,
                _ => signature = OneTimeSignature::read(reader)?,
            }
            Ok(())
        })?;
        let challenge = String::from_utf8_lossy(challenge).into_owned();
        Ok(Self { challenge, round, account, signature })
    }

    /// Checks that it answers `challenge`, and that keys of `voter` have signed it.
    ///
    /// # Errors
    ///
    /// [`PriorityError::WrongChallenge`] and [`PriorityError::BadSignature`].
    pub fn verify(&self, challenge: &str, voter: &Voter) -> Result<(), PriorityError> {
        if self.challenge != challenge || challenge.is_empty() {
            return Err(PriorityError::WrongChallenge);
        }
        let (batch, offset) = voter.key_number(self.round);
        let OneTimeSignature { offset_key, batch_key, .. } = &self.signature;
        let chain = [
            (
                &voter.vote_key,
                signed_batch_key(batch, batch_key),
                &self.signature.batch_key_signature,
            ),
            (
                batch_key,
                signed_offset_key(batch, offset, offset_key),
                &self.signature.offset_key_signature,
            ),
            (offset_key, signed_challenge(challenge), &self.signature.signature),
        ];
        for (key, signed, signature) in chain {
            let verified = Identity::from_ed25519(*key).verify(&signed, signature);
            verified.map_err(|_| PriorityError::BadSignature)?;
        }
        Ok(())
    }
}

fn put_challenge(out: &mut Vec<u8>, challenge: &str) {
    msgpack::put_map(out, 1);
    msgpack::put_str(out, "Nonce");
    msgpack::put_str(out, challenge);
}

fn read_challenge<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], PriorityError> {
    let mut challenge = &[][..];
    read_struct::<PriorityError>(reader, Fields::NamedOrOrdered(&["Nonce"]), |reader, _nonce| {
        challenge = reader.bytes()?;
        match challenge.len() {
            0..=MAX_CHALLENGE_BYTES => Ok(()),
            bytes => Err(PriorityError::LongChallenge { bytes }),
        }
    })?;
    Ok(challenge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(seed: u8) -> [Keypair; 3] {
        [1, 2, 3].map(|step| Keypair::from_seed([seed.wrapping_add(step); 32]))
    }

    fn response(
        round: u64,
        account: [u8; 32],
        voter: &Voter,
        keys: &[Keypair; 3],
    ) -> PriorityResponse {
        let challenge = challenge([7; 32]);
        let [vote, batch, offset] = keys;
        let number = voter.key_number(round);
        let signature = OneTimeSignature::sign(&challenge, number, [vote, batch, offset]);
        PriorityResponse { challenge, round, account, signature }
    }

    proptest! {
        #[test]
        fn a_response_survives_the_wire_and_is_verified(
            seed: u8,
            round: u64,
            key_dilution in prop_oneof![Just(0), 1_u64..100_000],
            account: [u8; 32],
            flipped in any::<prop::sample::Index>(),
        ) {
            let keys = keys(seed);
            let voter = Voter { vote_key: keys[0].public(), key_dilution };
            let response = response(round, account, &voter, &keys);
            let payload = response.encode();
            let read = PriorityResponse::decode(&payload).unwrap();
            prop_assert_eq!(&read, &response);
            prop_assert_eq!(read.verify(&response.challenge, &voter), Ok(()));
            prop_assert_eq!(read.verify("other", &voter), Err(PriorityError::WrongChallenge));
            let later = PriorityResponse { round: round.wrapping_add(1), ..read };
            let refused = later.verify(&response.challenge, &voter);
            prop_assert_eq!(refused, Err(PriorityError::BadSignature));
            // Of the bytes of the signatures none may be another. Those of the old form count for nothing.
            let mut bytes = payload.to_vec();
            let last = bytes.len() - 1;
            let place = last - flipped.index(64);
            bytes[place] ^= 1;
            let read = PriorityResponse::decode(&bytes).unwrap();
            prop_assert!(read.verify(&response.challenge, &voter).is_err());
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            if let Ok(read) = PriorityResponse::decode(&bytes) {
                let again = PriorityResponse::decode(&read.encode());
                prop_assert!(again.is_ok() || read.challenge.len() > MAX_CHALLENGE_BYTES);
            }
        }
    }

    #[test]
    fn an_empty_challenge_is_answered_by_nobody() {
        let keys = keys(1);
        let voter = Voter { vote_key: keys[0].public(), key_dilution: 10 };
        let read = PriorityResponse::decode(&[0x80]).unwrap();
        assert_eq!(read.verify("", &voter), Err(PriorityError::WrongChallenge));
    }
}
