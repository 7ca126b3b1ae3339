//! The places of a relay: reservations and circuits, each with its bounds. Pure bookkeeping; the relay's tasks move bytes.
//!
//! # Invariants
//!
//! * A peer has one reservation, on one connection, and it ends with that connection.
//! * No count exceeds its bound in [`RelayLimits`]. A renewal takes no further place, so a full relay keeps whom it has.
//! * A place is given back when what held it is dropped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gossip::{Host, Subnet};
use libp2p::{PeerId, swarm::ConnectionId};
use tokio::time::Instant;

use crate::{
    address::ip_of,
    levels::{Counted, Levels, P2pLevel},
    streams::About,
};

/// Bounds on the work that a relay does for others. [`RelayLimits::default`] sets those of go-libp2p, where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayLimits {
    /// Reservations at one time. Default: 128. Source: go-libp2p, `relay.DefaultResources`, `MaxReservations`.
    pub reservations: usize,
    /// Reservations of one /24 of IPv4 or /48 of IPv6 at one time; this machine is left out. Default: 8. Source: there,
    /// `MaxReservationsPerIP`, which we count by subnet.
    pub reservations_per_subnet: usize,
    /// Time for which a reservation holds unless it is renewed. Default: one hour. Source: there, `ReservationTTL`.
    pub reservation_time: Duration,
    /// Circuits at one time. Default: 128. Chosen: each reservation has one on average; with two buffers of 8 KiB each
    /// they hold 2 MiB.
    pub circuits: usize,
    /// Circuits from or to one peer at one time. Default: 16. Source: there, `MaxCircuits`.
    pub circuits_per_peer: usize,
    /// Circuits that peers of one subnet began, at one time; this machine is left out. Default: 32. Chosen: identities
    /// cost nothing, and two hosts of a subnet may use all that one peer may.
    pub circuits_per_subnet: usize,
    /// Bytes that a circuit carries in each direction. Default: 128 KiB. Source: there, `DefaultLimit`.
    pub circuit_bytes: u64,
    /// Time for which a circuit lasts; seconds count. Default: two minutes. Source: there, `DefaultLimit`.
    pub circuit_time: Duration,
}

impl RelayLimits {
    /// The names of the limits in the configuration.
    pub const NAMES: [&'static str; 8] = [
        "places",
        "places-per-subnet",
        "place-seconds",
        "circuits",
        "circuits-per-peer",
        "circuits-per-subnet",
        "circuit-bytes",
        "circuit-seconds",
    ];

    /// Sets the limit with this name in the configuration; `None` if there is no such name. A place lasts for ten seconds
    /// at least, so that clients can renew it.
    #[must_use]
    pub fn with_named(mut self, name: &str, value: u32) -> Option<Self> {
        let (count, time) = (value as usize, Duration::from_secs(u64::from(value)));
        match name {
            "places" => self.reservations = count,
            "places-per-subnet" => self.reservations_per_subnet = count,
            "place-seconds" => self.reservation_time = time.max(Duration::from_secs(10)),
            "circuits" => self.circuits = count,
            "circuits-per-peer" => self.circuits_per_peer = count,
            "circuits-per-subnet" => self.circuits_per_subnet = count,
            "circuit-bytes" => self.circuit_bytes = u64::from(value),
            "circuit-seconds" => self.circuit_time = time,
            _ => return None,
        }
        Some(self)
    }
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            reservations: 128,
            reservations_per_subnet: 8,
            reservation_time: Duration::from_secs(3_600),
            circuits: 128,
            circuits_per_peer: 16,
            circuits_per_subnet: 32,
            circuit_bytes: 128 * 1024,
            circuit_time: Duration::from_secs(120),
        }
    }
}

/// The reason why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Too many have one.
    Full,
    /// The peer to reach has no reservation.
    NoReservation,
}

/// The places of one relay.
#[derive(Debug)]
pub(crate) struct Places {
    limits: RelayLimits,
    levels: Levels,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    reservations: HashMap<PeerId, Reserved>,
    circuits: HashMap<u64, Ends>,
    next: u64,
}

#[derive(Debug)]
struct Reserved {
    /// Keeps the connection, which would be closed for being idle.
    about: About,
    subnet: Option<Subnet>,
    until: Instant,
    _counted: Counted,
}

