//! Bounds on what comes in: connections and their rates.

use std::time::Duration;

use gossip::{Durations, Host, LoopbackRule};

/// Sockets allowed beyond the number of peers, for services and for refusing politely.
///
/// Source: wire facts 1.6, row 1.
pub const SOCKET_RESERVE: usize = 10;

/// So many events in so long a time.
///
/// A window starts with its first event; the first one after its end starts the next.
/// A zero in either field switches the rate off; other windows last between a millisecond and a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateWindow {
    /// Events allowed in one window.
    pub count: u32,
    /// Length of the window.
    pub window: Duration,
}

gossip::setters!(RateWindow {
    with_count => count: u32,
    with_window => window: Duration,
});

impl RateWindow {
    /// So many events in so long a time.
    #[must_use]
    pub const fn new(count: u32, window: Duration) -> Self {
        Self { count, window }
    }

    /// No limit at all.
    pub const OFF: Self = Self { count: 0, window: Duration::ZERO };

    /// True if anything is limited.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.count > 0 && !self.window.is_zero()
    }
}

impl Default for RateWindow {
    /// The rate of one host: 60 in a second. Source: wire facts 1.6, rows 2 and 5.
    fn default() -> Self {
        Self { count: 60, window: Duration::from_secs(1) }
    }
}

/// Limits on the connections of a node, over all its transports together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InboundLimits {
    /// Inbound peers at one time. Default: 2,400. Source: wire facts 1.6, row 7.
    pub total: usize,
    /// Inbound peers of one host. Default: 8. Source: wire facts 1.6, row 8.
    pub per_ip: usize,
    /// Inbound peers of one subnet; at least `per_ip` counts. Default: 128. Chosen: sixteen full hosts.
    /// More than the 32 of threats and goals, row 2, because a whole test network may live in one
    /// subnet, and because a full node takes places from its most crowded subnet first.
    pub per_subnet: usize,
    /// Inbound peers that are pages of one web origin; the bounds on their hosts hold too. Default: 600. Chosen: a quarter of
    /// `total`, so that no site, however many visitors it has, takes the places of everybody else.
    pub per_origin: usize,
    /// Sockets whose handshake, or first request head, is not complete. Default: 128. Source: threats
    /// and goals, row 1. At 10 s for a handshake, a flood of silent sockets takes memory for 128.
    pub half_open_total: usize,
    /// The same, of one host. Default: 32. Chosen: one host cannot take all of `half_open_total`.
    pub half_open_per_ip: usize,
    /// Connections of one host, and, counted apart, its HTTP requests.
    pub rate: RateWindow,
    /// Connections of one subnet. Default: 240 in a second. Chosen: four hosts at full rate; a /24 of
    /// 254 would otherwise ask for 15,000 handshakes a second.
    pub subnet_rate: RateWindow,
    /// First penalty of a host, and of an identity, whose peer was disconnected for misbehaviour: while it lasts the host
    /// may connect less often, and an identity that was proved gets no place after its second. Links from there have a
    /// lower pace for twice that time. Each further one is twice as long, up to ten minutes. Default: 10 s. Chosen: as long
    /// as a flood is borne. Zero switches it off.
    pub penalty: Duration,
    /// Outbound connections at one time, dials under way included. Default: 256. Chosen: sixty times
    /// what gossip needs; the rest is for streams that callers of this node open.
    pub outbound: usize,
    /// The rule for connections from this very machine: limited like those of other hosts, or exempt. Default: exempt.
    pub loopback: LoopbackRule,
}

gossip::setters!(InboundLimits {
    with_total => total: usize,
    with_per_ip => per_ip: usize,
    with_per_subnet => per_subnet: usize,
    with_per_origin => per_origin: usize,
    with_half_open_total => half_open_total: usize,
    with_half_open_per_ip => half_open_per_ip: usize,
    with_rate => rate: RateWindow,
    with_subnet_rate => subnet_rate: RateWindow,
    with_penalty => penalty: Duration,
    with_outbound => outbound: usize,
    with_loopback => loopback: LoopbackRule,
});

/// Open files kept back for everything but connections between nodes: the admin socket, the data
/// directory, what is served from disk, and what the runtime itself needs.
///
/// Chosen: 64 commands on the admin socket, and as many again.
const RESERVED_FILES: usize = 128;

/// Fewest open files with which a node can work. Chosen: half of them for connections.
pub const MIN_OPEN_FILES: usize = 2 * RESERVED_FILES;

impl InboundLimits {
    /// The same limits, as far as a process that may have so many open files can keep to them: a part of
    /// them stays for other uses, and of the rest a quarter at most for outbound connections. `None` if
    /// there are fewer than [`MIN_OPEN_FILES`].
    #[must_use]
    pub fn fitted_to(self, open_files: usize) -> Option<Self> {
        if open_files < MIN_OPEN_FILES {
            return None;
        }
        let free = open_files - RESERVED_FILES;
        let outbound = self.outbound.min(free / 4);
        let total = self.total.min(free - outbound - SOCKET_RESERVE);
        Some(Self { total, outbound, ..self })
    }

    /// Returns `true` if the host is this machine, and this machine is exempt.
    pub(super) fn exempts(&self, host: Host) -> bool {
        host.is_loopback() && self.loopback == LoopbackRule::Exempt
    }

    /// Returns `true` if the requests of the host are counted.
    pub(super) fn rates_requests(&self, host: Host) -> bool {
        self.rate.is_on() && !self.exempts(host)
    }
}

impl Durations for InboundLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        // No length at all switches a rate off.
        for (setting, rate) in [
            ("InboundLimits::rate", &mut self.rate),
            ("InboundLimits::subnet_rate", &mut self.subnet_rate),
        ] {
            if rate.is_on() {
                visit(setting, &mut rate.window);
            }
        }
        if !self.penalty.is_zero() {
            visit("InboundLimits::penalty", &mut self.penalty);
        }
    }
}

impl Default for InboundLimits {
    fn default() -> Self {
        let rate = RateWindow::default();
        Self {
            total: 2_400,
            per_ip: 8,
            per_subnet: 128,
            per_origin: 600,
            half_open_total: 128,
            half_open_per_ip: 32,
            rate,
            subnet_rate: RateWindow { count: 240, ..rate },
            penalty: Duration::from_secs(10),
            outbound: 256,
            loopback: LoopbackRule::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 8, 4: a default of 2,400 peers, and 1,024 open files.
    #[test]
    fn limits_are_fitted_to_the_files_that_may_be_open() {
        let fitted = |open_files| {
            let fitted = InboundLimits::default().fitted_to(open_files);
            fitted.map(|limits| (limits.total, limits.outbound))
        };
        assert_eq!(fitted(255), None);
        assert_eq!(fitted(256), Some((86, 32)));
        assert_eq!(fitted(1_024), Some((662, 224)));
        assert_eq!(fitted(4_096), Some((2_400, 256)));
        for open_files in 256..4_096 {
            let (total, outbound) = fitted(open_files).unwrap();
            assert!(total + SOCKET_RESERVE + outbound + RESERVED_FILES <= open_files);
        }
    }
}
