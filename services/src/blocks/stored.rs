//! A block and its certificate, as they travel.
//!
//! ```text
//!   UE/TS:  blockData = block   certData = cert
//!   HTTP:   82 a5 "block" block a4 "cert" cert
//! ```
//!
//! # Invariants
//!
//! * Nothing is decoded but what tells which round it is: what is served is what came in, byte for byte.
//! * The reader never recurses and takes no memory: it walks over its input, once.
//! * [`StoredBlock::check`] passes only what can be wrapped and unwrapped again: one whole msgpack object
//!   each, with nothing behind it.

use bytes::Bytes;
use gossip::wire::msgpack::{self, MsgpackError, Reader};

/// Content type of a block over HTTP. Source: wire facts 9.4.
pub const CONTENT_TYPE: &str = "application/x-algorand-block-v1";

/// Content type that older nodes send, accepted from them. Source: wire facts 9.4.
pub const LEGACY_CONTENT_TYPE: &str = "application/algorand-block-v1";

/// Longest body with a block and its certificate that is taken, in bytes: 10 MiB. Source: wire facts 9.4.
pub const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

const BLOCK: &str = "block";
const CERT: &str = "cert";
const ROUND: &[u8] = b"rnd";

/// A block and its certificate, each the raw msgpack it travels as.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredBlock {
    /// The block.
    pub block: Bytes,
    /// Its certificate.
    pub cert: Bytes,
}

/// Why bytes are not the block that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// They are not msgpack, or end too early.
    #[error(transparent)]
    Msgpack(#[from] MsgpackError),
    /// A byte that starts no value.
    #[error("byte {found:#04x} starts no msgpack value")]
    NoValue {
        /// The byte.
        found: u8,
    },
    /// Something stands behind the object.
    #[error("{bytes} bytes stand behind the {what}")]
    Trailing {
        /// The part that they stand behind.
        what: &'static str,
        /// Their number.
        bytes: usize,
    },
    /// The map around block and certificate has not exactly those two in it.
    #[error("a block and a certificate are expected, and nothing else")]
    NotBlockAndCert,
    /// The round is there twice, or is no number.
    #[error("the {what} does not say one round")]
    NoRound {
        /// Block or certificate.
        what: &'static str,
    },
    /// It is of another round.
    #[error("the {what} is of round {found}, asked for was {wanted}")]
    OtherRound {
        /// Block or certificate.
        what: &'static str,
        /// Its round.
        found: u64,
        /// The round that was asked for.
        wanted: u64,
    },
}

impl StoredBlock {
    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.block.len() + self.cert.len()
    }

    /// `true` if it holds no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks that block and certificate are whole msgpack maps of this round, as an asking node does.
    /// Source: wire facts 4.3. Whether the certificate certifies the block is for a ledger to tell.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self, round: u64) -> Result<(), BlockError> {
        for (what, bytes) in [(BLOCK, &self.block), (CERT, &self.cert)] {
            let found = round_of(what, bytes)?;
            if found != round {
                return Err(BlockError::OtherRound { what, found, wanted: round });
            }
        }
        Ok(())
    }

    /// A copy that keeps no other bytes alive. What came in may be two small slices of a message of
    /// megabytes, which whoever counts the bytes of blocks would not see.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            block: Bytes::copy_from_slice(&self.block),
            cert: Bytes::copy_from_slice(&self.cert),
        }
    }

    /// The body in which it travels over HTTP, in one allocation.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        // The map, its two keys and their headers: 12 bytes.
        let mut out = Vec::with_capacity(self.len() + 12);
        msgpack::put_map(&mut out, 2);
        for (key, bytes) in [(BLOCK, &self.block), (CERT, &self.cert)] {
            msgpack::put_str(&mut out, key);
            out.extend_from_slice(bytes);
        }
        out
    }

    /// Reads a body. Block and certificate are slices of it; what round they are of is not looked at.
    ///
    /// # Errors
    ///
    /// [`BlockError`] unless it is a map with exactly a block and a certificate, in any order.
    pub fn from_body(body: &Bytes) -> Result<Self, BlockError> {
        let mut reader = Reader::new(body);
        if reader.map()? != 2 {
            return Err(BlockError::NotBlockAndCert);
        }
        let (mut block, mut cert) = (None, None);
        for _ in 0..2 {
            let key = reader.bytes()?;
            let (value, rest) = skip(reader.rest())?;
            match key {
                b"block" => block = Some(body.slice_ref(value)),
                b"cert" => cert = Some(body.slice_ref(value)),
                _ => return Err(BlockError::NotBlockAndCert),
            }
            reader = Reader::new(rest);
        }
        match (block, cert, reader.rest().len()) {
            (Some(block), Some(cert), 0) => Ok(Self { block, cert }),
            (Some(_), Some(_), bytes) => Err(BlockError::Trailing { what: "body", bytes }),
            _ => Err(BlockError::NotBlockAndCert),
        }
    }
}

