//! Streams to addresses: when the peer is dialled, and the error when it cannot be reached.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use gossip::{GossipNode, Keypair, NetworkProfile, NodeAddress, PeerClass};
use libp2p::{Multiaddr, StreamProtocol};
use runtime::TaskSet;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;

use super::host::{Host, Node, PATIENCE, new_key, ordered_keys, until};
use crate::{OpenError, P2pNetwork, config::libp2p_key};

const ECHO: StreamProtocol = StreamProtocol::new("/test/echo");

fn address(multiaddr: &Multiaddr) -> NodeAddress {
    NodeAddress::Multiaddr(multiaddr.to_string())
}

/// An address of this machine with the peer ID of `key`.
fn at(port: u16, key: &Keypair) -> NodeAddress {
    let id = libp2p_key(key).public().to_peer_id();
    NodeAddress::Multiaddr(format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}"))
}

async fn node(key: Keypair) -> Node {
    Node::start(&NetworkProfile::TANDEM, "net", key).await
}

async fn fails(network: &P2pNetwork, to: &NodeAddress) -> OpenError {
    let opened = network.open_stream_to(to, vec![ECHO], PATIENCE).await;
    opened.map(|stream| stream.peer()).unwrap_err()
}

/// Returns the bytes of every stream to its sender, until the sender ends it.
fn echo(host: Host) -> TaskSet {
    let tasks = TaskSet::new(&CancellationToken::new());
    let each = tasks.clone();
    tasks.spawn("echo", |_cancel| async move {
        // Moves the whole host into the task, so that its swarm lives as long.
        let mut host = host;
        while let Some(mut inbound) = host.accepted.next().await {
            each.spawn("one stream", |_cancel| async move {
                let mut text = Vec::new();
                inbound.stream.read_to_end(&mut text).await.unwrap();
                inbound.stream.write_all(&text).await.unwrap();
                inbound.stream.close().await.unwrap();
            });
        }
    });
    tasks
}

async fn echoes(network: &P2pNetwork, to: &NodeAddress, text: &[u8]) {
    let mut opened = network.open_stream_to(to, vec![ECHO], PATIENCE).await.unwrap();
    opened.stream.write_all(text).await.unwrap();
    opened.stream.close().await.unwrap();
    let mut answer = Vec::new();
    opened.stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, text);
}

#[tokio::test]
async fn callers_that_want_a_stream_to_one_peer_share_one_dial() {
    let node = node(new_key()).await;
    let (host, at) = Host::listen(&new_key(), &[ECHO]).await;
    let (seen, to) = (host.seen.clone(), address(&at));
    let _echo = echo(host);
    let (network, to) = (&node.network, &to);
    join_all((0..40_u8).map(|number| async move { echoes(network, to, &[number; 7]).await })).await;
    assert_eq!(seen.lock().unwrap().connected.len(), 1);
}

#[tokio::test]
async fn a_peer_that_is_connected_is_not_dialled_at_whatever_address() {
    let (node, key) = (node(new_key()).await, new_key());
    let host = Host::dial(&key, &[ECHO], node.address()).await;
    let _echo = echo(host);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    echoes(&node.network, &at(nobody.local_addr().unwrap().port(), &key), b"here").await;
}

#[tokio::test]
async fn a_dial_for_a_stream_makes_no_gossip_link() {
    let profile = &NetworkProfile::TANDEM;
    let (small, large) = ordered_keys();
    let node = node(small).await;
    let protocols = [StreamProtocol::new(profile.stream_protocol), ECHO];
    let (mut host, to) = Host::listen(&large, &protocols).await;
    let to = address(&to);
    let _stream = node.network.open_stream_to(&to, vec![ECHO], PATIENCE).await.unwrap();
    let first = host.accepted.next().await.unwrap();
    assert_eq!(first.protocol, ECHO, "the smaller one would have opened gossip at once");

    node.network.add_peer(&to).unwrap();
    let gossip = host.accepted.next().await.unwrap();
    assert_eq!(gossip.protocol, profile.stream_protocol, "on the connection that is there");
    assert_eq!(host.seen.lock().unwrap().connected.len(), 1);
}

#[tokio::test]
async fn two_nodes_that_gossip_have_streams_to_each_other_without_a_second_connection() {
    let (one, other) = (node(new_key()).await, node(new_key()).await);
    one.network.add_peer(&address(&other.address())).unwrap();
    let linked = |node: &Node| node.network.peers(PeerClass::Connected).len() == 1;
    until("they are linked", || linked(&one) && linked(&other)).await;
    for (from, to) in [(&one, &other), (&other, &one)] {
        let refused = fails(&from.network, &address(&to.address())).await;
        assert!(matches!(refused, OpenError::Unsupported), "{refused}");
    }
}

