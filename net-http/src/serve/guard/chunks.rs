//! Finds the end of a chunked body.
//!
//! The HTTP library decodes the chunks. This module only tracks them, so that the next head is checked from its
//! first byte, and enforces the strict form of the lines between chunks.
//!
//! # Invariants
//!
//! * Lines between chunks end in CRLF. A chunk size has at most 16 hexadecimal digits. The extensions and
//!   trailers of a body are together at most [`MAX_EXTRA_BYTES`].

/// Longest total of a body's extensions and trailers, in bytes. Chosen: the bound of a head.
const MAX_EXTRA_BYTES: usize = 8192;

/// Largest number of digits of a chunk size. Chosen: those of 64 bits.
const MAX_DIGITS: u8 = 16;

/// The parser of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunks {
    at: At,
    extra: usize,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Size { digits: u8, value: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

/// The error of a body that violates the chunked format.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunks of the body are malformed")]
pub(crate) struct BadChunk;

impl Chunks {
    /// The parser at the start of a body.
    pub(crate) const fn new() -> Self {
        Self { at: At::Size { digits: 0, value: 0 }, extra: 0 }
    }

    /// Returns `true` at the end of the body.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.at, At::End)
    }

    /// Parses the next bytes, and returns how many of them belong to the body.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        self.pass_with(bytes, |_data| {})
    }

    /// As [`Chunks::pass`]; `data` gets the bytes in the chunks.
    pub(crate) fn pass_with(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, BadChunk> {
        let mut passed = 0;
        while let Some(&byte) = bytes.get(passed) {
            if self.is_over() {
                break;
            }
            if let At::Data { left } = self.at {
                let here = left.min((bytes.len() - passed) as u64);
                // At most the number of bytes in the buffer, so the conversion never fails.
                let end = passed + usize::try_from(here).unwrap_or(0);
                data(bytes.get(passed..end).unwrap_or_default());
                passed = end;
                self.at = if left == here { At::DataCr } else { At::Data { left: left - here } };
                continue;
            }
            self.at = self.step(byte)?;
            passed += 1;
        }
        Ok(passed)
    }

    fn step(&mut self, byte: u8) -> Result<At, BadChunk> {
        let after_size = |size| match size {
            0 => At::TrailerStart,
            left => At::Data { left },
        };
        Ok(match (self.at, byte) {
            (At::Size { digits: 1.., value }, b'\r') => At::SizeEnd { size: value },
            (At::Size { digits: 1.., value }, b';') => At::Extension { size: value },
            (At::Size { digits: ..MAX_DIGITS, value }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                let At::Size { digits, .. } = self.at else { return Err(BadChunk) };
                At::Size { digits: digits + 1, value: value << 4 | u64::from(digit) }
            }
            (At::Extension { size }, b'\r') => At::SizeEnd { size },
            (At::Extension { size }, b' '..=b'~' | b'\t') => {
                self.spend()?;
                At::Extension { size }
            }
            (At::SizeEnd { size }, b'\n') => after_size(size),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { digits: 0, value: 0 },
            (At::TrailerStart, b'\r') => At::LastLf,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerStart | At::Trailer, b' '..=b'~' | b'\t' | 0x80..) => {
                self.spend()?;
                At::Trailer
            }
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::LastLf, b'\n') => At::End,
            _ => return Err(BadChunk),
        })
    }

    fn spend(&mut self) -> Result<(), BadChunk> {
        self.extra += 1;
        if self.extra > MAX_EXTRA_BYTES { Err(BadChunk) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end_of(bytes: &[u8]) -> Result<Option<usize>, BadChunk> {
        let mut chunks = Chunks::new();
        let passed = chunks.pass(bytes)?;
        Ok(chunks.is_over().then_some(passed))
    }

    #[test]
    fn a_body_ends_behind_its_last_chunk() {
        assert_eq!(end_of(b"3\r\nabc\r\n0\r\n\r\nGET"), Ok(Some(13)));
        assert_eq!(end_of(b"0\r\n\r\n"), Ok(Some(5)));
        assert_eq!(end_of(b"A;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n"), Ok(Some(30)));
        assert_eq!(end_of(b"3\r\nab"), Ok(None));
    }

    #[test]
    fn an_ambiguous_message_is_refused() {
        for body in [
            &b"3\nabc\r\n"[..],
            b"3\r\nabcd",
            b"3 \r\n",
            b"+3\r\n",
            b"\r\n",
            b"0x3\r\n",
            b"3;a\nb\r\n",
            b"00000000000000003\r\n",
            b"0\r\n\n",
            b"0\r\nT: v\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
        ] {
            assert_eq!(end_of(body), Err(BadChunk), "{body:?}");
        }
        let long = [b"3;".to_vec(), vec![b'x'; 1 << 20]].concat();
        assert_eq!(end_of(&long), Err(BadChunk));
    }

    proptest! {
        #[test]
        fn the_end_is_found_however_the_bytes_are_split(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..5),
            cut in 1..9_usize,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let len = body.len();
            body.extend_from_slice(b"next");
            let (mut state, mut passed) = (Chunks::new(), 0);
            for piece in body.chunks(cut) {
                passed += state.pass(piece).unwrap();
            }
            prop_assert!(state.is_over());
            prop_assert_eq!(passed, len);
        }
    }
}
