//! Unsigned integers in groups of seven bits, the low group first.
//!
//! # Invariants
//!
//! * Every `u64` has exactly one shortest form, and that is what is written.
//! * Longer forms are read too, as long as they stay within [`MAX_BYTES`]: existing nodes accept them.

use bytes::BufMut;

/// Longest form of a number, in bytes: what 64 bits need in groups of seven.
pub const MAX_BYTES: usize = 10;

/// Appends the shortest form of `value`.
pub fn put(value: u64, out: &mut impl BufMut) {
    let mut rest = value;
    while rest >= 0x80 {
        out.put_u8(low_group(rest) | 0x80);
        rest >>= 7;
    }
    out.put_u8(low_group(rest));
}

/// Reads the number at the start of `bytes`, and says how many bytes it took.
///
/// `None` when the number does not end within `bytes`, or does not fit 64 bits.
#[must_use]
pub fn get(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(MAX_BYTES).enumerate() {
        // The tenth byte has room for one bit.
        if index == MAX_BYTES - 1 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

/// The shortest form of `value`, followed by zeros up to [`MAX_BYTES`].
///
/// Nonces, rounds and request hashes travel in this shape. Source: wire facts 4.2 and 4.3.
#[must_use]
pub fn padded(value: u64) -> [u8; MAX_BYTES] {
    let mut bytes = [0; MAX_BYTES];
    put(value, &mut bytes.as_mut_slice());
    bytes
}

/// Returns the number of bytes that [`put`] appends for `value`.
#[must_use]
pub const fn encoded_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// The lowest seven bits of `value`.
const fn low_group(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(value: u64) {
        let mut bytes = Vec::new();
        put(value, &mut bytes);
        assert_eq!(bytes.len(), encoded_len(value));
        assert_eq!(get(&bytes), Some((value, bytes.len())));
        let padded = padded(value);
        assert!(padded.starts_with(&bytes));
        assert_eq!(get(&padded), Some((value, bytes.len())));
    }

    #[test]
    fn every_bound_of_a_length_survives() {
        for bits in 0..64 {
            check((1 << bits) - 1);
            check(1 << bits);
        }
        check(u64::MAX);
    }

    #[test]
    fn a_number_that_does_not_end_or_does_not_fit_is_refused() {
        assert_eq!(get(&[]), None);
        assert_eq!(get(&[0x80; 9]), None);
        assert_eq!(get(&[0x80; 10]), None);
        assert_eq!(get(&[0xff; 11]), None);
        let mut two_bits = [0xff; 10];
        two_bits[9] = 2;
        assert_eq!(get(&two_bits), None);
    }

    #[test]
    fn a_padded_number_is_read() {
        assert_eq!(get(&[0x81, 0x80, 0x00, 0xff]), Some((1, 3)));
    }

    proptest! {
        #[test]
        fn every_number_survives(value: u64) {
            check(value);
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            if let Some((_, used)) = get(&bytes) {
                prop_assert!(used <= bytes.len());
            }
        }
    }
}
