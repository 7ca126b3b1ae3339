//! Hosts of the library next to a key, which serve the table and lie about who offers what.

use std::time::Duration;

use futures::StreamExt;
use gossip::{Identity, NodeAddress};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    kad::{
        self, RecordKey,
        store::{MemoryStore, RecordStore},
    },
    noise,
    swarm::NetworkBehaviour,
    tcp, yamux,
};
use runtime::TaskSet;
use sha2::{Digest, Sha256};
use tandem::Capability;

/// Sybils of one attack. Source: threats and goals, row 24.
const SYBILS: usize = 20;

#[derive(NetworkBehaviour)]
struct Sybil {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

/// The key of a capability. Source: wire facts 8.7: a SHA-256 multihash.
fn key_of(capability: &Capability) -> RecordKey {
    let mut key = vec![0x12, 32];
    key.extend_from_slice(&Sha256::digest(capability.as_str().as_bytes()));
    RecordKey::from(key)
}

/// Keys of which the peer IDs are the closest to a key of many.
fn next_to(target: RecordKey) -> Vec<Keypair> {
    let target = kad::KBucketKey::new(target);
    let distance =
        |key: &Keypair| kad::KBucketKey::from(key.public().to_peer_id()).distance(&target);
    let mut keys: Vec<_> = (0..64 * SYBILS).map(|_| Keypair::generate_ed25519()).collect();
    keys.sort_by_cached_key(distance);
    keys.truncate(SYBILS);
    keys
}

/// A host that stores nothing of others, and names nodes that do not exist as providers; and `victim` at an address where it
/// is not.
fn sybil(key: Keypair, capability: &Capability, victim: PeerId) -> Swarm<Sybil> {
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("there is Noise")
        .with_behaviour(|key| {
            let local = key.public().to_peer_id();
            let mut config = kad::Config::new(StreamProtocol::new("/tandem/kad/dht/kad/1.0.0"));
            config.set_record_filtering(kad::StoreInserts::FilterBoth);
            let mut kad = kad::Behaviour::with_config(local, MemoryStore::new(local), config);
            kad.set_mode(Some(kad::Mode::Server));
            let identify = identify::Config::new(String::new(), key.public());
            Sybil { kad, identify: identify::Behaviour::new(identify) }
        })
        .expect("it is made")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    let nowhere: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().expect("it is an address");
    for provider in (1..kad::K_VALUE.get()).map(|_| PeerId::random()).chain([victim]) {
        let record = kad::ProviderRecord::new(key_of(capability), provider, vec![nowhere.clone()]);
        swarm.behaviour_mut().kad.store_mut().add_provider(record).expect("there is room");
    }
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("it is an address")).expect("it listens");
    swarm
}

/// Starts sybils next to the key of `capability` in `tasks`, which join the network by `entry` and lie about `victim`.
pub(super) fn beset(
    capability: &Capability,
    entry: &NodeAddress,
    victim: &Identity,
    tasks: &TaskSet,
) {
    let NodeAddress::Multiaddr(entry) = entry else { panic!("{entry:?} is no multiaddr") };
    let entry: Multiaddr = entry.parse().expect("it is an address");
    let victim = PeerId::from_bytes(victim.peer_id_bytes()).expect("it is a peer ID");
    for key in next_to(key_of(capability)) {
        let mut swarm = sybil(key, capability, victim);
        let entry = entry.clone();
        tasks.spawn("sybil", |_cancel| async move {
            swarm.dial(entry).expect("it is dialled");
            loop {
                let event = swarm.select_next_some().await;
                if let libp2p::swarm::SwarmEvent::NewListenAddr { address, .. } = event {
                    swarm.add_external_address(address);
                }
            }
        });
    }
}
