//! Votes packed against the earlier ones of one direction of a connection.
//!
//! # Invariants
//!
//! * The state of both ends is the same after every vote, and what a vote adds to it is added in the order of its
//!   bytes: proposal, round, sender, key, batch key.
//! * A packer has marks of the values in place of the values, which are looked at once for the packers of all links.
//! * The packers of [`VotePackers`] have their tables side by side, so that a vote meets the same cache lines on each link.
//! * A vote is checked before it reaches a packer. After an error of the unpacker its state is void.

use bytes::{BufMut, Bytes};

use super::{
    VoteError,
    group::{Groups, Place, Tables},
    known::{self, Marked},
    mark::{Mark, MarkKey},
    parts::{
        Cursor, HASH_BYTES, KEY_BYTES, PERIOD, PROOF_BYTES, Parts, SIGNATURE_BYTES, STEP,
        is_shortest, put_number, value_of,
    },
    table::{self, Table},
    window::{self, Proposal, Window},
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

/// Length of the bits in front of a vote, in bytes.
const HEADER_BYTES: usize = 2;

/// The first words of key and signature.
fn key_hash(pair: &[u8; KEY_BYTES]) -> u64 {
    let words = pair.as_chunks::<8>().0;
    u64::from_le_bytes(words[0]) ^ u64::from_le_bytes(words[HASH_BYTES / 8])
}

fn sender_hash(sender: &[u8; HASH_BYTES]) -> u64 {
    let words = sender.as_chunks().0;
    words.iter().fold(0, |hash, word| hash ^ u64::from_le_bytes(*word))
}

/// Memory that a link with tables of so many entries takes at most for the votes of both directions, in bytes.
#[must_use]
pub const fn link_bytes(entries: usize) -> usize {
    window::MAX_WINDOW_BYTES
        .saturating_add(table::max_bytes(entries, HASH_BYTES))
        .saturating_add(2 * table::max_bytes(entries, KEY_BYTES))
        .saturating_add(3 * known::max_bytes(entries))
}

/// A vote in the form of [`pack`](super::pack), read once for the packers of all links.
#[derive(Clone, Debug)]
pub struct PackedVote {
    packed: Bytes,
    /// Places of parts in `packed`: the proposal begins where the period ends, and so on.
    proposal_at: usize,
    round_at: usize,
    sender_at: usize,
    step_at: usize,
    key_at: usize,
    round: u64,
    proposal: Mark,
    sender: Marked,
    key: Marked,
    batch_key: Marked,
    fits: bool,
}

impl PackedVote {
    /// Reads a vote. Packers must all be given votes with marks of the same key.
    ///
    /// # Errors
    ///
    /// [`VoteError`] when it is no packed vote.
    pub fn read(packed: Bytes, key: &MarkKey) -> Result<Self, VoteError> {
        let vote = Parts::read(&packed)?;
        let proposal_at = HEADER_BYTES + PROOF_BYTES + vote.period.len();
        let round_at = proposal_at + vote.proposal.len();
        let sender_at = round_at + vote.round.len();
        let step_at = sender_at + HASH_BYTES;
        let key_at = step_at + vote.step.len();
        let pair = |pair| Marked { hash: key_hash(pair), mark: key.mark(pair) };
        Ok(Self {
            proposal_at,
            round_at,
            sender_at,
            step_at,
            key_at,
            round: value_of(vote.round),
            proposal: key.mark(&Proposal::new(vote.mask, vote.proposal).distinctive()),
            sender: Marked { hash: sender_hash(vote.sender), mark: key.mark(vote.sender) },
            key: pair(vote.key),
            batch_key: pair(vote.batch_key),
            fits: is_shortest(vote.round),
            packed,
        })
    }

    /// Returns whether the vote passes a [`VotePacker`] unchanged: its round is written in the shortest form.
    #[must_use]
    pub const fn fits(&self) -> bool {
        self.fits
    }

    /// Appends the vote with these references, which a packer has made of it.
    pub fn write(&self, references: References, out: &mut impl BufMut) {
        let References { codes, places: [sender, key, batch_key] } = references;
        let Self { proposal_at, round_at, sender_at, step_at, key_at, .. } = *self;
        let (batch_key_at, signature_at) = (key_at + KEY_BYTES, key_at + 2 * KEY_BYTES);
        out.put_slice(self.part(0, 1));
        out.put_u8(codes);
        out.put_slice(self.part(HEADER_BYTES, proposal_at));
        if codes >> PROPOSAL_SHIFT & PROPOSAL_PLACES == 0 {
            out.put_slice(self.part(proposal_at, round_at));
        }
        if codes & ROUND == ROUND_LITERAL {
            out.put_slice(self.part(round_at, sender_at));
        }
        put(codes & SENDER_KNOWN, sender, self.part(sender_at, step_at), out);
        out.put_slice(self.part(step_at, key_at));
        put(codes & KEY_KNOWN, key, self.part(key_at, batch_key_at), out);
        put(codes & BATCH_KEY_KNOWN, batch_key, self.part(batch_key_at, signature_at), out);
        out.put_slice(self.part(signature_at, self.packed.len()));
    }

    /// The bytes from one place to the next.
    fn part(&self, from: usize, to: usize) -> &[u8] {
        self.packed.get(from..to).unwrap_or_default()
    }
}

/// The references of a vote to earlier ones of a connection. A vote with equal references has equal bytes on every
/// connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// The second byte.
    codes: u8,
    /// Places of sender, key and batch key; 0 for one that is written out.
    places: [u16; 3],
}

/// Makes the packers of a node's connections. Those with tables of one size share memory, up to sixteen of them.
#[derive(Debug, Default)]
pub struct VotePackers {
    groups: Groups,
}

