//! Votes packed against the earlier ones of one direction of a connection.
//!
//! # Invariants
//!
//! * The state of both ends is the same after every vote, and what a vote adds to it is added in the order of its
//!   bytes: proposal, round, sender, key, batch key.
//! * A packer checks a vote before it changes its state. After an error of the unpacker its state is void.

use super::{
    VoteError,
    parts::{
        Cursor, HASH_BYTES, KEY_BYTES, PERIOD, PROOF_BYTES, Parts, SIGNATURE_BYTES, STEP,
        is_shortest, put_number, value_of,
    },
    table::{self, Table},
    window::{self, Window},
};

/// The bits of the second byte that say codes the round is written.
const ROUND: u8 = 0b11;
/// The round is written out.
const ROUND_LITERAL: u8 = 0b00;
/// The round is the one after the last.
const ROUND_NEXT: u8 = 0b01;
/// The round is the one before the last.
const ROUND_BEFORE: u8 = 0b10;
/// The round is the last one.
const ROUND_SAME: u8 = 0b11;
/// The place of the proposal in the window begins at this bit of the second byte; 0 means that it is written out.
const PROPOSAL_SHIFT: u32 = 2;
/// Largest place in the window.
const PROPOSAL_PLACES: u8 = 0b111;
/// The sender is a reference.
const SENDER_KNOWN: u8 = 1 << 5;
/// The key and its signature are a reference.
const KEY_KNOWN: u8 = 1 << 6;
/// The batch key and its signature are a reference.
const BATCH_KEY_KNOWN: u8 = 1 << 7;

/// The state of one direction of a connection.
#[derive(Clone, Debug)]
struct State {
    proposals: Window,
    round: u64,
    senders: Table<HASH_BYTES>,
    keys: Table<KEY_BYTES>,
    batch_keys: Table<KEY_BYTES>,
}

impl State {
    fn new(slots: usize) -> Option<Self> {
        Some(Self {
            proposals: Window::default(),
            round: 0,
            senders: Table::new(slots, |sender| {
                let words = sender.as_chunks().0;
                words.iter().fold(0, |hash, word| hash ^ u64::from_le_bytes(*word))
            })?,
            keys: Table::new(slots, key_hash)?,
            batch_keys: Table::new(slots, key_hash)?,
        })
    }
}

/// Memory that a [`VotePacker`] or a [`VoteUnpacker`] with tables of so many entries takes at most, in bytes.
#[must_use]
pub const fn state_bytes(entries: usize) -> usize {
    window::MAX_WINDOW_BYTES
        .saturating_add(table::max_bytes(entries, HASH_BYTES))
        .saturating_add(2 * table::max_bytes(entries, KEY_BYTES))
}

/// The first words of key and signature.
fn key_hash(pair: &[u8; KEY_BYTES]) -> u64 {
    let words = pair.as_chunks::<8>().0;
    u64::from_le_bytes(words[0]) ^ u64::from_le_bytes(words[HASH_BYTES / 8])
}

/// Packs votes against the earlier ones of a connection.
#[derive(Clone, Debug)]
pub struct VotePacker(State);

impl VotePacker {
    /// A packer that has packed nothing yet, with tables of so many entries. `None` unless the number is a power of
    /// two from 16 to 65,536; nodes agree on 16 to 2,048.
    #[must_use]
    pub fn new(entries: usize) -> Option<Self> {
        State::new(entries).map(Self)
    }

    /// Appends the next vote to `out`, which is given in the form of [`pack`](super::pack).
    ///
    /// A round that is written wider than needed may come out narrower at the other end. [`fits`] tells.
    ///
    /// # Errors
    ///
    /// [`VoteError`] when it is no packed vote; nothing has changed then.
    pub fn pack(&mut self, packed: &[u8], out: &mut Vec<u8>) -> Result<(), VoteError> {
        let vote = Parts::read(packed)?;
        let State { proposals, round, senders, keys, batch_keys } = &mut self.0;
        let header = out.len() + 1;
        out.extend([vote.mask, 0]);
        out.extend(vote.proof);
        out.extend(vote.period);
        let mut codes = 0;
        if let Some(place) = proposals.refer(vote.mask, vote.proposal) {
            codes |= place << PROPOSAL_SHIFT;
        } else {
            out.extend(vote.proposal);
            proposals.push(vote.mask, vote.proposal);
        }
        let last = std::mem::replace(round, value_of(vote.round));
        codes |= match *round {
            same if same == last => ROUND_SAME,
            next if last.checked_add(1) == Some(next) => ROUND_NEXT,
            before if last.checked_sub(1) == Some(before) => ROUND_BEFORE,
            _ => {
                out.extend(vote.round);
                ROUND_LITERAL
            }
        };
        codes |= put(senders, vote.sender, SENDER_KNOWN, out);
        out.extend(vote.step);
        codes |= put(keys, vote.key, KEY_KNOWN, out);
        codes |= put(batch_keys, vote.batch_key, BATCH_KEY_KNOWN, out);
        out.extend(vote.signature);
        out[header] = codes;
        Ok(())
    }
}

