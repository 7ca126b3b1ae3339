//! Whom to let in: how many connections there are, from where, and how fast they come.
//!
//! ```text
//!   TCP accept ──accept──▶ Serve ──▶ read the request head ──headed──▶ request ──▶ admit ──▶ Slot
//!                          CloseAfterDrain (429)                       429         503
//!                          CloseNow
//!   gone: closed(ip, stage) for every socket that was not closed now, release(slot) for every peer
//! ```
//!
//! # Invariants
//!
//! * Sockets open ≤ `total` + [`SOCKET_RESERVE`]; of these at most `half_open_total` have not sent a
//!   request head, and at most `half_open_per_ip` of one host.
//! * Peers admitted ≤ `total`, and ≤ `per_ip` of one host.
//! * Rates are remembered of at most [`MAX_RATED_HOSTS`] hosts per table; counts exist only for hosts
//!   that have something open.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Sockets allowed beyond the number of peers, for services and for refusing politely.
///
/// Source: wire facts 1.6, row 1.
pub const SOCKET_RESERVE: usize = 10;

/// Hosts whose rate one table remembers, at most. The hosts heard of longest ago are forgotten first.
///
/// Chosen: about 5 MB when full.
pub const MAX_RATED_HOSTS: usize = 65_536;

/// Whether connections from this machine count against the rates.
///
/// They always count against the other limits. Source: wire facts 1.6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoopbackRule {
    /// They do not. The default.
    #[default]
    Exempt,
    /// They do, like any other.
    Counted,
}

/// So many events of one host in so long a time.
///
/// A host's window starts with its first event; the first one after its end starts the next.
/// A zero in either field switches the rate off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateWindow {
    /// Events allowed in one window. Default: 60. Source: wire facts 1.6, rows 2 and 5.
    pub count: u32,
    /// Length of the window. Default: 1 s. Source: wire facts 1.6, row 2.
    pub window: Duration,
}

impl Default for RateWindow {
    fn default() -> Self {
        Self { count: 60, window: Duration::from_secs(1) }
    }
}

/// Limits on inbound connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundLimits {
    /// Inbound peers at one time. Default: 2,400. Source: wire facts 1.6, row 7.
    pub total: usize,
    /// Inbound peers of one host. Default: 8. Source: wire facts 1.6, row 8.
    pub per_ip: usize,
    /// Sockets that have not sent a request head yet. Default: 128. Chosen: at 10 s for a head, a
    /// flood of silent sockets takes memory for 128 and no more.
    pub half_open_total: usize,
    /// The same, of one host. Default: 32. Chosen: one host cannot take all of `half_open_total`.
    /// Loopback is exempt as from the rates.
    pub half_open_per_ip: usize,
    /// Connections of one host, and, counted apart, its HTTP requests.
    pub rate: RateWindow,
    /// Whether loopback is exempt from `rate`.
    pub exempt_loopback_from_rate: LoopbackRule,
}

impl Default for InboundLimits {
    fn default() -> Self {
        Self {
            total: 2_400,
            per_ip: 8,
            half_open_total: 128,
            half_open_per_ip: 32,
            rate: RateWindow::default(),
            exempt_loopback_from_rate: LoopbackRule::default(),
        }
    }
}

/// What counts as one host: an IPv4 address, or the /64 of an IPv6 address.
///
/// Chosen: a /64 is what one customer gets, so its addresses cost nothing. An IPv4 address written
/// as IPv6 is the IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(IpAddr);

impl Host {
    /// The host an address belongs to.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)))
            }
            other => other,
        })
    }

    /// Whether it is this machine.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }
}

/// What to do with a socket that was just accepted.
#[must_use = "a socket that is neither served nor closed is leaked"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Serve it. It counts as half open until [`InboundGate::headed`].
    Serve,
    /// Read and discard for a moment, answer 429, close. Wire facts 1.6, row 2.
    CloseAfterDrain,
    /// Close it without a byte; nothing is to be given back. Wire facts 1.6, rows 1 and 2b.
    CloseNow,
}

/// How far a socket had come when it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// [`Accept::Serve`], and no request head was read.
    HalfOpen,
    /// [`Accept::Serve`], and [`InboundGate::headed`] was called.
    Headed,
    /// [`Accept::CloseAfterDrain`].
    Drained,
}

