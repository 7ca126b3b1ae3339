//! The gauges of connections, for the gossip links on them.
//!
//! A transport makes its connections before the swarm numbers them, and a link does not see the connection below its streams.
//! So a link finds its gauge by what both know: the peer, and the end that dialled.
//!
//! # Invariants
//!
//! * The gauge of a connection that has ended is found no more.
//! * Of several connections of a peer, dialled by the same end, the newest counts.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use broadcaster::PipeGauge;
use gossip::Direction;
use libp2p::PeerId;

/// The gauge of a connection.
struct Known {
    number: u64,
    direction: Direction,
    gauge: Arc<dyn PipeGauge>,
}

/// The gauges of a network's connections. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Gauges {
    by_peer: Arc<Mutex<HashMap<PeerId, Vec<Known>>>>,
    next: Arc<AtomicU64>,
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gauges").field("peers", &self.lock().len()).finish_non_exhaustive()
    }
}

impl Gauges {
    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Vec<Known>>> {
        self.by_peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the gauge of a connection, until the result is dropped.
    pub(crate) fn add(
        &self,
        peer: PeerId,
        direction: Direction,
        gauge: Arc<dyn PipeGauge>,
    ) -> Registered {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().entry(peer).or_default().push(Known { number, direction, gauge });
        Registered { gauges: self.clone(), peer, number }
    }

    /// The gauge of the connection of a peer that was dialled from there; `None` if it has none.
    pub(crate) fn of(&self, peer: &PeerId, direction: Direction) -> Option<Arc<dyn PipeGauge>> {
        let all = self.lock();
        let mut newest_first = all.get(peer)?.iter().rev();
        newest_first
            .find(|known| known.direction == direction)
            .map(|known| Arc::clone(&known.gauge))
    }
}

/// The place of a gauge among the others.
#[derive(Debug)]
pub(crate) struct Registered {
    gauges: Gauges,
    peer: PeerId,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut all = self.gauges.lock();
        let Some(of_peer) = all.get_mut(&self.peer) else { return };
        of_peer.retain(|known| known.number != self.number);
        if of_peer.is_empty() {
            all.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broadcaster::PipeSample;

    use super::*;

    /// A gauge that tells its number.
    struct Numbered(u64);

    impl PipeGauge for Numbered {
        fn sample(&self) -> Option<PipeSample> {
            Some(PipeSample {
                acked_bytes: self.0,
                in_flight_bytes: 0,
                round_trip: Duration::ZERO,
                min_round_trip: Duration::ZERO,
            })
        }
    }

    #[test]
    fn the_newest_connection_of_a_peer_and_a_direction_counts_until_it_ends() {
        let (gauges, peer) = (Gauges::default(), PeerId::random());
        let found =
            |direction| gauges.of(&peer, direction)?.sample().map(|sample| sample.acked_bytes);
        let add = |direction, number| gauges.add(peer, direction, Arc::new(Numbered(number)));
        let _first = add(Direction::Outbound, 1);
        let second = add(Direction::Outbound, 2);
        let third = add(Direction::Inbound, 3);
        let both = || (found(Direction::Outbound), found(Direction::Inbound));
        assert_eq!(both(), (Some(2), Some(3)));
        drop((second, third));
        assert_eq!(both(), (Some(1), None));
        assert!(gauges.of(&PeerId::random(), Direction::Outbound).is_none());
        drop(_first);
        assert!(gauges.lock().is_empty());
    }
}
