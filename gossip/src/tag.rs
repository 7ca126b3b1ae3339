//! Message tags and what a network says about each of them.
//!
//! # Invariants
//!
//! * A tag without a rule is unknown: it is never handed to a handler and never forwarded.
//! * The bounds of the table are on the wire payload, before decompression and without the tag.

use std::fmt;

/// Two-byte message tag, e.g. `AV` for an agreement vote. Every message starts with one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub [u8; 2]);

impl Tag {
    /// Agreement vote.
    pub const AV: Self = Self(*b"AV");
    /// Message of interest: which tags the sender wants to receive.
    pub const MI: Self = Self(*b"MI");
    /// Digest skip: the sender already has the message with this digest.
    pub const MS: Self = Self(*b"MS");
    /// Third message of the identity exchange.
    pub const NI: Self = Self(*b"NI");
    /// Answer to a priority challenge.
    pub const NP: Self = Self(*b"NP");
    /// Proposal payload.
    pub const PP: Self = Self(*b"PP");
    /// State proof signature.
    pub const SP: Self = Self(*b"SP");
    /// Answer to a request.
    pub const TS: Self = Self(*b"TS");
    /// Transactions.
    pub const TX: Self = Self(*b"TX");
    /// Request, for a block as a rule.
    pub const UE: Self = Self(*b"UE");
    /// Vote bundle.
    pub const VB: Self = Self(*b"VB");
    /// Vote packed against the state of one connection.
    pub const VP: Self = Self(*b"VP");

    /// Length of a tag on the wire, in bytes.
    pub const BYTES: usize = 2;
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A text that is not a tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a message tag: a tag is two printable ASCII characters, such as TX")]
pub struct TagParseError {
    /// The text as given.
    pub text: String,
}

impl std::str::FromStr for Tag {
    type Err = TagParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match *text.as_bytes() {
            [a, b] if a.is_ascii_graphic() && b.is_ascii_graphic() => Ok(Self([a, b])),
            _ => Err(TagParseError { text: text.to_owned() }),
        }
    }
}

/// Which of a peer's two queues a message travels in, at the sender and at the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Consensus traffic: always written first.
    Priority,
    /// Everything else.
    Bulk,
}

impl Lane {
    /// Both lanes, the priority lane first.
    pub const ALL: [Self; 2] = [Self::Priority, Self::Bulk];

    /// The place of the lane in [`Lane::ALL`], and in every array with an entry for each lane.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Priority => 0,
            Self::Bulk => 1,
        }
    }

    /// Label used in metrics and in output for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::Bulk => "bulk",
        }
    }
}

/// The way in which a tag reaches the peers of a libp2p network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Over the gossip stream of each peer.
    Streams,
    /// Published on the GossipSub topic of this name; over streams where it is too large for a topic.
    Topic(&'static str),
}

/// The compression of a body on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// The body goes as it is.
    None,
    /// The body goes as one zstd frame.
    Zstd,
}

/// The reach of a message: all of the network, or one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// Gossip: a relay passes it on, once.
    Gossip,
    /// Of this connection only: never passed on.
    HopLocal,
}

/// The rule of one tag in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagRule {
    /// The tag.
    pub tag: Tag,
    /// The queue it travels in.
    pub lane: Lane,
    /// Largest payload accepted or sent, in bytes on the wire, without the tag.
    pub max_payload: usize,
    /// The way in which it travels on libp2p.
    pub route: Route,
    /// The compression of its body.
    pub compression: Compression,
    /// Its reach: relays pass gossip on, and keep the rest.
    pub forwarding: Forwarding,
    /// True if a peer that never sent an interest gets it.
    pub sent_by_default: bool,
}

impl TagRule {
    /// A kind of message that relays pass on: sent over the gossip stream of every peer, uncompressed, to peers
    /// that never sent an interest too. `max_payload` is in bytes on the wire, without the tag.
    #[must_use]
    pub const fn new(tag: Tag, lane: Lane, max_payload: usize) -> Self {
        Self {
            tag,
            lane,
            max_payload,
            route: Route::Streams,
            compression: Compression::None,
            forwarding: Forwarding::Gossip,
            sent_by_default: true,
        }
    }
}

/// Most tags a network may have: an interest is a set of bits. Chosen: twice and a half what any network has today.
pub const MAX_TAGS: usize = 32;

/// The rules of all live tags of a network, at most [`MAX_TAGS`], one per tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagTable(&'static [TagRule]);