/// Too many requests of one host: 429. Wire facts 1.6, row 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests, retry after {retry_after:?}")]
pub struct TooMany {
    /// What to announce in `Retry-After`: the length of the window.
    pub retry_after: Duration,
}

/// Why a peer is not admitted: 503. Wire facts 1.6, rows 7 and 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// There are as many inbound peers as allowed.
    #[error("all places for inbound peers are taken")]
    Total,
    /// There are as many of this host as allowed.
    #[error("the places for peers of one host are taken")]
    PerIp,
}

impl Refusal {
    /// Label used in metrics and in output for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::PerIp => "per_ip",
        }
    }
}

/// The place of one admitted peer. Given back with [`InboundGate::release`]; dropping it leaks the
/// place.
#[must_use = "a slot that is not released is lost"]
#[derive(Debug, PartialEq, Eq)]
pub struct Slot {
    host: Host,
}

/// Decides about inbound connections. One per listener, or shared where the budget is.
#[derive(Debug)]
pub struct InboundGate {
    limits: InboundLimits,
    accepts: RateTable,
    requests: RateTable,
    sockets: usize,
    half_open: Tally,
    peers: Tally,
}

impl InboundGate {
    /// An empty gate.
    #[must_use]
    pub fn new(limits: InboundLimits) -> Self {
        Self {
            limits,
            accepts: RateTable::new(MAX_RATED_HOSTS),
            requests: RateTable::new(MAX_RATED_HOSTS),
            sockets: 0,
            half_open: Tally::default(),
            peers: Tally::default(),
        }
    }

    /// Rules on a socket just accepted. Every attempt counts, also a refused one.
    ///
    /// Unless the answer is [`Accept::CloseNow`], [`InboundGate::closed`] must follow.
    pub fn accept(&mut self, ip: IpAddr, now: Instant) -> Accept {
        let host = Host::of(ip);
        if self.sockets >= self.limits.total.saturating_add(SOCKET_RESERVE) {
            return Accept::CloseNow; // before the rate, as existing nodes do
        }
        let rate = self.limits.rate;
        let seen = if self.is_rated(host) { self.accepts.count(host, now, rate.window) } else { 0 };
        if seen > rate.count.saturating_mul(2) {
            return Accept::CloseNow;
        }
        if seen > rate.count {
            self.sockets += 1;
            return Accept::CloseAfterDrain;
        }
        let crowded = self.half_open.total >= self.limits.half_open_total
            || !self.is_exempt(host) && self.half_open.of(host) >= self.limits.half_open_per_ip;
        if crowded {
            return Accept::CloseNow;
        }
        self.sockets += 1;
        self.half_open.add(host);
        Accept::Serve
    }

    /// The request head of a served socket has been read. Once per socket.
    pub fn headed(&mut self, ip: IpAddr) {
        self.half_open.remove(Host::of(ip));
    }

    /// A socket that was not closed at once is gone.
    pub fn closed(&mut self, ip: IpAddr, stage: Stage) {
        self.sockets = self.sockets.saturating_sub(1);
        if stage == Stage::HalfOpen {
            self.half_open.remove(Host::of(ip));
        }
    }

    /// Rules on one HTTP request, whatever its path. `ip` is the one a trusted proxy names, if any.
    ///
    /// # Errors
    ///
    /// [`TooMany`] for every request of the host beyond the rate, until its window has passed.
    pub fn request(&mut self, ip: IpAddr, now: Instant) -> Result<(), TooMany> {
        let host = Host::of(ip);
        let rate = self.limits.rate;
        if !self.is_rated(host) || self.requests.count(host, now, rate.window) <= rate.count {
            return Ok(());
        }
        Err(TooMany { retry_after: rate.window })
    }

    /// Takes a place for a peer.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is none.
    pub fn admit(&mut self, ip: IpAddr) -> Result<Slot, Refusal> {
        let host = Host::of(ip);
        if self.peers.total >= self.limits.total {
            return Err(Refusal::Total);
        }
        if self.peers.of(host) >= self.limits.per_ip {
            return Err(Refusal::PerIp);
        }
        self.peers.add(host);
        Ok(Slot { host })
    }

    /// Gives a peer's place back.
    pub fn release(&mut self, slot: Slot) {
        let Slot { host } = slot;
        self.peers.remove(host);
    }

