//! The part of a file that a request asks for.
//!
//! # Invariants
//!
//! * A part that is handed out lies within the file and is not empty.
//! * A header that is no single range of bytes is left out of account, as RFC 9110 section 14.2 allows: the
//!   whole file is an answer to every request.

use std::ops::Range;

/// The meaning of a `Range` header for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requested {
    /// All of it: there is no range, or none that is understood.
    Whole,
    /// These bytes, counted from 0, the end left out.
    Part(Range<u64>),
    /// Nothing of it: the range begins after its end.
    Nothing,
}

/// Reads a `Range` header for a file of `bytes`.
///
/// Understood are `bytes=FIRST-LAST`, `bytes=FIRST-` and `bytes=-COUNT` with decimal digits. A number too
/// large for 64 bits is as good as the largest one.
#[must_use]
pub fn requested(header: &[u8], bytes: u64) -> Requested {
    let Some(range) = spec(header) else { return Requested::Whole };
    let part = match range {
        (Some(first), None) => first..bytes,
        (Some(first), Some(last)) if first > last => return Requested::Whole,
        (Some(first), Some(last)) => first..bytes.min(last.saturating_add(1)),
        (None, Some(count)) => bytes.saturating_sub(count)..bytes,
        (None, None) => return Requested::Whole,
    };
    if part.is_empty() { Requested::Nothing } else { Requested::Part(part) }
}

/// The two numbers of a single range of bytes.
fn spec(header: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let header = str::from_utf8(header).ok()?.trim();
    let (unit, range) = header.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(())?;
    Some((number(first.trim())?, number(last.trim())?))
}

/// A number, or that there is none; `None` for anything else.
fn number(digits: &str) -> Option<Option<u64>> {
    if digits.is_empty() {
        return Some(None);
    }
    let decimal = digits.bytes().all(|digit| digit.is_ascii_digit());
    decimal.then(|| Some(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(header: &str, bytes: u64, expected: &Requested) {
        assert_eq!(&requested(header.as_bytes(), bytes), expected, "{header:?} of {bytes}");
    }

    #[test]
    fn single_ranges_are_understood() {
        check("bytes=0-0", 10, &Requested::Part(0..1));
        check("bytes=2-5", 10, &Requested::Part(2..6));
        check("bytes=2-", 10, &Requested::Part(2..10));
        check("bytes=2-99999999999999999999999", 10, &Requested::Part(2..10));
        check("bytes=-3", 10, &Requested::Part(7..10));
        check("bytes=-30", 10, &Requested::Part(0..10));
        check("Bytes = 2-5 ", 10, &Requested::Part(2..6));
    }

    #[test]
    fn ranges_beyond_the_end_ask_for_nothing() {
        check("bytes=10-", 10, &Requested::Nothing);
        check("bytes=10-12", 10, &Requested::Nothing);
        check("bytes=99999999999999999999999-", 10, &Requested::Nothing);
        check("bytes=-0", 10, &Requested::Nothing);
        check("bytes=0-", 0, &Requested::Nothing);
        check("bytes=-1", 0, &Requested::Nothing);
    }

    #[test]
    fn anything_else_asks_for_the_whole() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=0x1-2",
            "bytes=1.0-2",
            "0-1",
            "bytes==0-1",
        ] {
            check(header, 10, &Requested::Whole);
        }
        assert_eq!(requested(b"bytes=\xff-", 10), Requested::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(header in "bytes=[0-9]{0,22}-[0-9]{0,22}|.{0,40}", bytes: u64) {
            if let Requested::Part(part) = requested(header.as_bytes(), bytes) {
                prop_assert!(part.start < part.end && part.end <= bytes);
            }
        }

        #[test]
        fn a_written_range_is_read_as_it_was_meant(first: u32, more: u32, bytes in 1_u64..) {
            let (first, more) = (u64::from(first), u64::from(more));
            let header = format!("bytes={first}-{}", first + more);
            let expected = if first < bytes {
                Requested::Part(first..bytes.min(first + more + 1))
            } else {
                Requested::Nothing
            };
            prop_assert_eq!(requested(header.as_bytes(), bytes), expected);
        }
    }
}
