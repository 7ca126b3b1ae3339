//! State of a running node, for status pages, commands and load balancers.
//!
//! # Invariants
//!
//! * A view asks the node each time, so it shows the present state, never that of the start.
//! * A view does not keep the node running, and shows a node that is gone as such.

use std::sync::{Arc, Weak};
#[cfg(feature = "dht")]
use std::time::Duration;

use broadcaster::Broadcaster;
use gossip::DialState;
#[cfg(feature = "p2p")]
use gossip::{Identity, TopicInbound};
use mesh::{Door, InboundLimits};
#[cfg(feature = "dht")]
use net_p2p::{Capability, DhtError, DhtPeer, FoundValue, Provider, ValueKey, ValueKeyError};
#[cfg(feature = "p2p")]
use net_p2p::{P2pNetwork, PeerAbout, TopicMesh, TopicScore};
#[cfg(feature = "ws")]
use net_ws::{TlsIdentity, WsNetwork};
use runtime::Fault;
#[cfg(feature = "p2p")]
use tokio::sync::broadcast;

use crate::network::Network;

/// The parts of a node that a view asks.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) network: Network,
    pub(crate) broadcaster: Broadcaster,
    pub(crate) door: Door,
}

/// A handle that shows the present state of a node without keeping it running. Clones are cheap; the default one shows
/// a node that is gone.
#[derive(Clone, Debug, Default)]
pub struct View {
    seen: Weak<Seen>,
}

/// A reason for which a node does only a part of its work, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// The node has ended, or is about to.
    Stopping,
    /// A task ended that should not have; the node is of little use until it is started again.
    Task(Fault),
    /// The libp2p side is being made anew after it died. It comes back by itself, within half a minute.
    SwarmDown,
    /// For a minute or longer the scores of most libp2p peers have been too low for them to be served on topics.
    PeersMuted,
    /// Two nodes seem to run with one key. Each keeps the other from being connected to this node.
    IdentityContested,
    /// The files of the certificate were changed and cannot be used, so the node presents an older one.
    CertificateStale,
}

impl Trouble {
    /// The names of all of them, as labels of a metric.
    pub const LABELS: [&'static str; 6] = [
        "stopping",
        "task_ended",
        "p2p_restarting",
        "topic_peers_muted",
        "identity_contested",
        "certificate_stale",
    ];

    /// The name of the reason for programs, as `/health` has it: one of [`Trouble::LABELS`].
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Task(_) => "task_ended",
            Self::SwarmDown => "p2p_restarting",
            Self::PeersMuted => "topic_peers_muted",
            Self::IdentityContested => "identity_contested",
            Self::CertificateStale => "certificate_stale",
        }
    }
}

/// The places with the door of a node that are taken, and their bounds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DoorState {
    /// The bounds in force.
    pub limits: InboundLimits,
    /// Inbound peers.
    pub peers: usize,
    /// Inbound sockets, of peers and of others.
    pub sockets: usize,
    /// Those of them that have not finished their handshake.
    pub half_open: usize,
    /// Outbound connections.
    pub outbound: usize,
}

impl View {
    pub(crate) fn of(seen: &Arc<Seen>) -> Self {
        Self { seen: Arc::downgrade(seen) }
    }

    /// Searches the DHT for nodes that offer `capability`, and returns `wanted` at most, which are found within `limit`.
    /// Anybody can announce anything there, so a result is a proposal.
    ///
    /// # Errors
    ///
    /// [`DhtError`] when the search does not begin; [`DhtError::Off`] also in a node without libp2p, or one that is gone.
    ///
    /// # Cancel safety
    ///
    /// Safe: the search ends with the future.
    #[cfg(feature = "dht")]
    pub async fn find_providers(
        &self,
        capability: Capability,
        wanted: usize,
        limit: Duration,
    ) -> Result<Vec<Provider>, DhtError> {
        self.dht()?.find_providers(capability, wanted, limit).await
    }

