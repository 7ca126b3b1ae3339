//! The one door of a node: which connections are let in, over all its transports together.
//!
//! ```text
//!   TCP accept ──knock──▶ Serve ──▶ handshake ──headed──▶ request ──▶ admit ──▶ PeerPlace
//!                         Drain (429)                      429        503
//!                         Close
//!   Pass dropped: the socket is gone          PeerPlace dropped: it is no peer any more
//!   evicted: the callback that was given to `knock` ends the connection
//!
//!   bans, members ──AccessList──▶ Doors ──▶ every door of the node
//! ```
//!
//! A [`Door`] is a handle that all networks of a node share. The rules behind it are a state machine
//! that takes `now`; see `rules.rs`.
//!
//! # Invariants
//!
//! * A [`Pass`], a [`PeerPlace`], a [`PagePlace`] or a [`Departure`] gives back its count when it is dropped.
//! * Callbacks are called without a lock held, once at most.

mod access;
mod conduct;
mod counts;
mod limits;
mod order;
mod penalties;
mod refusal;
mod rules;
mod tried;

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use gossip::{Durations, Host, Identity, Instant, NodeAddress, Transport};

pub use self::{
    access::AccessList,
    conduct::Conduct,
    limits::{InboundLimits, MIN_OPEN_FILES, RateWindow, SOCKET_RESERVE},
    order::Merit,
    refusal::{Refusal, TooMany},
};
use self::{
    order::Ticket,
    rules::{Rules, Ruling},
};

/// Ends a connection that has to make room. It must not wait.
type Evict = Box<dyn FnOnce() + Send>;

/// Decides about the connections of a node. Clones share one set of counts: a node lends one to each
/// of its networks.
#[derive(Clone)]
pub struct Door {
    inside: Arc<Inside>,
    /// The transport as which this handle is counted.
    over: Transport,
}

struct Inside {
    /// Those that it was made with, to be read without the lock where they never change.
    limits: InboundLimits,
    shared: Mutex<Shared>,
}

struct Shared {
    rules: Rules,
    evict: HashMap<Ticket, Evict>,
}

/// The verdict on a socket that was just accepted.
#[must_use = "a socket that is neither served nor closed is leaked"]
#[derive(Debug)]
pub enum Knock {
    /// Serve it. It counts as half open until [`Pass::headed`] or [`Pass::admit`].
    Serve(Pass),
    /// Read and discard for a moment, answer 429, close. Wire facts 1.6, row 2. A transport that has no
    /// such answer closes it.
    Drain(Pass),
    /// Close it without a byte. Wire facts 1.6, rows 1 and 2b.
    Close(Refusal),
}

/// One accepted socket's place in the counts, given back when dropped.
#[must_use = "the socket counts for as long as this lives"]
#[derive(Debug)]
pub struct Pass {
    door: Door,
    guest: Ticket,
    /// `true` once the head was counted: every later request of the socket spares the lock.
    is_headed: AtomicBool,
}

/// The place of one admitted peer, given back when dropped. Its socket's [`Pass`] is kept beside it.
#[must_use = "the place is given back when this is dropped"]
#[derive(Debug)]
pub struct PeerPlace {
    door: Door,
    guest: Ticket,
}

/// The place of a page among those of its web origin, given back when dropped.
#[must_use = "the place is given back when this is dropped"]
#[derive(Debug)]
pub struct PagePlace {
    door: Door,
    origin: Arc<str>,
}

/// One outbound connection, from the start of its dial to its end.
#[must_use = "the connection counts for as long as this lives"]
#[derive(Debug)]
pub struct Departure {
    door: Door,
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Default for Door {
    /// A door with the default limits.
    fn default() -> Self {
        Self::new(InboundLimits::default())
    }
}

impl Door {
    /// A door that nobody has come through.
    #[must_use]
    pub fn new(limits: InboundLimits) -> Self {
        let limits = limits.bounded();
        let shared = Mutex::new(Shared { rules: Rules::new(limits), evict: HashMap::new() });
        Self { inside: Arc::new(Inside { limits, shared }), over: Transport::Memory }
    }

