//! Members: the nodes that are always let in, dialled and kept, by epochs, such as the validators of a chain.
//!
//! ```text
//!   set(7, A)   in: A          set(8, B)   in: A and B        set(9, C)   in: B and C; A has left
//! ```
//!
//! An application names each set ahead of its time, when it knows it: the newest set is the next one, and the one before
//! it is in office. So two successive sets are connected to each other before the hand-over, and nobody has to tell the
//! moment of it.
//!
//! # Invariants
//!
//! * The nodes of the two newest sets are members, and nobody else is.
//! * Epochs only go up, so that a late or repeated call undoes nothing.
//! * A set is taken whole or not at all, and is bounded in members and in addresses.

use std::collections::{BTreeMap, BTreeSet};

use gossip::{Identity, NodeAddress};

/// Members of one set, at most. Chosen: several times the validators of today's networks, and with an address each the
/// two sets fit into the [persistent places](crate::phonebook::MAX_PERSISTENT) of the phonebook.
pub const MAX_MEMBERS: usize = 512;

/// Addresses of one member, at most. Chosen: one for each transport, over IPv4 and IPv6.
pub const MAX_MEMBER_ADDRESSES: usize = 4;

/// The nodes that are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Admit {
    /// Everybody, as far as there are places; members before all others.
    #[default]
    Everybody,
    /// Members, and peers that an operator configured. Nobody else is let in to gossip, or dialled.
    MembersOnly,
}

/// A member of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub identity: Identity,
    /// The addresses at which it can be dialled, of any transport; none for a node that only dials.
    pub addresses: Vec<NodeAddress>,
}

impl Member {
    /// A node that is a member, and its addresses.
    #[must_use]
    pub fn new(identity: Identity, addresses: impl IntoIterator<Item = NodeAddress>) -> Self {
        Self { identity, addresses: addresses.into_iter().collect() }
    }
}

/// The reason why a set of members was not taken. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// The epoch is not newer than the newest one.
    #[error("epoch {given} is not newer than epoch {newest}, whose members are set already")]
    OldEpoch {
        /// The epoch as given.
        given: u64,
        /// The newest one so far.
        newest: u64,
    },
    /// The set has too many members.
    #[error("{count} members in one set: {MAX_MEMBERS} are allowed")]
    TooMany {
        /// Their number.
        count: usize,
    },
    /// A member has too many addresses.
    #[error("{count} addresses of {identity}: {MAX_MEMBER_ADDRESSES} are allowed")]
    TooManyAddresses {
        /// The member.
        identity: Identity,
        /// Their number.
        count: usize,
    },
}

/// The difference that a new set made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turnover {
    /// Nodes that are members now and were not before, in the order of their identities.
    pub joined: Vec<Identity>,
    /// Nodes that were members and are no more.
    pub left: Vec<Identity>,
}

type Set = BTreeMap<Identity, BTreeSet<NodeAddress>>;

/// The members of a node's network, as far as the node was told.
#[derive(Debug, Default)]
pub struct Members {
    /// The set in office.
    current: Set,
    /// The newest one, and its epoch.
    next: Option<(u64, Set)>,
}

impl Members {
    /// Takes the members of an epoch. Those of the newest epoch so far are in office from now on, and those before them
    /// have left unless they are named again. A member that is named twice has the addresses of both.
    ///
    /// # Errors
    ///
    /// [`MembersError`] for an epoch that is not newer, and for a set beyond its bounds.
    pub fn set(
        &mut self,
        epoch: u64,
        members: impl IntoIterator<Item = Member>,
    ) -> Result<Turnover, MembersError> {
        if let Some((newest, _)) = self.next
            && epoch <= newest
        {
            return Err(MembersError::OldEpoch { given: epoch, newest });
        }
        let mut set = Set::new();
        for member in members {
            set.entry(member.identity).or_default().extend(member.addresses);
        }
        if set.len() > MAX_MEMBERS {
            return Err(MembersError::TooMany { count: set.len() });
        }
        let crowded = set.iter().find(|(_, addresses)| addresses.len() > MAX_MEMBER_ADDRESSES);
        if let Some((identity, addresses)) = crowded {
            let count = addresses.len();
            return Err(MembersError::TooManyAddresses { identity: *identity, count });
        }
        let before: BTreeSet<Identity> = self.identities().collect();
        self.current = self.next.replace((epoch, set)).map(|(_, set)| set).unwrap_or_default();
        let after: BTreeSet<Identity> = self.identities().collect();
        Ok(Turnover {
            joined: after.difference(&before).copied().collect(),
            left: before.difference(&after).copied().collect(),
        })
    }

