//! The entries of the phonebook by their addresses.
//!
//! # Invariants
//!
//! * Every entry that may have changed is noted, so that an index over the entries follows without looking at all of
//!   them.
//! * The notes are bounded: of too many changes only that there were many is remembered.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
};

use gossip::NodeAddress;

use super::{MAX_ADDRESSES, entry::Entry};

/// The addresses whose entries were added, changed or removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changes {
    /// These, and no others.
    Of(BTreeSet<NodeAddress>),
    /// Possibly every one.
    All,
}

/// All entries. To read them it is a map.
#[derive(Debug)]
pub(super) struct Entries {
    map: BTreeMap<NodeAddress, Entry>,
    changes: Changes,
}

impl Entries {
    pub(super) const fn new() -> Self {
        Self { map: BTreeMap::new(), changes: Changes::Of(BTreeSet::new()) }
    }

    /// An entry, to be changed.
    pub(super) fn get_mut(&mut self, address: &NodeAddress) -> Option<&mut Entry> {
        let entry = self.map.get_mut(address)?;
        self.changes.note(address);
        Some(entry)
    }

    pub(super) fn insert(&mut self, address: NodeAddress, entry: Entry) {
        self.changes.note(&address);
        self.map.insert(address, entry);
    }

    pub(super) fn remove(&mut self, address: &NodeAddress) -> Option<Entry> {
        let removed = self.map.remove(address);
        if removed.is_some() {
            self.changes.note(address);
        }
        removed
    }

    /// Notes that something outside the entries has changed that concerns all of them.
    pub(super) fn touch_all(&mut self) {
        self.changes = Changes::All;
    }

    /// The changes since this was asked last.
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::replace(&mut self.changes, Changes::Of(BTreeSet::new()))
    }
}

impl Changes {
    fn note(&mut self, address: &NodeAddress) {
        if let Self::Of(known) = self
            && !known.contains(address)
        {
            if known.len() >= MAX_ADDRESSES {
                *self = Self::All;
            } else {
                known.insert(address.clone());
            }
        }
    }
}

impl Deref for Entries {
    type Target = BTreeMap<NodeAddress, Entry>;

    fn deref(&self) -> &Self::Target {
        &self.map
    }
}
