//! Nodes that find out whether they can be dialled, find relays, and meet directly after a circuit.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gossip::{
    Admission, GossipNode, LinkPath, NetworkProfile, NodeAddress, Outbound, PeerClass, Tag,
};
use libp2p::Multiaddr;
use tokio::time::{self, Instant};

use super::host::{Host, Node, PATIENCE, new_key, until};
use crate::{GossipStreams, P2pConfig, ReachConfig, ReachPart, RelayLimits, metrics::P2pEvent};

const PROFILE: &NetworkProfile = &NetworkProfile::TANDEM;

async fn node(parts: &[ReachPart], change: impl FnOnce(&mut P2pConfig)) -> Node {
    let config = |mut config: P2pConfig| {
        let reach = ReachConfig::default().with_relay(RelayLimits::default());
        config.reach = parts.iter().fold(reach, |reach, part| reach.with(*part));
        if !parts.contains(&ReachPart::Relay) {
            config.reach.parts.remove(&ReachPart::Relay);
        }
        change(&mut config);
        config
    };
    Node::start_with(PROFILE, "net", new_key(), config).await
}

fn address_of(node: &Node) -> NodeAddress {
    NodeAddress::Multiaddr(node.address().to_string())
}

fn path(node: &Node) -> Option<LinkPath> {
    node.network.peers(PeerClass::Connected).first().map(|peer| peer.path)
}

fn through_relays(node: &Node) -> Vec<String> {
    let mut all = node.network.listen_addresses();
    all.retain(|address| address.contains("/p2p-circuit"));
    all
}

/// The number of relays at which a node has a place.
fn relays_of(node: &Node, relays: &[Node]) -> Vec<usize> {
    let all = through_relays(node);
    let has = |relay: &Node| {
        let id = format!("/p2p/{}/p2p-circuit", relay.network.identity());
        all.iter().any(|address| address.contains(&id))
    };
    (0..relays.len()).filter(|at| has(&relays[*at])).collect()
}

// Issue 11, 2 and 6: the link moves to the better connection, and nothing is lost or comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ends_of_a_circuit_meet_and_their_link_moves_without_loss() {
    let relay = node(&[ReachPart::Relay], |config| config.gossip = GossipStreams::Off).await;
    let through: Multiaddr = format!("{}/p2p-circuit", relay.address()).parse().unwrap();
    let target = node(&[ReachPart::HolePunching], |config| config.listen.push(through)).await;
    until("there is a place", || !through_relays(&target).is_empty()).await;
    let circuit = NodeAddress::Multiaddr(through_relays(&target).remove(0));
    let dialler = node(&[ReachPart::HolePunching], |config| config.peers = vec![circuit]).await;
    until("both are linked", || path(&target).is_some() && path(&dialler).is_some()).await;
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0_u32;
    let is_direct = |node: &Node| path(node) == Some(LinkPath::Direct);
    // Some more after the move.
    let mut after = 0;
    while after < 20 {
        for node in [&target, &dialler] {
            let message = Outbound::new(Tag::VB, format!("{sent}").into_bytes());
            assert_eq!(node.network.broadcast(message), Ok(Admission::Queued));
            sent += 1;
        }
        if is_direct(&target) && is_direct(&dialler) {
            after += 1;
        }
        assert!(Instant::now() < deadline, "the link does not move");
        // A circuit carries 128 KiB, which more messages would use up before the ends have met on a busy machine.
        time::sleep(Duration::from_millis(50)).await;
    }
    until("everything has come", || target.heard().len() + dialler.heard().len() >= sent as usize)
        .await;
    for (node, odd) in [(&target, 1), (&dialler, 0)] {
        let mut heard: Vec<u32> = node
            .heard()
            .iter()
            .map(|body| std::str::from_utf8(body).unwrap().parse().unwrap())
            .collect();
        heard.sort_unstable();
        let expected: Vec<u32> = (0..sent).filter(|number| number % 2 == odd).collect();
        assert_eq!(heard, expected);
        assert_eq!(node.network.peers(PeerClass::Connected).len(), 1);
    }
    let met = |node: &Node| node.network.metrics().count(P2pEvent::Met);
    until("it is counted", || met(&target) + met(&dialler) >= 1).await;
    // Neither end dials the other again.
    time::sleep(Duration::from_secs(1)).await;
    assert!(is_direct(&target) && is_direct(&dialler));
    assert_eq!(relay.network.metrics().count(P2pEvent::RelayCircuit), 1);
}