    /// Announces `capability` in the DHT, until the node ends. See [`P2pNetwork::provide`].
    ///
    /// # Errors
    ///
    /// [`DhtError`], such as [`DhtError::Client`] in a node that is no server of the DHT.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may leave the announcement in force.
    #[cfg(feature = "dht")]
    pub async fn provide(&self, capability: Capability) -> Result<(), DhtError> {
        self.dht()?.provide(capability).await
    }

    /// The nodes in the routing table of the DHT.
    ///
    /// # Errors
    ///
    /// [`DhtError`] when there is no DHT.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is changed.
    #[cfg(feature = "dht")]
    pub async fn dht_peers(&self) -> Result<Vec<DhtPeer>, DhtError> {
        self.dht()?.dht_peers().await
    }

    /// Stores a value in the DHT, and returns the number of other nodes that say they took it. See
    /// [`P2pNetwork::put_value`].
    ///
    /// # Errors
    ///
    /// [`DhtError`], such as [`DhtError::Invalid`] for a value that the namespace of the key does not admit.
    ///
    /// # Cancel safety
    ///
    /// The value is put even if the future is dropped.
    #[cfg(feature = "dht")]
    pub async fn put_value(
        &self,
        key: ValueKey,
        value: Vec<u8>,
        limit: Duration,
    ) -> Result<usize, DhtError> {
        self.dht()?.put_value(key, value, limit).await
    }

    /// Signs a value for the DHT with the key of the node; `None` in a node without libp2p, or one that is gone. See
    /// [`P2pNetwork::sign_value`].
    ///
    /// # Errors
    ///
    /// [`ValueKeyError`] for a name that cannot stand in a key.
    #[cfg(feature = "dht")]
    pub fn sign_value(
        &self,
        name: &str,
        sequence: u64,
        content: &[u8],
    ) -> Result<Option<(ValueKey, Vec<u8>)>, ValueKeyError> {
        self.dht().ok().map(|network| network.sign_value(name, sequence, content)).transpose()
    }

    /// Searches the DHT for the value of a key, within `limit`.
    ///
    /// # Errors
    ///
    /// [`DhtError`] when the search does not begin.
    ///
    /// # Cancel safety
    ///
    /// Safe: the search ends with the future.
    #[cfg(feature = "dht")]
    pub async fn get_value(
        &self,
        key: ValueKey,
        limit: Duration,
    ) -> Result<Option<FoundValue>, DhtError> {
        self.dht()?.get_value(key, limit).await
    }

    #[cfg(feature = "dht")]
    fn dht(&self) -> Result<P2pNetwork, DhtError> {
        let p2p = self.seen.upgrade().and_then(|seen| seen.network.p2p().cloned());
        p2p.ok_or(DhtError::Off)
    }

    /// URL of the WebSocket side, `http://IP:PORT`; `None` where it does not listen, or the node is gone.
    #[cfg(feature = "ws")]
    #[must_use]
    pub fn ws_url(&self) -> Option<String> {
        let address = self.seen.upgrade()?.network.ws()?.local_address()?;
        Some(format!("http://{address}"))
    }

