//! The distributed hash table: nodes find each other by what they offer.
//!
//! ```text
//!   mesh loop, handles ─▶ find, put, get ... ─▶ [orders] ─▶ Dht ─▶ GatedDht: Kademlia ◀──▶ other nodes
//!                                                        ▲ ▲
//!   peers that support the protocol (identify) ──────────┘ └── announcements, every three hours
//! ```
//!
//! # Invariants
//!
//! * Nothing is looked up and nothing announced unless the configuration says so.
//! * Everything that others store, ask or answer is bounded in number, size and time (`store.rs`, `gate.rs`, `lookups.rs`).
//! * Values are neither stored nor answered unless the configuration says so, and never in a profile whose nodes have
//!   them off. Source: wire facts 8.7.
//! * A value is checked by its namespace before it is stored, put or returned (`validator.rs`).
//! * A connection made for the table carries no gossip, unless the mesh loop dials its peer.

mod announcements;
mod capability;
mod driver;
mod exchanges;
mod gate;
mod key;
mod lookups;
mod order;
mod refresh;
mod routes;
mod scope;
mod store;
mod validator;
mod values;

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use gossip::{Identity, NetworkId, NetworkProfile, NodeAddress};
use libp2p::{Multiaddr, PeerId, StreamProtocol, kad};

pub use self::{
    capability::{Capability, CapabilityError},
    key::{ValueKey, ValueKeyError},
    order::{DhtError, DhtPeer},
    scope::AddressScope,
    validator::{InvalidValue, Preference, ValueValidator},
};
pub(crate) use self::{
    driver::Dht,
    gate::GatedDht,
    order::{Find, Get, Order, Put, Values},
};
use self::{
    gate::Kademlia,
    store::Store,
    validator::{Namespaces, SignedValue},
    values::ValueStore,
};
use crate::{address::PeerAddress, metrics::P2pMetrics};

/// Longest value, in bytes. Chosen: what fits into a message of the protocol, of 16 KiB, beside 20 nodes and their addresses.
pub const MAX_VALUE_BYTES: usize = 4_096;

/// Longest time of a query of the library: an announcement, or a refresh of the routing table. Source: wire facts 8.7,
/// where an announcement has 60 s.
const QUERY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Nodes that keep a record, and that a search asks: the closest ones to its key. Chosen: twice the 20 of existing nodes,
/// so that 20 sybils next to a key are half of them. Source: threats and goals, row 24.
const REPLICATION: NonZeroUsize = NonZeroUsize::new(2 * kad::K_VALUE.get()).unwrap();

/// Requests of one query under way. Source: wire facts 8.7, alpha.
const PARALLELISM: NonZeroUsize = NonZeroUsize::new(10).unwrap();

/// Time between two refreshes of the routing table. Source: wire facts 8.7.
const REFRESH: std::time::Duration = std::time::Duration::from_secs(600);

/// States whether a node stores, puts and gets values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DhtValues {
    /// It does not. Default, as in existing nodes.
    #[default]
    Off,
    /// It does, within the namespaces `content` and `signed`, and those of
    /// [`DhtConfig::with_namespace`].
    On,
}

/// The part that a node takes in the DHT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DhtMode {
    /// None. Default, as in existing nodes.
    #[default]
    Off,
    /// As [`DhtMode::Server`] if the node listens, else as [`DhtMode::Client`]. Source: wire facts 8.7.
    Auto,
    /// It searches, and announces nothing.
    Client,
    /// It searches, announces what it offers, and answers others.
    Server,
}

/// Settings of the DHT. [`DhtConfig::default`] turns it off.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DhtConfig {
    /// The part that the node takes. Default: [`DhtMode::Off`].
    pub mode: DhtMode,
    /// Capabilities that a server offers, beside [`Capability::gossip`] if it gossips. Default: nothing.
    pub provides: Vec<Capability>,
    /// The addresses that are believed. Default: all if every address that the node listens on or is configured to dial
    /// is private, else those of the public internet.
    pub scope: Option<AddressScope>,
    /// The values that the node has, if any. Default: [`DhtValues::Off`]. In the profile `algorand` they are always off,
    /// as in its existing nodes.
    pub values: DhtValues,
    /// Namespaces of an application, by their names. Default: none.
    namespaces: BTreeMap<String, Arc<dyn ValueValidator>>,
}

impl DhtConfig {
    /// Takes this part in the DHT.
    #[must_use]
    pub const fn with_mode(mut self, mode: DhtMode) -> Self {
        self.mode = mode;
        self
    }

    /// Offers these.
    #[must_use]
    pub fn with_provides(mut self, provides: impl IntoIterator<Item = Capability>) -> Self {
        self.provides = provides.into_iter().collect();
        self
    }

