//! Groups of connections whose packers have their tables side by side.
//!
//! # Invariants
//!
//! * Every connection has a lane of its own in the tables of its group, and what it refers to is what it would refer to
//!   alone.
//! * A lane is empty when it is taken, and free again once its packer is dropped.
//! * The tables are locked for a few votes at a time, and nothing is waited for meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::known::{Known, Lanes};

/// The groups of a node.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<Vec<Weak<Group>>>);

#[derive(Debug)]
struct Group {
    entries: usize,
    tables: Mutex<Tables>,
}

/// The tables of the connections of a group.
#[derive(Debug)]
pub(super) struct Tables {
    taken: Lanes,
    pub(super) senders: Known,
    pub(super) keys: Known,
    pub(super) batch_keys: Known,
}

/// The place of a connection in a group.
#[derive(Debug)]
pub(super) struct Place {
    group: Arc<Group>,
    lane: Lanes,
}

impl Groups {
    /// A place in a group with tables of so many entries.
    pub(super) fn place(&self, entries: usize) -> Place {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let alike =
            groups.iter().filter_map(Weak::upgrade).filter(|group| group.entries == entries);
        if let Some(place) = alike.into_iter().find_map(Place::in_group) {
            return place;
        }
        groups.retain(|group| group.strong_count() > 0);
        let place = Place::alone(entries);
        groups.push(Arc::downgrade(&place.group));
        place
    }
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Nothing panics while it holds the lock, and every bit stands for itself.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A place in a group of its own.
    pub(super) fn alone(entries: usize) -> Self {
        let known = || Known::new(entries);
        let lane = 1;
        let tables = Tables { taken: lane, senders: known(), keys: known(), batch_keys: known() };
        Self { group: Arc::new(Group { entries, tables: Mutex::new(tables) }), lane }
    }

    /// A free place of a group.
    fn in_group(group: Arc<Group>) -> Option<Self> {
        let lane = {
            let mut tables = group.lock();
            let lane = 1_u16.checked_shl(tables.taken.trailing_ones())?;
            tables.taken |= lane;
            lane
        };
        Some(Self { group, lane })
    }

    /// The tables, and the lane in them.
    pub(super) fn tables(&self) -> (MutexGuard<'_, Tables>, Lanes) {
        (self.group.lock(), self.lane)
    }

    /// Returns whether the group has other connections at the moment.
    pub(super) fn has_neighbours(&self) -> bool {
        Arc::strong_count(&self.group) > 1
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tables = self.group.lock();
        let Tables { taken, senders, keys, batch_keys } = &mut *tables;
        for known in [senders, keys, batch_keys] {
            known.forget(self.lane);
        }
        *taken &= !self.lane;
    }
}
