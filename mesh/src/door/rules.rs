//! The rules of the door, as a state machine: who is let in, and who makes room.
//!
//! # Invariants
//!
//! * Guests ≤ `total` + [`SOCKET_RESERVE`]. Of these at most `half_open_total` have not finished their
//!   handshake, and at most `half_open_per_ip` of one host; places ≤ `total`, and ≤ `per_ip` of one host.
//! * An unfinished handshake never keeps a newer one out: the oldest one of the most crowded host of the
//!   most crowded subnet makes room.
//! * A socket or a place is taken from somebody only for a newcomer from a part of the network that has
//!   at least two fewer, so that two equally crowded parts do not evict each other in turn. Configured peers and members
//!   take one from anybody.
//! * Configured peers, and loopback while it is exempt, lose neither.
//! * A socket of a proxy counts in total only until the proxy tells its client, and for the client's host from then on.
//! * Pages of one web origin ≤ `per_origin`, whatever they speak; an origin is known by its text.
//! * Misbehaviour slows down the host that it came from, and bars only an identity that was proved; see `penalties.rs`.
//! * As many places as there are members are kept for members. A place of a member counts for no host and no subnet.
//! * Nobody whom the access list bans has a socket, once the list is known and the host or the identity is.
//! * An evicted guest is forgotten at once: later calls with its ticket change nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use gossip::{Host, Identity, Instant, Subnet, Transport};

use super::{
    access::AccessList,
    counts::{RateTable, Tally},
    limits::{InboundLimits, RateWindow, SOCKET_RESERVE},
    order::{LONG, Merit, Standing, Ticket},
    penalties::Penalties,
    refusal::{Refusal, TooMany},
    tried::Tried,
};

/// Hosts whose rate one table remembers, at most. The hosts heard of longest ago are forgotten first.
///
/// Chosen: about 5 MB when full.
const MAX_RATED: usize = 65_536;

/// The verdict on a socket that was just accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Serve it, and give up another one for it.
    Serve { guest: Ticket, evicted: Option<Ticket> },
    /// Answer that there are too many of its host, and close it.
    Drain { guest: Ticket },
    /// Close it without a byte.
    Close(Refusal),
}

/// The stage that a guest has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Its handshake, or its first request head, is not complete.
    HalfOpen,
    /// It is told that it came too often.
    Drained,
    /// It is served, or is a peer.
    Headed,
}

/// The reason to believe that a peer has an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// The channel proves it.
    Channel,
    /// The peer took part in an exchange that somebody in the middle can pass on.
    Exchange,
    /// The peer says so, and has to show it yet.
    Claim,
}

/// The place of a peer.
#[derive(Clone, Debug)]
struct Place {
    since: Instant,
    peer: Option<(Identity, Proof)>,
    standing: Standing,
    merit: Merit,
    /// The web origin of the page that has the place.
    origin: Option<Arc<str>>,
}

/// One accepted socket.
#[derive(Debug)]
struct Guest {
    /// `None` for a socket of a proxy that has not told its client yet.
    ip: Option<IpAddr>,
    stage: Stage,
    place: Option<Place>,
}

impl Guest {
    fn host(&self) -> Option<Host> {
        self.ip.map(Host::of)
    }

    fn is_member(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.standing == Standing::Member)
    }
}

/// The guests that are there, and the bounds on new ones.
#[derive(Debug)]
pub(super) struct Rules {
    limits: InboundLimits,
    next: u64,
    guests: BTreeMap<Ticket, Guest>,
    half_open: BTreeSet<Ticket>,
    half_open_hosts: Tally<Host>,
    /// Of places that are not those of members.
    place_hosts: Tally<Host>,
    place_subnets: Tally<Subnet>,
    /// Of pages.
    place_origins: BTreeMap<Arc<str>, usize>,
    /// Places of members.
    member_places: usize,
    access: Arc<AccessList>,
    outbound: usize,
    /// `true` once no place is given away any more.
    draining: bool,
    /// The time of the last call that brought one.
    latest: Option<Instant>,
    accepts: RateTable<Host>,
    subnet_accepts: RateTable<Subnet>,
    requests: RateTable<Host>,
    /// With the number of their addresses that are configured.
    configured_hosts: Tally<Host>,
    configured: BTreeSet<Identity>,
    tried: Tried,
    penalties: Penalties,
    /// The transport of the call that is being ruled on.
    asking: Transport,
    refused: [[u64; Refusal::ALL.len()]; TRANSPORTS],
}

