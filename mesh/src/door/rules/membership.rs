//! The part of the rules that follows the access list: bans, places of members, and a list that changes.
//!
//! # Invariants
//!
//! * A member holds at most [`PLACES_OF_MEMBER`] places as such. One that is only claimed gives way to a newer claim of
//!   the same member, and to any member that needs a place.
//! * A member without a place gets one while there are no more members than places, and some of the others, or of those
//!   that are there twice, can give way: those that an operator named never do.

use std::{collections::BTreeMap, sync::Arc};

use gossip::NodeAddress;

use super::{
    AccessList, Guest, Identity, Instant, IpAddr, Place, Proof, Refusal, Rules, Standing, Ticket,
};
use crate::members::Admit;

/// Places that one member holds as such, at most; further ones are those of a stranger. Chosen: a new connection beside a
/// dead one, on each of two transports.
const PLACES_OF_MEMBER: usize = 4;

impl Rules {
    /// Takes an access list in place of an older one. Returns the guests that have to go for it.
    pub(in super::super) fn apply(
        &mut self,
        access: &Arc<AccessList>,
        now: Instant,
    ) -> Vec<Ticket> {
        if access.version() <= self.access.version() {
            return Vec::new();
        }
        self.access = Arc::clone(access);
        let mut gone = Vec::new();
        for guest in self.guests.keys().copied().collect::<Vec<_>>() {
            if let Err(why) = self.review(guest, now) {
                self.note(why);
                self.gone(guest);
                gone.push(guest);
            }
        }
        gone
    }

    /// Judges a guest by a new list.
    fn review(&mut self, guest: Ticket, now: Instant) -> Result<(), Refusal> {
        let Some(known) = self.guests.get(&guest) else { return Ok(()) };
        let (ip, place) = (known.ip, known.place.as_ref());
        let peer = place.and_then(|place| place.peer);
        if ip.is_some_and(|ip| self.access.bans_host(ip, now))
            || peer.is_some_and(|(identity, _)| self.access.bans_identity(&identity, now))
        {
            return Err(Refusal::Banned);
        }
        let (Some(host), true) = (known.host(), place.is_some()) else { return Ok(()) };
        let identity = peer.map(|(identity, _)| identity);
        let (is_member, was_member) = (self.is_member(identity), known.is_member());
        if is_member {
            if !was_member && self.places_of(identity) < PLACES_OF_MEMBER {
                self.restand(guest, Standing::Member);
            }
            return Ok(());
        }
        let proved = peer.filter(|(_, proof)| *proof == Proof::Channel);
        let standing = self.standing(host, proved.map(|(identity, _)| identity));
        if was_member {
            self.restand(guest, standing);
        }
        if self.access.admit() == Admit::MembersOnly && standing < Standing::Configured {
            return Err(Refusal::NotMember);
        }
        Ok(())
    }

    /// Fails if nobody who comes from there is let in.
    pub(in super::super) fn lets_in(&self, ip: IpAddr, now: Instant) -> Result<(), Refusal> {
        if self.access.bans_host(ip, now) { Err(Refusal::Banned) } else { Ok(()) }
    }

    /// Fails if nobody is let in who announces this of itself.
    pub(in super::super) fn lets_in_announced(
        &self,
        identity: Option<Identity>,
        address: Option<&NodeAddress>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let is_banned = identity.is_some_and(|identity| self.access.bans_identity(&identity, now))
            || address.is_some_and(|address| self.access.bans_address(address, now));
        if is_banned { Err(Refusal::Banned) } else { Ok(()) }
    }

    /// Fails if a guest is not let in, of whom this identity is known.
    pub(super) fn lets_in_guest(
        &self,
        guest: Ticket,
        identity: Option<Identity>,
        now: Instant,
    ) -> Result<(), Refusal> {
        if let Some(ip) = self.guests.get(&guest).and_then(|known| known.ip) {
            self.lets_in(ip, now)?;
        }
        self.lets_in_announced(identity, None, now)
    }

    /// Fails if somebody is not let in who has no place of a member.
    pub(super) fn lets_in_stranger(
        &self,
        identity: Option<Identity>,
        standing: Standing,
    ) -> Result<(), Refusal> {
        let is_let_in = self.access.admit() == Admit::Everybody
            || standing >= Standing::Configured
            || self.is_member(identity);
        if is_let_in { Ok(()) } else { Err(Refusal::NotMember) }
    }

    /// Returns `true` if somebody may be a member.
    pub(in super::super) fn has_members(&self) -> bool {
        self.access.members() > 0
    }

