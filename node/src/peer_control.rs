//! The handle by which an application says whom its node talks to: peers, bans, members.
//!
//! # Invariants
//!
//! * The handle does not keep the node running. On a node that is gone, calls change nothing and say so.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use gossip::{Identity, NodeAddress};
use mesh::{Ban, BanSubject, InboundLimits, Member, MembersError, TooManyBans, Turnover};

use crate::{mode::PeerError, view::Seen};

/// Says whom a running node talks to. Clones are cheap; the default one is of a node that is gone.
///
/// These are no methods of [`GossipNode`](gossip::GossipNode), because handlers and services hold the node: whoever may send
/// messages is not thereby allowed to ban peers or to say who the members are. Whoever runs the node hands this on to a
/// consensus engine. A program that builds a network without [`NodeBuilder`](crate::NodeBuilder) has the same as methods of its
/// [`Broadcaster`](crate::Broadcaster).
#[derive(Clone, Debug, Default)]
pub struct PeerControl {
    seen: Weak<Seen>,
}

/// The reason why an address was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddPeerError {
    /// The node cannot dial the address.
    #[error(transparent)]
    Address(#[from] PeerError),
    /// The phonebook is full of addresses that operators named.
    #[error("the phonebook is full of addresses that operators named: remove some first")]
    Full,
    /// The node has ended.
    #[error("the node has ended")]
    Gone,
}

/// The reason why nobody was banned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BanError {
    /// There is no room for another ban.
    #[error(transparent)]
    TooMany(#[from] TooManyBans),
    /// The node has ended.
    #[error("the node has ended")]
    Gone,
}

/// The reason why a set of members was not taken. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetMembersError {
    /// The epoch or the set cannot be used.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// The node has ended.
    #[error("the node has ended")]
    Gone,
}

impl PeerControl {
    pub(crate) fn of(seen: &Arc<Seen>) -> Self {
        Self { seen: Arc::downgrade(seen) }
    }

    /// Changes the bounds on inbound peers from now on, as [`Door::resize`](mesh::Door::resize) does. Changes nothing on a
    /// node that is gone.
    pub fn resize_inbound(&self, limits: InboundLimits) {
        if let Some(seen) = self.seen.upgrade() {
            seen.door.resize(limits);
        }
    }

    /// Adds an address as the configuration does: it is dialled now, and whenever there is no link to its peer, and the
    /// peer is let in before others. An address that was added before stays as it is.
    ///
    /// # Errors
    ///
    /// [`AddPeerError`] for an address that the node cannot dial, and when there is no room.
    pub fn add_peer(&self, address: &NodeAddress) -> Result<(), AddPeerError> {
        let seen = self.seen.upgrade().ok_or(AddPeerError::Gone)?;
        seen.network.mode().check_peer(address)?;
        if seen.network.add_peer(address) { Ok(()) } else { Err(AddPeerError::Full) }
    }

    /// Forgets an address, whoever named it, and ends the links that were dialled to it. A source that lists it still,
    /// such as a record in DNS, brings it back. Returns `false` if the address was not known, or the node is gone.
    #[must_use = "the address may not have been known"]
    pub fn remove_peer(&self, address: &NodeAddress) -> bool {
        self.seen.upgrade().is_some_and(|seen| seen.network.remove_peer(address))
    }

    /// Bans a node, a network or an address for a while: see [`Broadcaster::ban`](crate::Broadcaster::ban). `reason` is
    /// for operators to read.
    ///
    /// # Errors
    ///
    /// [`BanError`] when there is no room.
    pub fn ban(
        &self,
        subject: BanSubject,
        duration: Duration,
        reason: &str,
    ) -> Result<(), BanError> {
        let seen = self.seen.upgrade().ok_or(BanError::Gone)?;
        Ok(seen.broadcaster.ban(subject, duration, reason)?)
    }

    /// Ends a ban. Returns `false` if there was none, or the node is gone.
    #[must_use = "there may have been no ban"]
    pub fn unban(&self, subject: &BanSubject) -> bool {
        self.seen.upgrade().is_some_and(|seen| seen.broadcaster.mesh().unban(subject))
    }

    /// Every ban that has not ended, also those by which the node itself stops dialling peers that misbehaved.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        self.seen.upgrade().map(|seen| seen.broadcaster.mesh().bans()).unwrap_or_default()
    }

    /// Takes no further peers and dials none, until the end of the node. Peers that are connected stay so, and HTTP is
    /// served as before. A node that is gone has nothing to drain.
    pub fn drain(&self) {
        if let Some(seen) = self.seen.upgrade() {
            seen.door.drain();
        }
    }

    /// Takes the members of an epoch: see [`Broadcaster::set_members`](crate::Broadcaster::set_members).
    ///
    /// # Errors
    ///
    /// [`SetMembersError`] for an epoch that is not newer, and for a set that is too large.
    pub fn set_members(
        &self,
        epoch: u64,
        members: impl IntoIterator<Item = Member>,
    ) -> Result<Turnover, SetMembersError> {
        let seen = self.seen.upgrade().ok_or(SetMembersError::Gone)?;
        Ok(seen.broadcaster.set_members(epoch, members)?)
    }

    /// The newest epoch whose members were set, and every member: those of that epoch and of the one set before it.
    /// `None` before the first set, and when the node is gone.
    #[must_use]
    pub fn members(&self) -> Option<(u64, Vec<Identity>)> {
        self.seen.upgrade()?.broadcaster.mesh().members()
    }
}