/// Number of transports by which refusals are counted. A transport that this crate does not know yet counts as
/// memory.
const TRANSPORTS: usize = 3;

const fn index_of(transport: Transport) -> usize {
    match transport {
        Transport::WebSocket => 0,
        Transport::Libp2p => 1,
        _ => 2,
    }
}

impl Rules {
    /// The limits in force.
    pub(super) const fn limits(&self) -> InboundLimits {
        self.limits
    }

    /// Takes over the bounds on inbound peers.
    pub(super) fn resize(
        &mut self,
        InboundLimits { total, per_ip, per_origin, .. }: InboundLimits,
    ) {
        self.limits = InboundLimits { total, per_ip, per_origin, ..self.limits };
    }

    pub(super) fn new(limits: InboundLimits) -> Self {
        Self {
            limits,
            next: 0,
            guests: BTreeMap::new(),
            half_open: BTreeSet::new(),
            half_open_hosts: Tally::default(),
            place_hosts: Tally::default(),
            place_subnets: Tally::default(),
            place_origins: BTreeMap::new(),
            member_places: 0,
            access: Arc::default(),
            outbound: 0,
            draining: false,
            latest: None,
            accepts: RateTable::new(MAX_RATED),
            subnet_accepts: RateTable::new(MAX_RATED),
            requests: RateTable::new(MAX_RATED),
            configured_hosts: Tally::default(),
            configured: BTreeSet::new(),
            tried: Tried::default(),
            penalties: Penalties::new(limits.penalty),
            asking: Transport::Memory,
            refused: [[0; Refusal::ALL.len()]; TRANSPORTS],
        }
    }

    /// Makes refusals count as those of a transport from now on.
    pub(super) const fn asks(&mut self, transport: Transport) {
        self.asking = transport;
    }

    /// The number of refusals of a transport for a reason since the start.
    pub(super) const fn refused(&self, why: Refusal, transport: Transport) -> u64 {
        self.refused[index_of(transport)][why as usize]
    }

    /// The number of refusals for a reason since the start, over all transports together.
    pub(super) fn refused_in_all(&self, why: Refusal) -> u64 {
        self.refused.iter().map(|counts| counts[why as usize]).sum()
    }

    /// Peers with a place.
    pub(super) const fn places(&self) -> usize {
        self.place_hosts.total() + self.member_places
    }

    /// Sockets, those of peers included.
    pub(super) fn sockets(&self) -> usize {
        self.guests.len()
    }

    /// Sockets whose handshake is not complete.
    pub(super) fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// Outbound connections.
    pub(super) const fn outbound(&self) -> usize {
        self.outbound
    }

    /// Without effect for loopback while it is exempt: many programs are behind it.
    pub(super) fn configure_host(&mut self, ip: IpAddr) {
        let host = Host::of(ip);
        if !self.is_exempt(host) {
            self.configured_hosts.add(host);
        }
    }

    /// Takes back one call of `configure_host`.
    pub(super) fn dismiss_host(&mut self, ip: IpAddr) {
        self.configured_hosts.remove(Host::of(ip));
    }

    pub(super) fn dismiss(&mut self, identity: &Identity) {
        self.configured.remove(identity);
    }

    pub(super) fn configure(&mut self, identity: Identity) {
        self.configured.insert(identity);
    }

