//! The parts of a packed vote, read in the order of its bytes.
//!
//! # Invariants
//!
//! * Parts are slices of the input: reading takes no memory.

use super::VoteError;

/// The period is present.
pub(super) const PERIOD: u8 = 1;
/// The digest of the block is present.
pub(super) const DIGEST: u8 = 1 << 1;
/// The digest of the block's encoding is present.
pub(super) const ENCODING: u8 = 1 << 2;
/// The original period is present.
pub(super) const ORIGINAL_PERIOD: u8 = 1 << 3;
/// The original proposer is present.
pub(super) const PROPOSER: u8 = 1 << 4;
/// The step is present.
pub(super) const STEP: u8 = 1 << 5;
/// The four bits of a proposal.
pub(super) const PROPOSAL: u8 = DIGEST | ENCODING | ORIGINAL_PERIOD | PROPOSER;

/// All bits that mean something.
pub(super) const MASK: u8 = PERIOD | PROPOSAL | STEP;

/// Length of the credential's proof, in bytes.
pub(super) const PROOF_BYTES: usize = 80;
/// Length of an address or a digest, in bytes.
pub(super) const HASH_BYTES: usize = 32;
/// Length of a one-time key with its signature, in bytes.
pub(super) const KEY_BYTES: usize = 96;
/// Length of a signature, in bytes.
pub(super) const SIGNATURE_BYTES: usize = 64;

/// A place in a vote.
pub(super) struct Cursor<'a> {
    whole: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { whole: bytes, rest: bytes }
    }

    /// Takes a value of fixed length.
    pub(super) fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], VoteError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(VoteError::Truncated)?;
        self.rest = rest;
        Ok(value)
    }

    /// Takes an unsigned integer of msgpack, in any width, as it is written.
    pub(super) fn number(&mut self) -> Result<&'a [u8], VoteError> {
        let marker = *self.rest.first().ok_or(VoteError::Truncated)?;
        let len = match marker {
            0..=0x7f => 1,
            0xcc => 2,
            0xcd => 3,
            0xce => 5,
            0xcf => 9,
            _ => return Err(VoteError::NotANumber { marker }),
        };
        let (number, rest) = self.rest.split_at_checked(len).ok_or(VoteError::Truncated)?;
        self.rest = rest;
        Ok(number)
    }

    /// Takes the proposal whose fields `mask` lists.
    pub(super) fn proposal(&mut self, mask: u8) -> Result<&'a [u8], VoteError> {
        let before = self.rest;
        for field in [DIGEST, ENCODING, ORIGINAL_PERIOD, PROPOSER] {
            match (mask & field, field) {
                (0, _) => {}
                (_, ORIGINAL_PERIOD) => drop(self.number()?),
                _ => drop(self.take::<HASH_BYTES>()?),
            }
        }
        Ok(&before[..before.len() - self.rest.len()])
    }

    /// Takes `bytes` if they are next.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> bool {
        let after = self.rest.strip_prefix(bytes);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Takes `bytes`, which have to be next.
    pub(super) fn expect(&mut self, bytes: &[u8]) -> Result<(), VoteError> {
        if self.skip(bytes) { Ok(()) } else { Err(self.not_canonical()) }
    }

    /// The error for what is next.
    pub(super) const fn not_canonical(&self) -> VoteError {
        VoteError::NotCanonical { at: self.whole.len() - self.rest.len() }
    }

    /// Checks that nothing is left.
    pub(super) const fn end(&self) -> Result<(), VoteError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(VoteError::Trailing { bytes }),
        }
    }
}

/// The parts of a packed vote.
pub(super) struct Parts<'a> {
    /// Says which of the optional values are there. The two highest bits mean nothing.
    pub(super) mask: u8,
    pub(super) proof: &'a [u8; PROOF_BYTES],
    /// A number, or empty.
    pub(super) period: &'a [u8],
    /// The fields of the proposal, or empty.
    pub(super) proposal: &'a [u8],
    /// A number.
    pub(super) round: &'a [u8],
    pub(super) sender: &'a [u8; HASH_BYTES],
    /// A number, or empty.
    pub(super) step: &'a [u8],
    /// The key of the round, and its signature.
    pub(super) key: &'a [u8; KEY_BYTES],
    /// The key of the batch, and its signature.
    pub(super) batch_key: &'a [u8; KEY_BYTES],
    pub(super) signature: &'a [u8; SIGNATURE_BYTES],
}

impl<'a> Parts<'a> {
    /// Reads a packed vote. Its second byte is ignored, as existing nodes do.
    pub(super) fn read(packed: &'a [u8]) -> Result<Self, VoteError> {
        let mut cursor = Cursor::new(packed);
        let [mask, _] = *cursor.take()?;
        let parts = Self {
            mask,
            proof: cursor.take()?,
            period: if mask & PERIOD == 0 { &[] } else { cursor.number()? },
            proposal: cursor.proposal(mask)?,
            round: cursor.number()?,
            sender: cursor.take()?,
            step: if mask & STEP == 0 { &[] } else { cursor.number()? },
            key: cursor.take()?,
            batch_key: cursor.take()?,
            signature: cursor.take()?,
        };
        cursor.end()?;
        Ok(parts)
    }
}

/// The value of a number as [`Cursor::number`] gives it.
pub(super) fn value_of(number: &[u8]) -> u64 {
    let digits = if let [small] = number { std::slice::from_ref(small) } else { &number[1..] };
    digits.iter().fold(0, |value, digit| value << 8 | u64::from(*digit))
}

/// Appends a number in the shortest form there is.
pub(super) fn put_number(out: &mut Vec<u8>, value: u64) {
    let [.., b3, b2, b1, b0] = value.to_be_bytes();
    match value {
        0..=0x7f => out.push(b0),
        0x80..=0xff => out.extend([0xcc, b0]),
        0x100..=0xffff => out.extend([0xcd, b1, b0]),
        0x1_0000..=0xffff_ffff => out.extend([0xce, b3, b2, b1, b0]),
        _ => {
            out.push(0xcf);
            out.extend(value.to_be_bytes());
        }
    }
}

/// Returns whether a number is in the shortest form there is.
pub(super) fn is_shortest(number: &[u8]) -> bool {
    let value = value_of(number);
    number.len()
        == match value {
            0..=0x7f => 1,
            0x80..=0xff => 2,
            0x100..=0xffff => 3,
            0x1_0000..=0xffff_ffff => 5,
            _ => 9,
        }
}
