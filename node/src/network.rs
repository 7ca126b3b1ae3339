//! The network of a node, whichever transports it has.
//!
//! # Invariants
//!
//! * Only this file and the one that starts the networks know them by their types; everything else has a
//!   `GossipNode`.

use std::{sync::Arc, time::Duration};

use gossip::{DialState, GossipNode, NodeAddress};
#[cfg(all(feature = "ws", feature = "p2p"))]
use net_hybrid::HybridNetwork;
#[cfg(feature = "p2p")]
use net_p2p::P2pNetwork;
#[cfg(feature = "ws")]
use net_ws::WsNetwork;
use runtime::{Fault, Shutdown};

use crate::mode::Mode;

/// A network that runs.
#[derive(Debug)]
pub(crate) enum Network {
    #[cfg(all(feature = "ws", feature = "p2p"))]
    Hybrid(HybridNetwork),
    #[cfg(feature = "ws")]
    WebSocket(WsNetwork),
    #[cfg(feature = "p2p")]
    Libp2p(P2pNetwork),
}

/// Does the same with a network of any type.
macro_rules! each {
    ($self:expr, $network:ident => $does:expr) => {
        match $self {
            #[cfg(all(feature = "ws", feature = "p2p"))]
            Self::Hybrid($network) => $does,
            #[cfg(feature = "ws")]
            Self::WebSocket($network) => $does,
            #[cfg(feature = "p2p")]
            Self::Libp2p($network) => $does,
        }
    };
}

impl Network {
    /// The transports that it uses.
    pub(crate) const fn mode(&self) -> Mode {
        match self {
            #[cfg(all(feature = "ws", feature = "p2p"))]
            Self::Hybrid(_) => Mode::Hybrid,
            #[cfg(feature = "ws")]
            Self::WebSocket(_) => Mode::WebSocket,
            #[cfg(feature = "p2p")]
            Self::Libp2p(_) => Mode::Libp2p,
        }
    }

    /// The WebSocket side.
    #[cfg(feature = "ws")]
    pub(crate) fn ws(&self) -> Option<&WsNetwork> {
        match self {
            #[cfg(feature = "p2p")]
            Self::Hybrid(network) => Some(network.ws()),
            Self::WebSocket(network) => Some(network),
            #[cfg(feature = "p2p")]
            Self::Libp2p(_) => None,
        }
    }

    /// The libp2p side.
    #[cfg(feature = "p2p")]
    pub(crate) fn p2p(&self) -> Option<&P2pNetwork> {
        match self {
            #[cfg(feature = "ws")]
            Self::Hybrid(network) => Some(network.p2p()),
            #[cfg(feature = "ws")]
            Self::WebSocket(_) => None,
            Self::Libp2p(network) => Some(network),
        }
    }

    /// The network as an application uses it.
    pub(crate) fn node(&self) -> Arc<dyn GossipNode> {
        each!(self, network => Arc::new(network.clone()))
    }

    /// Adds a configured address, which a side of the network can dial. Returns `false` if there is no room.
    pub(crate) fn add_peer(&self, address: &NodeAddress) -> bool {
        match address {
            #[cfg(feature = "ws")]
            NodeAddress::WebSocket(_) => self.ws().is_some_and(|ws| ws.add_peer(address).is_ok()),
            #[cfg(feature = "p2p")]
            NodeAddress::Multiaddr(_) => {
                self.p2p().is_some_and(|p2p| p2p.add_peer(address).is_ok())
            }
            #[cfg(not(all(feature = "ws", feature = "p2p")))]
            _ => false,
        }
    }

    /// Forgets an address and ends the links to it. Returns `false` if it was not known.
    pub(crate) fn remove_peer(&self, address: &NodeAddress) -> bool {
        match address {
            #[cfg(feature = "ws")]
            NodeAddress::WebSocket(_) => self.ws().is_some_and(|ws| ws.remove_peer(address)),
            #[cfg(feature = "p2p")]
            NodeAddress::Multiaddr(_) => self.p2p().is_some_and(|p2p| p2p.remove_peer(address)),
            #[cfg(not(all(feature = "ws", feature = "p2p")))]
            _ => false,
        }
    }

    /// The state of the dial of every configured peer.
    pub(crate) fn dials(&self) -> Vec<DialState> {
        each!(self, network => network.dials())
    }

    /// The first task of the network that ended unasked.
    pub(crate) fn fault(&self) -> Option<Fault> {
        each!(self, network => network.fault())
    }

    /// Resolves when a task of the network has ended unasked; never otherwise.
    pub(crate) async fn faulted(&self) -> Fault {
        each!(self, network => network.faulted().await)
    }

    /// Ends the network.
    pub(crate) async fn stop(&self, grace: Duration) -> Shutdown {
        each!(self, network => network.stop(grace).await)
    }
}
