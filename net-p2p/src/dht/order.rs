//! Orders of other tasks to the DHT, on their way to the swarm task.

use std::time::Duration;

use gossip::{Identity, NodeAddress};
use tokio::sync::oneshot;

use super::{
    Provider,
    capability::Capability,
    key::ValueKey,
    lookups::MAX_SEARCHES,
    validator::{InvalidValue, Namespaces},
};

/// The reason why the DHT did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DhtError {
    /// The node takes no part in the DHT.
    #[error("this node takes no part in the DHT; set `dht` to turn it on")]
    Off,
    /// Too many searches, puts or gets are under way.
    #[error("{max} searches are under way, which is the most", max = MAX_SEARCHES)]
    Busy,
    /// The libp2p network has ended, or is starting again.
    #[error("the libp2p network is not running")]
    Closed,
    /// The node is a client, which announces nothing.
    #[error("this node is a client of the DHT, which announces nothing; set `dht` to server")]
    Client,
    /// The node announces as much as it may, or has as many values of its own.
    #[error("this node has as many records of its own in the DHT as it may")]
    Full,
    /// The node neither puts nor gets values.
    #[error("values of the DHT are off in this node; set `dht_values` to turn them on")]
    ValuesOff,
    /// A value of the key is stored here that counts more.
    #[error("a value of this key is stored here that counts more")]
    Outdated,
    /// The value is not one of the key.
    #[error("the value cannot be put: {0}")]
    Invalid(InvalidValue),
    /// The key cannot be looked up.
    #[error("the key cannot be looked up: {0}")]
    Key(InvalidValue),
}

/// A node in the routing table of the DHT.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DhtPeer {
    /// Its identity.
    pub identity: Identity,
    /// The addresses in the table, each ending with `/p2p/ID`.
    pub addresses: Vec<NodeAddress>,
    /// `true` if it is connected.
    pub connected: bool,
}

/// A search for providers.
#[derive(Debug)]
pub(crate) struct Find {
    pub(crate) capability: Capability,
    /// Number of providers to find.
    pub(crate) wanted: usize,
    /// Longest time of the search.
    pub(crate) limit: Duration,
    pub(crate) reply: oneshot::Sender<Vec<Provider>>,
}

/// A value to store at the nodes closest to its key.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) key: ValueKey,
    pub(crate) value: Vec<u8>,
    pub(crate) limit: Duration,
    /// Gets the number of nodes that took it.
    pub(crate) reply: oneshot::Sender<Result<oneshot::Receiver<usize>, DhtError>>,
}

/// A value to search for.
#[derive(Debug)]
pub(crate) struct Get {
    pub(crate) key: ValueKey,
    pub(crate) limit: Duration,
    pub(crate) reply: oneshot::Sender<Option<Vec<u8>>>,
}

/// Something that the DHT is to do.
#[derive(Debug)]
pub(crate) enum Order {
    Find(Find),
    Put(Put),
    Get(Get),
    /// Announces a capability from now on.
    Provide {
        capability: Capability,
        reply: oneshot::Sender<Result<(), DhtError>>,
    },
    /// Lists the routing table.
    Peers(oneshot::Sender<Vec<DhtPeer>>),
}

/// The values that a node puts and gets, checked before they become orders.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    Off,
    On(Namespaces),
}

impl Values {
    /// Checks the namespace of a key.
    pub(crate) fn check_key(&self, key: &ValueKey) -> Result<(), DhtError> {
        match self {
            Self::Off => Err(DhtError::ValuesOff),
            Self::On(namespaces) => namespaces.check_key(key).map_err(DhtError::Key),
        }
    }

    /// Checks a value.
    pub(crate) fn check(&self, key: &ValueKey, value: &[u8]) -> Result<(), DhtError> {
        match self {
            Self::Off => Err(DhtError::ValuesOff),
            Self::On(namespaces) => namespaces.check(key, value).map_err(DhtError::Invalid),
        }
    }
}