    /// Rules on a socket just accepted. Every attempt counts against the rates, also a refused one,
    /// but for those that find every socket taken: as existing nodes do.
    pub(super) fn knock(&mut self, ip: IpAddr, now: Instant) -> Ruling {
        self.latest = Some(now);
        let host = Host::of(ip);
        if let Err(why) = self.lets_in(ip, now) {
            return Ruling::Close(self.note(why));
        }
        let room = match self.room_for(Some(host)) {
            Ok(room) => room,
            Err(why) => return Ruling::Close(self.note(why)),
        };
        let seen = self.accepted_of(host, now);
        if let Err((why, most)) = self.bears(host, seen, now) {
            self.note(why);
            if seen > most.saturating_mul(2) || self.is_full() {
                return Ruling::Close(why);
            }
            return Ruling::Drain { guest: self.enter(Some(ip), Stage::Drained) };
        }
        if self.is_over_in_subnet(host, now) {
            return Ruling::Close(self.note(Refusal::SubnetRate));
        }
        self.serve(Some(ip), room)
    }

    /// Rules on a socket just accepted from a proxy. It belongs to no host until the proxy has told its client, so no
    /// bound on one host applies to the proxy.
    pub(super) fn knock_of_proxy(&mut self, now: Instant) -> Ruling {
        self.latest = Some(now);
        match self.room_for(None) {
            Ok(room) => self.serve(None, room),
            Err(why) => Ruling::Close(self.note(why)),
        }
    }

    /// The client of a socket of a proxy, which counts from now on like one that connected itself. Says whose
    /// unfinished handshake makes room for it.
    pub(super) fn introduce(
        &mut self,
        guest: Ticket,
        ip: IpAddr,
        now: Instant,
    ) -> Result<Option<Ticket>, Refusal> {
        self.latest = Some(now);
        self.lets_in(ip, now).map_err(|why| self.note(why))?;
        let host = Host::of(ip);
        let seen = self.accepted_of(host, now);
        self.bears(host, seen, now).map_err(|(why, _)| self.note(why))?;
        if self.is_over_in_subnet(host, now) {
            return Err(self.note(Refusal::SubnetRate));
        }
        let evicted = self.crowded_of_host(host);
        if let Some(evicted) = evicted {
            self.note(Refusal::HalfOpen);
            self.gone(evicted);
        }
        self.comes_from(guest, ip);
        Ok(evicted)
    }

    /// The host for which a proxy uses a socket now. Without effect for a socket that holds a place.
    pub(super) fn comes_from(&mut self, guest: Ticket, ip: IpAddr) {
        let host = Host::of(ip);
        let Some(known) = self.guests.get_mut(&guest) else { return };
        if known.place.is_some() {
            return;
        }
        let before = known.ip.replace(ip).map(Host::of);
        if known.stage == Stage::HalfOpen {
            self.half_open_hosts.add(host);
            if let Some(before) = before {
                self.half_open_hosts.remove(before);
            }
        }
    }

    /// The guest that makes room for a new one, if one has to, and the reason; an error if none does.
    fn room_for(&self, host: Option<Host>) -> Result<Option<(Ticket, Refusal)>, Refusal> {
        if let Some(oldest) = self.crowded_half_open(host) {
            return Ok(Some((oldest, Refusal::HalfOpen)));
        }
        if !self.is_full() {
            return Ok(None);
        }
        let guest = self.crowded_socket(host).ok_or(Refusal::Sockets)?;
        Ok(Some((guest, Refusal::SocketEvicted)))
    }

    fn is_full(&self) -> bool {
        self.guests.len() >= self.limits.total.saturating_add(SOCKET_RESERVE)
    }

    /// Counts one connection of a host, and returns how many its window has.
    fn accepted_of(&mut self, host: Host, now: Instant) -> u32 {
        let rated = self.rated(host, self.limits.rate, |rules| &mut rules.accepts);
        rated.map_or(0, |(table, rate)| table.count(host, now, rate.window))
    }

    /// Fails if a host has connected too often in its window, with the number that it may. A host without a rate has
    /// connected no times.
    fn bears(&self, host: Host, seen: u32, now: Instant) -> Result<(), (Refusal, u32)> {
        let most = self.penalties.rate(host, self.limits.rate, now).count;
        match seen {
            seen if seen <= most => Ok(()),
            seen if seen <= self.limits.rate.count => Err((Refusal::Penalty, most)),
            _ => Err((Refusal::HostRate, most)),
        }
    }

