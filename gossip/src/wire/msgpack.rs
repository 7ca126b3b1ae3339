//! The little of msgpack that the handshakes need: maps, arrays, strings, byte strings, numbers.
//!
//! # Invariants
//!
//! * The writer writes the canonical form only: the shortest header there is.
//! * The reader is lenient in the ways existing nodes are, and in no other: longer headers, strings for
//!   byte strings and the reverse, `nil` for nothing, bytes after the object. Source: wire facts,
//!   primitive conventions.
//! * The reader never recurses and takes no memory: it hands out slices of its input.

/// The first bytes of one kind of value that has a length.
struct Form {
    name: &'static str,
    /// Base and largest length of the form whose length is in the first byte itself.
    fix: Option<(u8, u32)>,
    /// First byte of the form with a length of one byte.
    len8: Option<u8>,
    /// First byte of the form with a length of two bytes.
    len16: u8,
    /// First byte of the form with a length of four bytes.
    len32: u8,
}

const MAP: Form =
    Form { name: "a map", fix: Some((0x80, 15)), len8: None, len16: 0xde, len32: 0xdf };
const ARRAY: Form =
    Form { name: "an array", fix: Some((0x90, 15)), len8: None, len16: 0xdc, len32: 0xdd };
const STR: Form =
    Form { name: "a string", fix: Some((0xa0, 31)), len8: Some(0xd9), len16: 0xda, len32: 0xdb };
const BIN: Form =
    Form { name: "a byte string", fix: None, len8: Some(0xc4), len16: 0xc5, len32: 0xc6 };

/// The first byte of nothing.
const NIL: u8 = 0xc0;

/// Why bytes cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MsgpackError {
    /// The bytes end in the middle of something.
    #[error("the msgpack object is cut off")]
    Truncated,
    /// Something else is there than what is expected.
    #[error("byte {found:#04x} does not start {expected}")]
    Unexpected {
        /// The kind that is expected.
        expected: &'static str,
        /// The kind that was found.
        found: u8,
    },
    /// A number that is no byte, where a byte is expected.
    #[error("{value} is not a byte")]
    NotAByte {
        /// The number.
        value: u64,
    },
    /// A field that the struct does not have, or a list where names are needed.
    #[error("the msgpack object has a field that is not known")]
    UnknownField,
}

/// Appends the header of a map with `len` entries.
pub fn put_map(out: &mut Vec<u8>, len: usize) {
    MAP.put(out, len);
}

/// Appends the header of an array with `len` elements.
pub fn put_array(out: &mut Vec<u8>, len: usize) {
    ARRAY.put(out, len);
}

/// Appends a number that is not negative.
pub fn put_uint(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_be_bytes();
    let (first, from) = match value {
        0..=0x7f => return out.push(bytes[7]),
        0x80..=0xff => (0xcc, 7),
        0x100..=0xffff => (0xcd, 6),
        0x1_0000..=0xffff_ffff => (0xce, 4),
        _ => (0xcf, 0),
    };
    out.push(first);
    out.extend_from_slice(bytes.get(from..).unwrap_or_default());
}

/// Appends a string.
pub fn put_str(out: &mut Vec<u8>, text: &str) {
    STR.put(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a byte string.
pub fn put_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    BIN.put(out, bytes.len());
    out.extend_from_slice(bytes);
}

impl Form {
    /// Appends the shortest header for `len`.
    fn put(&self, out: &mut Vec<u8>, len: usize) {
        // No message comes near 4 GiB: a longer one is refused before it is written.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let [_, _, high, low] = len.to_be_bytes();
        match (self.fix, self.len8) {
            (Some((base, max)), _) if len <= max => out.push(base | low),
            (_, Some(byte)) if len <= 0xff => out.extend([byte, low]),
            _ if len <= 0xffff => out.extend([self.len16, high, low]),
            _ => {
                out.push(self.len32);
                out.extend(len.to_be_bytes());
            }
        }
    }

    /// The length that a value of this form has, if `first` starts one: at once, or the number of bytes
    /// that hold it.
    fn length(&self, first: u8) -> Option<Length> {
        match self.fix {
            Some((base, max)) if (base..=base | low_byte(max)).contains(&first) => {
                Some(Length::Known(u32::from(first & low_byte(max))))
            }
            _ if self.len8 == Some(first) => Some(Length::InBytes(1)),
            _ if self.len16 == first => Some(Length::InBytes(2)),
            _ if self.len32 == first => Some(Length::InBytes(4)),
            _ => None,
        }
    }
}

enum Length {
    Known(u32),
    InBytes(usize),
}

const fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

/// The shapes that a struct may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// Nothing: every field is missing.
    Nil,
    /// So many entries of key and value.
    Map(u32),
    /// So many values, in the order of the fields.
    Array(u32),
}

