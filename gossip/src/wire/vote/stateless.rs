//! A vote packed by itself: its values without their names.

use super::{
    VoteError,
    parts::{
        Cursor, DIGEST, ENCODING, HASH_BYTES, KEY_BYTES, MASK, ORIGINAL_PERIOD, PERIOD,
        PROOF_BYTES, PROPOSAL, PROPOSER, Parts, SIGNATURE_BYTES, STEP,
    },
};

/// The start of a vote, up to the proof of its credential.
const HEAD: &[u8] = b"\x83\xa4cred\x81\xa2pf\xc4\x50";
/// The fields of a vote before the first that may be missing: a map whose length is in the low bits.
const RAW_VOTE: &[u8] = b"\xa1r";
/// The first byte of a map of fewer than sixteen entries.
const MAP: u8 = 0x80;
/// The names of the fields, and the header of those with a fixed length.
const PERIOD_NAME: &[u8] = b"\xa3per";
const PROPOSAL_NAME: &[u8] = b"\xa4prop";
const DIGEST_NAME: &[u8] = b"\xa3dig\xc4\x20";
const ENCODING_NAME: &[u8] = b"\xa6encdig\xc4\x20";
const ORIGINAL_PERIOD_NAME: &[u8] = b"\xa4oper";
const PROPOSER_NAME: &[u8] = b"\xa5oprop\xc4\x20";
const ROUND_NAME: &[u8] = b"\xa3rnd";
const SENDER_NAME: &[u8] = b"\xa3snd\xc4\x20";
const STEP_NAME: &[u8] = b"\xa4step";
const SIGNATURE_NAME: &[u8] = b"\xa3sig\x86\xa1p\xc4\x20";
const KEY_SIGNATURE_NAME: &[u8] = b"\xa3p1s\xc4\x40";
const BATCH_KEY_NAME: &[u8] = b"\xa2p2\xc4\x20";
const BATCH_KEY_SIGNATURE_NAME: &[u8] = b"\xa3p2s\xc4\x40";
/// A signature of an older scheme, which every vote still has, and which is zero.
const OLD_SIGNATURE: &[u8] = b"\xa2ps\xc4\x40";
const LAST_SIGNATURE_NAME: &[u8] = b"\xa1s\xc4\x40";

/// Appends the packed form of `vote` to `out`: at most [`MAX_PACKED_BYTES`](super::MAX_PACKED_BYTES).
///
/// # Errors
///
/// [`VoteError`] when it is not the canonical msgpack of a vote, or [`unpack`] would not give it back; `out` is as it
/// was then. Numbers may be zero, or wider than needed: they are kept as they are.
pub fn pack(vote: &[u8], out: &mut Vec<u8>) -> Result<(), VoteError> {
    let start = out.len();
    let packed = put_packed(vote, out);
    if packed.is_err() {
        out.truncate(start);
    }
    packed
}

fn put_packed(vote: &[u8], out: &mut Vec<u8>) -> Result<(), VoteError> {
    let mut cursor = Cursor::new(vote);
    let start = out.len();
    // The mask is known at the end.
    out.extend([0, 0]);
    cursor.expect(HEAD)?;
    out.extend(cursor.take::<PROOF_BYTES>()?);
    cursor.expect(RAW_VOTE)?;
    let mut mask = 0;
    let wrong_count = cursor.not_canonical();
    let [fields] = *cursor.take()?;
    if cursor.skip(PERIOD_NAME) {
        mask |= PERIOD;
        out.extend(cursor.number()?);
    }
    if cursor.skip(PROPOSAL_NAME) {
        mask |= put_proposal(&mut cursor, out)?;
    }
    cursor.expect(ROUND_NAME)?;
    out.extend(cursor.number()?);
    cursor.expect(SENDER_NAME)?;
    out.extend(cursor.take::<HASH_BYTES>()?);
    if cursor.skip(STEP_NAME) {
        mask |= STEP;
        out.extend(cursor.number()?);
    }
    if fields != MAP | vote_fields(mask) {
        return Err(wrong_count);
    }
    cursor.expect(SIGNATURE_NAME)?;
    out.extend(cursor.take::<HASH_BYTES>()?);
    cursor.expect(KEY_SIGNATURE_NAME)?;
    out.extend(cursor.take::<SIGNATURE_BYTES>()?);
    cursor.expect(BATCH_KEY_NAME)?;
    out.extend(cursor.take::<HASH_BYTES>()?);
    cursor.expect(BATCH_KEY_SIGNATURE_NAME)?;
    out.extend(cursor.take::<SIGNATURE_BYTES>()?);
    cursor.expect(OLD_SIGNATURE)?;
    cursor.expect(&[0; SIGNATURE_BYTES])?;
    cursor.expect(LAST_SIGNATURE_NAME)?;
    out.extend(cursor.take::<SIGNATURE_BYTES>()?);
    cursor.end()?;
    out[start] = mask;
    Ok(())
}

