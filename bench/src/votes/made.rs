//! Votes as a network sends them: rounds of the same voters, with a key of the round and a key that stays.

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use gossip::wire::{
    features::MAX_TABLE,
    vote::{self, PackedVote, VoteError, VotePacker, VoteUnpacker},
};
use testkit::votes::mark_key;

/// The voters' votes, one after the other.
#[derive(Debug)]
pub(super) struct Voters {
    count: u64,
    next: u64,
}

impl Voters {
    pub(super) fn new(count: u32) -> Self {
        Self { count: u64::from(count.max(1)), next: 0 }
    }

    /// Puts the next vote, packed by itself, in place of `out`. Its credential begins with its number.
    pub(super) fn put_next(&mut self, out: &mut Vec<u8>) {
        let number = self.next;
        self.next += 1;
        let (round, voter) = (number / self.count, number % self.count);
        out.clear();
        // Digest, digest of the encoding, proposer and step: a soft vote.
        out.extend([0b11_0110, 0]);
        out.extend(number.to_le_bytes());
        noise(out, number, 72);
        noise(out, round, 96);
        out.push(0xce);
        out.extend(u32::try_from(50_000_000 + round).unwrap_or(u32::MAX).to_be_bytes());
        noise(out, voter, 32);
        out.push(1);
        noise(out, number ^ 1 << 40, 96);
        noise(out, voter ^ 1 << 41, 96);
        noise(out, number ^ 1 << 42, 64);
    }
}

/// Bytes that differ by `seed` and cost little.
fn noise(out: &mut Vec<u8>, seed: u64, len: usize) {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    for _ in 0..len / 8 {
        word = (word ^ word >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        out.extend(word.to_le_bytes());
    }
}

/// Number of votes by which the codecs are timed.
const TIMED: usize = 20_000;

/// Mean time of a codec for one of `votes`, in nanoseconds.
fn nanos<V>(
    votes: &[V],
    mut codec: impl FnMut(&V, &mut Vec<u8>) -> Result<(), VoteError>,
) -> Result<f64, VoteError> {
    let mut out = Vec::with_capacity(vote::MAX_PLAIN_BYTES);
    let began = Instant::now();
    for vote in votes {
        out.clear();
        codec(black_box(vote), &mut out)?;
        black_box(&out);
    }
    Ok(began.elapsed().as_nanos() as f64 / votes.len() as f64)
}

/// Time of each codec for one vote, in nanoseconds, without a relay.
pub(super) fn codec_nanos(voters: u32) -> Result<Vec<(&'static str, f64)>, VoteError> {
    let mut voters = Voters::new(voters);
    let (mut plain, mut packed) = (Vec::new(), Vec::new());
    for _ in 0..TIMED {
        let (mut small, mut large) = (Vec::new(), Vec::new());
        voters.put_next(&mut small);
        vote::unpack(&small, &mut large)?;
        packed.push(Bytes::from(small));
        plain.push(large);
    }
    let table = usize::from(MAX_TABLE);
    let (Some(mut packer), Some(mut unpacker)) = (VotePacker::new(table), VoteUnpacker::new(table))
    else {
        return Ok(Vec::new());
    };
    let key = mark_key();
    let read = packed.iter().map(|vote| PackedVote::read(vote.clone(), &key));
    let read = read.collect::<Result<Vec<_>, _>>()?;
    let against = |vote| {
        let mut small = Vec::new();
        packer.pack(vote, &mut small);
        small
    };
    let stateful: Vec<_> = read.iter().map(against).collect();
    let mut packer = VotePacker::new(table).unwrap_or(packer);
    let mut further = |vote: &PackedVote, out: &mut Vec<u8>| {
        packer.pack(vote, out);
        Ok(())
    };
    Ok(vec![
        ("pack", nanos(&plain, |vote, out| vote::pack(vote, out))?),
        ("unpack", nanos(&packed, |vote, out| vote::unpack(vote, out))?),
        (
            "read for all links",
            nanos(&packed, |vote, _| {
                PackedVote::read(vote.clone(), &key).map(|vote| drop(black_box(vote)))
            })?,
        ),
        ("pack further", nanos(&read, &mut further)?),
        ("unpack further", nanos(&stateful, |vote, out| unpacker.unpack(vote, out))?),
    ])
}
