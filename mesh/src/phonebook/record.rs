//! The part of an entry of the phonebook that is worth keeping on disk.

use std::time::{Duration, SystemTime};

use gossip::{Identity, NodeAddress};

use super::{
    roles::RoleSet,
    source::{SourceId, SourceKind},
};

/// All that is kept of one address, as plain data.
///
/// [`Phonebook::records`](super::Phonebook::records) makes these and [`Phonebook::restore`](super::Phonebook::restore)
/// takes them back. Whoever writes them down may leave out a field that has its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The address.
    pub address: NodeAddress,
    /// The sources that listed it, each with the roles that it named. Empty if none does any more.
    pub listings: Vec<(SourceId, RoleSet)>,
    /// Identity that was last found there.
    pub identity: Option<Identity>,
    /// `true` if a link to it was stable once.
    pub worked: bool,
    /// `true` if it was connected when the record was made. Such addresses are dialled first after a restart.
    pub anchor: bool,
    /// Dials in a row that failed.
    pub failures: u32,
    /// Time at which a link to it was last up.
    pub last_seen: Option<SystemTime>,
    /// Time before which it must not be dialled, because it said so, or backs off.
    pub retry_at: Option<SystemTime>,
    /// Round-trip time that was observed last, over a link or while dialling.
    pub rtt: Option<Duration>,
}

impl Record {
    /// Returns `true` unless the local network alone announces the address: it may be another network after a restart.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.listings.iter().any(|(source, _)| source.kind() != SourceKind::Local)
    }

    /// An address of which nothing is known.
    #[must_use]
    pub const fn new(address: NodeAddress) -> Self {
        Self {
            address,
            listings: Vec::new(),
            identity: None,
            worked: false,
            anchor: false,
            failures: 0,
            last_seen: None,
            retry_at: None,
            rtt: None,
        }
    }
}
