//! Packed votes, by themselves and against earlier ones.

use gossip::wire::vote::{
    MAX_PACKED_BYTES, MAX_PLAIN_BYTES, MarkKey, PackedVote, VotePackers, VoteUnpacker, pack, unpack,
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
        // Its receiver may refuse to pack it; if not, the bytes are those that came, but for two bits of the first and the
        // second, which have no meaning in a vote packed by itself.
        if pack(&plain, &mut again).is_ok() {
            assert_eq!(again[0], data[0] & 0x3f);
            assert_eq!(again[2..], data[2..]);
        }
    }
}

/// Votes of connections that share tables: each has one byte for its length in front, times two. One connection is sent all
/// of them, one those at even places, and one those at odd places.
pub(crate) fn vote_stream(data: &[u8]) {
    let packers = VotePackers::default();
    let mut links = [0; 3].map(|_| {
        let packer = packers.packer(ENTRIES).expect("a power of two");
        (packer, VoteUnpacker::new(ENTRIES).expect("a power of two"))
    });
    let mut hostile = VoteUnpacker::new(ENTRIES).expect("a power of two");
    let key = MarkKey::new(std::array::from_fn(|at| {
        0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128.wrapping_pow(at as u32 + 1)
    }));
    let (mut rest, mut place) = (data, 0);
    while let Some((len, after)) = rest.split_first() {
        let (vote, after) = after.split_at((usize::from(*len) * 2).min(after.len()));
        rest = after;
        place += 1;
        let mut out = Vec::new();
        if hostile.unpack(vote, &mut out).is_ok() {
            assert!(out.len() <= MAX_PACKED_BYTES);
        }
        let Ok(read) = PackedVote::read(vote.to_vec().into(), &key) else { continue };
        if !read.fits() {
            continue;
        }
        for link in [0, 1 + place % 2] {
            let (packer, unpacker) = &mut links[link];
            let (mut against, mut back) = (Vec::new(), Vec::new());
            packer.pack(&read, &mut against);
            assert_eq!(unpacker.unpack(&against, &mut back), Ok(()));
            assert_eq!(back[0], vote[0]);
            assert_eq!(back[2..], vote[2..], "the second byte has no meaning");
        }
    }
}
