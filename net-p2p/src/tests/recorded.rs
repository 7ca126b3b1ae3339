//! The recorded conversation of an existing node with a plain libp2p host, repeated with this node.
//!
//! [`STRICTER`] and [`OTHER`] name the cases in which this node differs; the tests assert how.

use futures::{AsyncReadExt, AsyncWriteExt};
use gossip::{NetworkProfile, wire::metainfo};
use libp2p::{Stream, StreamProtocol};
use serde_json::Value;
use tokio::time::{self, Instant};

use super::host::{Host, Node, PATIENCE, ordered_keys, until};
use crate::link::HANDSHAKE_LIMIT;

const CURRENT: &str = "/algorand-ws/2.2.0";
const LEGACY: &str = "/algorand-ws/1.0.0";

/// Cases with the recorded outcome.
const SHARED: [&str; 21] = [
    "handshake_2_2_genesis_differs",
    "dialer_with_larger_id_opens_anyway",
    "dialer_with_larger_id_waits",
    "handshake_1_0",
    "handshake_bad_version",
    "handshake_garbage",
    "handshake_zero_length",
    "frame_normal",
    "frame_two",
    "frame_tag_only",
    "frame_length_0",
    "frame_length_1",
    "frame_length_6mib_plus_1",
    "frame_unknown_tag",
    "frame_eof_in_length",
    "frame_half_close_after_message",
    "frame_mi_bad",
    "frame_ts_unrequested",
    "frame_tx_on_stream",
    "we_reset_the_stream",
    "we_close_the_stream",
];

/// Cases in which this node is stricter: the handshake has a deadline, and half a message is an error.
const STRICTER: [&str; 5] = [
    "frame_eof_in_body",
    "silent_dialer_45s",
    "one_byte_then_silent_45s",
    "length_then_silent_45s",
    "silent_dialer_then_handshake",
];

/// Cases with another outcome: this node negotiates no early muxer and no packed votes, and it refuses a second
/// stream while the first one is kept instead of closing the connection.
const OTHER: [&str; 3] = ["identify", "frame_vp_garbage", "second_stream_same_peer"];

fn cases() -> Vec<Value> {
    let recorded: Value =
        serde_json::from_str(include_str!("../../testdata/p2p_streams.json")).unwrap();
    recorded["cases"].as_array().unwrap().clone()
}

fn case(name: &str) -> Value {
    cases().into_iter().find(|case| case["name"] == name).unwrap()
}

fn bytes(case: &Value, key: &str) -> Vec<u8> {
    hex::decode(case[key].as_str().unwrap()).unwrap()
}

/// The end with the smaller peer ID.
enum Smaller {
    Host,
    Node,
}

async fn meet(smaller: Smaller, accepts: &[StreamProtocol]) -> (Node, Host) {
    let (small, large) = ordered_keys();
    let (host, node) = match smaller {
        Smaller::Host => (small, large),
        Smaller::Node => (large, small),
    };
    let node = Node::start(&NetworkProfile::ALGORAND, "test-v1", node).await;
    let host = Host::dial(&host, accepts, node.address()).await;
    (node, host)
}

/// The headers that an existing node sends as the dialer.
fn dialer_headers() -> Vec<u8> {
    bytes(&case("handshake_2_2_genesis_differs"), "dialer_message")
}

async fn read_message(stream: &mut Stream) -> Vec<u8> {
    let mut header = [0; 2];
    stream.read_exact(&mut header).await.unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes(header))];
    stream.read_exact(&mut body).await.unwrap();
    [&header[..], &body].concat()
}