// Issue 11, 6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_nobody_reaches_keeps_places_at_two_relays_and_replaces_one_within_10_s() {
    let mut relays = Vec::new();
    for _ in 0..4 {
        relays.push(node(&[ReachPart::Relay, ReachPart::AutoNat], |_| {}).await);
    }
    let peers: Vec<_> = relays.iter().map(address_of).collect();
    // Nothing listens there.
    let closed: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let parts = [ReachPart::AutoNat, ReachPart::AutoRelay];
    let seeker = node(&parts, |config| {
        (config.peers, config.announce) = (peers, vec![closed]);
        config.listen = Vec::new();
    });
    let seeker = seeker.await;
    until("there are two places", || relays_of(&seeker, &relays).len() == 2).await;
    time::sleep(Duration::from_millis(500)).await;
    let held = relays_of(&seeker, &relays);
    assert_eq!(held.len(), 2, "and not more");
    let asked: u64 =
        relays.iter().map(|relay| relay.network.metrics().count(P2pEvent::DialledBack)).sum();
    assert!(asked >= 3, "{asked}");
    let dead = &relays[held[0]];
    let _ended = dead.network.stop(Duration::from_millis(100)).await;
    let began = Instant::now();
    let others = || relays_of(&seeker, &relays).iter().filter(|at| **at != held[0]).count();
    until("another relay took over", || others() == 2).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    until("the dead one is told no more", || !relays_of(&seeker, &relays).contains(&held[0])).await;
}

// Issue 11, 6: the addresses that others are told are those that were confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_reached_asks_no_relay_and_tells_what_was_confirmed() {
    let server = node(&[ReachPart::Relay, ReachPart::AutoNat], |_| {}).await;
    let peers = vec![address_of(&server)];
    let parts = [ReachPart::AutoNat, ReachPart::AutoRelay];
    let asker = node(&parts, |config| config.peers = peers).await;
    let dialled = || server.network.metrics().count(P2pEvent::DialledBack) > 0;
    until("the server has tried", dialled).await;
    // The dial back was from another identity, which is gone again.
    until("one peer is left", || asker.network.peers(PeerClass::Connected).len() == 1).await;
    let host = Host::dial(&new_key(), &[], asker.address()).await;
    let told = host.seen.lock().unwrap().identified.clone().unwrap().listen_addrs;
    let mut own = asker.address();
    own.pop();
    let bare: Vec<Multiaddr> = told
        .into_iter()
        .map(|address| {
            let is_id = |part: &libp2p::multiaddr::Protocol<'_>| {
                matches!(part, libp2p::multiaddr::Protocol::P2p(_))
            };
            address.iter().filter(|part| !is_id(part)).collect()
        })
        .collect();
    assert_eq!(bare, [own]);
    assert_eq!(through_relays(&asker), Vec::<String>::new());
}

/// A request for a dial back, as its bytes are.
fn request(address: &Multiaddr) -> Vec<u8> {
    let address = address.to_vec();
    let mut inner = vec![0x0a, u8::try_from(address.len()).unwrap()];
    inner.extend(address);
    inner.push(0x11);
    inner.extend(7_u64.to_le_bytes());
    let mut message = vec![0x0a, u8::try_from(inner.len()).unwrap()];
    message.extend(inner);
    [vec![u8::try_from(message.len()).unwrap()], message].concat()
}

// Threats and goals, row 7: nobody has this node dial a third party.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_dials_no_host_but_the_one_that_asks_and_not_too_often() {
    let server = node(&[ReachPart::AutoNat], |_| {}).await;
    let count = |event| server.network.metrics().count(event);
    let host = Host::dial(&new_key(), &[], server.address()).await;
    let third = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = third.local_addr().unwrap().port();
    let foreign: Multiaddr = format!("/ip4/127.0.0.2/tcp/{port}").parse().unwrap();
    let name: Multiaddr = format!("/dns4/localhost/tcp/{port}").parse().unwrap();
    for address in [foreign, name] {
        let mut stream = host.open("/libp2p/autonat/2/dial-request").await;
        stream.write_all(&request(&address)).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(
            answer,
            [4, 0x12, 2, 8, 101],
            "a response with the status 101, and nothing else"
        );
    }
    assert_eq!((count(P2pEvent::DialledBack), count(P2pEvent::DialBackRefused)), (0, 2));
    let accepted = time::timeout(Duration::from_millis(200), third.accept()).await;
    assert!(accepted.is_err(), "the third party was dialled");
    // Its own host is dialled, twelve times a minute at most; the two before count too.
    let own: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    for _ in 0..14 {
        let mut stream = host.open("/libp2p/autonat/2/dial-request").await;
        stream.write_all(&request(&own)).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
    }
    assert_eq!((count(P2pEvent::DialledBack), count(P2pEvent::DialBackRefused)), (10, 6));
}