    /// Multiaddrs on which the libp2p side listens now, each with `/p2p/ID`. Their number follows the addresses of the
    /// machine.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn p2p_addresses(&self) -> Vec<String> {
        let seen = self.seen.upgrade();
        seen.and_then(|seen| Some(seen.network.p2p()?.listen_addresses())).unwrap_or_default()
    }

    /// The ports of a router that lead to this node, as the router says; none unless the node asks for some
    /// ([`ReachPart::PortMapping`](net_p2p::ReachPart::PortMapping)).
    #[cfg(feature = "reachability")]
    #[must_use]
    pub fn mapped_ports(&self) -> Vec<net_p2p::MappedPort> {
        let seen = self.seen.upgrade();
        seen.and_then(|seen| Some(seen.network.p2p()?.mapped_ports())).unwrap_or_default()
    }

    /// The state of the dial of every configured peer, as [`GossipNode::dials`](gossip::GossipNode::dials) has it.
    #[must_use]
    pub fn dials(&self) -> Vec<DialState> {
        self.seen.upgrade().map(|seen| seen.network.dials()).unwrap_or_default()
    }

    /// Reads the files of the WebSocket side's certificates again, because somebody says that they have changed. Returns
    /// `true` if connections that begin from now on use something else than before; `None` if it has no certificates, or
    /// the node is gone. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// [`TlsError`](net_tcp::tls::TlsError) when some of the files cannot be used; what they held before stays in use.
    #[cfg(any(feature = "ws", feature = "websocket"))]
    pub fn reload_certificates(&self) -> Result<Option<bool>, net_tcp::tls::TlsError> {
        let Some(seen) = self.seen.upgrade() else { return Ok(None) };
        #[cfg(feature = "ws")]
        if let Some(ws) = seen.network.ws() {
            return if ws.has_certificates() {
                ws.reload_certificates().map(Some)
            } else {
                Ok(None)
            };
        }
        #[cfg(feature = "websocket")]
        if let Some(p2p) = seen.network.p2p() {
            return p2p.reload_certificates();
        }
        Ok(None)
    }

    /// The standing of a peer on topics; `None` if it is not connected over libp2p.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn topic_score(&self, peer: &Identity) -> Option<TopicScore> {
        self.seen.upgrade()?.network.p2p()?.topic_score(peer)
    }

    /// The topics of the libp2p side and their meshes; none where there is no such side, or it does not gossip.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn topic_meshes(&self) -> Vec<TopicMesh> {
        let seen = self.seen.upgrade();
        seen.and_then(|seen| Some(seen.network.p2p()?.topic_meshes())).unwrap_or_default()
    }

    /// A receiver of every message that is accepted from now on, on any of the node's own topics; `None` without libp2p, or if
    /// the node is gone.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn observe_topics(&self) -> Option<broadcast::Receiver<TopicInbound>> {
        Some(self.seen.upgrade()?.network.p2p()?.observe_topics())
    }

    /// The names of the node's own topics.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn own_topics(&self) -> Vec<String> {
        let seen = self.seen.upgrade();
        let names = |p2p: &P2pNetwork| p2p.own_topics().map(str::to_owned).collect();
        seen.and_then(|seen| seen.network.p2p().map(names)).unwrap_or_default()
    }

    /// A peer's own description; `None` if it is not connected over libp2p, or has not sent one yet. The texts are the
    /// peer's: show them escaped, and decide nothing by them.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn about(&self, peer: &Identity) -> Option<PeerAbout> {
        self.seen.upgrade()?.network.p2p()?.about(peer)
    }

    /// The places with the door that are taken, and the bounds of the door; `None` if the node is gone.
    #[must_use]
    pub fn door(&self) -> Option<DoorState> {
        let door = &self.seen.upgrade()?.door;
        Some(DoorState {
            limits: door.limits(),
            peers: door.peers(),
            sockets: door.sockets(),
            half_open: door.half_open(),
            outbound: door.outbound(),
        })
    }

    /// The worst reason for which the node does only a part of its work, or none; `None` if it does all of it.
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
        #[cfg(feature = "p2p")]
        if seen.network.p2p().is_some_and(P2pNetwork::mutes_most_peers) {
            return Some(Trouble::PeersMuted);
        }
        if seen.broadcaster.is_contested() {
            return Some(Trouble::IdentityContested);
        }
        #[cfg(feature = "ws")]
        if seen.network.ws().and_then(WsNetwork::tls).is_some_and(TlsIdentity::is_stale) {
            return Some(Trouble::CertificateStale);
        }
        #[cfg(all(feature = "ws", feature = "websocket"))]
        if seen.network.ws().is_none()
            && seen.network.p2p().and_then(P2pNetwork::tls).is_some_and(TlsIdentity::is_stale)
        {
            return Some(Trouble::CertificateStale);
        }
        None
    }
}
