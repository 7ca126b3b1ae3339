//! HTTP over streams: answers compared with those of existing nodes, and exchanges between Tandem nodes.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use gossip::{
    Admission, GossipNode, NetworkProfile, NodeAddress, Outbound, PeerClass, Tag,
    http::{
        Caller, HttpAddressError, HttpBody, HttpError, HttpRequest, HttpResponse, HttpService,
        read_all,
    },
};
use http::{HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use libp2p::{Stream, StreamProtocol};
use net_http::{
    HttpServer, ServeLimits,
    client::{ClientLimits, Clients},
    reply,
};
use serde_json::Value;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::host::{Host, Node, PATIENCE, new_key, ordered_keys, until};
use crate::{GossipStreams, OpenError, P2pConfig, P2pEvent, config::libp2p_key};

/// A server with the handlers of the recorded node, and one that returns its caller.
pub(super) fn http_server() -> HttpServer {
    let hello = |request: HttpRequest| async move {
        let plain = [(header::CONTENT_TYPE, reply::PLAIN)];
        Ok::<HttpResponse, Infallible>(match request.uri().path() {
            "/hello" => reply::text(StatusCode::OK, "hi", &plain),
            "/caller" => {
                let caller: &Caller = request.extensions().get().unwrap();
                reply::text(StatusCode::OK, &format!("{caller:?}"), &plain)
            }
            "/echo" => {
                let body = read_all(request.into_body(), 1 << 20).await.unwrap();
                reply::text(StatusCode::OK, &String::from_utf8_lossy(&body), &plain)
            }
            "/endless" => {
                let frames = futures::stream::repeat_with(|| {
                    Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 16_384])))
                });
                http::Response::new(HttpBody::new(StreamBody::new(frames)))
            }
            "/panic" => panic!("a handler panicked, as the test asked"),
            _ => reply::not_found(),
        })
    };
    let service = HttpService::new(tower::service_fn(hello));
    HttpServer::new(service, ServeLimits::default())
}

/// Clients without a rate limit.
pub(super) fn clients() -> Clients {
    let limits = ClientLimits::default().with_window(None);
    Clients::new(limits, "test".to_owned(), &CancellationToken::new())
}

pub(super) async fn serving(profile: &'static NetworkProfile, key: gossip::Keypair) -> Node {
    Node::start_with(profile, "test-v1", key, |config| P2pConfig {
        http_server: Some(http_server()),
        ..config
    })
    .await
}

async fn asking(profile: &'static NetworkProfile) -> Node {
    Node::start_with(profile, "test-v1", new_key(), |config| P2pConfig {
        gossip: GossipStreams::Off,
        clients: Some(clients()),
        ..config
    })
    .await
}

/// Reads until the peer ends the stream.
async fn rest(stream: &mut Stream) -> String {
    let mut bytes = Vec::new();
    let read = time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("the stream is still open").unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Takes a response apart: status line, headers in any order without the date, and body.
fn parts(response: &str) -> (String, BTreeSet<String>, String) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n").map(str::to_owned);
    let status = lines.next().unwrap();
    let headers = lines.filter(|line| !line.starts_with("Date: ")).collect();
    (status, headers, body.to_owned())
}