    /// Counts one connection of a subnet, and returns whether its window has too many.
    fn is_over_in_subnet(&mut self, host: Host, now: Instant) -> bool {
        if self.access.has_member_at(host) {
            return false;
        }
        let rated = self.rated(host, self.limits.subnet_rate, |rules| &mut rules.subnet_accepts);
        rated.is_some_and(|(table, rate)| table.count(host.subnet(), now, rate.window) > rate.count)
    }

    /// Lets a guest in, and the one out that makes room for it.
    fn serve(&mut self, ip: Option<IpAddr>, room: Option<(Ticket, Refusal)>) -> Ruling {
        if let Some((guest, why)) = room {
            self.note(why);
            self.gone(guest);
        }
        let evicted = room.map(|(guest, _)| guest);
        Ruling::Serve { guest: self.enter(ip, Stage::HalfOpen), evicted }
    }

    /// The handshake, or the first request head, of a guest is complete. Only the first time counts.
    pub(super) fn headed(&mut self, guest: Ticket) {
        let Some(known) = self.guests.get_mut(&guest) else { return };
        if known.stage == Stage::HalfOpen {
            known.stage = Stage::Headed;
            self.half_open.remove(&guest);
            if let Some(host) = known.host() {
                self.half_open_hosts.remove(host);
            }
        }
    }

    /// Takes a place for a guest, once at a time, whose `identity` its channel proves, if there is one. Says who gives it
    /// up, if somebody has to. A refusal is not counted yet.
    pub(super) fn admit(
        &mut self,
        guest: Ticket,
        identity: Option<Identity>,
        now: Instant,
    ) -> Result<Option<Ticket>, Refusal> {
        self.latest = Some(now);
        // A proxy's socket has a host before it asks for a place.
        let Some(host) = self.host_of(guest) else { return Err(Refusal::SocketEvicted) };
        self.lets_in_guest(guest, identity, now)?;
        if let Some(member) = identity.filter(|identity| self.access.has_member(identity))
            && let Some(evicted) = self.seat(guest, (member, Proof::Channel), now)
        {
            return evicted;
        }
        let standing = self.standing(host, identity);
        self.lets_in_stranger(identity, standing)?;
        if !identity.is_some_and(|identity| self.configured.contains(&identity)) {
            if identity.is_some_and(|identity| self.penalties.is_barred(identity, now)) {
                return Err(Refusal::Penalty);
            }
            self.has_room_for(host, standing)?;
        }
        let mut evicted = None;
        if self.is_crowded(standing) {
            let victim = self.crowded_place(host, standing, now);
            let Some(victim) = victim else { return Err(Refusal::Total) };
            self.note(Refusal::PeerEvicted);
            self.gone(victim);
            evicted = Some(victim);
        }
        self.take(guest, identity.map(|identity| (identity, Proof::Channel)), standing, now);
        Ok(evicted)
    }

    /// Gives a place to a guest.
    fn take(
        &mut self,
        guest: Ticket,
        peer: Option<(Identity, Proof)>,
        standing: Standing,
        now: Instant,
    ) {
        self.headed(guest);
        let Some(known) = self.guests.get_mut(&guest) else { return };
        known.place =
            Some(Place { since: now, peer, standing, merit: Merit::new(now), origin: None });
        let host = known.host();
        self.count_place(host, standing);
    }

    fn count_place(&mut self, host: Option<Host>, standing: Standing) {
        if standing == Standing::Member {
            self.member_places += 1;
        } else if let Some(host) = host {
            self.place_hosts.add(host);
            self.place_subnets.add(host.subnet());
        }
    }

    fn uncount_place(&mut self, host: Option<Host>, standing: Standing) {
        if standing == Standing::Member {
            self.member_places -= 1;
        } else if let Some(host) = host {
            self.place_hosts.remove(host);
            self.place_subnets.remove(host.subnet());
        }
    }

