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
//! * What is found here is a proposal: the phonebook of `mesh` decides on addresses, and the loop on dials.

mod bootstrap;
mod dns;
mod dnsaddr;
mod kept;
mod limits;
mod name;
mod resolver;
mod srv;

pub use bootstrap::{Backup, Bootstrap, BootstrapError, MAX_ENTRIES, Names};
pub use dns::{DnsSettings, DnsSource, FoundAddress, Looked, Missing, Part, Wanted};
pub use limits::DnsLimits;
pub use name::DnsName;
pub use resolver::{AskError, Dnssec, Server, ServerError};
