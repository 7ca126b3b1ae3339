//! The distributed hash table: between nodes, and against peers that lie, flood or fill it.

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt, future::join_all};
use gossip::{GossipNode, NetworkId, NetworkProfile, NodeAddress, PeerClass};
use libp2p::{
    PeerId, StreamProtocol, Swarm, identify,
    identity::Keypair,
    kad::{
        self, RecordKey,
        store::{MemoryStore, RecordStore},
    },
    swarm::{Config, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
};
use mesh::{Door, SourceKind};
use runtime::TaskSet;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    host::{Node, PATIENCE, new_key, plain_transport, until},
    keys::keys,
};
use crate::{
    Capability, DhtConfig, DhtError, DhtMode, DhtValues, FoundValue, InvalidValue, P2pConfig,
    Provider, ValueKey, metrics::P2pEvent,
};

const PROFILE: &NetworkProfile = &NetworkProfile::TANDEM;
const PROTOCOL: StreamProtocol = StreamProtocol::new("/tandem/kad/net/kad/1.0.0");

async fn node(mode: DhtMode, peer: Option<&Node>, provides: &[&str]) -> Node {
    let peers: Vec<NodeAddress> =
        peer.map(|peer| NodeAddress::Multiaddr(peer.address().to_string())).into_iter().collect();
    let provides: Vec<Capability> = provides.iter().map(|name| name.parse().unwrap()).collect();
    let config = |mut config: P2pConfig| {
        config.peers = peers;
        config.dht = DhtConfig::default().with_mode(mode).with_provides(provides);
        config
    };
    Node::start_with(PROFILE, "net-v1", new_key(), config).await
}

/// A node with room for the peers of a whole test, which all come from one address.
async fn roomy(mode: DhtMode, peer: Option<(&Node, gossip::Keypair)>, provides: &[&str]) -> Node {
    let (peers, key) = match peer {
        Some((peer, key)) => (vec![NodeAddress::Multiaddr(peer.address().to_string())], key),
        None => (Vec::new(), new_key()),
    };
    let provides: Vec<Capability> = provides.iter().map(|name| name.parse().unwrap()).collect();
    let config = |mut config: P2pConfig| {
        config.peers = peers;
        config.door = Door::new(mesh::InboundLimits::default().with_per_ip(64));
        config.dht = DhtConfig::default().with_mode(mode).with_provides(provides);
        config.dht.values = DhtValues::On;
        config
    };
    Node::start_with(PROFILE, "net-v1", key, config).await
}