#[derive(Debug)]
struct Ends {
    from: PeerId,
    subnet: Option<Subnet>,
    to: PeerId,
}

/// The place of a circuit. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct CircuitPlace {
    places: Arc<Places>,
    number: u64,
    /// The connection with the reservation of the peer that the circuit leads to.
    pub(super) connection: ConnectionId,
    _counted: Counted,
}

impl Drop for CircuitPlace {
    fn drop(&mut self) {
        self.places.taken().circuits.remove(&self.number);
    }
}

/// The subnet of a connection; `None` is this machine.
fn subnet(about: &About) -> Option<Subnet> {
    let host = Host::of(ip_of(&about.address));
    (!host.is_loopback()).then(|| host.subnet())
}

impl Places {
    pub(crate) fn new(limits: RelayLimits, levels: Levels) -> Self {
        Self { limits, levels, taken: Mutex::default() }
    }

    pub(super) const fn limits(&self) -> &RelayLimits {
        &self.limits
    }

    /// Takes or renews the reservation of the peer of a connection.
    pub(super) fn reserve(&self, about: About, now: Instant) -> Result<(), NoPlace> {
        let mut taken = self.taken();
        taken.reservations.retain(|_, held| held.until > now);
        let (peer, subnet) = (about.peer, subnet(&about));
        let others = || taken.reservations.iter().filter(|(known, _)| **known != peer);
        let of_subnet = others().filter(|(_, held)| held.subnet == subnet).count();
        let is_crowded = subnet.is_some() && of_subnet >= self.limits.reservations_per_subnet;
        if others().count() >= self.limits.reservations || is_crowded {
            return Err(NoPlace::Full);
        }
        let until = now + self.limits.reservation_time;
        let _counted = self.levels.count(P2pLevel::ReservationsGiven);
        taken.reservations.insert(peer, Reserved { about, subnet, until, _counted });
        Ok(())
    }

    /// Takes the place of a circuit from the peer of a connection to another peer.
    pub(super) fn connect(
        self: &Arc<Self>,
        from: &About,
        to: PeerId,
        now: Instant,
    ) -> Result<CircuitPlace, NoPlace> {
        let mut taken = self.taken();
        let held = taken.reservations.get(&to).filter(|held| held.until > now);
        let connection = held.ok_or(NoPlace::NoReservation)?.about.connection;
        let subnet = subnet(from);
        let of = |peer: PeerId| {
            taken.circuits.values().filter(|ends| ends.from == peer || ends.to == peer).count()
        };
        let of_subnet = taken.circuits.values().filter(|ends| ends.subnet == subnet).count();
        let is_crowded = subnet.is_some() && of_subnet >= self.limits.circuits_per_subnet;
        let most = self.limits.circuits_per_peer;
        if taken.circuits.len() >= self.limits.circuits
            || of(from.peer) >= most
            || of(to) >= most
            || is_crowded
        {
            return Err(NoPlace::Full);
        }
        let number = taken.next;
        taken.next += 1;
        taken.circuits.insert(number, Ends { from: from.peer, subnet, to });
        let _counted = self.levels.count(P2pLevel::CircuitsCarried);
        Ok(CircuitPlace { places: Arc::clone(self), number, connection, _counted })
    }

    /// Ends the reservations that were not renewed in time, which lets go of their connections.
    pub(super) fn expire(&self, now: Instant) {
        self.taken().reservations.retain(|_, held| held.until > now);
    }

    /// Ends the reservation that was made on a connection that is gone.
    pub(crate) fn closed(&self, connection: ConnectionId) {
        self.taken().reservations.retain(|_, held| held.about.connection != connection);
    }

    /// The numbers of reservations and of circuits.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let taken = self.taken();
        (taken.reservations.len(), taken.circuits.len())
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use gossip::Direction;

    use super::*;
    use crate::streams::Usage;

    fn about(connection: usize, address: &str) -> About {
        About {
            peer: PeerId::random(),
            connection: ConnectionId::new_unchecked(connection),
            direction: Direction::Inbound,
            address: address.parse().unwrap(),
            usage: Usage::default(),
        }
    }

    fn places(change: impl FnOnce(&mut RelayLimits)) -> Arc<Places> {
        let mut limits = RelayLimits::default();
        change(&mut limits);
        Arc::new(Places::new(limits, Levels::default()))
    }

