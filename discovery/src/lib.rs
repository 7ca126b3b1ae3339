//! Addresses of nodes from outside: DNS, and the file of those that were used before.
//!
//! ```text
//!   Bootstrap ──▶ DnsSource ──look──▶ addresses, and the time of the next look
//!   PeerFile  ──load──▶ addresses, bans, anchors ◀──save── the phonebook of a running node
//! ```
//!
//! # Invariants
//!
//! * Nothing is asked, and nobody contacted, unless an operator said so.
//! * Everything from outside is bounded in number, size and time, and told apart from what cannot be used.
//! * An address that is found here is a proposal: the phonebook of `mesh` decides on addresses, and the loop on dials.

mod bootstrap;
mod dns;
mod dnsaddr;
#[cfg(fuzzing)]
pub mod fuzzing;
mod kept;
mod limits;
mod metrics;
mod name;
mod resolver;
mod srv;
mod store;

pub use bootstrap::{Backup, Bootstrap, BootstrapError, MAX_ENTRIES, Names};
pub use dns::{DnsSettings, DnsSource, Looked, Missing, NothingFound, Wanted};
pub use limits::DnsLimits;
pub use metrics::DnsMetrics;
pub use name::DnsName;
pub use resolver::{AskError, Dnssec, Server, ServerError};
pub use store::{
    Aside, Loaded, PEER_FILE, PeerFile, PeerFileError, PeerStore, decode_ban, decode_record,
    encode_ban, encode_record,
};