/// The names of the fields of a struct.
#[derive(Clone, Copy, Debug)]
pub enum Fields<'f> {
    /// Only the form with names is read.
    Named(&'f [&'static str]),
    /// A list of values in this order is read too.
    NamedOrOrdered(&'f [&'static str]),
}

/// Calls `read` for each field of a struct that is there. A field may come twice: the last one stays.
///
/// # Errors
///
/// [`MsgpackError`] when there is no struct or it has a field of another name, and the errors of `read`.
pub fn read_struct<'a, E: From<MsgpackError>>(
    reader: &mut Reader<'a>,
    fields: Fields<'_>,
    mut read: impl FnMut(&mut Reader<'a>, &'static str) -> Result<(), E>,
) -> Result<(), E> {
    let (Fields::Named(names) | Fields::NamedOrOrdered(names)) = fields;
    match (reader.container()?, fields) {
        (Container::Nil, _) => {}
        (Container::Map(len), _) => {
            for _ in 0..len {
                let name = reader.bytes()?;
                let known = names.iter().find(|known| known.as_bytes() == name);
                read(reader, known.ok_or(MsgpackError::UnknownField)?)?;
            }
        }
        (Container::Array(len), Fields::NamedOrOrdered(_)) if len as usize <= names.len() => {
            for name in names.iter().take(len as usize) {
                read(reader, name)?;
            }
        }
        (Container::Array(_), _) => return Err(MsgpackError::UnknownField.into()),
    }
    Ok(())
}

