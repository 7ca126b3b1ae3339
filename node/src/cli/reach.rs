//! A node that only calls others, for commands that ask a peer something.

use std::{path::Path, time::Duration};

use gossip::{NetworkId, NodeAddress, http::HttpClient};
use tandem::{ClientLimits, Mode, NodeBuilder, OpenError, PeerStream, Running};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;

/// Longest time for the stop. Chosen: nothing is in progress any more.
const GRACE: Duration = Duration::from_secs(1);

/// A node that neither listens nor gossips.
#[derive(Debug)]
pub(crate) struct Reach {
    running: Running,
}

impl Reach {
    /// Starts what is needed to call these peers. `roots` is a file of further certificates to trust.
    pub(crate) async fn start(
        peers: &[NodeAddress],
        roots: Option<&Path>,
    ) -> Result<Self, Failure> {
        let is_multiaddr = |peer: &NodeAddress| matches!(peer, NodeAddress::Multiaddr(_));
        let mode = match (peers.iter().any(is_multiaddr), peers.iter().all(is_multiaddr)) {
            (true, true) => Mode::Libp2p,
            (true, false) => Mode::Hybrid,
            (false, _) => Mode::WebSocket,
        };
        // The name says nothing: who does not gossip belongs to no network.
        let network =
            NetworkId::new("any").map_err(|error| Failure::Usage { text: error.to_string() })?;
        let mut builder = NodeBuilder::new(network)
            .mode(mode)
            .outward()
            .client_limits(ClientLimits::default().with_window(None));
        if let Some(roots) = roots {
            builder = builder.tls_roots(roots);
        }
        let running = builder.start(&CancellationToken::new()).await?;
        Ok(Self { running })
    }

    /// Opens a stream with a protocol to one of them.
    pub(crate) async fn stream(
        &self,
        peer: &NodeAddress,
        protocol: &str,
        limit: Duration,
    ) -> Result<PeerStream, OpenError> {
        let streams = self.running.streams().ok_or_else(|| OpenError::NotConnected)?;
        streams.open_at(peer, protocol, limit).await
    }

    /// A client of one of them.
    pub(crate) fn client(&self, peer: &NodeAddress) -> Result<HttpClient, Failure> {
        Ok(self.running.node().http_client(peer)?)
    }

    /// Ends it.
    pub(crate) async fn stop(self) {
        let stopped = self.running.stop(GRACE).await;
        tracing::debug!(?stopped, "the client stopped");
    }
}
