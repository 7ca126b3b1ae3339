//! Whole nodes over loopback: they find each other, gossip, and disconnect.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use crate::common::{
    self, HOUR, Recipe,
    dialled::Dialled,
    raw::{self, End, Raw},
    soon, until,
};
use broadcaster::{Broadcaster, Limits, PeerEvent, Setup};
use bytes::Bytes;
use gossip::{
    Admission, DisconnectReason, GossipNode, Inbound, NetworkId, NetworkProfile, Outbound,
    PeerClass, Request, Tag, Verdict,
    http::{Caller, HttpService},
    wire::topics::Topics,
};
use net_http::{HttpServer, ServeLimits};
use runtime::Shutdown;
use tandem_net_ws::{WsConfig, WsNetwork};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_message_goes_both_ways_whatever_its_length() {
    for profile in NetworkProfile::ALL {
        let listener = Recipe::new(profile).listening().relaying().start().await;
        let dialer = Recipe::new(profile).dialling(&[listener.address()]).start().await;
        listener.until_peers(1).await;
        dialer.until_peers(1).await;
        // Every body differs: a repeated one would be dropped by the duplicate filter.
        for (fill, sender, receiver) in [(1, &listener, &dialer), (2, &dialer, &listener)] {
            for len in [1, 4094, 4095, 100_000, 5_000_000] {
                let body = Bytes::from(vec![fill; len]);
                let before = receiver.heard.all().len();
                let message = Outbound::new(Tag::TX, body.clone());
                assert_eq!(sender.network.broadcast(message), Ok(Admission::Queued));
                until("the message", || receiver.heard.all().len() > before).await;
                assert_eq!(receiver.heard.all().last().unwrap().body, body, "{len} bytes");
            }
        }
        assert_eq!(dialer.network.peers(PeerClass::ConnectedOut).len(), 1);
        assert_eq!(listener.network.peers(PeerClass::ConnectedIn).len(), 1);
        dialer.stop().await;
        listener.until_peers(0).await;
        listener.stop().await;
    }
}

#[tokio::test]
async fn a_request_is_answered_over_a_websocket() {
    let answers = |message: Inbound| async move {
        Verdict::Respond(Topics::new().with("got", message.body.slice(..4)))
    };
    let profile = &NetworkProfile::TANDEM;
    let root = CancellationToken::new();
    let setup = Setup::new(profile).handler(Tag::UE, Arc::new(answers));
    let broadcaster = Broadcaster::start(setup, &root);
    let mut config = WsConfig::new(NetworkId::new("test-v1").unwrap());
    config.listen = Some("127.0.0.1:0".to_owned());
    let listener = WsNetwork::start(config, broadcaster, &root).await.unwrap();
    let address = listener.local_address().unwrap();
    let dialer = Recipe::new(profile).dialling(&[address]).start().await;
    dialer.until_peers(1).await;
    let topics = Topics::new().with("key", Bytes::from_static(b"value"));
    let peer = dialer.peers()[0].id;
    let response = dialer.network.request(peer, Request { topics }).await.unwrap();
    assert_eq!(response.topics.get("got").unwrap().len(), 4);
    dialer.stop().await;
    assert_eq!(listener.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}

fn config() -> WsConfig {
    WsConfig::new(NetworkId::new("test-v1").unwrap())
}

#[track_caller]
fn refuses(change: impl FnOnce(&mut WsConfig), expected: &str) -> impl Future<Output = ()> {
    let mut config = config();
    change(&mut config);
    let expected = expected.to_owned();
    async move {
        let (profile, root) = (&NetworkProfile::TANDEM, CancellationToken::new());
        let broadcaster = Broadcaster::start(Setup::new(profile), &root);
        let error = WsNetwork::start(config, broadcaster, &root).await.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let shown = format!("{error} | {}", cause.unwrap_or_default());
        assert!(shown.contains(&expected), "{shown}");
    }
}

#[tokio::test]
async fn a_failed_start_names_the_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let busy = format!("cannot listen on {address}: the address is in use; stop the other");
    refuses(|config| config.listen = Some(address), &busy).await;
    let nowhere = "cannot listen on nowhere; is it a host:port of this machine?";
    refuses(|config| config.listen = Some("nowhere".to_owned()), nowhere).await;
    let peer = |text: &str| {
        let peer = text.parse().unwrap();
        move |config: &mut WsConfig| config.peers = vec![peer]
    };
    refuses(peer("https://a..example:1"), "no certificate can be for its host").await;
    let multiaddr = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    refuses(peer(multiaddr), "is an address of the libp2p network").await;
    let instance = |config: &mut WsConfig| config.instance = "a\r\nb".to_owned();
    refuses(instance, "the instance name \"a\\r\\nb\" has characters").await;
}