/// Searches again and again until `wanted` providers are found.
async fn found(node: &Node, capability: &str, wanted: usize) -> Vec<Provider> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let search = node.network.find_providers(
            capability.parse().unwrap(),
            wanted,
            Duration::from_secs(5),
        );
        let found = search.await.unwrap();
        if found.iter().filter(|provider| !provider.addresses.is_empty()).count() >= wanted {
            return found;
        }
        assert!(Instant::now() < deadline, "{capability}: {found:?}");
        time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_knows_one_other_finds_a_third_and_gossips_with_it() {
    let hub = node(DhtMode::Server, None, &[]).await;
    let archive = node(DhtMode::Server, Some(&hub), &["archival"]).await;
    let seeker = node(DhtMode::Client, Some(&hub), &[]).await;
    let archives = found(&seeker, "archival", 1).await;
    assert_eq!(archives.len(), 1);
    assert_eq!(archives[0].identity, archive.network.identity());
    let address = NodeAddress::Multiaddr(archive.address().to_string());
    assert!(archives[0].addresses.contains(&address), "{archives:?}");
    // The mesh loop has the DHT as a source, and dials what it finds there.
    until("the seeker has a link to the archive", || {
        let peers = seeker.network.peers(PeerClass::ConnectedOut);
        peers.iter().any(|peer| peer.identity == Some(archive.network.identity()))
    })
    .await;
    let records = seeker.broadcaster.mesh().records();
    let is_listed = records.iter().any(|record| {
        record.address == address
            && record.listings.iter().any(|(source, _)| source.kind() == SourceKind::Directory)
    });
    assert!(is_listed, "{records:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_announces_nothing_and_a_node_without_the_table_finds_nothing() {
    let hub = node(DhtMode::Server, None, &["here"]).await;
    let client = node(DhtMode::Client, Some(&hub), &["there"]).await;
    let off = node(DhtMode::Off, Some(&hub), &["there"]).await;
    found(&client, "here", 1).await;
    let search = |node: &Node| {
        let network = node.network.clone();
        async move { network.find_providers("there".parse().unwrap(), 1, PATIENCE).await }
    };
    assert_eq!(search(&client).await, Ok(Vec::new()));
    assert_eq!(search(&off).await, Err(DhtError::Off));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_made_for_the_table_carries_no_gossip() {
    let hub = node(DhtMode::Server, None, &[]).await;
    let mut others = Vec::new();
    for _ in 0..6 {
        others.push(node(DhtMode::Server, Some(&hub), &["x"]).await);
    }
    // A node with a fan-out that the configured peer fills has no other links.
    let peers = vec![NodeAddress::Multiaddr(hub.address().to_string())];
    let one = |mut config: P2pConfig| {
        config.peers = peers;
        config.gossip = crate::GossipStreams::On;
        config.dht = DhtConfig::default().with_mode(DhtMode::Client);
        config
    };
    let seeker = Node::start_with(PROFILE, "net-v1", new_key(), one).await;
    let providers = found(&seeker, "x", 6).await;
    let known: HashSet<_> = providers.iter().map(|provider| provider.identity).collect();
    assert_eq!(known.len(), 6);
    let peers = seeker.network.peers(PeerClass::ConnectedOut);
    let limit = mesh::MeshLimits::default();
    assert!(peers.len() <= limit.fan_out + 1, "{peers:?}");
}

/// A host of the library, as another implementation would make it.
#[derive(NetworkBehaviour)]
struct Library {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

async fn library(key: Keypair, node: &Node) -> Swarm<Library> {
    host_of(key, node, kad::Config::new(PROTOCOL)).await
}

async fn host_of(key: Keypair, node: &Node, config: kad::Config) -> Swarm<Library> {
    let transport = plain_transport(&key, Door::default());
    let local = key.public().to_peer_id();
    let mut kad = kad::Behaviour::with_config(local, MemoryStore::new(local), config);
    kad.set_mode(Some(kad::Mode::Server));
    let identify = identify::Behaviour::new(identify::Config::new(String::new(), key.public()));
    let config = Config::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
    let mut swarm = Swarm::new(transport, Library { kad, identify }, local, config);
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            swarm.add_external_address(address);
            break;
        }
    }
    swarm.dial(DialOpts::unknown_peer_id().address(node.address()).build()).unwrap();
    loop {
        let event = swarm.select_next_some().await;
        if let SwarmEvent::Behaviour(LibraryEvent::Kad(kad::Event::RoutingUpdated { .. })) = event {
            return swarm;
        }
    }
}

fn key_of(capability: &str) -> RecordKey {
    use sha2::Digest;
    let mut key = vec![0x12, 32];
    key.extend_from_slice(&sha2::Sha256::digest(capability.as_bytes()));
    RecordKey::from(key)
}

/// Runs a swarm until it is dropped with the tasks.
fn driven(swarm: Swarm<Library>) -> TaskSet {
    let tasks = TaskSet::new(&CancellationToken::new());
    drive(swarm, &tasks);
    tasks
}

fn drive(mut swarm: Swarm<Library>, tasks: &TaskSet) {
    tasks.spawn("library", |_cancel| async move {
        loop {
            let _ = swarm.select_next_some().await;
        }
    });
}

// Issue 11, 2: with a key of whatever kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_of_the_library_provides_and_finds_through_this_node() {
    let hub = node(DhtMode::Server, None, &["archival"]).await;
    let others = keys().into_iter().map(|(_, key)| key);
    for (number, key) in [Keypair::generate_ed25519()].into_iter().chain(others).enumerate() {
        let mut host = time::timeout(PATIENCE, library(key, &hub)).await.unwrap();
        let local = *host.local_peer_id();
        host.behaviour_mut().kad.get_providers(key_of("archival"));
        let finds = async {
            loop {
                let event = host.select_next_some().await;
                if let SwarmEvent::Behaviour(LibraryEvent::Kad(
                    kad::Event::OutboundQueryProgressed {
                        result:
                            kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders {
                                providers,
                                ..
                            })),
                        ..
                    },
                )) = event
                    && !providers.is_empty()
                {
                    break providers;
                }
            }
        };
        let providers = time::timeout(PATIENCE, finds).await.unwrap();
        let own = hub.address().iter().last().and_then(peer_of).unwrap();
        assert_eq!(providers, HashSet::from([own]));
        host.behaviour_mut().kad.start_providing(key_of(&format!("gossip{number}"))).unwrap();
        let _host = driven(host);
        let found = found(&hub, &format!("gossip{number}"), 1).await;
        let identities: Vec<_> = found.iter().map(|provider| provider.identity).collect();
        assert!(
            identities.iter().any(|id| id.peer_id_bytes() == local.to_bytes()),
            "{local}: {found:?}"
        );
    }
}

