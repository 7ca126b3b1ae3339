//! Opens streams for the HTTP client.

use std::time::Duration;

use gossip::{
    BoxFuture, NodeAddress,
    http::{BoxError, HttpAddressError},
};
use libp2p::StreamProtocol;
use net_http::client::{Connect, Io};
use runtime::time::Instant;

use crate::{
    address::PeerAddressError,
    command::ToSwarm,
    streams::{StreamIo, StreamTarget},
};

/// Longest time for opening a stream: the name look-up, the dial, and the wait for a place. Callers have a
/// deadline of their own. Chosen: 10 s for each of the three.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// Opens streams to one peer.
///
/// It holds a handle to the swarm and not to the network, so that idle clients keep no network running.
#[derive(Debug)]
pub(crate) struct StreamConnect {
    pub(crate) swarm: ToSwarm,
    pub(crate) to: StreamTarget,
    pub(crate) protocol: StreamProtocol,
}

impl Connect for StreamConnect {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, BoxError>> {
        Box::pin(async {
            let (to, protocols) = (self.to.clone(), vec![self.protocol.clone()]);
            let opened = self.swarm.open_to(to, protocols, Instant::now() + OPEN_LIMIT).await?;
            Ok(Box::new(StreamIo::from(opened)) as Box<dyn Io>)
        })
    }
}

/// Converts the error of an address that no HTTP client can use.
pub(crate) fn unusable(address: &NodeAddress, error: &PeerAddressError) -> HttpAddressError {
    let text = address.to_string();
    match error {
        PeerAddressError::NotMultiaddr { .. } => HttpAddressError::OtherTransport { address: text },
        other => HttpAddressError::Unusable { address: text, reason: other.to_string() },
    }
}