    /// Takes a place for a guest that claims to be a member, and has to prove it. Says who gives it up. A refusal is not
    /// counted yet.
    pub(in super::super) fn admit_member(
        &mut self,
        guest: Ticket,
        claimed: Identity,
        now: Instant,
    ) -> Result<Option<Ticket>, Refusal> {
        self.latest = Some(now);
        if self.host_of(guest).is_none() {
            return Err(Refusal::SocketEvicted);
        }
        self.lets_in_guest(guest, Some(claimed), now)?;
        if !self.access.has_member(&claimed) {
            return Err(Refusal::NotMember);
        }
        let seated = self.seat(guest, (claimed, Proof::Claim), now);
        seated.unwrap_or(Err(Refusal::PerIp))
    }

    /// Gives a guest a place of a member. `None` if the member has as many as it may, all of them proved.
    pub(super) fn seat(
        &mut self,
        guest: Ticket,
        peer: (Identity, Proof),
        now: Instant,
    ) -> Option<Result<Option<Ticket>, Refusal>> {
        let victim = if self.places_of(Some(peer.0)) >= PLACES_OF_MEMBER {
            Some(self.claimed(Some(peer.0))?)
        } else if self.places() >= self.limits.total {
            let host = self.host_of(guest)?;
            let victim = self.crowded_place(host, Standing::Member, now);
            let Some(victim) = victim.or_else(|| self.claimed(None)).or_else(|| self.spare())
            else {
                return Some(Err(Refusal::Total));
            };
            Some(victim)
        } else {
            None
        };
        if let Some(victim) = victim {
            self.note(Refusal::PeerEvicted);
            self.gone(victim);
        }
        self.take(guest, Some(peer), Standing::Member, now);
        Some(Ok(victim))
    }

    /// The guest with a place has proved this identity in an exchange. A refusal is not counted yet.
    pub(in super::super) fn prove(
        &mut self,
        guest: Ticket,
        identity: Identity,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.lets_in_guest(guest, Some(identity), now)?;
        let is_member = self.access.has_member(&identity);
        let room = self.places_of(Some(identity)) < PLACES_OF_MEMBER;
        let Some(known) = self.guests.get_mut(&guest) else { return Ok(()) };
        let (was_member, host) = (known.is_member(), known.host());
        let Some(place) = known.place.as_mut() else { return Ok(()) };
        let claimed = place.peer.replace((identity, Proof::Exchange));
        let keeps = was_member && claimed.is_some_and(|(claimed, _)| claimed == identity);
        if is_member {
            if !keeps && room {
                self.restand(guest, Standing::Member);
            }
            return Ok(());
        }
        let Some(host) = host else { return Ok(()) };
        let standing = self.standing(host, None);
        if was_member {
            self.restand(guest, standing);
        }
        self.lets_in_stranger(None, standing)
    }

    /// Returns `true` if a guest has shown that it is the member it claims to be, or claims nothing.
    pub(in super::super) fn is_proved(&self, guest: Ticket) -> bool {
        let place = self.guests.get(&guest).and_then(|known| known.place.as_ref());
        !place.is_some_and(|place| matches!(place.peer, Some((_, Proof::Claim))))
    }

    fn is_member(&self, identity: Option<Identity>) -> bool {
        identity.is_some_and(|identity| self.access.has_member(&identity))
    }

    /// Changes the standing of a peer, and counts its place accordingly.
    fn restand(&mut self, guest: Ticket, standing: Standing) {
        let Some(known) = self.guests.get_mut(&guest) else { return };
        let host = known.host();
        let Some(place) = known.place.as_mut() else { return };
        let before = std::mem::replace(&mut place.standing, standing);
        self.uncount_place(host, before);
        self.count_place(host, standing);
    }

    fn members(&self) -> impl Iterator<Item = (Ticket, &Place)> {
        let members = self.guests.iter().filter(|(_, known): &(_, &Guest)| known.is_member());
        members.filter_map(|(guest, known)| Some((*guest, known.place.as_ref()?)))
    }

    /// Number of places that a member holds as such.
    fn places_of(&self, member: Option<Identity>) -> usize {
        let peers = self.members().filter_map(|(_, place)| place.peer);
        peers.filter(|(identity, _)| Some(*identity) == member).count()
    }

    /// The oldest place that is only claimed, of one member or of any.
    fn claimed(&self, of: Option<Identity>) -> Option<Ticket> {
        let claimed = self.members().filter(|(_, place)| {
            let is_its = |identity| of.is_none_or(|of| of == identity);
            matches!(place.peer, Some((identity, Proof::Claim)) if is_its(identity))
        });
        claimed.map(|(guest, _)| guest).min()
    }

    /// The oldest place of the member that has most places, if it has several.
    fn spare(&self) -> Option<Ticket> {
        let mut places: BTreeMap<Identity, Vec<Ticket>> = BTreeMap::new();
        for (guest, place) in self.members() {
            if let Some((identity, _)) = place.peer {
                places.entry(identity).or_default().push(guest);
            }
        }
        let most = places.into_values().max_by_key(Vec::len).filter(|places| places.len() > 1)?;
        most.into_iter().min()
    }
}

#[cfg(test)]
mod tests;