fn peer_of(part: libp2p::multiaddr::Protocol<'_>) -> Option<PeerId> {
    match part {
        libp2p::multiaddr::Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

// Threats and goals, row 24.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_in_the_name_of_others_values_and_endless_keys_are_not_stored() {
    let hub = node(DhtMode::Server, None, &[]).await;
    let honest = node(DhtMode::Server, Some(&hub), &["archival"]).await;
    let seeker = node(DhtMode::Client, Some(&hub), &[]).await;
    found(&seeker, "archival", 1).await;
    let mut host =
        time::timeout(PATIENCE, library(Keypair::generate_ed25519(), &hub)).await.unwrap();
    for number in 0..60_u8 {
        host.behaviour_mut().kad.start_providing(RecordKey::from(vec![number; 34])).unwrap();
    }
    let record = kad::Record::new(RecordKey::from(vec![1; 34]), vec![0; 1_000]);
    host.behaviour_mut().kad.put_record(record, kad::Quorum::One).unwrap();
    let _host = driven(host);
    let refused = || hub.network.metrics().count(P2pEvent::DhtRecordRefused);
    until("records beyond the bound are refused", || refused() >= 45).await;
    let archives = found(&seeker, "archival", 1).await;
    assert_eq!(archives[0].identity, honest.network.identity());
}

/// Keys of which the peer IDs are the closest to a key of many.
fn next_to(target: RecordKey, count: usize) -> Vec<Keypair> {
    let target = kad::KBucketKey::new(target);
    let distance =
        |key: &Keypair| kad::KBucketKey::from(key.public().to_peer_id()).distance(&target);
    let mut keys: Vec<_> = (0..64 * count).map(|_| Keypair::generate_ed25519()).collect();
    keys.sort_by_cached_key(distance);
    keys.truncate(count);
    keys
}

/// A host that serves the table, stores nothing of others, and names nodes that do not exist as archives; and `victim` at
/// an address where it is not.
async fn sybil(key: Keypair, hub: &Node, victim: PeerId) -> Swarm<Library> {
    let mut host = library(key, hub).await;
    let nowhere: libp2p::Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let forged = (1..kad::K_VALUE.get()).map(|_| PeerId::random()).chain([victim]);
    for provider in forged {
        let record = kad::ProviderRecord::new(key_of("archival"), provider, vec![nowhere.clone()]);
        host.behaviour_mut().kad.store_mut().add_provider(record).unwrap();
    }
    host
}

// Issue 11; threats and goals, row 24: 20 sybils next to the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sybils_next_to_a_key_and_forged_records_do_not_hide_an_honest_record() {
    let hub = roomy(DhtMode::Server, None, &[]).await;
    // It has its identity before it announces anything.
    let key = new_key();
    let victim = crate::config::libp2p_key(&key).public().to_peer_id();
    let tasks = TaskSet::new(&CancellationToken::new());
    let keys = next_to(key_of("archival"), 20).into_iter();
    let hosts = join_all(keys.map(|key| sybil(key, &hub, victim)));
    for host in time::timeout(PATIENCE, hosts).await.unwrap() {
        drive(host, &tasks);
    }
    let archive = roomy(DhtMode::Server, Some((&hub, key)), &["archival"]).await;
    let address = NodeAddress::Multiaddr(archive.address().to_string());
    let seeker = roomy(DhtMode::Client, Some((&hub, new_key())), &[]).await;
    let names_it = async |wanted| {
        let limit = Duration::from_secs(5);
        let found = seeker.network.find_providers(Capability::archival(), wanted, limit).await;
        let found = found.unwrap();
        let honest = found.iter().find(|one| one.identity == archive.network.identity());
        honest.is_some_and(|one| one.addresses.contains(&address))
    };
    // Until the archive has announced itself, nobody names it, whatever part of the answers is looked at.
    let deadline = Instant::now() + 2 * PATIENCE;
    while !names_it(1_000).await {
        assert!(Instant::now() < deadline, "the archive is never found");
    }
    assert!(names_it(20).await || names_it(20).await || names_it(20).await);
}

