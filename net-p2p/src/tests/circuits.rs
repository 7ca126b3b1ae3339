//! Circuits through a relay: between nodes that cannot dial each other, within the relay's limits, and against peers that
//! ask for more.

use std::time::Duration;

use gossip::{
    Admission, GossipNode, LinkPath, NetworkProfile, NodeAddress, Outbound, PeerClass, Tag,
};
use libp2p::Multiaddr;
use tokio::time::{self, Instant};

use super::{
    host::{Node, PATIENCE, new_key, until},
    http::http_server,
};
use crate::{
    GossipStreams, OpenError, P2pConfig, P2pLevel, ReachConfig, RelayLimits, metrics::P2pEvent,
    reach::HOP,
};

const PROFILES: [&NetworkProfile; 2] = [&NetworkProfile::TANDEM, &NetworkProfile::ALGORAND];

async fn relay(profile: &'static NetworkProfile, limits: RelayLimits) -> Node {
    let config = |mut config: P2pConfig| {
        config.gossip = GossipStreams::Off;
        config.reach = ReachConfig::default().with_relay(limits);
        config
    };
    Node::start_with(profile, "net", new_key(), config).await
}

/// A node that is reached through `relay` alone.
async fn behind(relay: &Node, change: impl FnOnce(&mut P2pConfig)) -> Node {
    let through: Multiaddr = format!("{}/p2p-circuit", relay.address()).parse().unwrap();
    let profile = relay.broadcaster.profile();
    let config = |mut config: P2pConfig| {
        config.listen = vec![through];
        change(&mut config);
        config
    };
    let node = Node::start_with(profile, "net", new_key(), config).await;
    until("there is a reservation", || !node.network.listen_addresses().is_empty()).await;
    node
}

/// A node that listens nowhere and dials `peer`.
async fn dialler(profile: &'static NetworkProfile, peer: &Node) -> Node {
    let peers = vec![NodeAddress::Multiaddr(peer.address().to_string())];
    let config = |mut config: P2pConfig| {
        (config.listen, config.peers) = (Vec::new(), peers);
        config
    };
    Node::start_with(profile, "net", new_key(), config).await
}

fn is_linked(node: &Node) -> bool {
    !node.network.peers(PeerClass::Connected).is_empty()
}

fn circuits_of(relay: &Node) -> u64 {
    relay.network.metrics().count(P2pEvent::RelayCircuit)
}

fn broadcast(node: &Node, body: &'static [u8]) {
    assert_eq!(node.network.broadcast(Outbound::new(Tag::VB, body)), Ok(Admission::Queued));
}

// Issue 11, 6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_cannot_be_dialled_gossip_through_a_relay() {
    for profile in PROFILES {
        let relay = relay(profile, RelayLimits::default()).await;
        let target = behind(&relay, |_| {}).await;
        let address = target.network.listen_addresses()[0].clone();
        assert!(address.contains("/p2p-circuit/p2p/"), "{address}");
        let dialler = dialler(profile, &target).await;
        until("both are linked", || is_linked(&target) && is_linked(&dialler)).await;
        for (node, other) in [(&target, &dialler), (&dialler, &target)] {
            let peers = node.network.peers(PeerClass::Connected);
            assert_eq!(peers.len(), 1, "{peers:?}");
            assert_eq!(peers[0].identity, Some(other.network.identity()));
            assert_eq!(peers[0].path, LinkPath::Relayed);
            assert!(peers[0].address.starts_with("/ip4/127.0.0.1/tcp/"), "{}", peers[0].address);
        }
        broadcast(&target, b"from behind");
        broadcast(&dialler, b"from before");
        until("the dialler hears it", || dialler.heard() == [b"from behind"]).await;
        until("the target hears it", || target.heard() == [b"from before"]).await;
        let count = |event| relay.network.metrics().count(event);
        assert_eq!((count(P2pEvent::RelayReservation), circuits_of(&relay)), (1, 1));
        assert_eq!(count(P2pEvent::RelayRefused), 0);
    }
}

// Issue 11, 6: HTTP over a circuit, within its limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_works_over_a_circuit_until_its_bytes_are_used_up() {
    let limits = RelayLimits { circuit_bytes: 64 * 1024, ..RelayLimits::default() };
    let relay = relay(&NetworkProfile::TANDEM, limits).await;
    let quiet = |config: &mut P2pConfig| {
        config.gossip = GossipStreams::Off;
        config.http_server = Some(http_server());
    };
    let target = behind(&relay, quiet).await;
    let client = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), |mut config| {
        (config.listen, config.gossip) = (Vec::new(), GossipStreams::Off);
        config
    });
    let client = client.await;
    let to = NodeAddress::Multiaddr(target.address().to_string());
    let http = client.network.http_client(&to).unwrap();
    let answer = http.get("/hello").await.unwrap();
    let body = gossip::http::read_all(answer.into_body(), 1 << 10).await.unwrap();
    assert_eq!(&body[..], b"hi");
    let answer = http.get("/endless").await.unwrap();
    let cut = gossip::http::read_all(answer.into_body(), 1 << 24).await;
    assert!(cut.is_err(), "the circuit ends in the middle of an endless answer");
    until("the cut is counted", || relay.network.metrics().count(P2pEvent::RelayLimit) == 1).await;
    // The next circuit has bytes of its own. A call on the old one fails until the client knows that it has ended.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match http.get("/hello").await {
            Ok(answer) => break assert_eq!(answer.status(), http::StatusCode::OK),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        time::sleep(Duration::from_millis(50)).await;
    }
}