    /// A handle to the same door whose refusals count as those of a transport. A new door counts them as those of
    /// [`Transport::Memory`].
    #[must_use]
    pub fn over(&self, transport: Transport) -> Self {
        Self { inside: Arc::clone(&self.inside), over: transport }
    }

    /// Rules on a socket just accepted. `evict` is called if the connection has to make room for
    /// another one, and is to end it at once; the connection does not count any more by then.
    pub fn knock(&self, ip: IpAddr, now: Instant, evict: impl FnOnce() + Send + 'static) -> Knock {
        self.rule(|rules| rules.knock(ip, now), Box::new(evict))
    }

    /// The same for a socket of a proxy that the operator trusts to tell its clients. It counts in total only, until
    /// [`Pass::introduce`] or [`Pass::comes_from`] names the host that it counts for.
    pub fn knock_of_proxy(&self, now: Instant, evict: impl FnOnce() + Send + 'static) -> Knock {
        self.rule(|rules| rules.knock_of_proxy(now), Box::new(evict))
    }

    fn rule(&self, ask: impl FnOnce(&mut Rules) -> Ruling, evict: Evict) -> Knock {
        let mut shared = self.shared();
        match ask(&mut shared.rules) {
            Ruling::Close(why) => Knock::Close(why),
            Ruling::Drain { guest } => Knock::Drain(Pass::new(self.clone(), guest)),
            Ruling::Serve { guest, evicted } => {
                let evicted = evicted.and_then(|evicted| shared.evict.remove(&evicted));
                shared.evict.insert(guest, evict);
                drop(shared);
                if let Some(evict) = evicted {
                    evict();
                }
                Knock::Serve(Pass::new(self.clone(), guest))
            }
        }
    }

    /// Rules on one HTTP request, whatever its path.
    ///
    /// # Errors
    ///
    /// [`TooMany`] for every request of the host beyond the rate, until its window has passed.
    pub fn request(&self, ip: IpAddr, now: impl FnOnce() -> Instant) -> Result<(), TooMany> {
        // A request has to wait for the lock, and for the clock, only where requests are counted.
        if !self.inside.limits.rates_requests(Host::of(ip)) {
            return Ok(());
        }
        self.shared().rules.request(ip, now())
    }

    /// Gives no place to a peer any more and no connection to a dial. Peers that have a place keep it, and requests that
    /// are no peer's are served as before.
    pub fn drain(&self) {
        self.shared().rules.drain();
    }

    /// Takes one of the outbound connections.
    ///
    /// # Errors
    ///
    /// [`Refusal::Outbound`] if all are in use, [`Refusal::Draining`] after [`Door::drain`].
    pub fn depart(&self) -> Result<Departure, Refusal> {
        self.shared().rules.depart()?;
        Ok(Departure { door: self.clone() })
    }

    /// A peer that an operator named always gets a place, and keeps it. To be called with identities
    /// that the transport proves.
    pub fn configure(&self, identity: Identity) {
        self.shared().rules.configure(identity);
    }

    /// A peer that an operator named before is one like others again. It keeps the place that it has.
    pub fn dismiss(&self, identity: &Identity) {
        self.shared().rules.dismiss(identity);
    }

    /// Does the same as [`Door::configure`] for the peers that come from an address that an operator named, as many as one host may
    /// have. Without effect for this machine while it is exempt: many programs are behind it.
    pub fn configure_host(&self, ip: IpAddr) {
        self.shared().rules.configure_host(ip);
    }

    /// Takes back one call of [`Door::configure_host`].
    pub fn dismiss_host(&self, ip: IpAddr) {
        self.shared().rules.dismiss_host(ip);
    }