    /// Gives a place back. The guest stays.
    ///
    /// The time for which it was held is judged by the last arrival of any guest, since no time comes with a drop:
    /// a node that nobody comes to has no use for the difference.
    pub(super) fn leave(&mut self, guest: Ticket) {
        let Some(known) = self.guests.get_mut(&guest) else { return };
        let (Some(place), host) = (known.place.take(), known.host()) else { return };
        self.uncount_place(host, place.standing);
        if let Some(origin) = place.origin {
            self.page_left(&origin);
        }
        if let (Some((identity, Proof::Channel)), Some(latest)) = (place.peer, self.latest)
            && latest.saturating_duration_since(place.since) >= LONG
        {
            self.tried.add(identity);
        }
    }

    /// Counts the place of a guest as that of a page of a web origin. A refusal is not counted yet.
    pub(super) fn is_page_of(&mut self, guest: Ticket, origin: &str) -> Result<(), Refusal> {
        let origin = self.page_came(origin)?;
        let place = self.guests.get_mut(&guest).and_then(|known| known.place.as_mut());
        let outcome = match place {
            Some(place) if place.origin.is_none() => {
                place.origin = Some(origin);
                return Ok(());
            }
            Some(_counted) => Ok(()),
            None => Err(Refusal::PeerEvicted),
        };
        self.page_left(&origin);
        outcome
    }

    /// Counts a page of a web origin, until it has left. A refusal is not counted yet.
    pub(super) fn page_came(&mut self, origin: &str) -> Result<Arc<str>, Refusal> {
        let known = self.place_origins.get_key_value(origin);
        if known.map_or(0, |(_, count)| *count) >= self.limits.per_origin {
            return Err(Refusal::PerOrigin);
        }
        let origin = known.map_or_else(|| Arc::from(origin), |(known, _)| Arc::clone(known));
        *self.place_origins.entry(Arc::clone(&origin)).or_default() += 1;
        Ok(origin)
    }

    /// Counts a page no more.
    pub(super) fn page_left(&mut self, origin: &Arc<str>) {
        if let Some(count) = self.place_origins.get_mut(origin) {
            *count -= 1;
            if *count == 0 {
                self.place_origins.remove(origin);
            }
        }
    }

    /// The merit of the peer with a guest's place; `None` if the guest has no place.
    pub(super) fn merit(&self, guest: Ticket) -> Option<Merit> {
        Some(self.guests.get(&guest)?.place.as_ref()?.merit.clone())
    }

    /// The merit of the peer of this identity that came last; `None` if it has no place.
    pub(super) fn merit_of(&self, identity: &Identity) -> Option<Merit> {
        let places = self.guests.values().rev().filter_map(|known| known.place.as_ref());
        let mut theirs = places.filter(|place| place.peer == Some((*identity, Proof::Channel)));
        Some(theirs.next()?.merit.clone())
    }

    /// Notes that a peer was disconnected for misbehaviour.
    pub(super) fn strike(&mut self, host: Host, identity: Option<Identity>, now: Instant) {
        if !self.is_exempt(host) {
            self.penalties.strike(host, identity, now);
        }
    }

    /// Strikes of late of a host or of an identity there, whichever has more.
    pub(super) fn strikes(&self, host: Host, identity: Option<Identity>, now: Instant) -> u32 {
        self.penalties.strikes(host, identity, now)
    }

    /// The penalties of everybody.
    pub(super) const fn penalties(&self) -> &Penalties {
        &self.penalties
    }

    /// The host and the identity of a guest that has a place.
    pub(super) fn whereabouts(&self, guest: Ticket) -> Option<(Host, Option<Identity>)> {
        let known = self.guests.get(&guest)?;
        let proved = known.place.as_ref()?.peer.filter(|(_, proof)| *proof == Proof::Channel);
        Some((known.host()?, proved.map(|(identity, _)| identity)))
    }

    /// The host of the peer of this identity that came last; `None` if it has no place.
    pub(super) fn host_of_peer(&self, identity: &Identity) -> Option<Host> {
        let is_it = |place: &Place| place.peer == Some((*identity, Proof::Channel));
        let mut theirs =
            self.guests.values().rev().filter(|known| known.place.as_ref().is_some_and(is_it));
        theirs.next()?.host()
    }

