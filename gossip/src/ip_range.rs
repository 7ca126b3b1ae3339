//! Ranges of IP addresses in CIDR notation.
//!
//! # Invariants
//!
//! * An IPv4 address written as IPv6 is the IPv4 address, in a range as in a host.
//! * A range whose address has bits behind its prefix is refused: it may be a slip in either.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::host::Host;

/// Longest part of a refused text that an error repeats, in characters.
const MAX_SHOWN_CHARS: usize = 60;

/// A range of IP addresses: an address, or an address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpRange {
    first: IpAddr,
    prefix: u32,
}

/// A text that is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpRangeError {
    /// The text is neither an address nor a range.
    #[error("{text:?} is no range of addresses: write 10.0.0.0/8, 2001:db8::/32 or one address")]
    Malformed {
        /// The text as given, cut to a bounded length.
        text: String,
    },
    /// The address has bits behind the prefix.
    #[error("{text:?} names an address within a range: write {meant} for all of it")]
    BitsBehindPrefix {
        /// The text as given.
        text: String,
        /// The range that the address is in.
        meant: IpRange,
    },
}

impl IpRange {
    /// The first range in their order, which is every IPv4 address.
    pub const MIN: Self = Self { first: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };

    /// The range of one address alone.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        let first = ip.to_canonical();
        Self { first, prefix: bits(first) }
    }

    /// The range of the host of an address: an IPv4 address alone, or the /64 of an IPv6 address.
    #[must_use]
    pub fn of_host(ip: IpAddr) -> Self {
        let first = Host::of(ip).ip();
        match first {
            IpAddr::V6(v6) if !v6.is_loopback() => Self { first, prefix: 64 },
            _ => Self::of(first),
        }
    }

    /// Number of leading bits that the addresses of the range share.
    #[must_use]
    pub const fn prefix(&self) -> u32 {
        self.prefix
    }

    /// The first address of the range.
    #[must_use]
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// Returns `true` if the range has `ip`.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.first.is_ipv4() && masked(ip, self.prefix) == self.first
    }
}

/// Number of bits of an address.
const fn bits(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    }
}

/// The first address that shares a prefix of this length.
fn masked(ip: IpAddr, prefix: u32) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let behind = u32::MAX.checked_shr(prefix).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !behind))
        }
        IpAddr::V6(v6) => {
            let behind = u128::MAX.checked_shr(prefix).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !behind))
        }
    }
}

impl FromStr for IpRange {
    type Err = IpRangeError;

    fn from_str(text: &str) -> Result<Self, IpRangeError> {
        let malformed =
            || IpRangeError::Malformed { text: text.chars().take(MAX_SHOWN_CHARS).collect() };
        let (ip, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((ip, prefix)) => (ip, Some(prefix)),
        };
        let ip: IpAddr = ip.parse().map_err(|_| malformed())?;
        let Some(prefix) = prefix else { return Ok(Self::of(ip)) };
        let is_number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u32 = prefix.parse().ok().filter(|_| is_number).ok_or_else(malformed)?;
        if prefix > bits(ip) {
            return Err(malformed());
        }
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8; a shorter prefix reaches beyond the IPv4 addresses.
        let (ip, prefix) = match ip.to_canonical() {
            mapped if mapped.is_ipv4() && ip.is_ipv6() => {
                (mapped, prefix.checked_sub(96).ok_or_else(malformed)?)
            }
            same => (same, prefix),
        };
        let range = Self { first: masked(ip, prefix), prefix };
        if range.first != ip {
            return Err(IpRangeError::BitsBehindPrefix { text: text.to_owned(), meant: range });
        }
        Ok(range)
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix == bits(self.first) {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}/{}", self.first, self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> IpRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_has_the_addresses_of_its_prefix() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("::/0", "2001:db8::", "1.2.3.4"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
        ] {
            assert!(range(text).contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!range(text).contains(outside.parse().unwrap()), "{text} {outside}");
        }
    }

    #[test]
    fn a_text_that_is_no_range_is_refused() {
        let bad = [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10/8",
            "::/129",
            "host",
            "host/8",
            "10.0.0.0/-1",
            "[::1]",
            " 10.0.0.1",
            "::ffff:0.0.0.0/95",
        ];
        for text in bad {
            assert!(text.parse::<IpRange>().is_err(), "{text:?}");
        }
        let error = "10.0.0.1/8".parse::<IpRange>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"10.0.0.1/8\" names an address within a range: write 10.0.0.0/8 for all of it"
        );
    }

    proptest! {
        #[test]
        fn a_range_prints_as_it_reads(bits: u128, prefix in 0_u32..=128, v4: bool) {
            let ip = match v4 {
                true => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)),
                false => IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical(),
            };
            let prefix = prefix.min(super::bits(ip));
            let first = masked(ip, prefix);
            prop_assume!(first.to_canonical() == first);
            let range = range(&format!("{first}/{prefix}"));
            prop_assert!(range.contains(ip));
            prop_assert_eq!(range.to_string().parse::<IpRange>(), Ok(range));
        }

        #[test]
        fn no_text_causes_a_panic(text in "[0-9a-f:./]{0,40}|.{0,20}") {
            let _: Result<_, _> = text.parse::<IpRange>();
        }
    }
}