/// Packs a proposal, and returns the bits of the fields it has.
fn put_proposal(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<u8, VoteError> {
    let mut mask = 0;
    let wrong_count = cursor.not_canonical();
    let [fields] = *cursor.take()?;
    for (field, name) in [
        (DIGEST, DIGEST_NAME),
        (ENCODING, ENCODING_NAME),
        (ORIGINAL_PERIOD, ORIGINAL_PERIOD_NAME),
        (PROPOSER, PROPOSER_NAME),
    ] {
        if !cursor.skip(name) {
            continue;
        }
        mask |= field;
        if field == ORIGINAL_PERIOD {
            out.extend(cursor.number()?);
        } else {
            out.extend(cursor.take::<HASH_BYTES>()?);
        }
    }
    if mask == 0 || fields != MAP | proposal_fields(mask) {
        return Err(wrong_count);
    }
    Ok(mask)
}

/// Appends the vote whose packed form is `packed`: at most [`MAX_PLAIN_BYTES`](super::MAX_PLAIN_BYTES).
///
/// # Errors
///
/// [`VoteError`] when it is no packed vote; nothing is appended then.
pub fn unpack(packed: &[u8], out: &mut Vec<u8>) -> Result<(), VoteError> {
    let vote = Parts::read(packed)?;
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    put(&[HEAD, vote.proof, RAW_VOTE, &[MAP | vote_fields(vote.mask)]]);
    if vote.mask & PERIOD != 0 {
        put(&[PERIOD_NAME, vote.period]);
    }
    if vote.mask & PROPOSAL != 0 {
        put(&[PROPOSAL_NAME, &[MAP | proposal_fields(vote.mask)]]);
        let mut fields = Cursor::new(vote.proposal);
        if vote.mask & DIGEST != 0 {
            put(&[DIGEST_NAME, fields.take::<HASH_BYTES>()?]);
        }
        if vote.mask & ENCODING != 0 {
            put(&[ENCODING_NAME, fields.take::<HASH_BYTES>()?]);
        }
        if vote.mask & ORIGINAL_PERIOD != 0 {
            put(&[ORIGINAL_PERIOD_NAME, fields.number()?]);
        }
        if vote.mask & PROPOSER != 0 {
            put(&[PROPOSER_NAME, fields.take::<HASH_BYTES>()?]);
        }
    }
    put(&[ROUND_NAME, vote.round, SENDER_NAME, vote.sender]);
    if vote.mask & STEP != 0 {
        put(&[STEP_NAME, vote.step]);
    }
    let (key, key_signature) = halves(vote.key);
    let (batch_key, batch_key_signature) = halves(vote.batch_key);
    put(&[SIGNATURE_NAME, key, KEY_SIGNATURE_NAME, key_signature]);
    put(&[BATCH_KEY_NAME, batch_key, BATCH_KEY_SIGNATURE_NAME, batch_key_signature]);
    put(&[OLD_SIGNATURE, &[0; SIGNATURE_BYTES], LAST_SIGNATURE_NAME, vote.signature]);
    Ok(())
}

/// Appends a packed vote, which [`unpack`] has read, as [`pack`] would write it: bits that mean nothing are zero.
pub fn put_normal(packed: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(packed);
    if let Some([mask, unused, ..]) = out.get_mut(start..) {
        (*mask, *unused) = (*mask & MASK, 0);
    }
}

/// A key and its signature.
fn halves(pair: &[u8; KEY_BYTES]) -> (&[u8], &[u8]) {
    pair.split_at(HASH_BYTES)
}

/// The number of fields of a vote: round and sender, and what `mask` adds.
fn vote_fields(mask: u8) -> u8 {
    let present = |bits: u8| u8::from(mask & bits != 0);
    2 + present(PERIOD) + present(PROPOSAL) + present(STEP)
}

/// The number of fields of a proposal.
fn proposal_fields(mask: u8) -> u8 {
    // At most four.
    (mask & PROPOSAL).count_ones() as u8
}