/// The round in a block or a certificate; none means 0, because zeros are left out.
fn round_of(what: &'static str, bytes: &[u8]) -> Result<u64, BlockError> {
    let mut reader = Reader::new(bytes);
    let mut round = None;
    for _ in 0..reader.map()? {
        let key = reader.bytes()?;
        let (value, rest) = skip(reader.rest())?;
        if key == ROUND {
            // Of two rounds one node might take the first and another the second.
            let first = round.replace(number(value).ok_or(BlockError::NoRound { what })?);
            if first.is_some() {
                return Err(BlockError::NoRound { what });
            }
        }
        reader = Reader::new(rest);
    }
    match reader.rest().len() {
        0 => Ok(round.unwrap_or(0)),
        bytes => Err(BlockError::Trailing { what, bytes }),
    }
}

/// Splits the first whole value off.
fn skip(bytes: &[u8]) -> Result<(&[u8], &[u8]), BlockError> {
    let (mut rest, mut values) = (bytes, 1_u64);
    while values > 0 {
        let (&first, tail) = rest.split_first().ok_or(MsgpackError::Truncated)?;
        let shape = shape(first).ok_or(BlockError::NoValue { found: first })?;
        let (len, tail) = match shape.length {
            Length::Known(len) => (len, tail),
            Length::In(width) => {
                let (len, tail) = tail.split_at_checked(width).ok_or(MsgpackError::Truncated)?;
                (big_endian(len), tail)
            }
        };
        let content = if shape.children == 0 { len.saturating_add(shape.extra) } else { 0 };
        let content = usize::try_from(content).unwrap_or(usize::MAX);
        rest = tail.get(content..).ok_or(MsgpackError::Truncated)?;
        // Every value takes a byte at least, so more values than bytes cannot be there.
        values = (values - 1).saturating_add(len.saturating_mul(shape.children));
        if values > rest.len() as u64 {
            return Err(MsgpackError::Truncated.into());
        }
    }
    Ok(bytes.split_at(bytes.len() - rest.len()))
}

/// Length of a value, by its first byte.
struct Shape {
    length: Length,
    /// Bytes besides those counted by the length.
    extra: u64,
    /// Values for each one counted by the length; none, then the length counts bytes.
    children: u64,
}

enum Length {
    Known(u64),
    /// In so many bytes.
    In(usize),
}

const fn shape(first: u8) -> Option<Shape> {
    let (length, extra, children) = match first {
        0x80..=0x8f => (Length::Known((first & 0x0f) as u64), 0, 2),
        0x90..=0x9f => (Length::Known((first & 0x0f) as u64), 0, 1),
        0xa0..=0xbf => (Length::Known((first & 0x1f) as u64), 0, 0),
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (Length::Known(0), 0, 0),
        0xc1 => return None,
        0xc4 | 0xd9 => (Length::In(1), 0, 0),
        0xc5 | 0xda => (Length::In(2), 0, 0),
        0xc6 | 0xdb => (Length::In(4), 0, 0),
        0xc7 => (Length::In(1), 1, 0),
        0xc8 => (Length::In(2), 1, 0),
        0xc9 => (Length::In(4), 1, 0),
        0xcc | 0xd0 => (Length::Known(1), 0, 0),
        0xcd | 0xd1 => (Length::Known(2), 0, 0),
        0xca | 0xce | 0xd2 => (Length::Known(4), 0, 0),
        0xcb | 0xcf | 0xd3 => (Length::Known(8), 0, 0),
        0xd4..=0xd8 => (Length::Known(1 << (first - 0xd4)), 1, 0),
        0xdc => (Length::In(2), 0, 1),
        0xdd => (Length::In(4), 0, 1),
        0xde => (Length::In(2), 0, 2),
        0xdf => (Length::In(4), 0, 2),
    };
    Some(Shape { length, extra, children })
}

