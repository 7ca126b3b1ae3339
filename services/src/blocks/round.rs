//! Rounds as they stand in paths: base 36, lower case.
//!
//! # Invariants
//!
//! * Every round has one shortest text, and that is what is written.
//! * A text that is read may have leading zeros, as existing nodes allow; upper case is no round at all.

use std::fmt;

use gossip::NetworkId;

const RADIX: u64 = 36;
const DIGITS: &[u8; RADIX as usize] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Most digits of the shortest text of a round: what 64 bits need in base 36.
const MAX_DIGITS: usize = 13;

/// Why a text is not a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoundError {
    /// The text is empty, or has something else in it than lower-case digits of base 36.
    #[error("a round is written with 0 to 9 and a to z")]
    NotDigits,
    /// The number is larger than 64 bits hold.
    #[error("the round does not fit 64 bits")]
    TooLarge,
}

/// Writes a round the way it stands in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base36(pub u64);

impl fmt::Display for Base36 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0_u8; MAX_DIGITS];
        let (mut rest, mut used) = (self.0, 0);
        for place in digits.iter_mut().rev() {
            // Always below 36.
            let digit = usize::try_from(rest % RADIX).unwrap_or(0);
            *place = DIGITS.get(digit).copied().unwrap_or(b'0');
            (rest, used) = (rest / RADIX, used + 1);
            if rest == 0 {
                break;
            }
        }
        f.write_str(
            std::str::from_utf8(digits.get(MAX_DIGITS - used..).unwrap_or(b"")).unwrap_or(""),
        )
    }
}

impl std::str::FromStr for Base36 {
    type Err = RoundError;

    fn from_str(text: &str) -> Result<Self, RoundError> {
        let lower = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        if text.is_empty() || !text.bytes().all(lower) {
            return Err(RoundError::NotDigits);
        }
        u64::from_str_radix(text, 36).map(Self).map_err(|_overflow| RoundError::TooLarge)
    }
}

/// The path of a block on the network `genesis`. Source: wire facts 9.4.
#[must_use]
pub fn path(genesis: &NetworkId, round: u64) -> String {
    let mut segment = String::with_capacity(genesis.as_str().len());
    for byte in genesis.as_str().bytes() {
        // Other characters of a network name would end the path or be taken for an escape.
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("/v1/{segment}/block/{}", Base36(round))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<u64, RoundError>) {
        assert_eq!(text.parse::<Base36>().map(|round| round.0), expected, "{text}");
    }

    #[test]
    fn a_round_is_lower_case_and_fits_64_bits() {
        check("0", Ok(0));
        check("8c", Ok(300));
        check("zz", Ok(1295));
        check("0008c", Ok(300));
        check("3w5e11264sgsf", Ok(u64::MAX));
        check("3w5e11264sgsg", Err(RoundError::TooLarge));
        check("zzzzzzzzzzzzzzz", Err(RoundError::TooLarge));
        for bad in ["", "8C", "+1", "-1", " 1", "1_0", "é"] {
            check(bad, Err(RoundError::NotDigits));
        }
    }

    #[test]
    fn a_network_name_stays_one_segment_of_the_path() {
        let path_of = |name: &str| path(&NetworkId::new(name).unwrap(), 300);
        assert_eq!(path_of("test-v1.0"), "/v1/test-v1.0/block/8c");
        assert_eq!(path_of("a?b#%"), "/v1/a%3Fb%23%25/block/8c");
    }

    proptest! {
        #[test]
        fn every_round_survives(round: u64) {
            let text = Base36(round).to_string();
            prop_assert_eq!(text.parse::<Base36>(), Ok(Base36(round)));
            prop_assert!(text.len() == 1 || !text.starts_with('0'));
        }

        #[test]
        fn no_text_causes_a_panic(text: String) {
            let _: Result<_, _> = text.parse::<Base36>();
        }
    }
}
