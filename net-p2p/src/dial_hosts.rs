//! The hosts that dials may lead to.
//!
//! # Invariants
//!
//! * A dial that the library makes of its own accord leads to hosts that learnt addresses may lead to, and any other to
//!   those that its caller allows.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use libp2p::{Multiaddr, multiaddr::Protocol};
use mesh::LearntHosts;

/// The hosts that the next dial may lead to. The library hands a dial over within the call that asks for it, so both
/// happen in one turn of the swarm's task.
#[derive(Clone, Debug, Default)]
pub(crate) struct DialHosts {
    /// Those of addresses that nobody named, to which the library dials by itself.
    learnt: LearntHosts,
    /// `true` if the next dial may lead to any host.
    any: Arc<AtomicBool>,
    /// `true` if the next dial begins at the port that the node listens on.
    #[cfg(feature = "reachability")]
    from_listening_port: Arc<AtomicBool>,
}

impl DialHosts {
    /// With these hosts for addresses that nobody named.
    pub(crate) fn new(learnt: LearntHosts) -> Self {
        Self { learnt, ..Self::default() }
    }

    /// Runs `dial`, which may lead to these hosts.
    pub(crate) fn within<T>(&self, hosts: LearntHosts, dial: impl FnOnce() -> T) -> T {
        self.any.store(hosts == LearntHosts::Any, Ordering::Relaxed);
        let dialled = dial();
        self.any.store(false, Ordering::Relaxed);
        dialled
    }

    /// Runs `dial`, which begins at the port that the node listens on.
    #[cfg(feature = "reachability")]
    pub(crate) fn showing_port<T>(&self, dial: impl FnOnce() -> T) -> T {
        self.from_listening_port.store(true, Ordering::Relaxed);
        let dialled = dial();
        self.from_listening_port.store(false, Ordering::Relaxed);
        dialled
    }

    /// Returns `true` if a dial that is handed over now begins at the port that the node listens on.
    #[cfg(feature = "reachability")]
    pub(crate) fn is_from_listening_port(&self) -> bool {
        self.from_listening_port.load(Ordering::Relaxed)
    }

    /// The hosts to which a dial that is handed over now may lead.
    pub(crate) fn now(&self) -> LearntHosts {
        if self.any.load(Ordering::Relaxed) { LearntHosts::Any } else { self.learnt }
    }

    /// Returns `true` if a dial that is handed over now may lead to this address. Names are left to others to look up.
    pub(crate) fn may_lead_to(&self, address: &Multiaddr) -> bool {
        match address.iter().next() {
            Some(Protocol::Ip4(ip)) => self.now().allow(ip.into()),
            Some(Protocol::Ip6(ip)) => self.now().allow(ip.into()),
            _ => true,
        }
    }
}

/// Every host behind an address that nobody named is one that is not to be dialled.
#[derive(Debug, thiserror::Error)]
#[error("the address leads to no host of the public Internet")]
pub(crate) struct NotPublic;