    /// Inbound peers now.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.total
    }

    /// Sockets now, those of peers included.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.sockets
    }

    /// Sockets now that have not sent a request head.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.half_open.total
    }

    fn is_exempt(&self, host: Host) -> bool {
        host.is_loopback() && self.limits.exempt_loopback_from_rate == LoopbackRule::Exempt
    }

    fn is_rated(&self, host: Host) -> bool {
        let rate = self.limits.rate;
        rate.count > 0 && !rate.window.is_zero() && !self.is_exempt(host)
    }
}

/// How many there are, in all and of each host. Hosts with none take no memory.
#[derive(Debug, Default)]
struct Tally {
    total: usize,
    hosts: HashMap<Host, usize>,
}

impl Tally {
    fn of(&self, host: Host) -> usize {
        self.hosts.get(&host).copied().unwrap_or(0)
    }

    fn add(&mut self, host: Host) {
        self.total += 1;
        *self.hosts.entry(host).or_default() += 1;
    }

    fn remove(&mut self, host: Host) {
        let Some(count) = self.hosts.get_mut(&host) else { return };
        self.total -= 1;
        *count -= 1;
        if *count == 0 {
            self.hosts.remove(&host);
        }
    }
}

/// The events of one host in its present window.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    count: u32,
}

/// Windows by host, in two generations: hosts heard of since the last turn, and those before.
///
/// A turn drops the older generation. It comes after a window's length, when everything in the older
/// generation has passed, or when the newer one is full. So every call is constant time on average.
#[derive(Debug)]
struct RateTable {
    recent: HashMap<Host, Window>,
    older: HashMap<Host, Window>,
    turned: Option<Instant>,
    per_generation: usize,
}

impl RateTable {
    fn new(max_hosts: usize) -> Self {
        let (recent, older) = (HashMap::new(), HashMap::new());
        Self { recent, older, turned: None, per_generation: (max_hosts / 2).max(1) }
    }

    /// Counts one event of `host`, and says how many its window has.
    fn count(&mut self, host: Host, now: Instant, length: Duration) -> u32 {
        let is_over = |began: Instant| now.saturating_duration_since(began) >= length;
        if self.turned.is_none_or(is_over) || self.recent.len() >= self.per_generation {
            self.older = std::mem::take(&mut self.recent);
            self.turned = Some(now);
        }
        let known = self.recent.get(&host).copied().or_else(|| self.older.remove(&host));
        let mut window = known
            .filter(|window| !is_over(window.began))
            .unwrap_or(Window { began: now, count: 0 });
        window.count = window.count.saturating_add(1);
        self.recent.insert(host, window);
        window.count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn gate(limits: InboundLimits) -> InboundGate {
        InboundGate::new(limits)
    }

    /// Accepts a socket and, if it is served, reads its head.
    fn arrive(gate: &mut InboundGate, from: IpAddr, now: Instant) -> Accept {
        let accept = gate.accept(from, now);
        if accept == Accept::Serve {
            gate.headed(from);
        }
        accept
    }

    #[test]
    fn from_the_61st_on_connections_of_a_second_are_drained_and_from_the_121st_on_closed() {
        let (mut gate, now) = (gate(InboundLimits::default()), Instant::now());
        for number in 1..=200 {
            let expected = match number {
                ..=60 => Accept::Serve,
                61..=120 => Accept::CloseAfterDrain,
                _ => Accept::CloseNow,
            };
            assert_eq!(arrive(&mut gate, ip("192.0.2.1"), now), expected, "number {number}");
        }
        assert_eq!(arrive(&mut gate, ip("192.0.2.2"), now), Accept::Serve, "another host");
        let before = now + SECOND - Duration::from_millis(1);
        assert_eq!(arrive(&mut gate, ip("192.0.2.1"), before), Accept::CloseNow);
        assert_eq!(arrive(&mut gate, ip("192.0.2.1"), now + SECOND), Accept::Serve);
        assert_eq!(gate.sockets(), 122);
    }

    #[test]
    fn requests_beyond_the_rate_are_told_to_come_back_after_the_window() {
        let (mut gate, now) = (gate(InboundLimits::default()), Instant::now());
        let from = ip("192.0.2.1");
        for _ in 0..60 {
            assert_eq!(gate.request(from, now), Ok(()));
        }
        assert_eq!(gate.request(from, now), Err(TooMany { retry_after: SECOND }));
        assert_eq!(gate.request(from, now + SECOND), Ok(()));
        assert_eq!(gate.accept(from, now), Accept::Serve, "connections are counted apart");
    }

    #[test]
    fn loopback_is_exempt_from_the_rates_and_from_nothing_else() {
        let limits = InboundLimits { half_open_total: 500, ..InboundLimits::default() };
        let (mut exempt, now) = (gate(limits), Instant::now());
        for host in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            for _ in 0..150 {
                assert_eq!(exempt.accept(ip(host), now), Accept::Serve, "{host}");
                assert_eq!(exempt.request(ip(host), now), Ok(()), "{host}");
            }
        }
        let slots: Vec<Slot> = (0..8).map(|_| exempt.admit(ip("127.0.0.1")).unwrap()).collect();
        assert_eq!(exempt.admit(ip("127.0.0.1")), Err(Refusal::PerIp));
        slots.into_iter().for_each(|slot| exempt.release(slot));

        let counted = LoopbackRule::Counted;
        let mut counted = gate(InboundLimits { exempt_loopback_from_rate: counted, ..limits });
        for _ in 0..60 {
            assert_eq!(arrive(&mut counted, ip("::1"), now), Accept::Serve);
        }
        assert_eq!(arrive(&mut counted, ip("::1"), now), Accept::CloseAfterDrain);
    }

