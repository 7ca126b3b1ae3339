//! The part of the mesh handle that says whom the node lets in and keeps: bans and members.
//!
//! ```text
//!   ban, unban, set_members ──▶ dial schedule ──AccessList──▶ links that end ──▶ doors
//! ```
//!
//! # Invariants
//!
//! * Links end before the doors hear of a new list, so that each says why it ends. A newcomer that slips in between is
//!   judged by the doors with the new list.

use std::{collections::BTreeSet, time::Duration};

use gossip::{Identity, PeerInfo};
use mesh::{
    AccessList, Admit, Ban, BanCause, BanSubject, Door, Member, MembersError, TooManyBans, Turnover,
};

use crate::mesh_handle::{Mesh, now};

/// A set of members that was taken, and what follows from it.
pub(crate) struct NewMembers {
    pub(crate) turnover: Turnover,
    /// The list that the doors have to hear of.
    pub(crate) access: AccessList,
    /// The nodes whose links end.
    pub(crate) let_go: BTreeSet<Identity>,
}

impl Mesh {
    /// Makes the door of a network go by the bans and members of this node, whose identity there is `own`, if it has one.
    pub fn guard(&self, door: &Door, own: Option<Identity>) {
        if let Some(own) = own {
            self.schedule().be(own, now());
        }
        self.doors().add(door, now());
    }

    /// Tells the doors of a new list. Connections that they let in no more end.
    pub(crate) fn publish(&self, access: AccessList) {
        self.doors().follow(access, now());
        self.wake();
    }

    /// Dials `subject` no more until the ban ends. Returns the list that the doors have to hear of.
    pub(crate) fn ban(
        &self,
        subject: BanSubject,
        duration: Duration,
        reason: &str,
    ) -> Result<AccessList, TooManyBans> {
        let why = (BanCause::Operator, reason);
        let mut schedule = self.schedule();
        schedule.bans_mut().ban(subject, duration, why, now())?;
        Ok(schedule.access(now()))
    }

    /// Ends a ban. Returns `false` if there was none.
    #[must_use = "there may have been no ban"]
    pub fn unban(&self, subject: &BanSubject) -> bool {
        let (was_banned, access) = {
            let mut schedule = self.schedule();
            (schedule.bans_mut().unban(subject, now()), schedule.access(now()))
        };
        self.publish(access);
        was_banned
    }

    /// Every ban that has not ended.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        self.schedule().bans().bans(now())
    }

    /// Takes back bans that were stored, and returns how many have not ended.
    pub fn restore_bans(&self, bans: impl IntoIterator<Item = Ban>) -> usize {
        let (restored, access) = {
            let mut schedule = self.schedule();
            (schedule.bans_mut().restore(bans, now()), schedule.access(now()))
        };
        self.publish(access);
        restored
    }

    /// Returns `true` if an operator banned a peer that is connected.
    pub(crate) fn is_banned(&self, peer: &PeerInfo) -> bool {
        self.doors().access().bans_peer(peer, now())
    }

    /// Takes the members of an epoch.
    pub(crate) fn set_members(
        &self,
        epoch: u64,
        members: impl IntoIterator<Item = Member>,
    ) -> Result<NewMembers, MembersError> {
        let (new, refused) = {
            let mut schedule = self.schedule();
            let (turnover, replaced) = schedule.set_members(epoch, members, now())?;
            let let_go = match schedule.limits().admit {
                Admit::MembersOnly => turnover
                    .left
                    .iter()
                    .copied()
                    .filter(|left| !schedule.is_named(Some(*left), None))
                    .collect(),
                // They are peers like others: those above the fan-out are let go as such.
                Admit::Everybody => BTreeSet::new(),
            };
            let access = schedule.access(now());
            (NewMembers { turnover, access, let_go }, replaced.refused)
        };
        if refused > 0 {
            tracing::warn!(refused, epoch, "addresses of members found no place in the phonebook");
        }
        Ok(new)
    }

    /// The newest epoch whose members were set, and every member: those of that epoch and of the one before. `None`
    /// before the first set.
    #[must_use]
    pub fn members(&self) -> Option<(u64, Vec<Identity>)> {
        let schedule = self.schedule();
        let members = schedule.members();
        Some((members.epoch()?, members.identities().collect()))
    }

    /// Returns `true` if this node is a member.
    #[must_use]
    pub fn is_member(&self, identity: &Identity) -> bool {
        self.doors().access().has_member(identity)
    }
}