    /// Believes these addresses.
    #[must_use]
    pub const fn with_scope(mut self, scope: AddressScope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Has values or not.
    #[must_use]
    pub const fn with_values(mut self, values: DhtValues) -> Self {
        self.values = values;
        self
    }

    /// Admits the values whose keys begin with `/name/` and that `validator` finds valid. A namespace of this name that
    /// was there before is judged by it from now on.
    #[must_use]
    pub fn with_namespace(
        mut self,
        name: impl Into<String>,
        validator: Arc<dyn ValueValidator>,
    ) -> Self {
        self.namespaces.insert(name.into(), validator);
        self
    }

    /// The values that a node of this network has.
    pub(crate) fn values(&self, profile: &NetworkProfile, network: &NetworkId) -> Values {
        if self.values == DhtValues::Off || profile.name == NetworkProfile::ALGORAND.name {
            return Values::Off;
        }
        let mut namespaces = Namespaces::of(network.label());
        self.namespaces.iter().for_each(|(name, each)| namespaces.add(name, Arc::clone(each)));
        Values::On(namespaces)
    }

    /// The part that a node takes which `listens`; `None` if it takes none.
    fn part(&self, listens: bool) -> Option<kad::Mode> {
        match (self.mode, listens) {
            (DhtMode::Off, _) => None,
            (DhtMode::Client, _) | (DhtMode::Auto, false) => Some(kad::Mode::Client),
            (DhtMode::Server, _) | (DhtMode::Auto, true) => Some(kad::Mode::Server),
        }
    }
}

/// A node that offers something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provider {
    /// Its identity.
    pub identity: Identity,
    /// Addresses where it may be reached, each ending with `/p2p/ID`; empty if nobody told one.
    pub addresses: Vec<NodeAddress>,
}

impl Provider {
    fn of((peer, addresses): (PeerId, Vec<PeerAddress>)) -> Option<Self> {
        let identity = crate::address::identity_of(&peer)?;
        let addresses = addresses.iter().map(PeerAddress::node_address).collect();
        Some(Self { identity, addresses })
    }
}

/// A value that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundValue {
    /// The content, without signature.
    pub content: Vec<u8>,
    /// The sequence number of a signed value.
    pub sequence: Option<u64>,
}

impl FoundValue {
    /// The content of a valid value.
    pub(crate) fn of(key: &ValueKey, value: Vec<u8>) -> Self {
        match SignedValue::decode(&value).filter(|_| key.parts().0 == ValueKey::SIGNED) {
            Some(signed) => {
                Self { content: signed.content.to_vec(), sequence: Some(signed.sequence) }
            }
            None => Self { content: value, sequence: None },
        }
    }
}

/// Signs a value that `by` owns in a network.
pub(crate) fn sign(
    by: &libp2p::identity::Keypair,
    network: &NetworkId,
    key: &ValueKey,
    sequence: u64,
    content: &[u8],
) -> Vec<u8> {
    validator::sign(by, network.label(), key, sequence, content)
}

/// The protocol of a network's table. Source: wire facts 8.7.
fn protocol(profile: &NetworkProfile, network: &NetworkId) -> Option<StreamProtocol> {
    let name = format!("/{}/kad/{}/kad/1.0.0", profile.name, network.label());
    StreamProtocol::try_from_owned(name).ok()
}

/// The node that takes part.
#[derive(Debug)]
pub(crate) struct Participant<'a> {
    pub(crate) profile: &'a NetworkProfile,
    pub(crate) network: &'a NetworkId,
    pub(crate) local: PeerId,
    /// Addresses that it listens on.
    pub(crate) listen: &'a [Multiaddr],
    /// Addresses that it is configured to dial.
    pub(crate) peers: &'a [NodeAddress],
    /// The capability that it has because it gossips.
    pub(crate) gossip: Option<Capability>,
}

/// Makes the behaviour and what drives it; `None` if the node takes no part.
pub(crate) fn build(
    settings: &DhtConfig,
    node: Participant<'_>,
    metrics: &P2pMetrics,
) -> Option<(GatedDht, Dht)> {
    let Participant { profile, network, local, listen, peers, gossip } = node;
    let mode = settings.part(!listen.is_empty())?;
    let protocol = protocol(profile, network)?;
    let mut library = kad::Config::new(protocol.clone());
    library
        .set_query_timeout(QUERY_TIMEOUT)
        .set_parallelism(PARALLELISM)
        .set_replication_factor(REPLICATION)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_periodic_bootstrap_interval(Some(REFRESH))
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_record_ttl(Some(values::VALIDITY))
        .set_record_filtering(kad::StoreInserts::FilterBoth);
    let known = [Capability::gossip(), Capability::archival(), Capability::circuits()];
    let reserved = known.iter().chain(&settings.provides).map(Capability::key);
    let values = match settings.values(profile, network) {
        Values::Off => None,
        Values::On(namespaces) => Some(ValueStore::new(namespaces)),
    };
    let store = Store::new(local, reserved, values);
    let mut kademlia = Kademlia::with_config(local, store, library);
    kademlia.set_mode(Some(mode));
    let peers = peers.iter().filter_map(|peer| PeerAddress::parse(peer).ok());
    let peers: Vec<_> = peers.map(|peer| peer.address).collect();
    let scope = settings.scope.unwrap_or_else(|| AddressScope::of(listen.iter().chain(&peers)));
    let offered = match mode {
        kad::Mode::Client => Vec::new(),
        kad::Mode::Server => {
            let mut offered: Vec<_> = gossip.into_iter().collect();
            offered.extend(settings.provides.iter().cloned());
            offered.dedup();
            offered
        }
    };
    let part = driver::Part { local, protocol, scope, mode };
    let dht = Dht::new(part, offered, metrics.clone());
    Some((GatedDht::new(kademlia, scope, metrics.clone()), dht))
}

#[cfg(test)]
mod testing {
    use super::*;

    /// Signs with a key of the other kind.
    pub(super) fn sign(
        by: &gossip::Keypair,
        network: &str,
        key: &ValueKey,
        sequence: u64,
        content: &[u8],
    ) -> Vec<u8> {
        let by = libp2p::identity::Keypair::ed25519_from_bytes(by.seed()).unwrap();
        validator::sign(&by, network, key, sequence, content)
    }
}