/// Returns whether a vote in the form of [`pack`](super::pack) passes a [`VotePacker`] unchanged: its round is
/// written in the shortest form.
#[must_use]
pub fn fits(packed: &[u8]) -> bool {
    Parts::read(packed).is_ok_and(|vote| is_shortest(vote.round))
}

/// Appends a value, or the reference to it; returns `known` for a reference.
fn put<const N: usize>(table: &mut Table<N>, value: &[u8; N], known: u8, out: &mut Vec<u8>) -> u8 {
    if let Some(reference) = table.refer(value) {
        out.extend(reference.to_be_bytes());
        known
    } else {
        out.extend(value);
        table.insert(value);
        0
    }
}

/// Unpacks what a [`VotePacker`] at the other end of a connection has packed.
#[derive(Clone, Debug)]
pub struct VoteUnpacker(State);

impl VoteUnpacker {
    /// An unpacker that has unpacked nothing yet, with tables of so many entries: as [`VotePacker::new`].
    #[must_use]
    pub fn new(entries: usize) -> Option<Self> {
        State::new(entries).map(Self)
    }

    /// Appends the next vote to `out`, in a form that [`unpack`](super::unpack) reads or refuses.
    ///
    /// # Errors
    ///
    /// [`VoteError`] when it cannot be read. No further vote of this direction can be read then.
    pub fn unpack(&mut self, vote: &[u8], out: &mut Vec<u8>) -> Result<(), VoteError> {
        let State { proposals, round, senders, keys, batch_keys } = &mut self.0;
        let mut cursor = Cursor::new(vote);
        let [mask, codes] = *cursor.take()?;
        out.extend([mask, 0]);
        out.extend(cursor.take::<PROOF_BYTES>()?);
        if mask & PERIOD != 0 {
            out.extend(cursor.number()?);
        }
        match codes >> PROPOSAL_SHIFT & PROPOSAL_PLACES {
            0 => {
                let proposal = cursor.proposal(mask)?;
                out.extend(proposal);
                proposals.push(mask, proposal);
            }
            place => {
                let nowhere = VoteError::Reference { reference: place.into() };
                out.extend(proposals.get(place).ok_or(nowhere)?);
            }
        }
        *round = match codes & ROUND {
            ROUND_SAME => *round,
            ROUND_NEXT => round.checked_add(1).ok_or(VoteError::Round)?,
            ROUND_BEFORE => round.checked_sub(1).ok_or(VoteError::Round)?,
            _ => {
                let literal = cursor.number()?;
                out.extend(literal);
                value_of(literal)
            }
        };
        if codes & ROUND != ROUND_LITERAL {
            put_number(out, *round);
        }
        take(senders, codes & SENDER_KNOWN, &mut cursor, out)?;
        if mask & STEP != 0 {
            out.extend(cursor.number()?);
        }
        take(keys, codes & KEY_KNOWN, &mut cursor, out)?;
        take(batch_keys, codes & BATCH_KEY_KNOWN, &mut cursor, out)?;
        out.extend(cursor.take::<SIGNATURE_BYTES>()?);
        cursor.end()
    }
}

/// Takes the reference to a value if its bit is set in `known`, or else the value, and appends the value.
fn take<const N: usize>(
    table: &mut Table<N>,
    known: u8,
    cursor: &mut Cursor<'_>,
    out: &mut Vec<u8>,
) -> Result<(), VoteError> {
    if known != 0 {
        let reference = u16::from_be_bytes(*cursor.take()?);
        out.extend(table.fetch(reference).ok_or(VoteError::Reference { reference })?);
    } else {
        let value = cursor.take()?;
        out.extend(value);
        table.insert(value);
    }
    Ok(())
}