/// An unsigned number that takes all of `value`.
fn number(value: &[u8]) -> Option<u64> {
    match value.split_first()? {
        (&first @ 0x00..=0x7f, []) => Some(u64::from(first)),
        (0xcc..=0xcf, digits) => Some(big_endian(digits)),
        // A signed form of a number that is not negative.
        (0xd0..=0xd3, digits @ [0x00..=0x7f, ..]) => Some(big_endian(digits)),
        _ => None,
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(block: &'static [u8], cert: &'static [u8]) -> StoredBlock {
        StoredBlock { block: block.into(), cert: cert.into() }
    }

    #[test]
    fn a_block_is_known_by_the_rounds_in_it() {
        let good = stored(
            b"\x82\xa1a\x93\x01\xc4\x02xy\x81\x00\xc0\xa3rnd\xcd\x01\x2c",
            b"\x81\xa3rnd\xd1\x01\x2c",
        );
        assert_eq!(good.check(300), Ok(()));
        let other = BlockError::OtherRound { what: "block", found: 300, wanted: 3 };
        assert_eq!(good.check(3), Err(other));
        assert_eq!(stored(b"\x80", b"\x80").check(0), Ok(()));
        let cert = BlockError::OtherRound { what: "cert", found: 0, wanted: 1 };
        assert_eq!(stored(b"\x81\xa3rnd\x01", b"\x80").check(1), Err(cert));
    }

    #[test]
    fn bytes_that_are_no_block_are_refused_with_a_reason() {
        let refused = |block: &'static [u8]| stored(block, b"\x80").check(0).unwrap_err();
        let no_round = BlockError::NoRound { what: "block" };
        assert_eq!(refused(b""), MsgpackError::Truncated.into());
        assert_eq!(refused(b"\x81\xa1a"), MsgpackError::Truncated.into());
        assert_eq!(refused(b"\x81\xa1a\xc1"), BlockError::NoValue { found: 0xc1 });
        assert_eq!(refused(b"\x80\x00"), BlockError::Trailing { what: "block", bytes: 1 });
        assert_eq!(refused(b"\x81\xa3rnd\xff"), no_round);
        assert_eq!(refused(b"\x81\xa3rnd\xa10"), no_round);
        assert_eq!(refused(b"\x82\xa3rnd\x00\xa3rnd\x00"), no_round);
    }

    #[test]
    fn a_huge_announced_length_or_depth_costs_nothing() {
        for head in [&b"\xdf\xff\xff\xff\xff"[..], b"\xdd\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff"]
        {
            assert_eq!(skip(head), Err(MsgpackError::Truncated.into()));
        }
        let mut deep = vec![0x91; 1_000_000];
        deep.push(0xc0);
        assert_eq!(skip(&deep), Ok((&deep[..], &b""[..])));
    }

    #[test]
    fn a_body_holds_a_block_and_a_certificate_in_any_order_and_nothing_else() {
        let block = stored(b"\x81\xa3rnd\x01", b"\x80");
        let body = Bytes::from(block.to_body());
        assert_eq!(&body[..], b"\x82\xa5block\x81\xa3rnd\x01\xa4cert\x80");
        let read = StoredBlock::from_body(&body).unwrap();
        assert_eq!(read, block);
        assert!(body.as_ptr_range().contains(&read.block.as_ptr()));
        let read = |body: &'static [u8]| StoredBlock::from_body(&body.into());
        assert_eq!(read(b"\x82\xa4cert\x80\xa5block\x81\xa3rnd\x01"), Ok(block));
        assert_eq!(read(b"\x82\xa4cert\x80\xa4cert\x80"), Err(BlockError::NotBlockAndCert));
        assert_eq!(read(b"\x81\xa4cert\x80"), Err(BlockError::NotBlockAndCert));
        assert_eq!(read(b"\x82\xa4cert\x80\xa5extra\x80"), Err(BlockError::NotBlockAndCert));
        let trailing = BlockError::Trailing { what: "body", bytes: 1 };
        assert_eq!(read(b"\x82\xa4cert\x80\xa5block\x80\x00"), Err(trailing));
    }

    /// Any msgpack value, some levels deep.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            (0..=0x7f_u8).prop_map(|number| vec![number]),
            any::<u64>().prop_map(|number| [&[0xcf][..], &number.to_be_bytes()].concat()),
            any::<u8>().prop_map(|kind| vec![0xd4, kind, 1]),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| {
                let mut out = Vec::new();
                msgpack::put_bin(&mut out, &bytes);
                out
            }),
            "[a-z]{0,40}".prop_map(|text| {
                let mut out = Vec::new();
                msgpack::put_str(&mut out, &text);
                out
            }),
        ];
        leaf.prop_recursive(4, 60, 8, |inner| {
            prop::collection::vec(inner, 0..20).prop_map(|values| {
                let mut out = Vec::new();
                if values.len() % 2 == 0 {
                    msgpack::put_map(&mut out, values.len() / 2);
                } else {
                    msgpack::put_array(&mut out, values.len());
                }
                values.into_iter().for_each(|value| out.extend(value));
                out
            })
        })
    }

    proptest! {
        #[test]
        fn every_body_survives(block in value(), cert in value()) {
            let block = StoredBlock { block: block.into(), cert: cert.into() };
            prop_assert_eq!(StoredBlock::from_body(&block.to_body().into()), Ok(block));
        }

        #[test]
        fn a_body_that_is_cut_is_refused(block in value(), cert in value(), at: prop::sample::Index) {
            let mut body = StoredBlock { block: block.into(), cert: cert.into() }.to_body();
            body.truncate(at.index(body.len()));
            prop_assert!(StoredBlock::from_body(&body.into()).is_err());
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>, round: u64) {
            let bytes = Bytes::from(bytes);
            let _: Result<_, _> = StoredBlock::from_body(&bytes);
            let _: Result<_, _> = StoredBlock { block: bytes.clone(), cert: bytes }.check(round);
        }
    }
}