    /// The newest epoch; `None` before the first set.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.next.as_ref().map(|(epoch, _)| *epoch)
    }

    /// Returns `true` if this node is a member.
    #[must_use]
    pub fn has(&self, identity: &Identity) -> bool {
        self.sets().any(|set| set.contains_key(identity))
    }

    /// Every member, once, those of the set in office first.
    pub fn identities(&self) -> impl Iterator<Item = Identity> {
        let is_new = |identity: &&Identity| !self.current.contains_key(*identity);
        let next = self.next.iter().flat_map(|(_, set)| set.keys()).filter(is_new);
        self.current.keys().chain(next).copied()
    }

    /// Every address of every member. Where the sets differ about a member, the newer one counts.
    pub fn addresses(&self) -> impl Iterator<Item = (Identity, &NodeAddress)> {
        let is_old =
            |identity: &Identity| !self.next.iter().any(|(_, set)| set.contains_key(identity));
        let current = self.current.iter().filter(move |(identity, _)| is_old(identity));
        let all = self.next.iter().flat_map(|(_, set)| set).chain(current);
        all.flat_map(|(identity, addresses)| addresses.iter().map(|address| (*identity, address)))
    }

    fn sets(&self) -> impl Iterator<Item = &Set> {
        self.next.iter().map(|(_, set)| set).chain([&self.current])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(number: u16) -> Identity {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        Identity::from_ed25519(key)
    }

    fn address(port: u16) -> NodeAddress {
        format!("a.example:{}", port.max(1)).parse().unwrap()
    }

    fn some(numbers: impl IntoIterator<Item = u16>) -> Vec<Member> {
        numbers.into_iter().map(|number| Member::new(identity(number), [address(number)])).collect()
    }

    #[test]
    fn an_old_epoch_and_a_set_beyond_its_bounds_change_nothing() {
        let mut members = Members::default();
        members.set(7, some([1, 2])).unwrap();
        for given in [0, 6, 7] {
            let refused = members.set(given, some([3]));
            assert_eq!(refused, Err(MembersError::OldEpoch { given, newest: 7 }));
        }
        let many = members.set(8, some(0..513));
        assert_eq!(many, Err(MembersError::TooMany { count: 513 }));
        let crowded = members.set(8, [Member::new(identity(3), (1..=5).map(address))]);
        assert!(matches!(crowded, Err(MembersError::TooManyAddresses { count: 5, .. })));
        assert_eq!(members.epoch(), Some(7));
        assert_eq!(members.identities().collect::<Vec<_>>(), [identity(1), identity(2)]);
        members.set(8, some(0..512)).unwrap();
        members.set(u64::MAX, []).unwrap();
        assert!(members.set(u64::MAX, []).is_err());
    }

    #[test]
    fn the_newer_set_says_where_a_member_is() {
        let mut members = Members::default();
        members
            .set(1, [Member::new(identity(1), [address(1)]), Member::new(identity(2), [])])
            .unwrap();
        members.set(2, [Member::new(identity(1), [address(2)])]).unwrap();
        let (moved, at) = members.addresses().next().unwrap();
        assert_eq!((moved, at, members.addresses().count()), (identity(1), &address(2), 1));
        assert!(members.has(&identity(2)));
    }

    proptest! {
        // Issue 10, 4: against a list of the sets that were taken.
        #[test]
        fn the_members_are_those_of_the_two_newest_sets(
            calls in proptest::collection::vec((0_u64..12, proptest::collection::vec(0_u16..8, 0..6)), 0..12),
        ) {
            let mut members = Members::default();
            let mut taken: Vec<(u64, Vec<u16>)> = Vec::new();
            let now = |taken: &[(u64, Vec<u16>)]| -> BTreeSet<Identity> {
                let newest = taken.iter().rev().take(2);
                newest.flat_map(|(_, numbers)| numbers).map(|number| identity(*number)).collect()
            };
            for (epoch, numbers) in calls {
                let before = now(&taken);
                let outcome = members.set(epoch, some(numbers.clone()));
                let is_newer = taken.last().is_none_or(|(newest, _)| epoch > *newest);
                prop_assert_eq!(outcome.is_ok(), is_newer);
                if let Ok(turnover) = outcome {
                    taken.push((epoch, numbers));
                    let after = now(&taken);
                    prop_assert_eq!(turnover.joined, after.difference(&before).copied().collect::<Vec<_>>());
                    prop_assert_eq!(turnover.left, before.difference(&after).copied().collect::<Vec<_>>());
                }
                let after = now(&taken);
                prop_assert_eq!(members.identities().collect::<BTreeSet<_>>(), after.clone());
                prop_assert_eq!(members.identities().count(), after.len());
                prop_assert_eq!(members.epoch(), taken.last().map(|(epoch, _)| *epoch));
                for number in 0..8 {
                    prop_assert_eq!(members.has(&identity(number)), after.contains(&identity(number)));
                }
                let listed: BTreeSet<Identity> = members.addresses().map(|(who, _)| who).collect();
                prop_assert_eq!(listed, after);
            }
        }
    }
}
