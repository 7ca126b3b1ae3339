//! The bodies that the demo sends: a stamp, and bytes that fill it up.
//!
//! # Invariants
//!
//! * No two messages are alike: the stamp says who sent which message of which kind in which life.

use bytes::Bytes;
use gossip::{Lane, Tag};
use rand::RngCore;
use runtime::Random;

/// First bytes of every body.
const MAGIC: [u8; 4] = *b"TDM1";

/// Length of a stamp, in bytes.
const STAMP_BYTES: usize = 24;

/// The kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    Vote,
    Transaction,
    Proposal,
    /// Shows that the priority lane works.
    ProbeVote,
    /// Shows that the bulk lane works, and the topic.
    ProbeTransaction,
}

impl Class {
    /// Messages that are counted.
    pub(crate) const COUNTED: [Self; 3] = [Self::Vote, Self::Transaction, Self::Proposal];

    /// Messages that only show that nodes hear each other.
    pub(crate) const PROBES: [Self; 2] = [Self::ProbeVote, Self::ProbeTransaction];

    /// Its name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vote | Self::ProbeVote => "votes",
            Self::Transaction | Self::ProbeTransaction => "transactions",
            Self::Proposal => "proposals",
        }
    }

    /// The tag it is sent under.
    pub(crate) const fn tag(self) -> Tag {
        match self {
            Self::Vote | Self::ProbeVote => Tag::AV,
            Self::Transaction | Self::ProbeTransaction => Tag::TX,
            Self::Proposal => Tag::PP,
        }
    }

    /// The lane it travels in.
    pub(crate) const fn lane(self) -> Lane {
        match self {
            Self::Vote | Self::Proposal | Self::ProbeVote => Lane::Priority,
            Self::Transaction | Self::ProbeTransaction => Lane::Bulk,
        }
    }

    /// Length of its body, in bytes. Source: issue 3, part 8.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Vote | Self::ProbeVote => 600,
            Self::Transaction | Self::ProbeTransaction => 250,
            Self::Proposal => 1024 * 1024,
        }
    }

    /// As a number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Vote => 0,
            Self::Transaction => 1,
            Self::Proposal => 2,
            Self::ProbeVote => 3,
            Self::ProbeTransaction => 4,
        }
    }

    /// The class of a number.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::COUNTED.into_iter().chain(Self::PROBES).find(|class| class.code() == code)
    }
}

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) class: Class,
    /// Place of the sender.
    pub(crate) sender: u8,
    /// Number of earlier starts of the sender.
    pub(crate) life: u8,
    /// Counts the sender's messages of this class in this life.
    pub(crate) number: u32,
    /// When it was sent, in nanoseconds since 1970.
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// The body with this stamp.
    pub(crate) fn body(self) -> Bytes {
        let mut body = vec![0; self.class.bytes()];
        let (stamp, filler) = body.split_at_mut(STAMP_BYTES);
        stamp[..4].copy_from_slice(&MAGIC);
        stamp[4..8].copy_from_slice(&[self.class.code(), self.sender, self.life, 0]);
        stamp[8..12].copy_from_slice(&self.number.to_le_bytes());
        stamp[16..24].copy_from_slice(&self.sent_ns.to_le_bytes());
        // A quarter stays zero, so that a proposal shrinks a little, as real ones do.
        let random = filler.len() / 4 * 3;
        Random::system().fill_bytes(&mut filler[..random]);
        body.into()
    }

    /// The stamp of a body; `None` if it is not one of the demo's.
    pub(crate) fn of(body: &[u8]) -> Option<Self> {
        let (stamp, _) = body.split_first_chunk::<STAMP_BYTES>()?;
        if !stamp.starts_with(&MAGIC) {
            return None;
        }
        Some(Self {
            class: Class::from_code(stamp[4])?,
            sender: stamp[5],
            life: stamp[6],
            number: u32::from_le_bytes(stamp[8..12].try_into().ok()?),
            sent_ns: u64::from_le_bytes(stamp[16..24].try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_its_body_and_the_body_has_the_length_of_its_class() {
        for class in Class::COUNTED.into_iter().chain(Class::PROBES) {
            let stamp = Stamp { class, sender: 4, life: 1, number: 70_000, sent_ns: u64::MAX };
            let body = stamp.body();
            assert_eq!(body.len(), class.bytes());
            assert_eq!(Stamp::of(&body), Some(stamp));
        }
    }

    #[test]
    fn a_body_of_another_program_has_no_stamp() {
        assert_eq!(Stamp::of(b""), None);
        assert_eq!(Stamp::of(&[0; 600]), None);
        assert_eq!(Stamp::of(&[&MAGIC[..], &[9; 20]].concat()), None);
    }
}