    /// A guest is gone, or has to go.
    pub(super) fn gone(&mut self, guest: Ticket) {
        self.headed(guest);
        self.leave(guest);
        self.guests.remove(&guest);
    }

    /// Rules on one HTTP request, whatever its path.
    pub(super) fn request(&mut self, ip: IpAddr, now: Instant) -> Result<(), TooMany> {
        let host = Host::of(ip);
        let rated = self.rated(host, self.limits.rate, |rules| &mut rules.requests);
        let Some((table, rate)) = rated else { return Ok(()) };
        if table.count(host, now, rate.window) > rate.count {
            self.note(Refusal::RequestRate);
            return Err(TooMany { retry_after: rate.window });
        }
        Ok(())
    }

    /// Takes one of the outbound connections.
    pub(super) fn depart(&mut self) -> Result<(), Refusal> {
        if self.draining {
            return Err(self.note(Refusal::Draining));
        }
        if self.outbound >= self.limits.outbound {
            return Err(self.note(Refusal::Outbound));
        }
        self.outbound += 1;
        Ok(())
    }

    /// Gives no place away any more.
    pub(super) const fn drain(&mut self) {
        self.draining = true;
    }

    pub(super) const fn is_draining(&self) -> bool {
        self.draining
    }

    /// Gives one of the outbound connections back.
    pub(super) const fn returned(&mut self) {
        self.outbound = self.outbound.saturating_sub(1);
    }

    /// Counts a refusal.
    pub(super) fn note(&mut self, why: Refusal) -> Refusal {
        let count = &mut self.refused[index_of(self.asking)][why as usize];
        *count = count.saturating_add(1);
        why
    }

    fn enter(&mut self, ip: Option<IpAddr>, stage: Stage) -> Ticket {
        let guest = Ticket(self.next);
        self.next += 1;
        if stage == Stage::HalfOpen {
            self.half_open.insert(guest);
            if let Some(ip) = ip {
                self.half_open_hosts.add(Host::of(ip));
            }
        }
        self.guests.insert(guest, Guest { ip, stage, place: None });
        guest
    }

    fn is_exempt(&self, host: Host) -> bool {
        self.limits.exempts(host)
    }

    /// The table that a rate is counted in, unless the host has none.
    fn rated<T>(
        &mut self,
        host: Host,
        rate: RateWindow,
        table: impl FnOnce(&mut Self) -> &mut T,
    ) -> Option<(&mut T, RateWindow)> {
        (rate.is_on() && !self.is_exempt(host)).then(|| (table(self), rate))
    }

    fn standing(&self, host: Host, identity: Option<Identity>) -> Standing {
        let is_named = identity.is_some_and(|identity| self.configured.contains(&identity));
        if is_named || self.configured_hosts.of(host) > 0 {
            Standing::Configured
        } else if identity.is_some_and(|identity| self.tried.has(&identity)) {
            Standing::Tried
        } else {
            Standing::Stranger
        }
    }

    /// Fails if the host or its subnet may not have one more place. A configured host, and loopback while it
    /// is exempt, have no subnet. Source: wire facts 1.6, row 8: no host is exempt from its own bound.
    fn has_room_for(&self, host: Host, standing: Standing) -> Result<(), Refusal> {
        if self.place_hosts.of(host) >= self.limits.per_ip {
            return Err(Refusal::PerIp);
        }
        let per_subnet = self.limits.per_subnet.max(self.limits.per_ip);
        let is_free = standing == Standing::Configured || self.is_exempt(host);
        if !is_free && self.place_subnets.of(host.subnet()) >= per_subnet {
            return Err(Refusal::PerSubnet);
        }
        Ok(())
    }

    /// Returns `true` if a newcomer of this standing needs the place of another one: places that are kept for members are
    /// free for members alone, and for peers that an operator named.
    fn is_crowded(&self, standing: Standing) -> bool {
        let kept = self.access.members();
        self.places() >= self.limits.total
            || standing < Standing::Configured
                && self.place_hosts.total() >= self.limits.total.saturating_sub(kept)
    }
}

mod making_room;
mod membership;
#[cfg(test)]
mod tests;
