//! The guests that make room for others.
//!
//! # Invariants
//!
//! * A guest makes room only for a newcomer from where fewer come from: the most crowded subnet gives way first, and in it
//!   the most crowded host.
//! * Choosing changes nothing.

use std::cmp::Reverse;

use gossip::{Host, Instant, Subnet};

use super::{Place, Rules, Stage};
use crate::door::{
    counts::Tally,
    order::{Rank, Record, Standing, Ticket, rank},
};

impl Rules {
    /// The half-open guest that makes room for a new one of `host`, if one has to. Among those of all hosts, sockets of
    /// proxies without a client are given up only if nobody else is half open.
    pub(super) fn crowded_half_open(&self, host: Option<Host>) -> Option<Ticket> {
        if let Some(oldest) = host.and_then(|host| self.crowded_of_host(host)) {
            return Some(oldest);
        }
        if self.half_open.len() < self.limits.half_open_total.max(1) {
            return None;
        }
        let all =
            || self.half_open.iter().filter_map(|guest| Some((*guest, self.host_of(*guest)?)));
        let crowd = Crowd::of(all().map(|(_, host)| host));
        let of_hosts = all().min_by_key(|(guest, host)| (crowd.rank(*host), *guest));
        of_hosts.map(|(guest, _)| guest).or_else(|| self.half_open.first().copied())
    }

    /// The oldest half-open guest of a host that has as many as allowed.
    pub(super) fn crowded_of_host(&self, host: Host) -> Option<Ticket> {
        let of_host = self.half_open_hosts.of(host);
        if self.is_exempt(host) || of_host < self.limits.half_open_per_ip.max(1) {
            return None;
        }
        self.half_open.iter().copied().find(|guest| self.host_of(*guest) == Some(host))
    }

    pub(super) fn host_of(&self, guest: Ticket) -> Option<Host> {
        self.guests.get(&guest)?.host()
    }

    /// The socket without a place that makes room for a new one of `host`, if there is one: unfinished
    /// handshakes first, the oldest of them; then the newest of those that are served.
    pub(super) fn crowded_socket(&self, host: Option<Host>) -> Option<Ticket> {
        let candidates = || {
            self.guests.iter().filter_map(|(guest, known)| {
                let host = known.host().filter(|host| !self.is_exempt(*host))?;
                known.place.is_none().then_some((*guest, known.stage, host))
            })
        };
        let crowd = Crowd::of(candidates().map(|(.., host)| host));
        let is_members = host.is_some_and(|host| self.access.has_member_at(host));
        let gives_way = |theirs: Host| {
            is_members && !self.access.has_member_at(theirs) || crowd.is_denser(theirs, host)
        };
        let denser = candidates().filter(|(.., theirs)| gives_way(*theirs));
        let rank = |(guest, stage, host): &(Ticket, Stage, Host)| match stage {
            Stage::HalfOpen | Stage::Drained => (crowd.rank(*host), Stage::HalfOpen, guest.0),
            Stage::Headed => (crowd.rank(*host), Stage::Headed, u64::MAX - guest.0),
        };
        denser.min_by_key(rank).map(|(guest, ..)| guest)
    }

    /// The peer that makes room for a newcomer, if there is one: of the most crowded host of the most
    /// crowded subnet the first in the order of eviction.
    pub(super) fn crowded_place(
        &self,
        host: Host,
        standing: Standing,
        now: Instant,
    ) -> Option<Ticket> {
        let candidates = || {
            self.guests.iter().filter_map(|(guest, known)| {
                let place = known.place.as_ref();
                let place = place.filter(|place| place.standing < Standing::Configured)?;
                let host = known.host().filter(|host| !self.is_exempt(*host))?;
                Some((host, place.rank(*guest, now), *guest))
            })
        };
        let crowd = Crowd::of(candidates().map(|(host, ..)| host));
        let gives_way =
            |theirs: Host| standing >= Standing::Configured || crowd.is_denser(theirs, Some(host));
        let chosen = candidates().filter(|(host, ..)| gives_way(*host));
        let chosen = chosen.min_by_key(|(host, rank, _)| (crowd.rank(*host), *rank));
        chosen.map(|(.., guest)| guest)
    }
}

impl Place {
    fn rank(&self, ticket: Ticket, now: Instant) -> Rank {
        let held = now.saturating_duration_since(self.since);
        let (weight, idle) = (self.merit.weight(), self.merit.idle(now));
        rank(Record { standing: self.standing, weight, held, idle, ticket })
    }
}

/// Numbers of some guests by where they come from.
struct Crowd {
    hosts: Tally<Host>,
    subnets: Tally<Subnet>,
}

impl Crowd {
    fn of(hosts: impl Iterator<Item = Host> + Clone) -> Self {
        Self { subnets: hosts.clone().map(Host::subnet).collect(), hosts: hosts.collect() }
    }

    /// The most crowded subnet ranks first, and in it the most crowded host.
    fn rank(&self, host: Host) -> (Reverse<usize>, Subnet, Reverse<usize>, Host) {
        let subnet = host.subnet();
        (Reverse(self.subnets.of(subnet)), subnet, Reverse(self.hosts.of(host)), host)
    }

    /// True if `theirs` is more crowded than `ours` even after one of theirs gave way to one of ours. A newcomer without
    /// a host, behind a proxy, is taken for the first of its subnet.
    fn is_denser(&self, theirs: Host, ours: Option<Host>) -> bool {
        match ours {
            Some(ours) if theirs.subnet() == ours.subnet() => {
                self.hosts.of(theirs) >= self.hosts.of(ours) + 2
            }
            _ => {
                let of_ours = ours.map_or(0, |ours| self.subnets.of(ours.subnet()));
                self.subnets.of(theirs.subnet()) >= of_ours + 2
            }
        }
    }
}
