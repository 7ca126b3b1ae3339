//! Opens streams with applications' own protocols.

use std::time::Duration;

use gossip::{Identity, LONGEST_LIMIT, NodeAddress};
use libp2p::StreamProtocol;
use runtime::time::Instant;

use super::stream::PeerStream;
use crate::{
    address::identity_of,
    command::ToSwarm,
    streams::{OpenError, StreamTarget},
};

/// Opens streams to peers: a cheap handle, which does not keep the network running.
#[derive(Clone, Debug)]
pub struct Streams {
    swarm: ToSwarm,
}

impl Streams {
    pub(crate) const fn new(swarm: ToSwarm) -> Self {
        Self { swarm }
    }

    /// Opens a stream to a connected peer, with a protocol that the peer accepts. Waits for a place while 256
    /// other streams to the peer are open. A peer that is connected over another transport only counts as not
    /// connected.
    ///
    /// # Errors
    ///
    /// [`OpenError`], at the latest after `limit`: [`OpenError::NotConnected`] at once if there is no libp2p
    /// connection to the peer, [`OpenError::Unsupported`] if the peer does not support the protocol,
    /// [`OpenError::Malformed`] if the name is not valid.
    ///
    /// # Cancel safety
    ///
    /// Safe: a stream that opens after the future was dropped is reset.
    pub async fn open(
        &self,
        peer: &Identity,
        protocol: &str,
        limit: Duration,
    ) -> Result<PeerStream, OpenError> {
        let id = libp2p::PeerId::from_bytes(peer.peer_id_bytes())
            .map_err(|_| OpenError::NotConnected)?;
        self.open_to(StreamTarget::Connected(id), protocol, limit).await
    }

    /// Opens a stream to the peer of an address, which is dialled if it is not connected. Such a connection carries no
    /// gossip, and ends when nothing uses it. `/p2p/ID` alone names a connected peer.
    ///
    /// # Errors
    ///
    /// [`OpenError::Address`] for an address that cannot be dialled, the errors of a dial, and those of [`Streams::open`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Streams::open`]; a dial that has begun goes on.
    pub async fn open_at(
        &self,
        address: &NodeAddress,
        protocol: &str,
        limit: Duration,
    ) -> Result<PeerStream, OpenError> {
        self.open_to(StreamTarget::parse(address)?, protocol, limit).await
    }

    async fn open_to(
        &self,
        to: StreamTarget,
        protocol: &str,
        limit: Duration,
    ) -> Result<PeerStream, OpenError> {
        let malformed = |_| OpenError::Malformed { name: protocol.to_owned() };
        let protocol = StreamProtocol::try_from_owned(protocol.to_owned()).map_err(malformed)?;
        let identity = identity_of(to.peer()).ok_or(OpenError::NotConnected)?;
        let deadline = Instant::now() + limit.min(LONGEST_LIMIT);
        let opened = self.swarm.open_to(to, vec![protocol], deadline).await?;
        Ok(PeerStream::opened(identity, opened))
    }
}