/// A host that says it stores every value and stores none, and answers with a `forged` one.
async fn liar(key: Keypair, hub: &Node, forged: &kad::Record) -> Swarm<Library> {
    let mut config = kad::Config::new(PROTOCOL);
    // A value that comes is an event, which nobody looks at, and its sender is told that it is stored.
    config.set_record_filtering(kad::StoreInserts::FilterBoth);
    let mut host = host_of(key, hub, config).await;
    host.behaviour_mut().kad.store_mut().put(forged.clone()).unwrap();
    host
}

fn record_of(key: &ValueKey, value: &[u8]) -> kad::Record {
    kad::Record::new(RecordKey::from(key.as_str().as_bytes().to_vec()), value.to_vec())
}

/// Networks with 20 liars, one at a time: on one busy processor the nodes of two do not answer each other in time.
static LIARS: Mutex<()> = Mutex::const_new(());

/// A table with 20 liars next to a key, and two honest nodes that all others know: a hub without values, and a keeper.
struct Beset {
    _turn: MutexGuard<'static, ()>,
    hub: Node,
    keeper: Node,
    tasks: TaskSet,
}

impl Beset {
    async fn by_liars(forged: &kad::Record) -> Self {
        let turn = LIARS.lock().await;
        let without_values = |mut config: P2pConfig| {
            config.door = Door::new(mesh::InboundLimits::default().with_per_ip(64));
            config.dht = DhtConfig::default().with_mode(DhtMode::Server);
            config
        };
        let hub = Node::start_with(PROFILE, "net-v1", new_key(), without_values).await;
        let tasks = TaskSet::new(&CancellationToken::new());
        let keys = next_to(forged.key.clone(), 20).into_iter();
        let hosts = join_all(keys.map(|key| liar(key, &hub, forged)));
        for host in time::timeout(PATIENCE, hosts).await.unwrap() {
            drive(host, &tasks);
        }
        let keeper = roomy(DhtMode::Server, Some((&hub, new_key())), &[]).await;
        Self { _turn: turn, hub, keeper, tasks }
    }