    /// Where the link of a peer notes what it brings, if the peer has a place under this identity: it is
    /// evicted later for it. For links that know no [`PeerPlace`] of their own.
    #[must_use]
    pub fn merit_of(&self, identity: &Identity) -> Option<Merit> {
        self.shared().rules.merit_of(identity)
    }

    /// Where misbehaviour of the peer of this identity is noted, if it has a place. For links that know no [`PeerPlace`] of
    /// their own.
    #[must_use]
    pub fn conduct_of(&self, identity: &Identity) -> Option<Conduct> {
        let host = self.shared().rules.host_of_peer(identity)?;
        Some(Conduct::new(self.clone(), host, Some(*identity)))
    }

    /// Times since the start that misbehaviour of a peer was noted.
    #[must_use]
    pub fn strikes(&self) -> u64 {
        self.shared().rules.penalties().noted()
    }

    /// Asks again about a client of a connection that others use too, such as that of a proxy.
    ///
    /// # Errors
    ///
    /// [`Refusal::Banned`] if nobody who comes from there is let in.
    pub fn lets_in(&self, ip: IpAddr, now: Instant) -> Result<(), Refusal> {
        let mut shared = self.shared();
        shared.rules.lets_in(ip, now).map_err(|why| shared.rules.note(why))
    }

    /// Decides by this list from now on, unless it knows a newer one. Connections that it does not let in end.
    fn follow(&self, access: &Arc<AccessList>, now: Instant) {
        let evict: Vec<Evict> = {
            let mut shared = self.shared();
            let gone = shared.rules.apply(access, now);
            gone.iter().filter_map(|guest| shared.evict.remove(guest)).collect()
        };
        evict.into_iter().for_each(|evict| evict());
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> InboundLimits {
        self.shared().rules.limits()
    }

    /// Changes the bounds on inbound peers from now on: in all, of one host, and of one web origin, as those of `limits`. Peers
    /// beyond a lower bound stay, and nobody takes their places when they leave. The other limits stay as they are.
    pub fn resize(&self, limits: InboundLimits) {
        self.shared().rules.resize(limits);
    }

    /// The number of connections that were refused or given up for a reason since the start, over all transports
    /// together.
    #[must_use]
    pub fn refused(&self, why: Refusal) -> u64 {
        self.shared().rules.refused_in_all(why)
    }

    /// The number of those that a connection or a request over one transport caused. Its connection was refused, or
    /// another one, of whichever transport, was given up for it.
    #[must_use]
    pub fn refused_over(&self, why: Refusal, transport: Transport) -> u64 {
        self.shared().rules.refused(why, transport)
    }

    /// Inbound peers now.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.shared().rules.places()
    }

    /// Inbound sockets now, those of peers included.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.shared().rules.sockets()
    }

    /// Inbound sockets now whose handshake, or first request head, is not complete.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.shared().rules.half_open()
    }

    /// Outbound connections now, dials under way included.
    #[must_use]
    pub fn outbound(&self) -> usize {
        self.shared().rules.outbound()
    }

    /// Counts a connection among the pages of a web origin, for as long as the result is kept. For a transport that knows the
    /// origin before the peer. The text is kept, and its bound is the caller's.
    ///
    /// # Errors
    ///
    /// [`Refusal::PerOrigin`] if there are as many as allowed: the connection is to be closed.
    pub fn page_of(&self, origin: &str) -> Result<PagePlace, Refusal> {
        let mut shared = self.shared();
        match shared.rules.page_came(origin) {
            Ok(origin) => {
                drop(shared);
                Ok(PagePlace { door: self.clone(), origin })
            }
            Err(why) => Err(shared.rules.note(why)),
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        let mut shared = self.inside.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.rules.asks(self.over);
        shared
    }
}

impl Pass {
    const fn new(door: Door, guest: Ticket) -> Self {
        Self { door, guest, is_headed: AtomicBool::new(false) }
    }

