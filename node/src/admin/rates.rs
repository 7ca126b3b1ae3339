//! The traffic of every peer a second.
//!
//! # Invariants
//!
//! * There are rates of peers that are connected, and of no other.
//! * The message path does nothing for them: its counters are read once a second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use broadcaster::Broadcaster;
use gossip::LinkId;
use tandem::{LaneTraffic, LinkTraffic};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Time between two readings. Chosen: a person sees a second's change, and 2,400 peers are read within a millisecond.
const INTERVAL: Duration = Duration::from_secs(1);

/// The traffic of a lane a second: messages and bytes in, messages and bytes out.
pub(super) type LaneRates = [f64; 4];

/// The rates of a peer, of its priority and of its bulk lane.
pub(super) type PeerRates = [LaneRates; 2];

/// The rates of the peers as they were read last.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    read: Option<Instant>,
    peers: HashMap<LinkId, (Counts, PeerRates)>,
}

type Counts = [[u64; 4]; 2];

impl Rates {
    /// Reads the counters once a second. Never ends by itself.
    pub(super) async fn watch(
        self: Arc<Self>,
        broadcaster: Broadcaster,
        cancel: CancellationToken,
    ) {
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                now = ticks.tick() => self.note(&broadcaster.traffic(), now),
            }
        }
    }

    /// The rates of a peer; nothing of one that came since the last reading.
    pub(super) fn of(&self, peer: LinkId) -> PeerRates {
        self.state().peers.get(&peer).map(|(_, rates)| *rates).unwrap_or_default()
    }

    fn note(&self, traffic: &[LinkTraffic], now: Instant) {
        let mut state = self.state();
        let elapsed = state.read.map_or(Duration::ZERO, |read| now.duration_since(read));
        let before = std::mem::take(&mut state.peers);
        state.peers = traffic
            .iter()
            .map(|link| {
                let counts = [counts(&link.priority), counts(&link.bulk)];
                let (from, _) = before.get(&link.link).copied().unwrap_or_default();
                (link.link, (counts, rates(from, counts, elapsed)))
            })
            .collect();
        state.read = Some(now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn counts(lane: &LaneTraffic) -> [u64; 4] {
    [lane.received.messages, lane.received.bytes, lane.sent.messages, lane.sent.bytes]
}

fn rates(from: Counts, to: Counts, elapsed: Duration) -> PeerRates {
    if elapsed.is_zero() {
        return PeerRates::default();
    }
    let rate = |lane: usize, number: usize| {
        to[lane][number].saturating_sub(from[lane][number]) as f64 / elapsed.as_secs_f64()
    };
    [0, 1].map(|lane| [0, 1, 2, 3].map(|number| rate(lane, number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_difference_by_the_time_between_two_readings() {
        let (from, mut to) = (Counts::default(), Counts::default());
        to[0] = [10, 1_000, 4, 40];
        let rates_of = rates(from, to, Duration::from_secs(2));
        assert_eq!(rates_of, [[5.0, 500.0, 2.0, 20.0], [0.0; 4]]);
        assert_eq!(rates(to, from, INTERVAL), PeerRates::default(), "a counter never falls");
        assert_eq!(rates(from, to, Duration::ZERO), PeerRates::default());
    }
}