/// A place in a msgpack object.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that have not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads the header of a map and gives its number of entries. Nothing is an empty map.
    ///
    /// # Errors
    ///
    /// [`MsgpackError`] when there is no map.
    pub fn map(&mut self) -> Result<u32, MsgpackError> {
        self.length(&[MAP], MAP.name)
    }

    /// Reads the header of an array and gives its number of elements. Nothing is an empty array.
    ///
    /// # Errors
    ///
    /// [`MsgpackError`] when there is no array.
    pub fn array(&mut self) -> Result<u32, MsgpackError> {
        self.length(&[ARRAY], ARRAY.name)
    }

    /// Reads the header of what may be a map or an array.
    ///
    /// # Errors
    ///
    /// [`MsgpackError`] when there is neither.
    pub fn container(&mut self) -> Result<Container, MsgpackError> {
        let first = self.peek()?;
        if first == NIL {
            self.take(1)?;
            return Ok(Container::Nil);
        }
        if ARRAY.length(first).is_some() {
            return self.array().map(Container::Array);
        }
        self.map().map(Container::Map)
    }

    /// Reads a string or a byte string. Nothing is an empty one.
    ///
    /// # Errors
    ///
    /// [`MsgpackError`] when there is neither.
    pub fn bytes(&mut self) -> Result<&'a [u8], MsgpackError> {
        let len = self.length(&[STR, BIN], STR.name)?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// Reads an array of fixed length: a string of either kind or an array of numbers.
    ///
    /// A longer array is cut, and a shorter one is filled up with zeros.
    ///
    /// # Errors
    ///
    /// [`MsgpackError`] when there is none of them, or a number that is no byte.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let mut value = [0; N];
        if ARRAY.length(self.peek()?).is_some() {
            let mut places = value.iter_mut();
            for _ in 0..self.array()? {
                let byte = self.byte()?;
                if let Some(place) = places.next() {
                    *place = byte;
                }
            }
        } else {
            let bytes = self.bytes()?;
            value.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        }
        Ok(value)
    }

    /// Reads a number that is not negative, in any form without a sign. Nothing is zero.
    ///
    /// # Errors
    ///
    /// [`MsgpackError`] when there is none.
    pub fn uint(&mut self) -> Result<u64, MsgpackError> {
        if self.peek()? == NIL {
            self.take(1)?;
            return Ok(0);
        }
        self.unsigned()
    }

    /// Reads a number that fits a byte.
    fn byte(&mut self) -> Result<u8, MsgpackError> {
        let value = self.unsigned()?;
        u8::try_from(value).map_err(|_| MsgpackError::NotAByte { value })
    }

    fn unsigned(&mut self) -> Result<u64, MsgpackError> {
        let first = self.number(1)?;
        match first {
            0x00..=0x7f => Ok(first),
            0xcc..=0xcf => self.number(1 << (first - 0xcc)),
            _ => Err(unexpected("a number", low_byte(u32::try_from(first).unwrap_or(0)))),
        }
    }

    /// Reads the header of a value in one of `forms`.
    fn length(&mut self, forms: &[Form], expected: &'static str) -> Result<u32, MsgpackError> {
        let first = self.peek()?;
        let length = if first == NIL {
            Length::Known(0)
        } else {
            let length = forms.iter().find_map(|form| form.length(first));
            length.ok_or_else(|| unexpected(expected, first))?
        };
        self.take(1)?;
        match length {
            Length::Known(len) => Ok(len),
            // At most four bytes, so it fits.
            Length::InBytes(bytes) => Ok(u32::try_from(self.number(bytes)?).unwrap_or(u32::MAX)),
        }
    }

    /// Reads a big endian number of so many bytes, at most eight.
    fn number(&mut self, bytes: usize) -> Result<u64, MsgpackError> {
        let bytes = self.take(bytes)?;
        Ok(bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn peek(&self) -> Result<u8, MsgpackError> {
        self.rest.first().copied().ok_or(MsgpackError::Truncated)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], MsgpackError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

const fn unexpected(expected: &'static str, found: u8) -> MsgpackError {
    MsgpackError::Unexpected { expected, found }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lengths at which a header changes its size, and their neighbours.
    const EDGES: [usize; 10] = [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536];

    #[test]
    fn headers_take_their_shortest_form_and_are_read_back() {
        for len in EDGES {
            let mut out = Vec::new();
            put_map(&mut out, len);
            put_array(&mut out, len);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.map().unwrap() as usize, len);
            assert_eq!(reader.array().unwrap() as usize, len);
            assert_eq!(reader.rest(), b"");
        }
        let mut out = Vec::new();
        put_map(&mut out, 15);
        put_map(&mut out, 16);
        put_str(&mut out, "a");
        put_bin(&mut out, b"a");
        assert_eq!(out, [0x8f, 0xde, 0, 16, 0xa1, b'a', 0xc4, 1, b'a']);
    }

    #[test]
    fn strings_of_either_kind_are_read_as_bytes() {
        for len in EDGES {
            let text = "x".repeat(len);
            let mut out = Vec::new();
            put_str(&mut out, &text);
            put_bin(&mut out, text.as_bytes());
            let mut reader = Reader::new(&out);
            assert_eq!(reader.bytes().unwrap(), text.as_bytes());
            assert_eq!(reader.bytes().unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn a_fixed_array_is_cut_or_filled_up() {
        assert_eq!(Reader::new(b"\xc4\x02ab").fixed(), Ok(*b"ab\0"));
        assert_eq!(Reader::new(b"\xa4abcd").fixed(), Ok(*b"abc"));
        assert_eq!(Reader::new(&[0x94, 1, 0xcc, 200, 0xcd, 0, 3, 4]).fixed(), Ok([1, 200, 3]));
        assert_eq!(Reader::new(&[NIL]).fixed(), Ok([0; 3]));
    }

    #[test]
    fn an_unexpected_type_is_named() {
        let error = MsgpackError::Unexpected { expected: "a map", found: 0x93 };
        assert_eq!(Reader::new(&[0x93]).map(), Err(error));
        assert_eq!(Reader::new(&[]).map(), Err(MsgpackError::Truncated));
        assert_eq!(Reader::new(&[0xa2, b'a']).bytes(), Err(MsgpackError::Truncated));
        let error = MsgpackError::NotAByte { value: 256 };
        assert_eq!(Reader::new(&[0x91, 0xcd, 1, 0]).fixed::<4>(), Err(error));
    }

    #[test]
    fn a_huge_announced_length_costs_nothing() {
        assert_eq!(Reader::new(&[0xc6, 255, 255, 255, 255]).bytes(), Err(MsgpackError::Truncated));
        let array = [0xdd, 255, 255, 255, 255, 1];
        assert_eq!(Reader::new(&array).fixed::<4>(), Err(MsgpackError::Truncated));
    }

    proptest! {
        #[test]
        fn every_byte_string_survives(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut out = Vec::new();
            put_bin(&mut out, &bytes);
            prop_assert_eq!(Reader::new(&out).bytes(), Ok(bytes.as_slice()));
        }

        #[test]
        fn every_number_survives_in_its_shortest_form(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_uint(&mut out, value);
            let len = [(0x7f, 1), (0xff, 2), (0xffff, 3), (0xffff_ffff, 5), (u64::MAX, 9)];
            let shortest = len.into_iter().find(|(max, _)| value <= *max).map(|(_, len)| len);
            prop_assert_eq!(Some(out.len()), shortest);
            prop_assert_eq!(Reader::new(&out).uint(), Ok(value));
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.uint().is_ok() || reader.container().is_ok() || reader.fixed::<8>().is_ok() {}
        }
    }
}