    #[test]
    fn every_limit_has_a_name() {
        let named = RelayLimits::NAMES.iter().map(|name| {
            let changed = RelayLimits::default().with_named(name, 77).unwrap();
            assert_ne!(changed, RelayLimits::default(), "{name}");
            format!("{changed:?}")
        });
        let all: std::collections::BTreeSet<_> = named.collect();
        assert_eq!(all.len(), RelayLimits::NAMES.len(), "each sets another one");
        assert_eq!(RelayLimits::default().with_named("bytes", 1), None);
    }

    #[tokio::test]
    async fn reservations_are_bounded_in_all_and_by_subnet_and_renewals_are_free() {
        let places = places(|limits| {
            (limits.reservations, limits.reservations_per_subnet) = (3, 2);
        });
        let now = Instant::now();
        let first = about(1, "/ip4/192.0.2.1/tcp/1");
        assert_eq!(places.reserve(first.clone(), now), Ok(()));
        assert_eq!(places.reserve(about(2, "/ip4/192.0.2.9/tcp/1"), now), Ok(()));
        let crowded = places.reserve(about(3, "/ip4/192.0.2.3/tcp/1"), now);
        assert_eq!(crowded, Err(NoPlace::Full), "of one subnet");
        assert_eq!(places.reserve(about(4, "/ip4/127.0.0.1/tcp/1"), now), Ok(()));
        let full = places.reserve(about(5, "/ip4/127.0.0.1/tcp/1"), now);
        assert_eq!(full, Err(NoPlace::Full), "in all");
        assert_eq!(places.reserve(first, now), Ok(()), "a renewal");
        places.closed(ConnectionId::new_unchecked(1));
        assert_eq!(places.reserve(about(6, "/ip4/192.0.2.3/tcp/1"), now), Ok(()));
        let later = now + RelayLimits::default().reservation_time;
        assert_eq!(places.reserve(about(7, "/ip4/192.0.2.7/tcp/1"), later), Ok(()), "expired");
        assert_eq!(places.counts(), (1, 0));
        assert_eq!(places.levels.of(P2pLevel::ReservationsGiven), 1);
        places.expire(later + RelayLimits::default().reservation_time);
        assert_eq!((places.counts(), places.levels.of(P2pLevel::ReservationsGiven)), ((0, 0), 0));
    }

    #[tokio::test]
    async fn circuits_need_a_reservation_and_are_bounded_by_peer_by_subnet_and_in_all() {
        let places = places(|limits| {
            (limits.circuits, limits.circuits_per_peer, limits.circuits_per_subnet) = (4, 2, 2);
        });
        let now = Instant::now();
        let targets = [1, 2, 3].map(|number| about(number, "/ip4/127.0.0.1/tcp/1"));
        let from = about(9, "/ip4/192.0.2.1/tcp/1");
        let refused = places.connect(&from, targets[0].peer, now).unwrap_err();
        assert_eq!(refused, NoPlace::NoReservation);
        for target in &targets {
            places.reserve(target.clone(), now).unwrap();
        }
        let [one, two, three] = targets.map(|target| target.peer);
        let first = places.connect(&from, one, now).unwrap();
        assert_eq!(first.connection, ConnectionId::new_unchecked(1));
        let _second = places.connect(&from, one, now).unwrap();
        let other = about(10, "/ip4/192.0.2.200/tcp/1");
        assert_eq!(places.connect(&from, two, now).unwrap_err(), NoPlace::Full, "of the peer");
        assert_eq!(places.connect(&other, one, now).unwrap_err(), NoPlace::Full, "to the peer");
        assert_eq!(places.connect(&other, two, now).unwrap_err(), NoPlace::Full, "of the subnet");
        let here = about(11, "/ip4/127.0.0.1/tcp/1");
        let _third = places.connect(&here, two, now).unwrap();
        let _fourth = places.connect(&here, three, now).unwrap();
        let far = about(12, "/ip4/198.51.100.1/tcp/1");
        assert_eq!(places.connect(&far, three, now).unwrap_err(), NoPlace::Full, "in all");
        drop(first);
        assert_eq!(places.levels.of(P2pLevel::CircuitsCarried), 3);
        assert!(places.connect(&far, three, now).is_ok());
        assert_eq!(places.counts(), (3, 3));
    }
}
