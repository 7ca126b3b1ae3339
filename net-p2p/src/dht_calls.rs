//! The calls of other tasks to the DHT.
//!
//! # Invariants
//!
//! * A value that its namespace does not admit does not leave the caller's task.

use std::time::Duration;

use crate::{
    dht::{
        self, Capability, DhtError, DhtPeer, Find, FoundValue, Get, Order, Provider, Put, ValueKey,
        ValueKeyError,
    },
    dht_handle::DhtHandle,
    network::P2pNetwork,
};

impl P2pNetwork {
    /// Searches the DHT for nodes that offer `capability`, this node left out, and returns as many as `wanted` at most:
    /// those that are found within `limit`. Nodes in the DHT can be forged, so a result is a proposal.
    ///
    /// # Errors
    ///
    /// [`DhtError`] when the search does not begin.
    ///
    /// # Cancel safety
    ///
    /// Safe: the search ends with the future.
    pub async fn find_providers(
        &self,
        capability: Capability,
        wanted: usize,
        limit: Duration,
    ) -> Result<Vec<Provider>, DhtError> {
        let order = |reply| Order::Find(Find { capability, wanted, limit, reply });
        self.dht().ask(order).await
    }

    /// Announces `capability` in the DHT from now on, until the node ends; a swarm that starts again after a fault
    /// announces what the configuration names. At most 16 are announced.
    ///
    /// # Errors
    ///
    /// [`DhtError`], such as [`DhtError::Client`] in a node that is no server of the DHT.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may leave the announcement in force.
    pub async fn provide(&self, capability: Capability) -> Result<(), DhtError> {
        self.dht().ask(|reply| Order::Provide { capability, reply }).await?
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
    pub async fn dht_peers(&self) -> Result<Vec<DhtPeer>, DhtError> {
        self.dht().ask(Order::Peers).await
    }

    /// Stores a value at the nodes closest to its key, and returns the number of those that say they took it within
    /// `limit`; this node stores it too, and answers others with it if it is a server. The value is stored for 36 h, so
    /// put it again before. A value has at most [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES), and a node at most 128.
    ///
    /// # Errors
    ///
    /// [`DhtError`], such as [`DhtError::Invalid`] for a value that the namespace of the key does not admit.
    ///
    /// # Cancel safety
    ///
    /// The value is put even if the future is dropped.
    pub async fn put_value(
        &self,
        key: ValueKey,
        value: Vec<u8>,
        limit: Duration,
    ) -> Result<usize, DhtError> {
        self.dht().values()?.check(&key, &value)?;
        let begun = self.dht().ask(|reply| Order::Put(Put { key, value, limit, reply })).await??;
        begun.await.map_err(|_dropped| DhtError::Closed)
    }

    /// Signs `content` with the key of this node, under a key that only this node can sign for. Of two values with one
    /// key, the one with the higher `sequence` counts.
    ///
    /// # Errors
    ///
    /// [`ValueKeyError`] unless the name is 1 to 64 printable ASCII characters without spaces and slashes.
    pub fn sign_value(
        &self,
        name: &str,
        sequence: u64,
        content: &[u8],
    ) -> Result<(ValueKey, Vec<u8>), ValueKeyError> {
        let key = ValueKey::of_owner(&self.identity(), name)?;
        let DhtHandle { key: by, network, .. } = self.dht();
        let value = dht::sign(by, network, &key, sequence, content);
        Ok((key, value))
    }

    /// Searches the DHT for the value of a key: the valid one that counts most of those found within `limit`. `None` if
    /// there is none, or no node that has it was reached.
    ///
    /// # Errors
    ///
    /// [`DhtError`] when the search does not begin.
    ///
    /// # Cancel safety
    ///
    /// Safe: the search ends with the future.
    pub async fn get_value(
        &self,
        key: ValueKey,
        limit: Duration,
    ) -> Result<Option<FoundValue>, DhtError> {
        self.dht().values()?.check_key(&key)?;
        let asked = key.clone();
        let found = self.dht().ask(|reply| Order::Get(Get { key: asked, limit, reply })).await?;
        Ok(found.map(|value| FoundValue::of(&key, value)))
    }
}
