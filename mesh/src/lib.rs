//! The choice of peers: the links that stay, the addresses to dial next, the connections to let in.
//!
//! ```text
//!   verified link ──claim──▶ Ledger       ──Ruling──▶ keep, replace or refuse
//!   sources       ──list───▶ Phonebook    ──records──▶ addresses, and their history, for the store
//!   Phonebook     ─────────▶ DialSchedule ──due─────▶ dial these now
//!   misbehaviour  ──ban────▶ Bans         ──until────▶ neither dialled nor let in
//!   application   ──set────▶ Members      ──has──────▶ let in, dialled and kept
//!   first copies  ──heard──▶ Ranking      ──judge───▶ let go of the slowest
//!   TCP accept    ──knock──▶ Door         ──Knock───▶ serve, drain or close
//! ```
//!
//! # Invariants
//!
//! * Nothing here opens a socket, reads a clock, spawns a task or logs. Time and randomness come in
//!   as arguments, so a schedule can be replayed.
//! * Memory is bounded whatever peers do: by the links there are, or by a constant.
//! * No arithmetic on a duration that came from a peer can overflow.

pub mod bans;
pub mod clique;
pub mod dials;
pub mod door;
pub mod hosts;
pub mod ledger;
pub mod limits;
pub mod members;
pub mod outgoing;
pub mod phonebook;
pub mod ranking;

pub use bans::{Ban, BanCause, BanSubject, BanSubjectError, Bans, TooManyBans};
pub use clique::CliqueCheck;
pub use dials::{ConfiguredAddress, Dials, Tell};
pub use door::{
    AccessList, Conduct, Departure, Door, Doors, InboundLimits, Knock, MIN_OPEN_FILES, Merit,
    PagePlace, Pass, PeerPlace, RateWindow, Refusal, TooMany,
};
pub use gossip::{Host, LoopbackRule};
pub use hosts::LearntHosts;
pub use ledger::{Closer, Doubt, Ledger, LinkClaim, Ruling, Standing};
pub use limits::MeshLimits;
pub use members::{Admit, Member, Members, MembersError, Turnover};
pub use outgoing::{Outgoing, OutgoingPeer, Tenure};
pub use phonebook::{
    Added, AddressSource, BookCounts, DialFailure, DialSchedule, Listed, Phonebook, Record, Role,
    RoleError, RoleSet, SourceError, SourceId, SourceKind,
};
pub use ranking::{MAX_MEASURED, MessageKey, Ranking};
