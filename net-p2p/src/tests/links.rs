//! Links between a node and a host whose side of the protocol the test writes by hand.

use futures::{AsyncReadExt, AsyncWriteExt};
use gossip::{
    Admission, Direction, GossipNode, NetworkId, NetworkProfile, NodeAddress, Outbound, PeerClass,
    Tag, wire::features::Features,
};
use libp2p::{Stream, StreamProtocol};
use tokio::time::{self, Instant};

use super::host::{Host, Node, PATIENCE, ordered_keys, until};
use crate::{
    P2pConfig,
    handshake::{self, Form, LaneCount, Met, Ours},
    peers::LATE_OPENING,
};

pub(super) fn ours(profile: &'static NetworkProfile, dial: u64, lanes: LaneCount) -> Ours {
    let network = NetworkId::new("net").unwrap();
    let features = Features::announcing(profile.votes);
    let (link, node_random) = (rand::random(), rand::random());
    Ours { profile, network, features, dial, link, node_random, lanes }
}

pub(super) async fn shake(stream: &mut Stream, direction: Direction, ours: &Ours) -> Met {
    let exchange = handshake::exchange(stream, Form::Headers, direction, ours);
    time::timeout(PATIENCE, exchange).await.unwrap().unwrap()
}

async fn message(stream: &mut Stream) -> Vec<u8> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.unwrap();
    let mut message = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut message).await.unwrap();
    message
}

async fn send(stream: &mut Stream, message: &[u8]) {
    let header = u32::try_from(message.len()).unwrap().to_be_bytes();
    stream.write_all(&[&header, message].concat()).await.unwrap();
    stream.flush().await.unwrap();
}

async fn ends(stream: &mut Stream) {
    let mut rest = Vec::new();
    let read = time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let _end_or_reset = read.expect("the stream is still open");
}

fn broadcast(node: &Node, tag: Tag, body: &'static [u8]) {
    assert_eq!(node.network.broadcast(Outbound::new(tag, body)), Ok(Admission::Queued));
}

fn is_linked(node: &Node) -> bool {
    node.network.peers(PeerClass::Connected).len() == 1
}

#[tokio::test]
async fn two_nodes_with_separate_lanes_use_a_stream_for_each() {
    let profile = &NetworkProfile::TANDEM;
    let (small, large) = ordered_keys();
    let node = Node::start(profile, "net", large).await;
    let host = Host::dial(&small, &[], node.address()).await;
    let mut priority = host.open(profile.stream_protocol).await;
    let ours = ours(profile, 1, LaneCount::PerLane);
    let met = shake(&mut priority, Direction::Outbound, &ours).await;
    assert_eq!(met.lanes, LaneCount::PerLane);
    let mut bulk = host.open(profile.bulk_stream_protocol.unwrap()).await;
    until("the link is up", || is_linked(&node)).await;
    broadcast(&node, Tag::VB, b"bulk");
    broadcast(&node, Tag::AV, b"priority");
    assert_eq!(message(&mut priority).await, b"AVpriority");
    assert_eq!(message(&mut bulk).await, b"VBbulk");
    send(&mut bulk, b"VBone").await;
    until("bulk is heard", || node.heard() == [b"one"]).await;
    send(&mut priority, b"VBother").await;
    until("either stream is read", || node.heard().len() == 2).await;
}

#[tokio::test]
async fn a_node_opens_the_second_stream_if_it_opened_the_first() {
    let profile = &NetworkProfile::TANDEM;
    let (small, large) = ordered_keys();
    let bulk = profile.bulk_stream_protocol.unwrap();
    let protocols = [profile.stream_protocol, bulk].map(StreamProtocol::new);
    let node = Node::start(profile, "net", small).await;
    let mut host = Host::dial(&large, &protocols, node.address()).await;
    let mut priority = host.accepted.next().await.unwrap();
    assert_eq!(priority.protocol, profile.stream_protocol);
    let ours = ours(profile, 1, LaneCount::PerLane);
    shake(&mut priority.stream, Direction::Outbound, &ours).await;
    let second = host.accepted.next().await.unwrap();
    assert_eq!(second.protocol, bulk);
    until("the link is up", || is_linked(&node)).await;
}

#[tokio::test]
async fn a_second_stream_that_does_not_come_leads_to_a_link_with_one() {
    let profile = &NetworkProfile::TANDEM;
    let (small, large) = ordered_keys();
    let node = Node::start(profile, "net", large).await;
    let host = Host::dial(&small, &[], node.address()).await;
    let mut stream = host.open(profile.stream_protocol).await;
    let ours = ours(profile, 1, LaneCount::PerLane);
    shake(&mut stream, Direction::Outbound, &ours).await;
    ends(&mut stream).await;
    assert!(!is_linked(&node));

    let mut stream = host.open(profile.stream_protocol).await;
    let met = shake(&mut stream, Direction::Outbound, &ours).await;
    assert_eq!(met.lanes, LaneCount::One, "the node does not try again");
    until("the link is up", || is_linked(&node)).await;
    broadcast(&node, Tag::VB, b"bulk");
    assert_eq!(message(&mut stream).await, b"VBbulk");
}

#[tokio::test]
async fn a_dialer_with_the_larger_id_opens_late_if_the_other_end_does_not() {
    for profile in NetworkProfile::ALL {
        let (small, large) = ordered_keys();
        let protocols = [StreamProtocol::new(profile.stream_protocol)];
        let (mut host, address) = Host::listen(&small, &protocols).await;
        let began = Instant::now();
        let node = Node::start_with(profile, "net", large, |config| P2pConfig {
            peers: vec![NodeAddress::Multiaddr(address.to_string())],
            ..config
        })
        .await;
        let mut inbound = time::timeout(PATIENCE, host.accepted.next()).await.unwrap().unwrap();
        assert!(began.elapsed() >= LATE_OPENING);
        let ours = ours(profile, 1, LaneCount::One);
        shake(&mut inbound.stream, Direction::Inbound, &ours).await;
        until("the link is up", || is_linked(&node)).await;
        send(&mut inbound.stream, b"VBhello").await;
        until("gossip flows", || node.heard() == [b"hello"]).await;
    }
}

#[tokio::test]
async fn a_peer_that_comes_back_on_another_connection_replaces_its_old_link() {
    for profile in NetworkProfile::ALL {
        for dials in [[1, 2], [2, 1]] {
            let (small, large) = ordered_keys();
            let node = Node::start(profile, "net", large).await;
            let mut streams = Vec::new();
            let mut hosts = Vec::new();
            for dial in dials {
                let host = Host::dial(&small, &[], node.address()).await;
                let mut stream = host.open(profile.stream_protocol).await;
                let ours = ours(profile, dial, LaneCount::One);
                shake(&mut stream, Direction::Outbound, &ours).await;
                send(&mut stream, &[&b"VBup"[..], &[dial as u8]].concat()).await;
                until("the link is up", || node.heard().len() == hosts.len() + 1).await;
                streams.push(stream);
                hosts.push(host);
            }
            ends(&mut streams[0]).await;
            until("one link is left", || is_linked(&node)).await;
            broadcast(&node, Tag::VB, b"to the new one");
            assert_eq!(message(&mut streams[1]).await, b"VBto the new one");
        }
    }
}
