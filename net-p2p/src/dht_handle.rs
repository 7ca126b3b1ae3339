//! The way of other tasks to the DHT.
//!
//! # Invariants
//!
//! * Nothing is asked of a DHT in which the node takes no part.

use gossip::{NetworkId, NetworkProfile};
use libp2p::identity::Keypair;
use tokio::sync::oneshot;

use crate::{
    command::ToSwarm,
    config::{P2pConfig, libp2p_key},
    dht::{DhtError, DhtMode, Order, Values},
};

/// The way to the DHT of the swarm that runs.
#[derive(Debug)]
pub(crate) struct DhtHandle {
    mode: DhtMode,
    values: Values,
    /// Signs values of this node.
    pub(crate) key: Keypair,
    pub(crate) network: NetworkId,
    swarm: ToSwarm,
}

impl DhtHandle {
    pub(crate) fn new(config: &P2pConfig, profile: &NetworkProfile, swarm: &ToSwarm) -> Self {
        Self {
            mode: config.dht.mode,
            values: config.dht.values(profile, &config.network),
            key: libp2p_key(&config.key),
            network: config.network.clone(),
            swarm: swarm.clone(),
        }
    }

    /// The values that the node has, if it takes part in the DHT.
    pub(crate) fn values(&self) -> Result<&Values, DhtError> {
        if self.mode == DhtMode::Off { Err(DhtError::Off) } else { Ok(&self.values) }
    }

    /// Has the DHT do something, if the node takes part in it.
    ///
    /// # Cancel safety
    ///
    /// Safe: a search ends with the future.
    pub(crate) async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> Result<T, DhtError> {
        self.values()?;
        self.swarm.ask_dht(order).await
    }
}
