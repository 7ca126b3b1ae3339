//! The part that a node takes in making nodes reachable.

use std::collections::BTreeSet;

use super::RelayLimits;

/// The part that a node takes in making nodes reachable. [`ReachConfig::default`] takes none; circuits to others are
/// dialled all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReachConfig {
    /// The parts that the node takes. Default: none.
    pub parts: BTreeSet<ReachPart>,
    /// The limits within which a [`ReachPart::Relay`] carries circuits.
    pub limits: RelayLimits,
}

/// One part in making nodes reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ReachPart {
    /// The node carries circuits for others.
    Relay,
    /// The node has its peers try its addresses, and tells others those that can be dialled; it tries those of others
    /// too.
    AutoNat,
    /// The node keeps places at two relays, which it finds itself, while it cannot be dialled.
    AutoRelay,
    /// The node and a peer that it is connected to by a circuit try to connect directly.
    HolePunching,
    /// The node asks its router, by NAT-PMP or UPnP, for ports that lead to it, and tells others the addresses at which they
    /// have reached it: it takes the part [`ReachPart::AutoNat`] too.
    PortMapping,
}

impl ReachPart {
    /// All of them.
    pub const ALL: &'static [Self] =
        &[Self::Relay, Self::AutoNat, Self::AutoRelay, Self::HolePunching, Self::PortMapping];

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::AutoNat => "autonat",
            Self::AutoRelay => "auto-relay",
            Self::HolePunching => "hole-punching",
            Self::PortMapping => "port-mapping",
        }
    }

    /// The part with this name in the configuration.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|part| part.name() == name)
    }
}

impl ReachConfig {
    /// Takes this part too.
    #[must_use]
    pub fn with(mut self, part: ReachPart) -> Self {
        self.parts.insert(part);
        self
    }

    /// Relays circuits for others within these limits.
    #[must_use]
    pub fn with_relay(mut self, limits: RelayLimits) -> Self {
        self.limits = limits;
        self.with(ReachPart::Relay)
    }

    /// Returns `true` if the node takes this part, perhaps because another one brings it along.
    #[must_use]
    pub fn has(&self, part: ReachPart) -> bool {
        let brings = part == ReachPart::AutoNat && self.parts.contains(&ReachPart::PortMapping);
        brings || self.parts.contains(&part)
    }
}