    #[test]
    fn a_rate_with_a_zero_is_off() {
        let rate = RateWindow::default();
        for rate in [RateWindow { count: 0, ..rate }, RateWindow { window: Duration::ZERO, ..rate }]
        {
            let mut gate = gate(InboundLimits { rate, ..InboundLimits::default() });
            for _ in 0..500 {
                assert_eq!(arrive(&mut gate, ip("192.0.2.1"), Instant::now()), Accept::Serve);
                assert_eq!(gate.request(ip("192.0.2.1"), Instant::now()), Ok(()));
            }
        }
    }

    #[test]
    fn sockets_end_ten_above_the_number_of_peers_whatever_became_of_them() {
        let limits = InboundLimits { total: 2, ..InboundLimits::default() };
        let (mut gate, now) = (gate(limits), Instant::now());
        for number in 0..12 {
            let from = ip(&format!("192.0.2.{number}"));
            assert_eq!(arrive(&mut gate, from, now), Accept::Serve);
        }
        assert_eq!(gate.accept(ip("198.51.100.1"), now), Accept::CloseNow);
        gate.closed(ip("192.0.2.3"), Stage::Headed);
        assert_eq!(gate.accept(ip("198.51.100.1"), now), Accept::Serve);
        gate.closed(ip("198.51.100.1"), Stage::HalfOpen);
        assert_eq!((gate.sockets(), gate.half_open()), (11, 0));
    }

    #[test]
    fn silent_sockets_are_bounded_in_all_and_by_host() {
        let (mut gate, now) = (gate(InboundLimits::default()), Instant::now());
        for number in 0..33 {
            let expected = if number < 32 { Accept::Serve } else { Accept::CloseNow };
            assert_eq!(gate.accept(ip("192.0.2.1"), now), expected);
        }
        for number in 0..96 {
            assert_eq!(gate.accept(ip(&format!("198.51.100.{number}")), now), Accept::Serve);
        }
        assert_eq!(gate.accept(ip("203.0.113.1"), now), Accept::CloseNow);
        gate.headed(ip("192.0.2.1"));
        assert_eq!(gate.accept(ip("203.0.113.1"), now), Accept::Serve);
    }

    #[test]
    fn peers_are_bounded_by_host_and_in_all_and_a_released_place_is_free() {
        let mut gate = gate(InboundLimits { total: 10, ..InboundLimits::default() });
        let mut slots: Vec<Slot> = (0..8).map(|_| gate.admit(ip("192.0.2.1")).unwrap()).collect();
        assert_eq!(gate.admit(ip("192.0.2.1")), Err(Refusal::PerIp));
        slots.push(gate.admit(ip("192.0.2.2")).unwrap());
        slots.push(gate.admit(ip("192.0.2.3")).unwrap());
        assert_eq!(gate.admit(ip("192.0.2.4")), Err(Refusal::Total));
        gate.release(slots.remove(0));
        slots.push(gate.admit(ip("192.0.2.1")).unwrap());
        slots.into_iter().for_each(|slot| gate.release(slot));
        assert_eq!(gate.peers(), 0);
        assert!(gate.peers.hosts.is_empty(), "nothing is remembered of hosts that left");
    }

