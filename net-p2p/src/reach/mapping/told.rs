//! The ports that a router has mapped, as the node shows them.
//!
//! # Invariants
//!
//! * A list does not outlive the task that has its ports mapped.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::ports::Carrier;

/// The protocol by which a router was asked for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MappingProtocol {
    /// NAT-PMP.
    NatPmp,
    /// UPnP.
    Upnp,
}

impl MappingProtocol {
    /// The name for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NatPmp => "nat-pmp",
            Self::Upnp => "upnp",
        }
    }
}

/// A port of a router that leads to this node, as the router says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedPort {
    /// The transport of the port.
    pub carrier: Carrier,
    /// The port on which the node listens.
    pub inside: SocketAddrV4,
    /// The port that others dial, at the address of the router's other side.
    pub outside: SocketAddrV4,
    /// The protocol by which the router was asked.
    pub protocol: MappingProtocol,
    /// The address of the router.
    pub gateway: Ipv4Addr,
    /// The end of the lease, which is asked for again when half of it is over.
    pub until: Instant,
}

/// The mapped ports of a node. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct MappedPorts(Arc<Mutex<Vec<MappedPort>>>);

impl MappedPorts {
    /// The ports that are mapped now.
    pub(crate) fn now(&self) -> Vec<MappedPort> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, ports: Vec<MappedPort>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ports;
    }
}

/// The task's side of the list, which is empty once this is dropped.
#[derive(Debug)]
pub(in crate::reach) struct Teller(MappedPorts);

impl Teller {
    /// The side of the task that fills `ports`.
    pub(in crate::reach) const fn of(ports: MappedPorts) -> Self {
        Self(ports)
    }

    /// Replaces the list.
    pub(super) fn tell(&self, ports: Vec<MappedPort>) {
        self.0.set(ports);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.set(Vec::new());
    }
}
