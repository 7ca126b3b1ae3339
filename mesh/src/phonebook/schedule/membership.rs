//! The part of the dial schedule that follows the members: their addresses, and the list for the door.
//!
//! # Invariants
//!
//! * The addresses of the members, but for this node's own, are listed in the phonebook by a source of their own, and by
//!   it no others.

use gossip::{Identity, Instant, NodeAddress};

use super::{
    super::{Listed, Replaced, SourceId, SourceKind},
    AccessList, Admit, DialSchedule, Entry, Members,
};
use crate::members::{Member, MembersError, Turnover};

impl DialSchedule {
    /// Takes the members of an epoch, as [`Members::set`] does, and lists their addresses. Those of members that joined
    /// are due at once.
    ///
    /// # Errors
    ///
    /// [`MembersError`]; nothing has changed then.
    pub fn set_members(
        &mut self,
        epoch: u64,
        members: impl IntoIterator<Item = Member>,
        now: Instant,
    ) -> Result<(Turnover, Replaced), MembersError> {
        let turnover = self.members.set(epoch, members)?;
        let replaced = self.list_members(now);
        for (identity, address) in self.members.addresses() {
            if turnover.joined.binary_search(&identity).is_ok() {
                self.book.renew(address);
            }
        }
        Ok((turnover, replaced))
    }

    /// The members.
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// The identity of this node, which is not dialled as a member.
    pub fn be(&mut self, own: Identity, now: Instant) {
        if self.own.replace(own) != Some(own) {
            self.list_members(now);
        }
    }

    /// The list by which the door decides from the moment `now` on. Each one has a higher version than the one before.
    #[must_use]
    pub fn access(&mut self, now: Instant) -> AccessList {
        self.access += 1;
        AccessList::new(self.access, &self.bans, (&self.members, self.limits.admit), now)
    }

    /// Returns `true` if a link that this node dialled may stay, by the identity found at its other end and the address
    /// that was dialled.
    #[must_use]
    pub fn admits(&self, identity: Option<Identity>, address: Option<&NodeAddress>) -> bool {
        self.limits.admit == Admit::Everybody
            || identity.is_some_and(|identity| self.members.has(&identity))
            || self.is_named(identity, address)
    }

    /// Returns `true` if an operator named the node: the address itself, or one at which this identity was found.
    #[must_use]
    pub fn is_named(&self, identity: Option<Identity>, address: Option<&NodeAddress>) -> bool {
        let by_operator = |kind| matches!(kind, SourceKind::Configuration | SourceKind::Operator);
        let is_its = |known: &NodeAddress, entry: &Entry| {
            Some(known) == address || entry.identities().any(|found| Some(found) == identity)
        };
        let entries = self.book.entries.iter().filter(|(known, entry)| is_its(known, entry));
        let mut listings = entries.flat_map(|(_, entry)| &entry.listings);
        listings.any(|(source, _)| by_operator(source.kind()))
    }

    fn list_members(&mut self, now: Instant) -> Replaced {
        let (own, book) = (self.own, &mut self.book);
        let others = || self.members.addresses().filter(move |(who, _)| Some(*who) != own);
        let listed = others().map(|(_, address)| Listed::new(address.clone(), []));
        let replaced = book.replace(&SourceId::of(SourceKind::Members), listed, now);
        for (identity, address) in others() {
            book.found(address, identity);
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use gossip::Transport;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{limits::MeshLimits, phonebook::schedule::DialFailure};

    fn identity(number: u8) -> Identity {
        Identity::from_ed25519([number; 32])
    }

    fn address(number: u8) -> NodeAddress {
        format!("192.0.2.{number}:4160").parse().unwrap()
    }

    fn set(numbers: impl IntoIterator<Item = u8>) -> Vec<Member> {
        let member = |number| Member::new(identity(number), [address(number)]);
        numbers.into_iter().map(member).collect()
    }

    fn schedule(admit: Admit) -> (DialSchedule, Instant, StdRng) {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let limits = MeshLimits::default().with_admit(admit);
        let mut schedule = DialSchedule::new(limits, now, SystemTime::UNIX_EPOCH, &mut rng);
        schedule.carry(Transport::WebSocket);
        (schedule, now, rng)
    }

    fn sorted(mut addresses: Vec<NodeAddress>) -> Vec<NodeAddress> {
        addresses.sort();
        addresses
    }

    // Issue 10, 4.
    #[test]
    fn members_are_dialled_whatever_the_fan_out_is_and_the_node_itself_is_not() {
        let (mut schedule, now, mut rng) = schedule(Admit::Everybody);
        schedule.be(identity(8), now);
        schedule.set_members(1, set(1..=8), now).unwrap();
        let due = sorted(schedule.due(now, &mut rng));
        assert_eq!(due, (1..=7).map(address).collect::<Vec<_>>());
        for number in 1..=7 {
            schedule.connected(&address(number), Some(identity(number)), now);
        }
        // One more than the fan-out, of the next epoch.
        schedule.set_members(2, set([9]), now).unwrap();
        assert_eq!(schedule.due(now, &mut rng), [address(9)]);
        schedule.set_members(3, set([9]), now).unwrap();
        assert!(!schedule.book().is_persistent(&address(1)));
        assert!(schedule.book().is_persistent(&address(9)));
    }

    #[test]
    fn a_member_that_is_connected_is_not_dialled_and_one_that_joins_again_is_due_at_once() {
        let (mut schedule, now, mut rng) = schedule(Admit::MembersOnly);
        schedule.identity_connected(identity(1), Transport::WebSocket);
        schedule.set_members(1, set([1, 2]), now).unwrap();
        assert_eq!(schedule.due(now, &mut rng), [address(2)]);
        for _ in 0..9 {
            schedule.failed(&address(2), DialFailure::Unreachable, now, &mut rng);
        }
        for epoch in [2, 3] {
            schedule.set_members(epoch, set([]), now).unwrap();
        }
        schedule.set_members(4, set([2]), now).unwrap();
        assert_eq!(schedule.due(now, &mut rng), [address(2)]);
    }

    #[test]
    fn where_members_only_are_admitted_nobody_else_is_dialled_but_those_that_an_operator_named() {
        let (mut schedule, now, mut rng) = schedule(Admit::MembersOnly);
        let list = |schedule: &mut DialSchedule, number, kind| {
            let listed = Listed::new(address(number), []);
            let _ = schedule.book_mut().add(listed, &SourceId::of(kind), now);
        };
        list(&mut schedule, 1, SourceKind::Dns);
        list(&mut schedule, 2, SourceKind::Operator);
        list(&mut schedule, 3, SourceKind::Configuration);
        schedule.set_members(1, set([4]), now).unwrap();
        let later = now + Duration::from_secs(60);
        assert_eq!(sorted(schedule.due(later, &mut rng)), [2, 3, 4].map(address));
        // Of a member's address another node may have got hold.
        assert!(!schedule.admits(Some(identity(1)), Some(&address(4))));
        assert!(!schedule.admits(None, Some(&address(4))));
        assert!(schedule.admits(Some(identity(4)), None));
        assert!(
            schedule.admits(None, Some(&address(2))) && schedule.admits(None, Some(&address(3)))
        );
    }
}
