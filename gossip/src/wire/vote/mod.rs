//! AV and VP: votes travel packed, in one of two forms.
//!
//! ```text
//!   vote (msgpack, up to 667 bytes) ──pack──▶ packed (AV, up to 502) ──VotePacker──▶ against earlier votes (VP, from 150)
//!                                  ◀─unpack──                       ◀─VoteUnpacker──
//! ```
//!
//! A packed vote has the values of the vote without their names. The second form has state, for one direction of
//! one connection: what was sent lately is referred to.
//!
//! # Invariants
//!
//! * Packing loses nothing: [`pack`] refuses everything that [`unpack`] would not give back byte for byte. Existing
//!   nodes pack some such votes too, and cut others off (S-4).
//! * Any bytes give a vote or an error. The output is at most [`MAX_PLAIN_BYTES`] long, whatever comes.
//! * The memory of the state grows with the votes that came, up to its tables.

mod group;
mod known;
mod mark;
mod parts;
mod stateful;
mod stateless;
mod table;
mod window;

pub use mark::MarkKey;
pub use stateful::{PackedVote, References, VotePacker, VotePackers, VoteUnpacker, link_bytes};
pub use stateless::{pack, put_normal, unpack};

/// Longest vote before it is packed, in bytes. Source: wire facts 5.3.
pub const MAX_PLAIN_BYTES: usize = 667;

/// Longest packed vote, in bytes. Source: wire facts 5.3.
pub const MAX_PACKED_BYTES: usize = 502;

/// The payload of the VP message after which neither end packs against earlier votes. Source: wire facts 5.2.
pub const ABORT: [u8; 1] = [0xff];

/// The reason why bytes are not a vote in the form expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VoteError {
    /// The bytes end in the middle of a value.
    #[error("the vote is cut off")]
    Truncated,
    /// Something follows the vote.
    #[error("{bytes} bytes follow the vote")]
    Trailing {
        /// Number of bytes.
        bytes: usize,
    },
    /// The vote has something else than canonical msgpack of a vote has there, so it cannot be packed.
    #[error("the vote is not canonical at byte {at}")]
    NotCanonical {
        /// Place of the first difference.
        at: usize,
    },
    /// A byte where a number starts is not the first one of an unsigned integer.
    #[error("byte {marker:#04x} starts no unsigned integer")]
    NotANumber {
        /// The byte.
        marker: u8,
    },
    /// A reference leads to no entry of the tables.
    #[error("reference {reference} leads nowhere")]
    Reference {
        /// The reference.
        reference: u16,
    },
    /// The round is one below zero, or one above the largest number.
    #[error("there is no such round")]
    Round,
}