#[tokio::test]
async fn every_recorded_request_is_answered_as_by_an_existing_node() {
    let profile = &NetworkProfile::ALGORAND;
    let recorded: Value =
        serde_json::from_str(include_str!("../../testdata/p2p_http.json")).unwrap();
    let node = serving(profile, new_key()).await;
    let host = Host::dial(&new_key(), &[], node.address()).await;
    let cases = recorded["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap();
        let mut stream = host.open(profile.http_protocol).await;
        stream.write_all(text("request").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        if case["half_closed"].as_bool().unwrap() {
            stream.close().await.unwrap();
        }
        let answered = rest(&mut stream).await;
        assert_eq!(parts(&answered), parts(text("response_text")), "{}", text("name"));
        assert_eq!(text("stream_end"), "EOF");
    }
    assert!(host.is_alive());
}

#[tokio::test]
async fn an_answer_longer_than_a_window_reaches_a_client_that_closed_its_half() {
    let profile = &NetworkProfile::ALGORAND;
    let node = serving(profile, new_key()).await;
    let host = Host::dial(&new_key(), &[], node.address()).await;
    // Longer than a stream's window, so that the server has to wait in the middle of its answer.
    let body = "x".repeat(600_000);
    let mut stream = host.open(profile.http_protocol).await;
    let head = format!("POST /echo HTTP/1.1\r\nHost: \r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream.close().await.unwrap();
    let answered = rest(&mut stream).await;
    assert!(answered.ends_with(&body), "{} bytes", answered.len());
}

#[tokio::test]
async fn a_kept_alive_stream_carries_many_requests() {
    let profile = &NetworkProfile::TANDEM;
    let node = serving(profile, new_key()).await;
    let host = Host::dial(&new_key(), &[], node.address()).await;
    let mut stream = host.open(profile.http_protocol).await;
    for _ in 0..3 {
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: \r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nhi") {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    assert!(rest(&mut stream).await.ends_with("\r\n\r\nhi"));
}

#[tokio::test]
async fn a_client_opens_the_streams_it_needs_and_the_server_knows_the_caller() {
    for profile in NetworkProfile::ALL {
        let (one, other) = (asking(profile).await, serving(profile, new_key()).await);
        let client = one.network.http_client(&other.network.addresses()[0]).unwrap();
        for _ in 0..3 {
            let response = client.get("/caller").await.unwrap();
            let text = read_all(response.into_body(), 1_000).await.unwrap();
            let text = std::str::from_utf8(&text).unwrap();
            let id = one.network.identity().to_string();
            for part in [id.as_str(), "Libp2p", "/ip4/127.0.0.1/tcp/", "ip: Some(127.0.0.1)"] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
        let document = client.get("/.well-known/libp2p/protocols").await.unwrap();
        assert_eq!(document.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(client.get("/nope").await.unwrap().status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn of_three_hundred_requests_on_streams_of_their_own_none_is_lost() {
    let profile = &NetworkProfile::ALGORAND;
    let node = serving(profile, new_key()).await;
    let one = asking(profile).await;
    let to = node.network.addresses().remove(0);
    let protocol = StreamProtocol::new(profile.http_protocol);
    let streams = join_all((0..300).map(|_| {
        let (network, to, protocols) = (&one.network, &to, vec![protocol.clone()]);
        async move {
            let mut opened = network.open_stream_to(to, protocols, PATIENCE).await.unwrap();
            opened.stream.write_all(b"GET /hello HTTP/1.1\r\nHost: \r\n\r\n").await.unwrap();
            opened.stream.flush().await.unwrap();
            rest(&mut opened.stream).await
        }
    }))
    .await;
    assert!(streams.iter().all(|answer| answer.ends_with("hi")), "{:?}", streams.last());
    let metrics = node.network.metrics();
    assert_eq!(metrics.count(P2pEvent::AcceptQueueFullForConnection), 0);
    assert_eq!(metrics.count(P2pEvent::TooManyHttpStreams), 0);
}

#[tokio::test]
async fn many_callers_of_one_client_are_all_answered() {
    for profile in NetworkProfile::ALL {
        let (one, other) = (asking(profile).await, serving(profile, new_key()).await);
        let client = one.network.http_client(&other.network.addresses()[0]).unwrap();
        join_all((0..256).map(|_| async {
            let response = client.get("/hello").await.unwrap();
            assert_eq!(read_all(response.into_body(), 100).await.unwrap(), "hi");
        }))
        .await;
    }
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_request_and_nothing_else() {
    let profile = &NetworkProfile::TANDEM;
    let (one, other) = (asking(profile).await, serving(profile, new_key()).await);
    let client = one.network.http_client(&other.network.addresses()[0]).unwrap();
    let failed = client.get("/panic").await.unwrap();
    assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(client.get("/hello").await.unwrap().status(), StatusCode::OK);
    assert_eq!(other.network.metrics().count(P2pEvent::SwarmRestarted), 0);
}

#[tokio::test]
async fn gossip_is_not_delayed_by_fast_or_unread_http_streams() {
    let profile = &NetworkProfile::TANDEM;
    let (one, other) = (serving(profile, new_key()).await, serving(profile, new_key()).await);
    let to = other.network.addresses().remove(0);
    one.network.add_peer(&to).unwrap();
    let linked = |node: &Node| node.network.peers(PeerClass::Connected).len() == 1;
    until("they are linked", || linked(&one) && linked(&other)).await;
    let mut streams = Vec::new();
    for _ in 0..ServeLimits::default().per_peer {
        let protocols = vec![StreamProtocol::new(profile.http_protocol)];
        let mut opened = one.network.open_stream_to(&to, protocols, PATIENCE).await.unwrap();
        opened.stream.write_all(b"GET /endless HTTP/1.1\r\nHost: \r\n\r\n").await.unwrap();
        opened.stream.flush().await.unwrap();
        streams.push(opened);
    }
    let (unread, mut read) = (streams.split_off(ServeLimits::default().per_peer / 2), streams);
    let reading = join_all(read.iter_mut().map(|opened| async {
        let mut bytes = vec![0; 65_536];
        while opened.stream.read(&mut bytes).await.unwrap() > 0 {}
    }));
    let gossip = async {
        for number in 0..20_u8 {
            let heard = || one.heard().len() == usize::from(number) + 1;
            let message = Outbound::new(Tag::VB, vec![number]);
            assert_eq!(other.network.broadcast(message), Ok(Admission::Queued));
            until("it is heard", heard).await;
        }
    };
    tokio::select! {
        _ended = reading => panic!("an endless body ended"),
        () = gossip => {}
    }
    drop(unread);
}

#[tokio::test]
async fn an_address_that_no_client_can_use_is_refused_with_the_reason() {
    let node = asking(&NetworkProfile::TANDEM).await;
    let refused = |text: &str| node.network.http_client(&text.parse().unwrap()).unwrap_err();
    let other = HttpAddressError::OtherTransport { address: "127.0.0.1:80".to_owned() };
    assert_eq!(refused("127.0.0.1:80"), other);
    let HttpAddressError::Unusable { reason, .. } = refused("/ip4/127.0.0.1/tcp/1") else {
        panic!("it has no peer ID")
    };
    assert!(reason.contains("/p2p/ID"), "{reason}");
    // A SHA-256 multihash truncated to one byte, and text that is no peer ID at all.
    for bare in ["/p2p/73kJ", "/p2p/nobody"] {
        let HttpAddressError::Unusable { reason, .. } = refused(bare) else {
            panic!("{bare} names nobody")
        };
        assert!(reason.contains("a peer ID that no key has"), "{reason}");
    }
}

// Issue 9, 13.
#[tokio::test]
async fn an_identity_alone_reaches_connected_peers_only() {
    let profile = &NetworkProfile::TANDEM;
    let (one, other) = (asking(profile).await, serving(profile, new_key()).await);
    let bare = NodeAddress::Multiaddr(format!("/p2p/{}", other.network.identity()));
    let client = one.network.http_client(&bare).unwrap();
    let error = client.get("/hello").await.unwrap_err();
    assert!(matches!(error, HttpError::Unreachable { .. }), "{error:?}");

    let address = other.network.addresses().remove(0);
    let protocols = vec![StreamProtocol::new(profile.http_protocol)];
    let held = one.network.open_stream_to(&address, protocols, PATIENCE).await.unwrap();
    assert_eq!(client.get("/hello").await.unwrap().status(), StatusCode::OK);
    // Clients of one peer share connections, but this client may not dial for a new one.
    drop(held);
    let client = one.network.http_client(&address).unwrap();
    assert_eq!(client.get("/hello").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_unreachable_peer_or_one_without_http_gets_no_request() {
    let profile = &NetworkProfile::TANDEM;
    let (one, silent) = (asking(profile).await, asking(profile).await);
    let client = one.network.http_client(&silent.network.addresses()[0]).unwrap();
    let error = client.get("/hello").await.unwrap_err();
    assert!(matches!(error, HttpError::Unreachable { .. }), "{error:?}");
    let id = libp2p_key(&new_key()).public().to_peer_id();
    let nobody = NodeAddress::Multiaddr(format!("/ip4/127.0.0.1/tcp/1/p2p/{id}"));
    let error = one.network.http_client(&nobody).unwrap().get("/hello").await.unwrap_err();
    assert!(!error.may_have_reached(), "{error:?}");
}

#[tokio::test]
async fn a_node_without_gossip_announces_and_opens_no_gossip_streams() {
    let profile = &NetworkProfile::TANDEM;
    let (small, large) = ordered_keys();
    let node = Node::start_with(profile, "test-v1", small, |config| P2pConfig {
        gossip: GossipStreams::Off,
        http_server: Some(http_server()),
        ..config
    })
    .await;
    let gossip = StreamProtocol::new(profile.stream_protocol);
    let host = Host::dial(&large, &[gossip], node.address()).await;
    until("it said what it speaks", || host.seen.lock().unwrap().identified.is_some()).await;
    let info = host.seen.lock().unwrap().identified.take().unwrap();
    let spoken: Vec<&str> = info.protocols.iter().map(AsRef::as_ref).collect();
    assert!(spoken.contains(&profile.http_protocol), "{spoken:?}");
    assert!(!spoken.iter().any(|name| name.contains("gossip") || name.contains("meshsub")));
    assert!(!spoken.iter().any(|name| name.contains("bulk") || name.contains("floodsub")));
    let refused = host.try_open(profile.stream_protocol).await.unwrap_err();
    assert!(matches!(refused, OpenError::Unsupported), "{refused}");
    assert_eq!(node.network.metrics().count(P2pEvent::HandshakeFailed), 0, "it opened none");
}

#[tokio::test]
async fn a_node_without_an_http_server_does_not_announce_http() {
    let profile = &NetworkProfile::TANDEM;
    let node = Node::start(profile, "test-v1", new_key()).await;
    let host = Host::dial(&new_key(), &[], node.address()).await;
    let refused = host.try_open(profile.http_protocol).await.unwrap_err();
    assert!(matches!(refused, OpenError::Unsupported), "{refused}");
}

#[tokio::test]
async fn a_request_under_way_is_answered_when_the_network_stops() {
    let profile = &NetworkProfile::TANDEM;
    let (started, start) = tokio::sync::watch::channel(());
    let (go_on, gate) = (Arc::new(tokio::sync::Notify::new()), Arc::new(started));
    let wait = Arc::clone(&go_on);
    let slow = move |_request: HttpRequest| {
        let (gate, wait) = (Arc::clone(&gate), Arc::clone(&wait));
        async move {
            gate.send_replace(());
            wait.notified().await;
            let headers = [(header::SERVER, HeaderValue::from_static("slow"))];
            Ok::<HttpResponse, Infallible>(reply::text(StatusCode::OK, "at last", &headers))
        }
    };
    let service = HttpService::new(tower::service_fn(slow));
    let http_server = HttpServer::new(service, ServeLimits::default());
    let other = Node::start_with(profile, "test-v1", new_key(), |config| P2pConfig {
        http_server: Some(http_server),
        ..config
    })
    .await;
    let one = asking(profile).await;
    let client = one.network.http_client(&other.network.addresses()[0]).unwrap();
    let stopped = async {
        let mut start = start;
        start.changed().await.unwrap();
        let (stopped, ()) = tokio::join!(other.network.stop(Duration::from_secs(5)), async {
            go_on.notify_one();
        });
        stopped
    };
    let (answer, stopped) = tokio::join!(client.get("/"), stopped);
    let body = read_all(answer.unwrap().into_body(), 100).await.unwrap();
    assert_eq!((&body[..], stopped), (&b"at last"[..], runtime::Shutdown::Clean));
}