    /// A node that knows both honest ones.
    async fn member(&self, mode: DhtMode, key: gossip::Keypair) -> Node {
        let peers = [&self.hub, &self.keeper].map(|node| node.address().to_string());
        let config = |mut config: P2pConfig| {
            config.peers = peers.map(NodeAddress::Multiaddr).into();
            config.dht = DhtConfig::default().with_mode(mode).with_values(DhtValues::On);
            config
        };
        Node::start_with(PROFILE, "net-v1", key, config).await
    }

    /// Has `owner` put a value, and leaves it to the others.
    async fn left(&self, owner: Node, key: &ValueKey, value: &[u8]) {
        // The liars and the hub say so, too.
        put(&owner, key, value, 22).await;
        drop(owner);
    }

    /// Has newcomers search for the value, each again after it has learnt of the liars.
    async fn heard(&self, key: &ValueKey, content: &[u8]) {
        for _ in 0..2 {
            let seeker = self.member(DhtMode::Client, new_key()).await;
            got(&seeker, key, |found| found.content == content).await;
            for _ in 0..2 {
                let found = seeker.network.get_value(key.clone(), LIMIT).await.unwrap();
                assert_eq!(found.unwrap().content, content);
            }
        }
    }
}

// Issue 11, 5; threats and goals, row 24: 20 sybils next to the key that answer with another content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sybils_next_to_a_key_hide_no_content() {
    let key = ValueKey::of_content(b"true");
    let table = Beset::by_liars(&record_of(&key, b"false")).await;
    let owner = table.member(DhtMode::Server, new_key()).await;
    table.left(owner, &key, b"true").await;
    table.heard(&key, b"true").await;
}

// Issue 11, 5; threats and goals, row 24: 20 sybils that answer with an older value, which the owner did sign.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sybils_that_replay_an_older_value_do_not_hide_the_newest() {
    let owner_key = new_key();
    let key = ValueKey::of_owner(&owner_key.identity(), "head").unwrap();
    let (by, network) = (crate::config::libp2p_key(&owner_key), NetworkId::new("net-v1").unwrap());
    let old = record_of(&key, &crate::dht::sign(&by, &network, &key, 1, b"old"));
    let table = Beset::by_liars(&old).await;
    let owner = table.member(DhtMode::Server, owner_key).await;
    let (_, new) = owner.network.sign_value("head", 2, b"new").unwrap();
    table.left(owner, &key, &new).await;
    // Another one puts the old value to all of them.
    let config = kad::Config::new(PROTOCOL);
    let replaying = host_of(Keypair::generate_ed25519(), &table.hub, config);
    let mut replaying = time::timeout(PATIENCE, replaying).await.unwrap();
    replaying.behaviour_mut().kad.put_record(old, kad::Quorum::One).unwrap();
    drive(replaying, &table.tasks);
    table.heard(&key, b"new").await;
}

/// A server with values that knows `peer`.
async fn keeper(peer: Option<&Node>) -> Node {
    valued(PROFILE, DhtMode::Server, peer).await
}

async fn valued(profile: &'static NetworkProfile, mode: DhtMode, peer: Option<&Node>) -> Node {
    let peers: Vec<NodeAddress> =
        peer.map(|peer| NodeAddress::Multiaddr(peer.address().to_string())).into_iter().collect();
    let config = |mut config: P2pConfig| {
        config.peers = peers;
        config.dht = DhtConfig::default().with_mode(mode).with_values(DhtValues::On);
        config
    };
    Node::start_with(profile, "net-v1", new_key(), config).await
}

const LIMIT: Duration = Duration::from_secs(5);

/// Puts until `nodes` others have taken the value.
async fn put(node: &Node, key: &ValueKey, value: &[u8], nodes: usize) {
    // All nodes of a test share the processors, and each is asked first.
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let stored =
            node.network.put_value(key.clone(), value.to_vec(), PATIENCE / 3).await.unwrap();
        if stored >= nodes {
            return;
        }
        assert!(Instant::now() < deadline, "{stored} took it");
        time::sleep(Duration::from_millis(50)).await;
    }
}

