//! The contract: what an application may ask of a gossip node.

use bytes::Bytes;

use crate::{
    address::NodeAddress,
    dial_state::DialState,
    handler::BoxFuture,
    http::{HttpAddressError, HttpClient},
    identity::Identity,
    message::{Delivery, DeliveryError, Outbound, Request, RequestError, Response, SubmitError},
    network_id::NetworkId,
    peer::{LinkId, PeerClass, PeerInfo},
    reason::ApplicationReason,
    topic::PublishError,
};

/// The outcome of submitting a sound message, at the moment of the call. A message that can never be sent is a
/// [`SubmitError`] instead.
///
/// `Queued` promises a place in a local queue. It never promises delivery.
#[must_use = "a submission that was not queued has been dropped"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Accepted into a bounded local queue.
    Queued,
    /// A local queue, or the byte budget, was at its bound; the message was dropped and counted, and may
    /// be tried again later.
    Full,
    /// The node or the peer has shut down; no later submission can succeed.
    Closed,
}

/// The way in which a node renews its outgoing connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectPolicy {
    /// Dial until the wanted number of peers is connected; keep those that are.
    FillMesh,
    /// Drop the outgoing connections first.
    ReplaceMesh,
}

/// A running gossip node, whatever carries its bytes.
///
/// Implementations are cheap handles. None of these methods waits (two return futures to wait on),
/// so all of them may be called from a message handler. Starting and stopping are not here: the type
/// that builds a node returns the handle together with the ownership of its tasks. Neither is the choice of peers (bans,
/// members, addresses): handlers and services hold the node, and whoever may send messages is not thereby allowed to say
/// whom it talks to. Whoever runs the node has a handle of its own for that.
pub trait GossipNode: Send + Sync + 'static {
    /// The network this node belongs to.
    fn network_id(&self) -> &NetworkId;

    /// Returns the addresses at which this node can be reached; none before it listens.
    fn addresses(&self) -> Vec<NodeAddress>;

    /// Offers a message of this node's own for delivery.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] when the message can never be sent, because of its tag or its length.
    fn broadcast(&self, message: Outbound) -> Result<Admission, SubmitError>;

    /// Offers a message, and resolves when every peer's write loop has written it or given it up.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`] when the message was not queued at all, or the node stopped meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting, not the broadcast, which is under way once this
    /// method has returned.
    fn broadcast_and_wait(
        &self,
        message: Outbound,
    ) -> BoxFuture<'_, Result<Delivery, DeliveryError>>;

    /// Offers somebody else's message for delivery, if this node relays; else drops it, which counts
    /// as [`Admission::Queued`].
    ///
    /// # Errors
    ///
    /// [`SubmitError`], as for [`GossipNode::broadcast`], if this node relays.
    fn relay(&self, message: Outbound) -> Result<Admission, SubmitError>;

    /// Publishes a message on a topic of the application's own, over libp2p, and resolves with the number of peers that it
    /// was sent to: those that are subscribed, zero if there are none. This node does not hear it. The default has no
    /// topics, as a node without libp2p.
    ///
    /// # Errors
    ///
    /// [`PublishError`] when the message was not published.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting, not the publication, which is under way once this method has returned.
    fn publish(&self, topic: &str, body: Bytes) -> BoxFuture<'_, Result<usize, PublishError>> {
        drop(body);
        let topic = topic.to_owned();
        Box::pin(async { Err(PublishError::UnknownTopic { topic }) })
    }

    /// The peers of a class, in no particular order.
    fn peers(&self, class: PeerClass) -> Vec<PeerInfo>;

    /// The state of every configured address, by transport and then in the order of their texts: its outcome, the last
    /// error, the next try. The default has none, as a node that dials nobody.
    fn dials(&self) -> Vec<DialState> {
        Vec::new()
    }

    /// Asks one peer and resolves with its answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the request; a late answer is discarded.
    fn request(
        &self,
        peer: LinkId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, RequestError>>;

    /// Returns a client for the HTTP services of a node, whether it is a gossip peer or not. Returns at once; the
    /// first request connects. Clients of one address share connections and limits. Over libp2p `/p2p/ID` alone
    /// leads to the peer of that identity while it is connected, and its requests fail as unreachable otherwise.
    ///
    /// # Errors
    ///
    /// [`HttpAddressError`] when this node has no transport that leads to `peer`, which is what a node
    /// without any always says.
    fn http_client(&self, peer: &NodeAddress) -> Result<HttpClient, HttpAddressError> {
        Err(HttpAddressError::OtherTransport { address: peer.to_string() })
    }

    /// Returns a client for the HTTP services of a connected peer. Returns at once; the first request connects,
    /// over libp2p on the connection that is there. See [`PeerInfo::http_address`] for where it leads: over
    /// WebSocket nothing proves that the node which answers has the same identity. The client goes on leading
    /// there when the peer's link has ended; ask for another one when the peer is connected again.
    ///
    /// # Errors
    ///
    /// [`HttpAddressError`] when no link leads to `peer` ([`HttpAddressError::NotConnected`]), or it does not
    /// say where it listens ([`HttpAddressError::NoAddress`]).
    fn http_client_of(&self, peer: &Identity) -> Result<HttpClient, HttpAddressError> {
        let connected = self.peers(PeerClass::Connected);
        let found = connected.into_iter().find(|known| known.identity.as_ref() == Some(peer));
        let found = found.ok_or(HttpAddressError::NotConnected { peer: *peer })?;
        let address = found.http_address.ok_or(HttpAddressError::NoAddress { peer: *peer })?;
        self.http_client(&address)
    }

    /// Asks for outgoing connections. Returns at once.
    fn connect_outgoing(&self, policy: ConnectPolicy);

    /// Starts closing the connection to `peer`. Unknown peers are ignored.
    fn disconnect(&self, peer: LinkId, reason: ApplicationReason);

    /// Tells the node that consensus made progress, which shows that its peers are not a clique.
    fn network_advanced(&self);
}

const _: Option<&dyn GossipNode> = None; // stays dyn-compatible