    /// The handshake, or the first request head, is complete. Only the first time counts.
    pub fn headed(&self) {
        if !self.is_headed.swap(true, Ordering::Relaxed) {
            self.door.shared().rules.headed(self.guest);
        }
    }

    /// A proxy has told the client of this socket at its start: it counts for the client's host from now on, and is
    /// bounded like a connection that the client made itself.
    ///
    /// # Errors
    ///
    /// [`Refusal::HostRate`] or [`Refusal::SubnetRate`] if the client connects too often. The socket is to be closed.
    pub fn introduce(&self, ip: IpAddr, now: Instant) -> Result<(), Refusal> {
        let evict = {
            let mut shared = self.door.shared();
            let evicted = shared.rules.introduce(self.guest, ip, now)?;
            evicted.and_then(|evicted| shared.evict.remove(&evicted))
        };
        if let Some(evict) = evict {
            evict();
        }
        Ok(())
    }

    /// A proxy uses this socket for the client `ip` now, as one among others. To be called before [`Pass::admit`]; no
    /// rate of connections counts it, since the requests of the client are counted.
    pub fn comes_from(&self, ip: IpAddr) {
        self.door.shared().rules.comes_from(self.guest, ip);
    }

    /// Takes a place for a peer, whose `identity` is given where the transport proved it. One at a
    /// time for each pass.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is none.
    pub fn admit(&self, identity: Option<Identity>, now: Instant) -> Result<PeerPlace, Refusal> {
        let place = self.take(|rules, guest| rules.admit(guest, identity, now));
        place.map_err(|why| self.refuse(why))
    }

    /// Takes a place for a peer whose channel proves no identity. `claimed` is asked for the one that the peer says it
    /// has only if there is no place for somebody unknown, and it may be a member: it then takes one of those that are
    /// kept for members, and has to prove its identity later ([`PeerPlace::prove`]).
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is none.
    pub fn admit_unproved(
        &self,
        claimed: impl FnOnce() -> Option<Identity>,
        now: Instant,
    ) -> Result<PeerPlace, Refusal> {
        let has_members = self.door.shared().rules.has_members();
        let refusal = match self.take(|rules, guest| rules.admit(guest, None, now)) {
            Err(Refusal::Banned) => Refusal::Banned,
            Err(why) if has_members => {
                let claimed = claimed().ok_or(why);
                let place = claimed.and_then(|claimed| {
                    self.take(|rules, guest| rules.admit_member(guest, claimed, now))
                });
                match place {
                    // The first reason holds for a peer that is no member.
                    Err(Refusal::NotMember) => why,
                    other => return other.map_err(|why| self.refuse(why)),
                }
            }
            other => return other.map_err(|why| self.refuse(why)),
        };
        Err(self.refuse(refusal))
    }

    fn take(
        &self,
        ask: impl FnOnce(&mut Rules, Ticket) -> Result<Option<Ticket>, Refusal>,
    ) -> Result<PeerPlace, Refusal> {
        let evict = {
            let mut shared = self.door.shared();
            if shared.rules.is_draining() {
                return Err(Refusal::Draining);
            }
            let evicted = ask(&mut shared.rules, self.guest)?;
            evicted.and_then(|evicted| shared.evict.remove(&evicted))
        };
        if let Some(evict) = evict {
            evict();
        }
        Ok(PeerPlace { door: self.door.clone(), guest: self.guest })
    }

    fn refuse(&self, why: Refusal) -> Refusal {
        match why {
            // It was counted when the socket was evicted.
            Refusal::SocketEvicted => why,
            why => self.door.shared().rules.note(why),
        }
    }

    /// The peer announces an identity, which it may prove later, and an address at which it listens.
    ///
    /// # Errors
    ///
    /// [`Refusal::Banned`] if one of them is banned.
    pub fn announces(
        &self,
        identity: Option<Identity>,
        address: Option<&NodeAddress>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let mut shared = self.door.shared();
        let announced = shared.rules.lets_in_announced(identity, address, now);
        announced.map_err(|why| shared.rules.note(why))
    }
}

