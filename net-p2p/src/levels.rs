//! Gauges of the libp2p network: the numbers of things that are there now.
//!
//! # Invariants
//!
//! * A thing is counted from the making of its [`Counted`] until that is dropped, so no count outlives what it counts.

use std::sync::Arc;

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

/// A kind of thing of which a libp2p network has a number at each moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum P2pLevel {
    /// Places that this node holds at relays.
    ReservationsHeld,
    /// Places that peers hold at this node as a relay.
    ReservationsGiven,
    /// Circuits that this node carries as a relay.
    CircuitsCarried,
    /// Ports that a router has mapped to this node.
    PortsMapped,
}

impl P2pLevel {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::ReservationsHeld, Self::ReservationsGiven, Self::CircuitsCarried, Self::PortsMapped];

    /// The name of the metric, without a prefix.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ReservationsHeld => "p2p_relay_reservations_held",
            Self::ReservationsGiven => "p2p_relay_reservations_given",
            Self::CircuitsCarried => "p2p_relay_circuits_carried",
            Self::PortsMapped => "p2p_ports_mapped",
        }
    }

    const fn help(self) -> &'static str {
        match self {
            Self::ReservationsHeld => "Places that this node holds at relays",
            Self::ReservationsGiven => "Places that peers hold at this node as a relay",
            Self::CircuitsCarried => "Circuits that this node carries as a relay",
            Self::PortsMapped => "Ports that a router has mapped to this node",
        }
    }
}

/// The gauges of one libp2p network. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Levels(Arc<[Gauge; P2pLevel::ALL.len()]>);

impl Default for Levels {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| Gauge::default())))
    }
}

impl Levels {
    pub(crate) fn register(&self, registry: &mut Registry) {
        for level in P2pLevel::ALL {
            registry.register(level.label(), level.help(), self.0[level as usize].clone());
        }
    }

    pub(crate) fn of(&self, level: P2pLevel) -> usize {
        usize::try_from(self.0[level as usize].get()).unwrap_or(0)
    }

    /// Counts one thing for as long as the result lives.
    #[cfg(feature = "circuits")]
    pub(crate) fn count(&self, level: P2pLevel) -> Counted {
        let gauge = self.0[level as usize].clone();
        gauge.inc();
        Counted(gauge)
    }
}

/// One thing that is counted.
#[cfg(feature = "circuits")]
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

#[cfg(feature = "circuits")]
impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
