//! Penalties: the price of misbehaviour for the host it came from, and for the identity where one was proved.
//!
//! ```text
//!   link cut as flood ──strike──▶ ┌───────────┐ ──strikes──▶ pace of the next links from there
//!                                 │ Penalties │ ──rate─────▶ connections of the host that are let in
//!                                 └───────────┘ ──is_barred─▶ places for that identity
//! ```
//!
//! A host may be a gateway with many peers behind it, so it is slowed down and never shut out. An identity that was
//! proved has nobody behind it.
//!
//! # Invariants
//!
//! * Every penalty ends, after [`LONGEST`] at the latest, and is forgotten when the same time has passed once more without
//!   another strike.
//! * A penalised host may connect [`FEWEST`] times in each window, or as often as others if that is less.
//! * An identity is let in again after its first strike: a malformed message may be somebody else's.
//! * At most [`MAX_PENALISED`] hosts and as many identities are remembered; the one whose penalty ends first goes.

use std::{collections::HashMap, hash::Hash, time::Duration};

use gossip::{Host, Identity, Instant};

use super::limits::RateWindow;

/// Longest penalty. Chosen: long enough that bursts in between are of no account, and short enough for a peer that was
/// mended.
const LONGEST: Duration = Duration::from_secs(600);

/// Connections in a window that a penalised host is left. Chosen: one for each place that a host has.
const FEWEST: u32 = 8;

/// Hosts, and identities, that are remembered. Chosen: more than a node has peers, and some 600 KiB for both.
const MAX_PENALISED: usize = 4_096;

/// Strikes beyond which nothing grows any more. Chosen: the penalty of the default, doubled so often, is over [`LONGEST`].
const MOST: u32 = 16;

/// The strikes of one host or identity.
#[derive(Clone, Copy, Debug)]
struct Record {
    strikes: u32,
    until: Instant,
    /// The record is of no effect from then on.
    forgotten: Instant,
}

/// The strikes of hosts, or of identities.
#[derive(Debug)]
struct Strikes<K>(HashMap<K, Record>);

impl<K: Copy + Eq + Hash> Strikes<K> {
    fn add(&mut self, key: K, first: Duration, now: Instant) {
        let strikes = self.of(key, now).saturating_add(1).min(MOST);
        if !self.0.contains_key(&key) && self.0.len() >= MAX_PENALISED {
            self.0.retain(|_, record| record.forgotten > now);
            let soonest = self.0.iter().min_by_key(|(_, record)| record.until);
            if let Some(soonest) = soonest.map(|(key, _)| *key)
                && self.0.len() >= MAX_PENALISED
            {
                self.0.remove(&soonest);
            }
        }
        let lasts = first.saturating_mul(1 << (strikes - 1)).min(LONGEST);
        let (until, forgotten) = (now + lasts, now + 2 * lasts);
        self.0.insert(key, Record { strikes, until, forgotten });
    }

    /// Strikes that are not forgotten.
    fn of(&self, key: K, now: Instant) -> u32 {
        let known = self.0.get(&key).filter(|record| record.forgotten > now);
        known.map_or(0, |record| record.strikes)
    }

    fn is_penalised(&self, key: K, now: Instant) -> bool {
        self.0.get(&key).is_some_and(|record| record.until > now)
    }
}

/// All penalties of a node.
#[derive(Debug)]
pub(super) struct Penalties {
    /// Length of the first penalty; each further one is twice as long. Zero switches penalties off.
    first: Duration,
    hosts: Strikes<Host>,
    identities: Strikes<Identity>,
    strikes: u64,
}

impl Penalties {
    pub(super) fn new(first: Duration) -> Self {
        let (hosts, identities) = (Strikes(HashMap::new()), Strikes(HashMap::new()));
        Self { first, hosts, identities, strikes: 0 }
    }

    /// Notes that a peer of this host, with this identity if it proved one, was disconnected for misbehaviour.
    pub(super) fn strike(&mut self, host: Host, identity: Option<Identity>, now: Instant) {
        if self.first.is_zero() {
            return;
        }
        self.strikes = self.strikes.saturating_add(1);
        self.hosts.add(host, self.first, now);
        if let Some(identity) = identity {
            self.identities.add(identity, self.first, now);
        }
    }

    /// Strikes of late of a host or of an identity there, whichever has more.
    pub(super) fn strikes(&self, host: Host, identity: Option<Identity>, now: Instant) -> u32 {
        let of_identity = identity.map_or(0, |identity| self.identities.of(identity, now));
        self.hosts.of(host, now).max(of_identity)
    }

