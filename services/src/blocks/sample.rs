//! Blocks to try things with: of plausible size and shape, and of no ledger.
//!
//! # Invariants
//!
//! * A sample passes [`StoredBlock::check`] for its round, and for no other.
//! * The same round and size give the same bytes, everywhere.

use gossip::wire::msgpack::{put_array, put_bin, put_map, put_str};

use super::stored::StoredBlock;

/// Bytes of a certificate with two votes, about. Source: the smallest recorded ones.
const CERT_BYTES: usize = 1_200;

/// Bytes of a transaction in a block, about. Source: a recorded block with one payment.
const TRANSACTION_BYTES: usize = 220;

/// A block as they come from a quiet network: about 1,800 bytes with its certificate. Source: recorded
/// answers have 1,767 to 2,038 bytes.
#[must_use]
pub fn block(round: u64) -> StoredBlock {
    with_transactions(round, 1)
}

/// A block with so many transactions of about 220 bytes each; a few more bytes for its header.
#[must_use]
pub fn with_transactions(round: u64, transactions: usize) -> StoredBlock {
    let mut noise = Noise::of(round);
    let mut block = Vec::with_capacity(700 + transactions * TRANSACTION_BYTES);
    put_map(&mut block, 9);
    put_str(&mut block, "gen");
    put_str(&mut block, "sample-v1");
    noise.put(&mut block, "gh", 32);
    noise.put(&mut block, "prev", 32);
    noise.put(&mut block, "prev512", 64);
    put_str(&mut block, "rnd");
    put_number(&mut block, round);
    noise.put(&mut block, "seed", 32);
    noise.put(&mut block, "txn", 32);
    noise.put(&mut block, "txn512", 64);
    put_str(&mut block, "txns");
    put_array(&mut block, transactions);
    for _ in 0..transactions {
        put_map(&mut block, 2);
        noise.put(&mut block, "sig", 64);
        put_str(&mut block, "txn");
        put_map(&mut block, 4);
        noise.put(&mut block, "note", 48);
        noise.put(&mut block, "rcv", 32);
        noise.put(&mut block, "snd", 32);
        put_str(&mut block, "type");
        put_str(&mut block, "pay");
    }
    let mut cert = Vec::with_capacity(CERT_BYTES + 100);
    put_map(&mut cert, 4);
    noise.put(&mut cert, "prop", 96);
    put_str(&mut cert, "rnd");
    put_number(&mut cert, round);
    put_str(&mut cert, "step");
    put_number(&mut cert, 2);
    noise.put(&mut cert, "vote", CERT_BYTES - 96);
    StoredBlock { block: block.into(), cert: cert.into() }
}

/// Appends a number in its shortest form.
fn put_number(out: &mut Vec<u8>, number: u64) {
    let bytes = number.to_be_bytes();
    let (first, width) = match number {
        0..=0x7f => (None, 1),
        0x80..=0xff => (Some(0xcc), 1),
        0x100..=0xffff => (Some(0xcd), 2),
        0x1_0000..=0xffff_ffff => (Some(0xce), 4),
        _ => (Some(0xcf), 8),
    };
    out.extend(first);
    out.extend(bytes.iter().skip(bytes.len() - width));
}

/// Bytes that do not compress, the same for the same round.
struct Noise(blake3::OutputReader);

impl Noise {
    fn of(round: u64) -> Self {
        Self(blake3::Hasher::new().update(&round.to_be_bytes()).finalize_xof())
    }

    fn put(&mut self, out: &mut Vec<u8>, key: &str, len: usize) {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        put_str(out, key);
        put_bin(out, &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_block_of_its_round_and_of_a_recorded_size() {
        for round in [0, 1, 127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX), u64::MAX] {
            let block = block(round);
            assert_eq!(block.check(round), Ok(()));
            assert!(block.check(!round).is_err());
            assert!((1_600..2_100).contains(&block.len()), "{}", block.len());
            assert_eq!(StoredBlock::from_body(&block.to_body().into()), Ok(block));
        }
        let large = with_transactions(5, 4_000);
        assert!((800_000..950_000).contains(&large.len()), "{}", large.len());
        assert_eq!(large.check(5), Ok(()));
    }
}
