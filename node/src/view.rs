//! How a running node is doing, for those who show it.
//!
//! # Invariants
//!
//! * A view asks the node each time, so what it shows is never what was true at the start.
//! * It does not keep the node running, and a node that is gone is shown as such.

use std::sync::{Arc, Weak};

use broadcaster::Broadcaster;
use mesh::DialState;
#[cfg(feature = "p2p")]
use net_p2p::P2pNetwork;
use runtime::Fault;

use crate::network::Network;

/// What a view looks at.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) network: Network,
    pub(crate) broadcaster: Broadcaster,
}

/// A look at a running node. A cheap handle; the default one looks at a node that is gone.
#[derive(Clone, Debug, Default)]
pub struct View {
    seen: Weak<Seen>,
}

/// What keeps a node from doing its work, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// The node has ended, or is about to.
    Stopping,
    /// A task ended that should not have; the node is of little use until it is started again.
    Task(Fault),
    /// The libp2p side is being made anew after it died. It comes back by itself, within half a minute.
    SwarmDown,
}

impl Trouble {
    /// Its name for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Task(_) => "task_ended",
            Self::SwarmDown => "p2p_restarting",
        }
    }
}

impl View {
    pub(crate) fn of(seen: &Arc<Seen>) -> Self {
        Self { seen: Arc::downgrade(seen) }
    }

    /// URL of the WebSocket side, if it listens.
    #[cfg(feature = "ws")]
    #[must_use]
    pub fn ws_url(&self) -> Option<String> {
        let address = self.seen.upgrade()?.network.ws()?.local_address()?;
        Some(format!("http://{address}"))
    }

    /// Multiaddrs of the libp2p side, each with `/p2p/ID`. There are more of them when the machine gets
    /// more addresses.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn p2p_addresses(&self) -> Vec<String> {
        let seen = self.seen.upgrade();
        seen.and_then(|seen| Some(seen.network.p2p()?.listen_addresses())).unwrap_or_default()
    }

    /// How it stands with every peer that was configured.
    #[must_use]
    pub fn dials(&self) -> Vec<DialState> {
        self.seen.upgrade().map(|seen| seen.network.dials()).unwrap_or_default()
    }

    /// What keeps the node from doing its work, or a part of it; the worst first, `None` if nothing does.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        let Some(seen) = self.seen.upgrade() else { return Some(Trouble::Stopping) };
        if let Some(fault) = seen.network.fault().or_else(|| seen.broadcaster.fault()) {
            return Some(Trouble::Task(fault));
        }
        if seen.broadcaster.is_stopping() {
            return Some(Trouble::Stopping);
        }
        #[cfg(feature = "p2p")]
        if !seen.network.p2p().is_none_or(P2pNetwork::is_up) {
            return Some(Trouble::SwarmDown);
        }
        None
    }
}
