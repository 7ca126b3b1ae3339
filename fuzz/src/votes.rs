//! Packed votes, by themselves and against earlier ones.

use gossip::wire::vote::{
    MAX_PACKED_BYTES, MAX_PLAIN_BYTES, VotePacker, VoteUnpacker, fits, pack, unpack,
};

/// Entries of a table that is soon full.
const ENTRIES: usize = 16;

/// A vote that is packed comes back, and packed bytes that are read become no longer than a vote.
pub(crate) fn vote(data: &[u8]) {
    let mut packed = Vec::new();
    if pack(data, &mut packed).is_ok() {
        assert!(packed.len() <= MAX_PACKED_BYTES);
        let mut plain = Vec::new();
        assert_eq!(unpack(&packed, &mut plain), Ok(()));
        assert_eq!(plain, data);
    } else {
        assert!(packed.is_empty(), "a refused vote leaves something behind");
    }
    let mut plain = Vec::new();
    if unpack(data, &mut plain).is_ok() {
        assert!(plain.len() <= MAX_PLAIN_BYTES);
        let mut again = Vec::new();
        // Its receiver may refuse to pack it; if not, the bytes are those that came.
        if pack(&plain, &mut again).is_ok() {
            assert_eq!(again, data);
        }
    }
}

/// Votes of a connection: each has one byte for its length in front, times two.
pub(crate) fn vote_stream(data: &[u8]) {
    let mut packer = VotePacker::new(ENTRIES).expect("a power of two");
    let mut unpacker = VoteUnpacker::new(ENTRIES).expect("a power of two");
    let mut hostile = VoteUnpacker::new(ENTRIES).expect("a power of two");
    let mut rest = data;
    while let Some((len, after)) = rest.split_first() {
        let (vote, after) = after.split_at((usize::from(*len) * 2).min(after.len()));
        rest = after;
        let mut out = Vec::new();
        if hostile.unpack(vote, &mut out).is_ok() {
            assert!(out.len() <= MAX_PACKED_BYTES);
        }
        if !fits(vote) {
            continue;
        }
        let (mut against, mut back) = (Vec::new(), Vec::new());
        assert_eq!(packer.pack(vote, &mut against), Ok(()));
        assert_eq!(unpacker.unpack(&against, &mut back), Ok(()));
        assert_eq!(back[0], vote[0]);
        assert_eq!(back[2..], vote[2..], "the second byte has no meaning");
    }
}