#[tokio::test]
async fn other_paths_go_to_the_http_server() {
    let echo = async |caller: Caller, request: axum::extract::Request| {
        let path = request.uri().path().to_owned();
        let body = axum::body::to_bytes(request.into_body(), 1000).await.unwrap();
        format!("{} {path} {}", caller.ip.unwrap(), String::from_utf8_lossy(&body))
    };
    let service = HttpService::new(axum::Router::new().fallback(echo));
    let http_server = HttpServer::new(service, ServeLimits::default());
    let recipe = Recipe::new(&NetworkProfile::TANDEM).listening();
    let node = recipe.with(|config| config.http_server = Some(http_server)).start().await;
    let mut client = Raw::connect(node.address()).await;
    for body in ["one", "two"] {
        let request = format!("POST /a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{body}");
        client.send(request.as_bytes()).await;
        let answer = soon(client.answer()).await.unwrap();
        assert_eq!(answer.status, "HTTP/1.1 200 OK");
        assert!(answer.headers.contains_key("date"));
        let expected = format!("127.0.0.1 /a/b {body}");
        assert_eq!(client.exactly(expected.len()).await.unwrap(), expected.as_bytes());
    }
    let mut old = Raw::connect(node.address()).await;
    old.send(b"GET /old HTTP/1.0\r\n\r\n").await;
    assert_eq!(soon(old.answer()).await.unwrap().status, "HTTP/1.0 200 OK");
    assert_eq!(old.exactly(15).await.unwrap(), b"127.0.0.1 /old ");
    assert_eq!(old.read(common::PATIENCE).await, End::Over);
    node.stop().await;
}

#[tokio::test]
async fn a_network_stops_in_time_in_every_state_of_its_connections() {
    let node = Recipe::new(&NetworkProfile::ALGORAND).listening().start().await;
    let idle = Raw::connect(node.address()).await;
    let mut half = Raw::connect(node.address()).await;
    half.send(b"GET /").await;
    let mut kept = Raw::connect(node.address()).await;
    kept.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    soon(kept.answer()).await.unwrap();
    let peer = soon(raw::upgraded(node.address())).await;
    node.until_peers(1).await;
    let began = tokio::time::Instant::now();
    node.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop((idle, half, kept, peer));
}

#[tokio::test]
async fn a_network_ends_with_its_last_handle() {
    let listener = Recipe::new(&NetworkProfile::TANDEM).listening().start().await;
    let address = listener.address();
    let dialer = Recipe::new(&NetworkProfile::TANDEM).dialling(&[address]).start().await;
    dialer.until_peers(1).await;
    drop(listener.network);
    dialer.until_peers(0).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    dialer.stop().await;
}

// Issue 10, section 15.1 of the wire facts: a node that takes no inbound peers opens no socket, and hears all the same.
#[tokio::test]
async fn a_node_that_is_not_told_to_listen_opens_no_socket_and_hears_what_is_sent() {
    let relay = Recipe::new(&NetworkProfile::ALGORAND).listening().relaying().start().await;
    let node = Recipe::new(&NetworkProfile::ALGORAND).dialling(&[relay.address()]).start().await;
    relay.until_peers(1).await;
    assert_eq!(node.network.local_addresses(), []);
    assert_eq!(node.network.addresses(), []);
    let sent = relay.network.broadcast(Outbound::new(Tag::TX, "a transaction"));
    assert_eq!(sent, Ok(Admission::Queued));
    until("the transaction", || node.heard.summary() == ["TX:13"]).await;
    node.stop().await;
    relay.stop().await;
}

// Issue 10, section 15.1: a slow peer that this node dialled ends like one that dialled it.
#[tokio::test]
async fn a_dialled_peer_that_stops_reading_is_cut_off() {
    let mut recipe = Recipe::new(&NetworkProfile::ALGORAND).redialling(HOUR, HOUR);
    recipe.limits = Limits::default().with_write_timeout(Duration::from_secs(1));
    let mut dialled = Dialled::of(recipe).await;
    let mut events = dialled.node.broadcaster.events();
    let head = dialled.head("");
    dialled.server.send(head.as_bytes()).await;
    dialled.node.until_peers(1).await;
    let mut sent = 0_u32;
    until("the end of the slow peer", || {
        let body = [&sent.to_be_bytes()[..], &[7; 256 * 1024]].concat();
        sent += 1;
        // The queue of the peer is full in the end.
        let _admission = dialled.node.network.broadcast(Outbound::new(Tag::VB, body));
        dialled.node.peers().is_empty()
    })
    .await;
    let reason = loop {
        if let PeerEvent::Disconnected(_, reason) = soon(events.recv()).await.unwrap() {
            break reason;
        }
    };
    assert_eq!(reason, DisconnectReason::Slow);
    dialled.node.stop().await;
}