// Issue 11, "Bad input": relay abuse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_refuses_what_is_beyond_its_limits_and_counts_it() {
    let profile = &NetworkProfile::TANDEM;
    let limits = RelayLimits { reservations: 1, circuits: 0, ..RelayLimits::default() };
    let relay = relay(profile, limits).await;
    let refused = || relay.network.metrics().count(P2pEvent::RelayRefused);
    let target = behind(&relay, |_| {}).await;
    let node = Node::start(profile, "net", new_key()).await;
    let open = |address: String| {
        let network = node.network.clone();
        async move {
            let to = NodeAddress::Multiaddr(address);
            network.open_stream_to(&to, vec![HOP], PATIENCE).await.unwrap_err()
        }
    };
    // No place for a circuit.
    let error = open(target.address().to_string()).await;
    assert!(matches!(error, OpenError::Dial(_)), "{error}");
    assert_eq!(refused(), 1);
    // No reservation of the peer.
    let stranger = libp2p::PeerId::random();
    let error = open(format!("{}/p2p-circuit/p2p/{stranger}", relay.address())).await;
    assert!(matches!(error, OpenError::Dial(_)), "{error}");
    assert_eq!(refused(), 2);
    // No place for another reservation.
    let through: Multiaddr = format!("{}/p2p-circuit", relay.address()).parse().unwrap();
    let second = Node::start_with(profile, "net", new_key(), |mut config| {
        config.listen = vec![through];
        config
    });
    let second = second.await;
    until("it is refused", || refused() >= 3).await;
    assert_eq!(second.network.listen_addresses(), Vec::<String>::new());
    // A node that is no relay does not say that it were one.
    let error = open(format!("{}/p2p-circuit/p2p/{stranger}", node.address())).await;
    assert!(matches!(error, OpenError::Dial(_) | OpenError::Ourselves), "{error}");
}

// Issue 11, 6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_is_renewed_past_its_lifetime_and_gauges_count_it() {
    let profile = &NetworkProfile::TANDEM;
    let lifetime = Duration::from_secs(3);
    let limits = RelayLimits { reservation_time: lifetime, ..RelayLimits::default() };
    let relay = relay(profile, limits).await;
    let level = |node: &Node, level| node.network.metrics().level(level);
    let target = behind(&relay, |_| {}).await;
    assert_eq!(level(&target, P2pLevel::ReservationsHeld), 1);
    assert_eq!(level(&relay, P2pLevel::ReservationsGiven), 1);
    let reserved = || relay.network.metrics().count(P2pEvent::RelayReservation);
    until("it is renewed twice", || reserved() >= 3).await;
    let given = || level(&relay, P2pLevel::ReservationsGiven);
    until("a renewal is no further place", || given() == 1).await;
    let dialler = dialler(profile, &target).await;
    until("both are linked", || is_linked(&target) && is_linked(&dialler)).await;
    until("the circuit is counted", || level(&relay, P2pLevel::CircuitsCarried) == 1).await;
    drop((dialler, target));
    until("the place is given back", || given() == 0).await;
    until("the circuit is over", || level(&relay, P2pLevel::CircuitsCarried) == 0).await;
}

// Issue 11, 6: the addresses told follow the reservation, and the relay may be started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_through_a_relay_goes_with_the_relay_and_comes_back_with_it() {
    let profile = &NetworkProfile::TANDEM;
    let (key, limits) = (new_key(), RelayLimits::default());
    let start = |key: &gossip::Keypair, at: Option<Multiaddr>| {
        let key = key.clone();
        Node::start_with(profile, "net", key, move |mut config| {
            if let Some(at) = at {
                config.listen = vec![at];
            }
            config.gossip = GossipStreams::Off;
            config.reach = ReachConfig::default().with_relay(limits);
            config
        })
    };
    let relay = start(&key, None).await;
    let mut at = relay.address();
    at.pop();
    let target = behind(&relay, |_| {}).await;
    let _ended = relay.network.stop(Duration::from_secs(2)).await;
    drop(relay);
    until("the address is gone", || target.network.listen_addresses().is_empty()).await;
    let relay = start(&key, Some(at)).await;
    until("the address is back", || !target.network.listen_addresses().is_empty()).await;
    let dialler = dialler(profile, &target).await;
    until("both are linked", || is_linked(&target) && is_linked(&dialler)).await;
    assert_eq!(circuits_of(&relay), 1);
}