#[tokio::test]
async fn an_unreachable_peer_is_an_error_with_its_reason() {
    let (key, other) = (new_key(), new_key());
    let node = node(key.clone()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let refused = fails(&node.network, &at(port, &other)).await;
    let OpenError::Dial(error) = refused else { panic!("{refused}") };
    assert!(error.to_string().contains("refused"), "{error}");

    let (_host, there) = Host::listen(&new_key(), &[ECHO]).await;
    let somebody_else = there.iter().take(2).collect::<Multiaddr>();
    let wrong = somebody_else.with_p2p(libp2p_key(&other).public().to_peer_id()).unwrap();
    let wrong = fails(&node.network, &address(&wrong)).await;
    assert!(matches!(wrong, OpenError::WrongPeer { .. }), "{wrong}");

    let id = libp2p_key(&other).public().to_peer_id();
    let name = NodeAddress::Multiaddr(format!("/dns4/no..name/tcp/1/p2p/{id}"));
    let unresolved = fails(&node.network, &name).await;
    assert!(matches!(unresolved, OpenError::Unresolved), "{unresolved}");

    let own = fails(&node.network, &at(1, &key)).await;
    assert!(matches!(own, OpenError::Ourselves), "{own}");
    let bare = fails(&node.network, &"127.0.0.1:80".parse().unwrap()).await;
    assert!(matches!(bare, OpenError::Address(_)), "{bare}");
}

#[tokio::test]
async fn a_failed_dial_does_not_fail_requests_with_another_address() {
    let (node, key) = (node(new_key()).await, new_key());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = at(listener.local_addr().unwrap().port(), &key);
    drop(listener);
    let (host, there) = Host::listen(&key, &[ECHO]).await;
    let _echo = echo(host);
    let there = address(&there);
    let failing = fails(&node.network, &nowhere);
    let (failed, ()) = tokio::join!(failing, echoes(&node.network, &there, b"found"));
    assert!(matches!(failed, OpenError::Dial(_)), "{failed}");
}

#[tokio::test]
async fn a_stream_request_ends_at_its_deadline_or_with_the_swarm() {
    let node = node(new_key()).await;
    // Accepts connections, and never sends a byte.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = at(mute.local_addr().unwrap().port(), &new_key());
    let (began, limit) = (Instant::now(), Duration::from_millis(200));
    let late = node.network.open_stream_to(&to, vec![ECHO], limit).await.unwrap_err();
    assert!(matches!(late, OpenError::TimedOut), "{late}");
    assert!(began.elapsed() >= limit);

    let (waiting, ()) = tokio::join!(fails(&node.network, &to), async {
        // The dial of the first request is still in progress.
        node.network.panic_for_test();
    });
    assert!(matches!(waiting, OpenError::Closed), "{waiting}");
}

#[tokio::test]
async fn of_three_hundred_streams_at_once_none_is_lost() {
    let node = node(new_key()).await;
    let (host, to) = Host::listen(&new_key(), &[ECHO]).await;
    let (to, _echo) = (address(&to), echo(host));
    let network = &node.network;
    for _ in 0..3 {
        join_all((0..300_u32).map(|number| {
            let (to, text) = (&to, number.to_be_bytes());
            async move { echoes(network, to, &text).await }
        }))
        .await;
    }
}

#[tokio::test]
async fn of_many_streams_one_after_the_other_none_is_lost() {
    const EACH: u32 = 200;
    let node = node(new_key()).await;
    let (host, to) = Host::listen(&new_key(), &[ECHO]).await;
    let (seen, to) = (host.seen.clone(), address(&to));
    let _echo = echo(host);
    let network = &node.network;
    join_all((0..16_u32).map(|caller| {
        let to = &to;
        async move {
            for number in 0..EACH {
                let text = [caller.to_be_bytes(), number.to_be_bytes()].concat();
                echoes(network, to, &text).await;
            }
        }
    }))
    .await;
    assert_eq!(seen.lock().unwrap().connected.len(), 1);
}

#[tokio::test]
async fn an_answer_longer_than_a_window_reaches_a_client_that_closed_its_half() {
    let node = node(new_key()).await;
    let (host, to) = Host::listen(&new_key(), &[ECHO]).await;
    let (to, _echo) = (address(&to), echo(host));
    echoes(&node.network, &to, &vec![7; 600_000]).await;
}
