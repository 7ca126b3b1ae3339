//! The abilities of a peer beyond the bare protocol, and the header that says so.
//!
//! # Invariants
//!
//! * Unknown tokens are ignored, so a newer peer can say more.
//! * Features need a peer version whose major *and* minor number are at least 2, each on its own: that
//!   is how existing nodes look, so that 3.0 loses its features. Source: wire facts 1.4.

/// The tokens in the order in which they are announced. A feature is a bit at the same place.
const TOKENS: [&str; 10] = [
    "ppzstd",
    "avvpack",
    "avvpack16",
    "avvpack32",
    "avvpack64",
    "avvpack128",
    "avvpack256",
    "avvpack512",
    "avvpack1024",
    "avvpack2048",
];

/// Place of the smallest table among the tokens.
const FIRST_TABLE: u32 = 2;

/// Entries of the smallest table of stateful vote compression. Source: wire facts 1.5.
pub const MIN_TABLE: u16 = 16;

/// Entries of the largest table of stateful vote compression. Source: wire facts 1.5.
pub const MAX_TABLE: u16 = 2048;

/// A set of features, announced by a peer or by this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u16);

/// The vote compression of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteCompression {
    /// Votes go as they are.
    Off,
    /// Each vote is packed by itself.
    Stateless,
    /// Votes are packed against the earlier votes of the connection, with a table of at most so many
    /// entries. Rounded down by [`table_size`]; below [`MIN_TABLE`] this is `Stateless`.
    Stateful(u32),
}

impl Features {
    /// No features.
    pub const NONE: Self = Self(0);

    /// The features of a node that compresses votes in this way. Every node reads compressed proposals.
    #[must_use]
    pub const fn announcing(votes: VoteCompression) -> Self {
        match votes {
            VoteCompression::Off => Self(1),
            VoteCompression::Stateless => Self(0b11),
            VoteCompression::Stateful(entries) => match table_size(entries) {
                Some(table) => Self(0b11 | table >> (MIN_TABLE.ilog2() - FIRST_TABLE)),
                None => Self(0b11),
            },
        }
    }

    /// Reads the header of a peer that announced `version`.
    #[must_use]
    pub fn parse(header: &str, version: &str) -> Self {
        if parse_version(version).is_none_or(|(major, minor)| major < 2 || minor < 2) {
            return Self::NONE;
        }
        let known = |token: &str| TOKENS.iter().position(|known| *known == token.trim());
        Self(header.split(',').filter_map(known).fold(0, |bits, index| bits | 1 << index))
    }

    /// The header that announces these features.
    #[must_use]
    pub fn to_header(self) -> String {
        self.tokens().collect::<Vec<_>>().join(",")
    }

    /// The token of each feature, in the order of the header.
    pub fn tokens(self) -> impl Iterator<Item = &'static str> {
        let has = move |index: usize| self.0 & (1 << index) != 0;
        TOKENS.iter().enumerate().filter(move |(index, _)| has(*index)).map(|(_, token)| *token)
    }

    /// Returns whether compressed proposals are understood. Existing nodes compress without asking.
    #[must_use]
    pub const fn proposal_zstd(self) -> bool {
        self.0 & 1 != 0
    }

    /// Returns whether votes packed one by one are understood.
    #[must_use]
    pub const fn stateless_votes(self) -> bool {
        self.0 & 2 != 0
    }

    /// The largest table announced for votes packed against each other, in entries.
    #[must_use]
    pub const fn stateful_votes(self) -> Option<u16> {
        let tables = self.0 >> FIRST_TABLE;
        if tables == 0 { None } else { Some(MIN_TABLE << tables.ilog2()) }
    }

    /// The table that two nodes use with each other, in entries: the smaller of the largest each has.
    /// `None` unless both pack votes one by one as well.
    #[must_use]
    pub fn shared_table(self, other: Self) -> Option<u16> {
        let both = self.stateless_votes() && other.stateless_votes();
        let table = self.stateful_votes()?.min(other.stateful_votes()?);
        both.then_some(table)
    }
}

/// The table for a wish of so many entries: the power of two at or below it, at most [`MAX_TABLE`].
/// `None` below [`MIN_TABLE`].
#[must_use]
pub const fn table_size(entries: u32) -> Option<u16> {
    match entries.checked_ilog2() {
        None | Some(0..4) => None,
        Some(bits @ 4..11) => Some(1 << bits),
        Some(_) => Some(MAX_TABLE),
    }
}

/// The two numbers of a version; `None` unless it is two signed 8-bit numbers with a dot between them.
#[must_use]
pub fn parse_version(version: &str) -> Option<(i8, i8)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn our_own_announcement_is_read_as_what_it_is() {
        assert_eq!(Features::announcing(VoteCompression::Off).to_header(), "ppzstd");
        let all = Features::announcing(VoteCompression::Stateful(5000));
        assert_eq!(all.to_header(), "ppzstd,avvpack,avvpack2048");
        assert_eq!(Features::parse(&all.to_header(), "2.2"), all);
        assert_eq!(all.stateful_votes(), Some(2048));
    }

    #[test]
    fn a_table_is_shared_only_by_two_that_have_one() {
        let with = |entries| Features::announcing(VoteCompression::Stateful(entries));
        assert_eq!(with(64).shared_table(with(2048)), Some(64));
        assert_eq!(with(64).shared_table(with(15)), None);
        let no_stateless = Features::parse("avvpack64", "2.2");
        assert_eq!(with(64).shared_table(no_stateless), None);
    }

    proptest! {
        #[test]
        fn every_set_survives(bits in 0_u16..1 << 10) {
            let features = Features(bits);
            prop_assert_eq!(Features::parse(&features.to_header(), "2.2"), features);
        }

        #[test]
        fn no_text_causes_a_panic(header: String, version: String, entries: u32) {
            let features = Features::parse(&header, "2.2");
            prop_assert!(features.0 < 1 << 10);
            let _: Features = Features::parse(&header, &version);
            let _: Features = Features::announcing(VoteCompression::Stateful(entries));
        }
    }
}