impl TagTable {
    /// Wraps the rules of a network.
    ///
    /// # Panics
    ///
    /// With more than [`MAX_TAGS`] rules; in a `const` that is a compile error.
    #[must_use]
    pub const fn new(rules: &'static [TagRule]) -> Self {
        assert!(rules.len() <= MAX_TAGS, "an interest is a set of at most 32 tags");
        Self(rules)
    }

    /// Every rule.
    #[must_use]
    pub const fn rules(&self) -> &'static [TagRule] {
        self.0
    }

    /// The rule of `tag`; `None` for an unknown tag.
    #[must_use]
    pub fn rule(&self, tag: Tag) -> Option<&'static TagRule> {
        self.0.iter().find(|rule| rule.tag == tag)
    }

    /// The interest of a peer that has not said any: every tag with `sent_by_default`.
    #[must_use]
    pub fn default_interest(&self) -> Interest {
        let tags = self.0.iter().filter(|rule| rule.sent_by_default).map(|rule| rule.tag);
        tags.fold(Interest::NONE, |set, tag| set.with(self, tag))
    }

    /// The interest that a relay says first on every connection: the default one, and proofs of state. Packed
    /// votes are left out, since a peer need not be able to unpack them. Source: wire facts 3.3.
    #[must_use]
    pub fn relay_interest(&self) -> Interest {
        self.default_interest().with(self, Tag::SP).without(self, Tag::VP)
    }

    /// The tags of messages that relays pass on: everything but the protocol's own.
    #[must_use]
    pub fn gossip(&self) -> Interest {
        let rules = self.0.iter().filter(|rule| rule.forwarding == Forwarding::Gossip);
        rules.fold(Interest::NONE, |set, rule| set.with(self, rule.tag))
    }

    fn bit(&self, tag: Tag) -> u32 {
        self.0.iter().position(|rule| rule.tag == tag).map_or(0, |index| 1 << index)
    }
}

/// A set of known tags: what a peer wants to be sent. Meaningful with the table it was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest(u32);

impl Interest {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// This set and `tag`. An unknown tag adds nothing.
    #[must_use]
    pub fn with(self, table: &TagTable, tag: Tag) -> Self {
        Self(self.0 | table.bit(tag))
    }

    /// This set without `tag`.
    #[must_use]
    pub fn without(self, table: &TagTable, tag: Tag) -> Self {
        Self(self.0 & !table.bit(tag))
    }

    /// Returns whether `tag` is in the set. An unknown tag never is.
    #[must_use]
    pub fn contains(self, table: &TagTable, tag: Tag) -> bool {
        self.0 & table.bit(tag) != 0
    }

    /// The tags that are in either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The tags that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The tags of this set that are not in `other`.
    #[must_use]
    pub const fn but(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether every tag of `other` is in the set.
    #[must_use]
    pub const fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether any tag of `other` is in the set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The tags of the set, in the order of the table.
    pub fn tags(self, table: &TagTable) -> impl Iterator<Item = Tag> {
        let rules = table.0.iter().enumerate();
        rules.filter(move |(index, _)| self.0 & (1 << index) != 0).map(|(_, rule)| rule.tag)
    }

    /// The set as a number, to be kept in an atomic; [`Interest::from_bits`] turns it back.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The set that [`Interest::to_bits`] gave.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetworkProfile;

    #[test]
    fn the_default_interest_of_algorand_is_everything_but_state_proofs() {
        let table = &NetworkProfile::ALGORAND.tags;
        let tags: Vec<String> =
            table.default_interest().tags(table).map(|tag| tag.to_string()).collect();
        assert_eq!(tags, ["AV", "MI", "MS", "NI", "NP", "PP", "TS", "TX", "UE", "VB", "VP"]);
    }

    #[test]
    fn an_unknown_tag_is_in_no_interest() {
        let table = &NetworkProfile::TANDEM.tags;
        let set = table.default_interest().with(table, Tag(*b"ZZ"));
        assert_eq!(set, table.default_interest());
        assert!(!set.contains(table, Tag(*b"ZZ")));
        assert!(!set.intersects(Interest::NONE.with(table, Tag(*b"ZZ"))));
    }

    #[test]
    fn a_tag_is_two_printable_characters() {
        assert_eq!("TX".parse::<Tag>().unwrap(), Tag::TX);
        for bad in ["", "T", "TXX", "T ", "é"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }
}