async fn send(stream: &mut Stream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// Opens a gossip stream and performs the handshake.
async fn gossip(host: &Host) -> Stream {
    let mut stream = host.open(CURRENT).await;
    send(&mut stream, &dialer_headers()).await;
    check_answer(&read_message(&mut stream).await);
    stream
}

/// Compares an answer with the recorded one.
fn check_answer(answer: &[u8]) {
    let recorded = bytes(&case("handshake_2_2_genesis_differs"), "listener_message");
    let headers = |message: &[u8]| metainfo::decode_body(&message[2..]).unwrap();
    assert_eq!(headers(answer), headers(&recorded));
    assert_eq!(answer.len(), recorded.len());
}

/// Checks that a message on the stream still arrives.
async fn is_open(stream: &mut Stream, node: &Node) {
    let before = node.heard().len();
    let probe: u64 = rand::random();
    let body = [&b"\0\0\0\x0aVB"[..], &probe.to_be_bytes()].concat();
    send(stream, &body).await;
    until("the probe is heard", || node.heard().len() > before).await;
    assert_eq!(node.heard().last().unwrap(), &probe.to_be_bytes());
}

/// Checks that the stream ends. Returns the bytes that were read before.
async fn ends(stream: &mut Stream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let _end_or_reset = read.expect("the stream is still open");
    rest
}

#[test]
fn every_recorded_case_is_accounted_for() {
    let mut names: Vec<String> =
        cases().iter().map(|case| case["name"].as_str().unwrap().to_owned()).collect();
    let mut known: Vec<&str> = [&SHARED[..], &STRICTER, &OTHER].concat();
    names.sort();
    known.sort_unstable();
    assert_eq!(names, known);
    assert_eq!(names.len(), 29);
}

#[tokio::test]
async fn a_node_announces_itself_as_recorded_without_missing_features() {
    // The library does not announce GossipSub to a peer that does not offer it.
    let speaks = [StreamProtocol::new("/meshsub/1.3.0")];
    let (_node, host) = meet(Smaller::Host, &speaks).await;
    until("the node is identified", || host.seen.lock().unwrap().identified.is_some()).await;
    let info = host.seen.lock().unwrap().identified.clone().unwrap();
    let case = case("identify");
    let mut protocols: Vec<String> = info.protocols.iter().map(ToString::to_string).collect();
    let recorded = case["protocols"].as_array().unwrap();
    let mut expected: Vec<&str> = recorded.iter().map(|name| name.as_str().unwrap()).collect();
    expected.retain(|name| *name != "/http/1.1");
    protocols.sort();
    expected.sort_unstable();
    assert_eq!(protocols, expected);
    assert_eq!(info.protocol_version, case["protocol_version"].as_str().unwrap());
    assert_eq!(info.agent_version, concat!("tandem/", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_dialer_of_another_genesis_is_answered_where_networks_are_not_compared() {
    let (node, host) = meet(Smaller::Host, &[]).await;
    let mut stream = gossip(&host).await;
    is_open(&mut stream, &node).await;
}

#[tokio::test]
async fn a_dialer_with_the_larger_id_may_open_anyway() {
    let (node, host) = meet(Smaller::Node, &[]).await;
    let mut stream = gossip(&host).await;
    is_open(&mut stream, &node).await;
}

#[tokio::test]
async fn a_listener_with_the_smaller_id_opens_and_waits_for_the_dialer_to_speak() {
    let (node, mut host) = meet(Smaller::Node, &[StreamProtocol::new(CURRENT)]).await;
    let inbound = time::timeout(PATIENCE, host.accepted.next()).await.unwrap().unwrap();
    assert_eq!(
        inbound.protocol,
        case("dialer_with_larger_id_waits")["protocol_selected"].as_str().unwrap()
    );
    let mut stream = inbound.stream;
    let silence = time::timeout(std::time::Duration::from_millis(200), stream.read(&mut [0])).await;
    assert!(silence.is_err(), "the listener spoke first");
    send(&mut stream, &dialer_headers()).await;
    check_answer(&read_message(&mut stream).await);
    is_open(&mut stream, &node).await;
}

#[tokio::test]
async fn a_legacy_dialer_sends_one_byte_and_gets_no_answer() {
    let (node, host) = meet(Smaller::Host, &[]).await;
    let mut stream = host.open(LEGACY).await;
    send(&mut stream, &bytes(&case("handshake_1_0"), "dialer_message")).await;
    is_open(&mut stream, &node).await;
}

#[tokio::test]
async fn a_failed_handshake_ends_the_stream_and_keeps_the_connection() {
    let mut count = 0;
    for name in ["handshake_bad_version", "handshake_garbage", "handshake_zero_length"] {
        let (node, host) = meet(Smaller::Host, &[]).await;
        let mut stream = host.open(CURRENT).await;
        send(&mut stream, &bytes(&case(name), "dialer_message")).await;
        assert_eq!(ends(&mut stream).await, b"", "{name}");
        let mut again = gossip(&host).await;
        is_open(&mut again, &node).await;
        assert!(host.is_alive(), "{name}");
        count += 1;
    }
    assert_eq!(count, 3);
}

#[tokio::test]
async fn frames_have_the_recorded_outcome() {
    let mut count = 0;
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        if !name.starts_with("frame_") {
            continue;
        }
        let (node, host) = meet(Smaller::Host, &[]).await;
        let mut stream = gossip(&host).await;
        send(&mut stream, &bytes(&case, "we_send")).await;
        if case["half_closed"].as_bool().unwrap() {
            stream.close().await.unwrap();
        }
        let mut calls = usize::try_from(case["handler_calls"].as_u64().unwrap()).unwrap();
        if name == "frame_eof_in_body" {
            calls = 0; // stricter: half a message is an error
        }
        until(name, || node.heard().len() >= calls).await;
        if calls > 0 {
            let len = usize::try_from(case["handler_payload_len"].as_u64().unwrap()).unwrap();
            assert_eq!(node.heard()[0].len(), len, "{name}");
        }
        if case["stream_after"] == "open" {
            is_open(&mut stream, &node).await;
            assert_eq!(node.heard().len(), calls + 1, "{name}");
            assert!(host.is_alive(), "{name}");
        } else {
            assert_eq!(ends(&mut stream).await, b"", "{name}");
            until(name, || !host.is_alive()).await;
            assert_eq!(node.heard().len(), calls, "{name}");
        }
        count += 1;
    }
    assert_eq!(count, 14);
}

#[tokio::test]
async fn a_stream_that_the_peer_ends_takes_the_connection_with_it() {
    let (_node, host) = meet(Smaller::Host, &[]).await;
    drop(gossip(&host).await);
    until("we_reset_the_stream", || !host.is_alive()).await;
    let (_node, host) = meet(Smaller::Host, &[]).await;
    let mut stream = gossip(&host).await;
    stream.close().await.unwrap();
    until("we_close_the_stream", || !host.is_alive()).await;
}

#[tokio::test]
async fn a_second_stream_is_answered_and_refused_and_the_first_one_stays() {
    let (node, host) = meet(Smaller::Host, &[]).await;
    let mut first = gossip(&host).await;
    is_open(&mut first, &node).await;
    let mut second = gossip(&host).await;
    assert_eq!(ends(&mut second).await, b"");
    is_open(&mut first, &node).await;
    assert!(host.is_alive());
}

#[tokio::test]
async fn a_silent_handshake_loses_the_stream_and_keeps_the_connection() {
    let (node, host) = meet(Smaller::Host, &[]).await;
    let began = Instant::now();
    let mut streams = Vec::new();
    for sent in [&b""[..], b"\0", b"\0\xb7"] {
        let mut stream = host.open(CURRENT).await;
        send(&mut stream, sent).await;
        streams.push(stream);
    }
    for stream in &mut streams {
        assert_eq!(ends(stream).await, b"");
        assert!(began.elapsed() >= HANDSHAKE_LIMIT);
    }
    let mut late = gossip(&host).await;
    is_open(&mut late, &node).await;
    assert!(host.is_alive());
}