    /// The rate at which a host may connect now, of a rate that every host has: a quarter of it for each strike.
    pub(super) fn rate(&self, host: Host, rate: RateWindow, now: Instant) -> RateWindow {
        if !self.hosts.is_penalised(host, now) {
            return rate;
        }
        let quarters = 2 * self.hosts.of(host, now);
        let count = rate.count.checked_shr(quarters).unwrap_or(0);
        RateWindow { count: count.max(FEWEST).min(rate.count), ..rate }
    }

    /// Returns `true` if a peer of this identity must not be let in now.
    pub(super) fn is_barred(&self, identity: Identity, now: Instant) -> bool {
        self.identities.of(identity, now) > 1 && self.identities.is_penalised(identity, now)
    }

    /// Strikes since the start, of everybody together.
    pub(super) const fn noted(&self) -> u64 {
        self.strikes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RATE: RateWindow = RateWindow { count: 60, window: SECOND };

    fn host(number: u32) -> Host {
        Host::of(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into())
    }

    fn identity(number: u8) -> Identity {
        Identity::from_ed25519([number; 32])
    }

    // Issue 8, 24.
    #[test]
    fn a_penalty_doubles_with_each_strike_and_is_forgotten_after_a_calm_of_its_length() {
        let (mut penalties, start) = (Penalties::new(10 * SECOND), Instant::now());
        let mut now = start;
        for (strike, lasts) in [(1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 320), (7, 600)] {
            penalties.strike(host(1), None, now);
            assert_eq!(penalties.strikes(host(1), None, now), strike);
            let before = now + (lasts - 1) * SECOND;
            assert!(penalties.rate(host(1), RATE, before).count < RATE.count, "strike {strike}");
            assert_eq!(penalties.rate(host(1), RATE, now + lasts * SECOND), RATE);
            assert_eq!(penalties.strikes(host(1), None, now + 2 * lasts * SECOND), 0);
            now = before;
        }
        assert_eq!(penalties.strikes(host(2), None, now), 0);
        assert_eq!(penalties.noted(), 7);
    }

    // Issue 8, 24: a penalty is not a ban.
    #[test]
    fn a_host_is_never_shut_out() {
        let (mut penalties, now) = (Penalties::new(10 * SECOND), Instant::now());
        let mut seen = Vec::new();
        for _ in 0..100 {
            penalties.strike(host(1), None, now);
            seen.push(penalties.rate(host(1), RATE, now).count);
        }
        assert_eq!(&seen[..3], [15, 8, 8]);
        assert_eq!(seen[99], 8);
        let small = RateWindow { count: 3, ..RATE };
        assert_eq!(penalties.rate(host(1), small, now), small);
    }

    // Issue 8, 24.
    #[test]
    fn an_identity_pays_alone_and_its_first_strike_does_not_bar_it() {
        let (mut penalties, now) = (Penalties::new(10 * SECOND), Instant::now());
        penalties.strike(host(1), Some(identity(1)), now);
        assert!(!penalties.is_barred(identity(1), now));
        penalties.strike(host(2), Some(identity(1)), now + SECOND);
        let until = now + 21 * SECOND;
        assert!(penalties.is_barred(identity(1), until - SECOND));
        assert!(!penalties.is_barred(identity(1), until));
        assert!(!penalties.is_barred(identity(2), now + SECOND));
        assert_eq!(penalties.strikes(host(3), Some(identity(1)), now + SECOND), 2);
        assert_eq!(penalties.strikes(host(2), None, now + SECOND), 1);
    }

    #[test]
    fn strikes_of_ever_new_hosts_take_bounded_memory_and_forget_no_worse_offender() {
        let (mut penalties, now) = (Penalties::new(10 * SECOND), Instant::now());
        for _ in 0..5 {
            penalties.strike(host(0), None, now);
        }
        for number in 1..10_000 {
            penalties.strike(host(number), None, now);
        }
        assert_eq!(penalties.hosts.0.len(), MAX_PENALISED);
        assert_eq!(penalties.strikes(host(0), None, now), 5);
    }

    #[test]
    fn no_length_switches_penalties_off() {
        let (mut penalties, now) = (Penalties::new(Duration::ZERO), Instant::now());
        penalties.strike(host(1), Some(identity(1)), now);
        assert_eq!((penalties.strikes(host(1), Some(identity(1)), now), penalties.noted()), (0, 0));
    }
}