impl PeerPlace {
    /// Where the link of the peer notes what it brings: it is evicted later for it. `None` if it was evicted.
    #[must_use]
    pub fn merit(&self) -> Option<Merit> {
        self.door.shared().rules.merit(self.guest)
    }

    /// Where misbehaviour of the peer is noted. `None` if it was evicted.
    #[must_use]
    pub fn conduct(&self) -> Option<Conduct> {
        let (host, identity) = self.door.shared().rules.whereabouts(self.guest)?;
        Some(Conduct::new(self.door.clone(), host, identity))
    }

    /// The peer is a page of a web origin: it counts among those of this origin from now on. The text is kept, and its bound is
    /// the caller's.
    ///
    /// # Errors
    ///
    /// [`Refusal::PerOrigin`] if there are as many as allowed: the place is to be given back.
    pub fn is_page_of(&self, origin: &str) -> Result<(), Refusal> {
        let mut shared = self.door.shared();
        match shared.rules.is_page_of(self.guest, origin) {
            // It was counted when the peer was evicted.
            Err(Refusal::PeerEvicted) => Err(Refusal::PeerEvicted),
            Err(why) => Err(shared.rules.note(why)),
            Ok(()) => Ok(()),
        }
    }

    /// The peer has proved an identity in an exchange, after it got its place.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if a peer of this identity is not let in: the connection is to be closed.
    pub fn prove(&self, identity: Identity, now: Instant) -> Result<(), Refusal> {
        let mut shared = self.door.shared();
        let proved = shared.rules.prove(self.guest, identity, now);
        proved.map_err(|why| shared.rules.note(why))
    }

    /// Returns `false` for a peer that has its place because it claims to be a member, and has not proved it yet.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.door.shared().rules.is_proved(self.guest)
    }
}

/// The doors of one node, which is one in most cases, and the access list that they go by.
#[derive(Debug, Default)]
pub struct Doors {
    shared: Mutex<(Arc<AccessList>, Vec<Weak<Inside>>)>,
}

impl Doors {
    /// Makes a door go by the access list, and by every later one.
    pub fn add(&self, door: &Door, now: Instant) {
        let access = {
            let mut shared = self.shared();
            let (access, doors) = &mut *shared;
            doors.retain(|known| known.strong_count() > 0);
            let inside = Arc::downgrade(&door.inside);
            if !doors.iter().any(|known| known.ptr_eq(&inside)) {
                doors.push(inside);
            }
            Arc::clone(access)
        };
        door.follow(&access, now);
    }

    /// Makes every door go by this list, unless there is a newer one.
    pub fn follow(&self, access: AccessList, now: Instant) {
        let access = Arc::new(access);
        let doors: Vec<Door> = {
            let mut shared = self.shared();
            let (known, doors) = &mut *shared;
            if access.version() <= known.version() {
                return;
            }
            *known = Arc::clone(&access);
            let inside = doors.iter().filter_map(Weak::upgrade);
            inside.map(|inside| Door { inside, over: Transport::Memory }).collect()
        };
        doors.iter().for_each(|door| door.follow(&access, now));
    }

    /// The list that they go by.
    #[must_use]
    pub fn access(&self) -> Arc<AccessList> {
        Arc::clone(&self.shared().0)
    }

    fn shared(&self) -> MutexGuard<'_, (Arc<AccessList>, Vec<Weak<Inside>>)> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut shared = self.door.shared();
        shared.rules.gone(self.guest);
        let evict = shared.evict.remove(&self.guest);
        drop(shared);
        drop(evict);
    }
}

impl Drop for PagePlace {
    fn drop(&mut self) {
        self.door.shared().rules.page_left(&self.origin);
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        self.door.shared().rules.leave(self.guest);
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.door.shared().rules.returned();
    }
}

#[cfg(test)]
mod tests;