/// Searches until a value satisfies `is_it`.
async fn got(node: &Node, key: &ValueKey, is_it: impl Fn(&FoundValue) -> bool) -> FoundValue {
    // As in `put`: the searches of all nodes of a test share the processors.
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let found = node.network.get_value(key.clone(), LIMIT).await.unwrap();
        match found.filter(&is_it) {
            Some(found) => return found,
            None => assert!(Instant::now() < deadline, "{key} is not found"),
        }
        time::sleep(Duration::from_millis(50)).await;
    }
}

// Issue 11, 5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_found_by_its_hash_also_after_its_owner_is_gone() {
    let hub = keeper(None).await;
    let owner = keeper(Some(&hub)).await;
    let key = ValueKey::of_content(b"some words");
    put(&owner, &key, b"some words", 1).await;
    drop(owner);
    let seeker = valued(PROFILE, DhtMode::Client, Some(&hub)).await;
    let found = got(&seeker, &key, |_| true).await;
    assert_eq!((&*found.content, found.sequence), (&b"some words"[..], None));
    let absent = ValueKey::of_content(b"others");
    assert_eq!(seeker.network.get_value(absent, LIMIT).await, Ok(None));
}

// Issue 11, 5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_value_that_an_owner_signed_is_found() {
    let hub = keeper(None).await;
    let owner = keeper(Some(&hub)).await;
    let seeker = valued(PROFILE, DhtMode::Client, Some(&hub)).await;
    for (sequence, content) in [(1, b"one"), (2, b"two")] {
        let (key, value) = owner.network.sign_value("head", sequence, content).unwrap();
        put(&owner, &key, &value, 1).await;
        let found = got(&seeker, &key, |found| found.sequence == Some(sequence)).await;
        assert_eq!(found.content, content);
    }
    // A value that another key has signed is not the owner's.
    let (key, _) = owner.network.sign_value("head", 3, b"x").unwrap();
    let (_, stolen) = seeker.network.sign_value("head", 3, b"x").unwrap();
    let refused = seeker.network.put_value(key, stolen, LIMIT).await;
    assert_eq!(refused, Err(DhtError::Invalid(InvalidValue::NotOfKey)));
}

// Issue 11, 5: values are off in the profile `algorand`, and unless they are turned on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_values_neither_puts_gets_nor_stores_one() {
    let key = ValueKey::of_content(b"x");
    let existing = valued(&NetworkProfile::ALGORAND, DhtMode::Server, None).await;
    let usual = node(DhtMode::Server, None, &[]).await;
    for node in [&existing, &usual] {
        let put = node.network.put_value(key.clone(), b"x".to_vec(), LIMIT).await;
        assert_eq!(put, Err(DhtError::ValuesOff));
        let got = node.network.get_value(key.clone(), LIMIT).await;
        assert_eq!(got, Err(DhtError::ValuesOff));
    }
    let other = keeper(Some(&usual)).await;
    put(&other, &key, b"x", 1).await;
    let refused = || usual.network.metrics().count(P2pEvent::DhtRecordRefused);
    until("the value is refused", || refused() >= 1).await;
}

