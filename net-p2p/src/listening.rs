//! The listening addresses of the swarm.
//!
//! # Invariants
//!
//! * A restarted swarm listens on the addresses of the one before, with the same ports.

#[cfg(feature = "circuits")]
use std::collections::HashMap;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

#[cfg(feature = "circuits")]
use libp2p::PeerId;
use libp2p::{Multiaddr, core::transport::ListenerId, multiaddr::Protocol};

/// The addresses that the node listens on now. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bound(Arc<Mutex<Vec<Multiaddr>>>);

impl Bound {
    /// Returns the addresses, without the peer ID.
    pub(crate) fn addresses(&self) -> Vec<Multiaddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Listens on these.
    #[cfg(all(test, feature = "reachability"))]
    pub(crate) fn set_for_test<const N: usize>(&self, addresses: [&str; N]) {
        self.change(|bound| {
            *bound = addresses.iter().filter_map(|text| text.parse().ok()).collect()
        });
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Multiaddr>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The innermost error of the operating system; the outermost error if there is none.
pub(crate) fn of_the_system(error: io::Error) -> io::Error {
    let mut inner = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(cause) = inner {
        let code = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if let Some(code) = code {
            return io::Error::from_raw_os_error(code);
        }
        inner = cause.source();
    }
    error
}

/// One configured address.
#[derive(Debug)]
struct Listener {
    id: ListenerId,
    configured: Multiaddr,
    /// The first address that the system assigned to it.
    first: Option<Multiaddr>,
    /// The error with which it closed.
    failed: Option<io::Error>,
}

/// The listeners of one swarm.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    listeners: Vec<Listener>,
    bound: Bound,
    /// Addresses through relays, by relay.
    #[cfg(feature = "circuits")]
    through: HashMap<PeerId, Vec<Multiaddr>>,
}

impl Listening {
    pub(crate) fn new(bound: Bound) -> Self {
        bound.change(Vec::clear);
        Self { bound, ..Self::default() }
    }

    pub(crate) fn add(&mut self, id: ListenerId, configured: Multiaddr) {
        self.listeners.push(Listener { id, configured, first: None, failed: None });
    }

    pub(crate) fn heard(&mut self, id: ListenerId, address: Multiaddr) {
        tracing::info!(%address, "listening");
        if let Some(listener) = self.listeners.iter_mut().find(|listener| listener.id == id) {
            listener.first.get_or_insert_with(|| address.clone());
        }
        self.bound.change(|bound| bound.push(address));
    }

    pub(crate) fn expired(&mut self, _id: ListenerId, address: &Multiaddr) {
        self.bound.change(|bound| bound.retain(|known| known != address));
    }

    /// Notes that these addresses lead to the node, through `relay`.
    #[cfg(feature = "circuits")]
    pub(crate) fn reserved(&mut self, relay: PeerId, addresses: Vec<Multiaddr>) {
        self.lost(&relay);
        for address in &addresses {
            tracing::info!(%address, "listening");
            self.bound.change(|bound| bound.push(address.clone()));
        }
        self.through.insert(relay, addresses);
    }

    /// Notes that nothing leads through `relay` any more, and returns the addresses that did.
    #[cfg(feature = "circuits")]
    pub(crate) fn lost(&mut self, relay: &PeerId) -> Vec<Multiaddr> {
        let lost = self.through.remove(relay).unwrap_or_default();
        self.bound.change(|bound| bound.retain(|known| !lost.contains(known)));
        lost
    }

    pub(crate) fn closed(&mut self, id: ListenerId, reason: Result<(), io::Error>) {
        if let Some(listener) = self.listeners.iter_mut().find(|listener| listener.id == id) {
            let error = reason.err().unwrap_or_else(|| io::ErrorKind::NotConnected.into());
            tracing::error!(address = %listener.configured, %error, "no longer listening");
            listener.failed = Some(error);
        }
    }

    /// Returns `true` once every configured address is bound or has failed.
    pub(crate) fn is_settled(&self) -> bool {
        self.listeners.iter().all(|listener| listener.first.is_some() || listener.failed.is_some())
    }

    /// Takes the error of the first listener that failed.
    pub(crate) fn take_failure(&mut self) -> Option<(Multiaddr, io::Error)> {
        let failed = |listener: &mut Listener| {
            if listener.first.is_some() {
                return None;
            }
            let error = listener.failed.take().unwrap_or_else(|| io::ErrorKind::TimedOut.into());
            Some((listener.configured.clone(), error))
        };
        self.listeners.iter_mut().find_map(failed)
    }

    /// The configured addresses, with the ports that the system chose instead of port 0.
    pub(crate) fn fixed(&self) -> Vec<Multiaddr> {
        let fix = |listener: &Listener| {
            let port = listener.first.as_ref().and_then(port_of);
            match (port_of(&listener.configured), port) {
                (Some(0), Some(port)) => with_port(&listener.configured, port),
                _ => listener.configured.clone(),
            }
        };
        self.listeners.iter().map(fix).collect()
    }
}

/// The port in an address.
pub(crate) fn port_of(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    })
}

fn with_port(address: &Multiaddr, port: u16) -> Multiaddr {
    let replace = |part| match part {
        Protocol::Tcp(_) => Protocol::Tcp(port),
        Protocol::Udp(_) => Protocol::Udp(port),
        other => other,
    };
    address.iter().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_the_system_chose_is_kept() {
        let mut listening = Listening::new(Bound::default());
        let id = ListenerId::next();
        listening.add(id, "/ip4/0.0.0.0/tcp/0".parse().unwrap());
        assert!(!listening.is_settled());
        listening.heard(id, "/ip4/127.0.0.1/tcp/4190".parse().unwrap());
        listening.heard(id, "/ip4/10.0.0.1/tcp/4190".parse().unwrap());
        assert!(listening.is_settled() && listening.take_failure().is_none());
        assert_eq!(listening.fixed(), ["/ip4/0.0.0.0/tcp/4190".parse().unwrap()]);
        assert_eq!(listening.bound.addresses().len(), 2);
    }

    #[test]
    fn a_listener_that_closed_before_it_listened_is_a_failure() {
        let mut listening = Listening::new(Bound::default());
        let id = ListenerId::next();
        listening.add(id, "/ip4/192.0.2.1/tcp/1".parse().unwrap());
        listening.closed(id, Err(io::ErrorKind::AddrNotAvailable.into()));
        let (address, error) = listening.take_failure().unwrap();
        assert_eq!(address.to_string(), "/ip4/192.0.2.1/tcp/1");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
