//! The library's behaviours over this crate's connections: several exchanges in a row on one stream, without
//! other traffic on the connection.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use gossip::{Admission, GossipNode, NetworkProfile, Outbound, Tag};
use libp2p::{
    Stream, StreamProtocol, Swarm, ping,
    swarm::{Config, SwarmEvent, dial_opts::DialOpts},
};
use tokio::time;

use super::{
    host::{Host, Node, PATIENCE, new_key, plain_transport},
    rpc,
};
use crate::{P2pConfig, Subscription, config::libp2p_key};

/// Exchanges in a row. Before the muxer woke handlers again, one in four hung at the second.
const EXCHANGES: u8 = 20;

/// The version of GossipSub that the test speaks by hand.
const MESHSUB: &str = "/meshsub/1.1.0";

async fn node_and_host(subscribe: Subscription) -> (Node, Host) {
    let change = |config| P2pConfig { subscribe, ..config };
    let (profile, key) = (&NetworkProfile::ALGORAND, new_key());
    let node = Node::start_with(profile, "net", key, change).await;
    // The library's handlers answer only peers that offer the same protocol.
    let offered = [ping::PROTOCOL_NAME, StreamProtocol::new(MESHSUB)];
    let host = Host::dial(&new_key(), &offered, node.address()).await;
    (node, host)
}

/// Sends pings and reads the answers.
async fn ping(stream: &mut Stream, pings: &[u8]) {
    let sent: Vec<u8> = pings.iter().flat_map(|number| [*number; 32]).collect();
    let mut answers = vec![0; sent.len()];
    let exchange = async {
        stream.write_all(&sent).await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut answers).await.unwrap();
    };
    time::timeout(PATIENCE, exchange).await.expect("a ping was not answered");
    assert_eq!(answers, sent);
}

// Issue 9, 1.
#[tokio::test]
async fn pings_in_a_row_on_one_stream_are_all_answered() {
    let (_node, host) = node_and_host(Subscription::Subscribed).await;
    let mut stream = host.open("/ipfs/ping/1.0.0").await;
    for number in 0..EXCHANGES {
        ping(&mut stream, &[number]).await;
    }
}

// Issue 9, 1.
#[tokio::test]
async fn pings_that_arrive_together_are_all_answered() {
    let (_node, host) = node_and_host(Subscription::Subscribed).await;
    let mut stream = host.open("/ipfs/ping/1.0.0").await;
    for _ in 0..EXCHANGES {
        ping(&mut stream, &[1, 2, 3, 4, 5]).await;
    }
}

// Issue 9, 1.
#[tokio::test]
async fn a_swarm_of_the_library_gets_every_ping_answered() {
    let node = Node::start(&NetworkProfile::ALGORAND, "net", new_key()).await;
    let key = libp2p_key(&new_key());
    let transport = plain_transport(&key, mesh::Door::default());
    let behaviour =
        ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(1)));
    let config =
        Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(120));
    let mut swarm = Swarm::new(transport, behaviour, key.public().to_peer_id(), config);
    swarm.dial(DialOpts::unknown_peer_id().address(node.address()).build()).unwrap();
    let mut answered = 0;
    while answered < EXCHANGES {
        let event = time::timeout(PATIENCE, swarm.select_next_some()).await.expect("an answer");
        if let SwarmEvent::Behaviour(event) = event {
            event.result.unwrap();
            answered += 1;
        }
    }
}

// Issue 9, 1.
#[tokio::test]
async fn identify_answers_on_one_stream_after_another() {
    let (_node, host) = node_and_host(Subscription::Subscribed).await;
    for _ in 0..EXCHANGES {
        let mut stream = host.open("/ipfs/id/1.0.0").await;
        let mut said = Vec::new();
        let read = time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        assert!(read.expect("identify did not answer").unwrap() > 0);
    }
}

// Issue 9, 1.
#[tokio::test]
async fn rpcs_in_a_row_on_one_gossipsub_stream_are_all_handled() {
    let (node, host) = node_and_host(Subscription::Subscribed).await;
    let mut observed = node.broadcaster.observe();
    let mut stream = host.open(MESHSUB).await;
    for number in 0..EXCHANGES {
        let request = rpc::request(&[rpc::message("algotx01", &[number; 40])]);
        // In two pieces; the first arrives alone.
        let (first, second) = request.split_at(usize::from(number) + 1);
        stream.write_all(first).await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(second).await.unwrap();
        stream.flush().await.unwrap();
        let heard =
            time::timeout(PATIENCE, observed.recv()).await.expect("a request was not heard");
        let heard = heard.unwrap();
        assert_eq!((heard.tag, &heard.body[..]), (Tag::TX, &[number; 40][..]));
    }
}

// Issue 9, 1, passed before: the handler opens a stream only when it is polled.
#[tokio::test]
async fn the_first_message_a_node_publishes_is_sent() {
    let (node, mut host) = node_and_host(Subscription::PublishOnly).await;
    let mut stream = host.open(MESHSUB).await;
    stream.write_all(&rpc::request(&[rpc::subscription("algotx01")])).await.unwrap();
    stream.flush().await.unwrap();
    // No event reports that the subscription has arrived.
    time::sleep(Duration::from_millis(300)).await;
    let message = Outbound::new(Tag::TX, vec![7; 40]);
    assert_eq!(node.network.broadcast(message), Ok(Admission::Queued));
    let opened = async { while host.accepted.next().await.unwrap().protocol != MESHSUB {} };
    time::timeout(PATIENCE, opened).await.expect("the node did not open its stream");
}