    #[test]
    fn a_host_is_an_ipv4_address_or_the_first_half_of_an_ipv6_address() {
        let same = |one, other| Host::of(ip(one)) == Host::of(ip(other));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(!same("::1", "::2"));
    }

    #[test]
    fn a_flood_from_ever_new_hosts_takes_bounded_memory() {
        let (mut table, now) = (RateTable::new(64), Instant::now());
        for number in 0..10_000_u32 {
            let host = Host::of(IpAddr::V4(number.into()));
            assert_eq!(table.count(host, now, SECOND), 1);
            assert!(table.recent.len() + table.older.len() <= 64);
        }
    }

    #[test]
    fn windows_that_have_passed_are_forgotten() {
        let (mut table, now) = (RateTable::new(64), Instant::now());
        for number in 0..20_u32 {
            table.count(Host::of(IpAddr::V4(number.into())), now, SECOND);
        }
        for seconds in 1..=2 {
            table.count(Host::of(ip("192.0.2.1")), now + SECOND * seconds, SECOND);
        }
        assert_eq!(table.recent.len() + table.older.len(), 1);
    }

    proptest! {
        #[test]
        fn the_table_counts_like_one_window_per_host_that_starts_with_its_first_event(
            events in proptest::collection::vec((0_u32..6, 0_u64..400), 0..200),
        ) {
            let (mut table, mut now) = (RateTable::new(64), Instant::now());
            let mut windows: HashMap<u32, (Instant, u32)> = HashMap::new();
            for (host, later_ms) in events {
                now += Duration::from_millis(later_ms);
                let window = windows.entry(host).or_insert((now, 0));
                if now - window.0 >= SECOND {
                    *window = (now, 0);
                }
                window.1 += 1;
                let counted = table.count(Host::of(IpAddr::V4(host.into())), now, SECOND);
                prop_assert_eq!(counted, window.1);
            }
        }

        #[test]
        fn the_counts_are_those_of_what_is_open(
            steps in proptest::collection::vec((0_u8..5, 0_u8..4), 0..200),
        ) {
            let limits = InboundLimits {
                total: 6,
                per_ip: 3,
                half_open_total: 8,
                half_open_per_ip: 4,
                rate: RateWindow { count: 20, window: SECOND },
                ..InboundLimits::default()
            };
            let (mut gate, now) = (gate(limits), Instant::now());
            let (mut open, mut slots) = (Vec::new(), Vec::new());
            for (step, host) in steps {
                let from = IpAddr::from([192, 0, 2, host]);
                match step {
                    0 => match gate.accept(from, now) {
                        Accept::Serve => open.push((from, Stage::HalfOpen)),
                        Accept::CloseAfterDrain => open.push((from, Stage::Drained)),
                        Accept::CloseNow => {}
                    },
                    1 => {
                        let silent = open.iter_mut().find(|(_, stage)| *stage == Stage::HalfOpen);
                        if let Some((from, stage)) = silent {
                            gate.headed(*from);
                            *stage = Stage::Headed;
                        }
                    }
                    2 => if !open.is_empty() {
                        let (from, stage) = open.remove(usize::from(host) % open.len());
                        gate.closed(from, stage);
                    },
                    3 => if let Ok(slot) = gate.admit(from) {
                        slots.push(slot);
                    },
                    _ => if let Some(slot) = slots.pop() {
                        gate.release(slot);
                    },
                }
                let silent = open.iter().filter(|(_, stage)| *stage == Stage::HalfOpen).count();
                prop_assert_eq!(
                    (gate.sockets(), gate.half_open(), gate.peers()),
                    (open.len(), silent, slots.len())
                );
                prop_assert!(open.len() <= 16 && silent <= 8 && slots.len() <= 6);
            }
            open.into_iter().for_each(|(from, stage)| gate.closed(from, stage));
            slots.into_iter().for_each(|slot| gate.release(slot));
            prop_assert!(gate.half_open.hosts.is_empty() && gate.peers.hosts.is_empty());
            prop_assert_eq!(gate.sockets(), 0);
        }
    }
}