impl VotePackers {
    /// A packer like that of [`VotePacker::new`], which makes the same of its votes.
    #[must_use]
    pub fn packer(&self, entries: usize) -> Option<VotePacker> {
        table::is_size(entries).then(|| VotePacker::at(self.groups.place(entries)))
    }
}

/// Packs votes against the earlier ones of a connection.
#[derive(Debug)]
pub struct VotePacker {
    /// The newest of `proposals`, which most votes are for.
    newest: Option<Mark>,
    proposals: Window<Mark>,
    round: u64,
    place: Place,
}

impl VotePacker {
    /// A packer that has packed nothing yet, with tables of so many entries. `None` unless the number is a power of
    /// two from 16 to 65,536; nodes agree on 16 to 2,048.
    #[must_use]
    pub fn new(entries: usize) -> Option<Self> {
        table::is_size(entries).then(|| Self::at(Place::alone(entries)))
    }

    fn at(place: Place) -> Self {
        Self { newest: None, proposals: Window::default(), round: 0, place }
    }

    /// Returns whether other packers of the same [`VotePackers`] share the tables of this one, at the moment.
    #[must_use]
    pub fn has_neighbours(&self) -> bool {
        self.place.has_neighbours()
    }

    /// Appends the next vote to `out`.
    ///
    /// A round that is written wider than needed may come out narrower at the other end. [`PackedVote::fits`] tells.
    pub fn pack(&mut self, vote: &PackedVote, out: &mut impl BufMut) {
        let references = self.refer(vote);
        vote.write(references, out);
    }

    /// Takes the next vote in, and returns its references to earlier ones. [`PackedVote::write`] makes the bytes of them,
    /// which every connection must be sent exactly once, in the order of these calls.
    pub fn refer(&mut self, vote: &PackedVote) -> References {
        let mut references = [References::default()];
        self.refer_all(&[Some(vote)], &mut references);
        references[0]
    }

    /// Takes the next votes in, as [`refer`](Self::refer) does, and puts the references of each into its place.
    pub fn refer_all(&mut self, votes: &[Option<&PackedVote>], references: &mut [References]) {
        let Self { newest, proposals, round, place } = self;
        let (mut tables, lane) = place.tables();
        let Tables { senders, keys, batch_keys, .. } = &mut *tables;
        if votes.len() > 1 {
            // All buckets are read at once. Otherwise the processor waits for one after the other.
            let bits = votes.iter().flatten().fold(0, |bits, vote| {
                let (sender, key) = (senders.peek(vote.sender), keys.peek(vote.key));
                bits ^ sender ^ key ^ batch_keys.peek(vote.batch_key)
            });
            // Reads without a use are left out.
            std::hint::black_box(bits);
        }
        for (vote, references) in votes.iter().zip(references) {
            let Some(vote) = vote else { continue };
            let proposal = if *newest == Some(vote.proposal) {
                Some(1)
            } else {
                proposals.place_of(&vote.proposal)
            };
            if proposal.is_none() {
                proposals.push(vote.proposal);
                *newest = Some(vote.proposal);
            }
            let last = std::mem::replace(round, vote.round);
            let round = match vote.round {
                same if same == last => ROUND_SAME,
                next if last.checked_add(1) == Some(next) => ROUND_NEXT,
                before if last.checked_sub(1) == Some(before) => ROUND_BEFORE,
                _ => ROUND_LITERAL,
            };
            let sender = senders.refer(lane, vote.sender);
            let key = keys.refer(lane, vote.key);
            let batch_key = batch_keys.refer(lane, vote.batch_key);
            let bit = |reference: Option<u16>, known| reference.map_or(0, |_| known);
            references.codes = round
                | proposal.map_or(0, |place| place << PROPOSAL_SHIFT)
                | bit(sender, SENDER_KNOWN)
                | bit(key, KEY_KNOWN)
                | bit(batch_key, BATCH_KEY_KNOWN);
            references.places = [sender, key, batch_key].map(Option::unwrap_or_default);
        }
    }
}

/// Appends the reference to a value if its bit is set in `known`, or else the value.
fn put(known: u8, reference: u16, value: &[u8], out: &mut impl BufMut) {
    if known != 0 { out.put_u16(reference) } else { out.put_slice(value) }
}

/// Unpacks what a [`VotePacker`] at the other end of a connection has packed.
#[derive(Clone, Debug)]
pub struct VoteUnpacker {
    proposals: Window<Proposal>,
    round: u64,
    senders: Table<HASH_BYTES>,
    keys: Table<KEY_BYTES>,
    batch_keys: Table<KEY_BYTES>,
}

impl VoteUnpacker {
    /// An unpacker that has unpacked nothing yet, with tables of so many entries: as [`VotePacker::new`].
    #[must_use]
    pub fn new(entries: usize) -> Option<Self> {
        Some(Self {
            proposals: Window::default(),
            round: 0,
            senders: Table::new(entries, sender_hash)?,
            keys: Table::new(entries, key_hash)?,
            batch_keys: Table::new(entries, key_hash)?,
        })
    }

    /// Appends the next vote to `out`, in a form that [`unpack`](super::unpack) reads or refuses.
    ///
    /// # Errors
    ///
    /// [`VoteError`] when it cannot be read. No further vote of this direction can be read then.
    pub fn unpack(&mut self, vote: &[u8], out: &mut Vec<u8>) -> Result<(), VoteError> {
        let Self { proposals, round, senders, keys, batch_keys } = self;
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
                proposals.push(Proposal::new(mask, proposal));
            }
            place => {
                let nowhere = VoteError::Reference { reference: place.into() };
                out.extend(proposals.get(place).ok_or(nowhere)?.fields());
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
