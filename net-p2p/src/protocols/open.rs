//! Opens streams with applications' own protocols.

use std::time::Duration;

use gossip::{Identity, LONGEST_LIMIT};
use libp2p::StreamProtocol;
use tokio::time::Instant;

use super::stream::PeerStream;
use crate::{
    command::ToSwarm,
    streams::{OpenError, StreamTarget},
};

/// Opens streams to connected peers: a cheap handle, which does not keep the network running.
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
        let malformed = |_| OpenError::Malformed { name: protocol.to_owned() };
        let protocol = StreamProtocol::try_from_owned(protocol.to_owned()).map_err(malformed)?;
        let id = libp2p::PeerId::from_bytes(peer.peer_id_bytes())
            .map_err(|_| OpenError::NotConnected)?;
        let deadline = Instant::now() + limit.min(LONGEST_LIMIT);
        let to = StreamTarget::Connected(id);
        let opened = self.swarm.open_to(to, vec![protocol], deadline).await?;
        Ok(PeerStream::opened(*peer, opened))
    }
}