// Issue 11, 5: forged values, and more of them than a peer may put.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_values_and_floods_of_values_are_neither_stored_nor_believed() {
    let hub = keeper(None).await;
    let seeker = keeper(Some(&hub)).await;
    let mut host =
        time::timeout(PATIENCE, library(Keypair::generate_ed25519(), &hub)).await.unwrap();
    let key = ValueKey::of_content(b"true");
    let record_key = RecordKey::from(key.as_str().as_bytes().to_vec());
    let forged = kad::Record::new(record_key, b"false".to_vec());
    host.behaviour_mut().kad.put_record(forged, kad::Quorum::All).unwrap();
    let flood = async {
        for number in 0..200_u32 {
            let value = number.to_be_bytes().to_vec();
            let record = record_of(&ValueKey::of_content(&value), &value);
            host.behaviour_mut().kad.put_record(record, kad::Quorum::All).unwrap();
            // Half of the streams that a connection has for the table, so that none is lost.
            while host.behaviour().kad.iter_queries().count() >= 16 {
                host.select_next_some().await;
            }
        }
    };
    time::timeout(PATIENCE, flood).await.unwrap();
    let _host = driven(host);
    let refused = || hub.network.metrics().count(P2pEvent::DhtRecordRefused);
    // In the 20 s that it takes at most, three windows of 32 are let in.
    until("those beyond the rate are refused", || refused() >= 100).await;
    // The host itself has the forged value, and answers with it.
    let forged = || seeker.network.metrics().count(P2pEvent::DhtValueForged);
    let deadline = Instant::now() + PATIENCE;
    while forged() == 0 {
        assert_eq!(seeker.network.get_value(key.clone(), LIMIT).await, Ok(None));
        assert!(Instant::now() < deadline, "the host is never asked");
    }
}

// Issue 11, 5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_announces_what_it_is_told_to_and_lists_its_routing_table() {
    let hub = node(DhtMode::Server, None, &[]).await;
    let server = node(DhtMode::Server, Some(&hub), &[]).await;
    let client = node(DhtMode::Client, Some(&hub), &[]).await;
    found(&client, "gossip", 2).await;
    server.network.provide("snapshots".parse().unwrap()).await.unwrap();
    let providers = found(&client, "snapshots", 1).await;
    assert_eq!(providers[0].identity, server.network.identity());
    let refused = client.network.provide("snapshots".parse().unwrap()).await;
    assert_eq!(refused, Err(DhtError::Client));
    let peers = client.network.dht_peers().await.unwrap();
    let listed = peers.iter().find(|peer| peer.identity == hub.network.identity()).unwrap();
    assert_eq!(listed.addresses, [NodeAddress::Multiaddr(hub.address().to_string())]);
    assert!(listed.connected, "{listed:?}");
}

// A peer that asks without end is cut off, and others notice nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_floods_the_table_is_disconnected() {
    let hub = node(DhtMode::Server, None, &["archival"]).await;
    let seeker = node(DhtMode::Client, Some(&hub), &[]).await;
    let mut host =
        time::timeout(PATIENCE, library(Keypair::generate_ed25519(), &hub)).await.unwrap();
    let flood = async {
        for number in 0_u32.. {
            // The library holds at most so many queries back; each asks the hub, which is its only peer.
            if host.behaviour().kad.iter_queries().count() < 64 {
                let key = RecordKey::from([vec![7; 30], number.to_be_bytes().to_vec()].concat());
                host.behaviour_mut().kad.get_providers(key);
            }
            if let SwarmEvent::ConnectionClosed { .. } = host.select_next_some().await {
                break;
            }
        }
    };
    time::timeout(PATIENCE, flood).await.unwrap();
    assert_eq!(hub.network.metrics().count(P2pEvent::DhtFlood), 1);
    found(&seeker, "archival", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_private_networks_are_not_believed_by_a_public_node() {
    let hub = node(DhtMode::Server, None, &[]).await;
    let _archive = node(DhtMode::Server, Some(&hub), &["archival"]).await;
    let peers = vec![NodeAddress::Multiaddr(hub.address().to_string())];
    let public = |mut config: P2pConfig| {
        config.peers = peers;
        config.dht =
            DhtConfig::default().with_mode(DhtMode::Client).with_scope(crate::AddressScope::Public);
        config
    };
    let seeker = Node::start_with(PROFILE, "net-v1", new_key(), public).await;
    let deadline = Instant::now() + PATIENCE;
    let found = loop {
        let search =
            seeker.network.find_providers(Capability::archival(), 1, Duration::from_secs(5));
        let found = search.await.unwrap();
        if !found.is_empty() {
            break found;
        }
        assert!(Instant::now() < deadline, "the archive is never found");
    };
    assert_eq!(found[0].addresses, Vec::new());
}
