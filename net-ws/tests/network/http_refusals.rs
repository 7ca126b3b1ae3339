//! The recorded outcomes of requests for gossip: the 101 and every refusal, byte by byte where bytes matter.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::common::{
    self, Node, Recipe,
    raw::{self, Answer, End, Raw},
    soon, until,
};
use futures::future::join_all;
use gossip::{
    NetworkProfile,
    wire::{
        features::VoteCompression,
        identity::{self, Challenge, Keypair},
        interest,
    },
};
use mesh::{Door, InboundLimits, LoopbackRule, RateWindow};
use serde::Deserialize;
use tandem_net_ws::{GossipService, WsConfig};
use tokio::{io::AsyncWriteExt, time::Instant};

/// Time for which a connection that was recorded as open is watched.
const WATCH: Duration = Duration::from_millis(150);

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    stage: String,
    request: Option<String>,
    request_len: Option<usize>,
    response_text: String,
    frames_after_head_hex: Option<String>,
    connection_after: String,
    answer_ms: u64,
}

fn cases() -> BTreeMap<String, Case> {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../../testdata/http_refusals.json")).unwrap();
    vectors.cases.into_iter().map(|case| (case.name.clone(), case)).collect()
}

/// The cases that need a node or a client of their own.
const SPECIAL: [&str; 15] = [
    "gossip_service_disabled",
    "switching_protocols_bare",
    "identity_ignored_when_inactive",
    "max_connections_per_ip",
    "incoming_connections_limit",
    "tcp_connection_limit_silent_client",
    "tcp_connection_limit",
    "tcp_rate_limit_half_closing_client",
    "tcp_rate_limit_waiting_client",
    "tcp_rate_limit_doubled",
    "tcp_rate_limit_silent_client",
    "http_rate_limit",
    "header_timeout",
    "silent_connection",
    "keep_alive_idle",
];

impl Case {
    /// The request; if only its length was recorded, one of that length.
    fn request(&self) -> Vec<u8> {
        let Some(len) = self.request_len else {
            return self.request.clone().unwrap().into_bytes();
        };
        // The recorded client announced all features.
        let features = "X-Algorand-Peer-Features: ppzstd,avvpack,avvpack2048\r\n";
        let padded = |padding: &str| {
            let extra = format!("{features}X-Padding: {padding}\r\n");
            raw::gossip_request("X-Algorand-", &extra)
        };
        let bare = padded("").len();
        padded(&"x".repeat(len - bare)).into_bytes()
    }

    async fn sent_to(&self, node: &Node) -> Raw {
        let mut client = Raw::connect(node.address()).await;
        client.send(&self.request()).await;
        client
    }

    /// Sends the request and compares the whole answer.
    async fn check(&self, node: &Node) {
        let mut client = self.sent_to(node).await;
        self.check_answer(&mut client).await;
    }

    async fn check_answer(&self, client: &mut Raw) {
        let name = &self.name;
        if self.response_text.is_empty() {
            assert!(client.answer().await.is_none(), "{name}: an answer");
            assert!(client.got.is_empty(), "{name}: {:?}", client.got);
        } else {
            let (head, body) = self.response_text.split_once("\r\n\r\n").unwrap();
            let expected = raw::parse_head(head);
            let answer = client.answer().await.unwrap_or_else(|| panic!("{name}: no answer"));
            assert_eq!(answer.status, expected.status, "{name}");
            if answer.status.contains(" 101 ") {
                self.check_upgrade(&answer, &expected);
                self.check_first_frame(client).await;
            } else {
                self.check_refusal(&answer, &expected);
                let got = client.exactly(body.len()).await.unwrap();
                assert_eq!(String::from_utf8(got).unwrap(), body, "{name}");
            }
        }
        let end =
            client.read(if self.connection_after == "open" { WATCH } else { common::PATIENCE });
        let expected = if self.connection_after == "open" { End::Open } else { End::Over };
        assert_eq!(end.await, expected, "{name}");
    }

    fn check_refusal(&self, answer: &Answer, expected: &Answer) {
        let without_date = |headers: &BTreeMap<String, Vec<String>>| {
            let mut headers = headers.clone();
            headers.get_mut("date").into_iter().for_each(Vec::clear);
            headers
        };
        assert_eq!(without_date(&answer.headers), without_date(&expected.headers), "{}", self.name);
    }

    fn check_upgrade(&self, answer: &Answer, expected: &Answer) {
        let name = &self.name;
        assert_eq!(answer.order[..3], ["upgrade", "connection", "sec-websocket-accept"], "{name}");
        let names = |answer: &Answer| answer.headers.keys().cloned().collect::<BTreeSet<String>>();
        let mut expected_names = names(expected);
        // This node has no priority scheme, so it does not ask for proofs of stake.
        expected_names.remove("x-algorand-prioritychallenge");
        assert_eq!(names(answer), expected_names, "{name}");
        for (header, value) in &answer.headers {
            match header.as_str() {
                "x-algorand-identitychallenge" => check_identity(&value[0]),
                "x-algorand-location" if value[0].starts_with("http://127.0.0.1:") => {
                    assert!(expected.headers[header][0].starts_with("http://127.0.0.1:"), "{name}");
                }
                // The recording used another key than the request of this test.
                _ => assert_eq!(value, &expected.headers[header], "{name}: {header}"),
            }
        }
    }

    /// Checks the message of interest that follows the 101 at once.
    async fn check_first_frame(&self, client: &mut Raw) {
        let frame = soon(client.frame()).await.unwrap();
        let tags = |message: &[u8]| {
            assert_eq!(&message[..2], b"MI", "{}", self.name);
            let table = &NetworkProfile::ALGORAND.tags;
            interest::decode(&message[2..].to_vec().into(), table).unwrap()
        };
        assert_eq!((frame.first, frame.masked), (0x82, false));
        if let Some(recorded) = &self.frames_after_head_hex {
            let recorded = hex::decode(recorded).unwrap();
            assert_eq!(tags(&frame.payload), tags(&recorded[2..]), "{}", self.name);
        }
    }
}

/// Message 2 answers the recorded challenge, whose random bytes are 0 to 31.
fn check_identity(header: &str) {
    let sent = Challenge(std::array::from_fn(|index| u8::try_from(index).unwrap()));
    let seen = identity::read_response_header(header, &sent).unwrap();
    assert_eq!(seen.key, Keypair::from_seed([1; 32]).identity());
}

fn recipe() -> Recipe {
    Recipe::new(&NetworkProfile::ALGORAND).listening().relaying().with(|config| {
        config.node_random = Some(std::array::from_fn(|index| u8::try_from(index).unwrap()));
    })
}

async fn node(change: impl FnOnce(&mut WsConfig)) -> Node {
    recipe().with(change).start().await
}

#[tokio::test]
async fn every_request_is_answered_as_recorded() {
    let cases = cases();
    assert_eq!(cases.len(), 67);
    let main = node(|config| {
        config.public_address = Some("relay.example:4160".to_owned());
        config.identity = Some(Arc::new(Keypair::from_seed([1; 32])));
        config.door = Door::new(InboundLimits::default().with_per_ip(100));
    })
    .await;
    let plain: Vec<&Case> =
        cases.values().filter(|case| !SPECIAL.contains(&case.name.as_str())).collect();
    assert_eq!(plain.len(), 52);
    join_all(plain.iter().map(|case| soon(case.check(&main)))).await;
    main.stop().await;
}

#[tokio::test]
async fn the_gossip_path_is_unknown_where_gossip_is_off() {
    let node = node(|config| config.gossip_service = GossipService::Off).await;
    soon(cases()["gossip_service_disabled"].check(&node)).await;
    node.stop().await;
}

#[tokio::test]
async fn a_node_without_a_name_takes_no_part_in_the_identity_exchange() {
    // The recorded node packs no votes either, and asks for packed ones all the same.
    let recipe = Recipe { votes: VoteCompression::Off, ..recipe() };
    let (node, cases) = (recipe.start().await, cases());
    soon(cases["switching_protocols_bare"].check(&node)).await;
    soon(cases["identity_ignored_when_inactive"].check(&node)).await;
    node.stop().await;
}

#[tokio::test]
async fn a_full_node_refuses_with_its_status() {
    let limits = InboundLimits::default().with_per_ip(1);
    for (limits, name) in [
        (limits, "max_connections_per_ip"),
        (InboundLimits::default().with_total(1), "incoming_connections_limit"),
    ] {
        let node = node(|config| config.door = Door::new(limits)).await;
        let first = soon(raw::upgraded(node.address())).await;
        soon(cases()[name].check(&node)).await;
        drop(first);
        node.until_peers(0).await;
        let again = soon(raw::upgraded(node.address())).await;
        drop(again);
        node.stop().await;
    }
}

#[tokio::test]
async fn sockets_beyond_the_limit_are_closed_at_once() {
    let limits = InboundLimits::default().with_total(1);
    let node = node(|config| config.door = Door::new(limits)).await;
    let mut open = Vec::new();
    for _ in 0..11 {
        open.push(Raw::connect(node.address()).await);
    }
    until("eleven half-open sockets", || node.network.task_count() == 11 + 2).await;
    for name in ["tcp_connection_limit_silent_client", "tcp_connection_limit"] {
        soon(cases()[name].check(&node)).await;
    }
    node.stop().await;
}

fn limited(config: &mut WsConfig) {
    config.door = Door::new(
        InboundLimits::default()
            .with_rate(RateWindow::new(2, Duration::from_secs(3)))
            .with_loopback(LoopbackRule::Counted),
    );
}

#[tokio::test]
async fn a_host_that_connects_too_often_is_drained_then_closed() {
    let (node, cases) = (node(limited).await, cases());
    let _first = Raw::connect(node.address()).await;
    let _second = Raw::connect(node.address()).await;
    let half_closing = &cases["tcp_rate_limit_half_closing_client"];
    let mut client = half_closing.sent_to(&node).await;
    client.stream.shutdown().await.unwrap();
    soon(half_closing.check_answer(&mut client)).await;
    let began = Instant::now();
    soon(cases["tcp_rate_limit_waiting_client"].check(&node)).await;
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    // Twice the rate is allowed at once; the fifth connection is one too many.
    let began = Instant::now();
    soon(cases["tcp_rate_limit_doubled"].check(&node)).await;
    assert!(began.elapsed() < Duration::from_millis(450), "{:?}", began.elapsed());
    node.stop().await;
}

#[tokio::test]
async fn a_silent_host_that_connects_too_often_is_closed_after_half_a_second() {
    let (node, cases) = (node(limited).await, cases());
    let _first = Raw::connect(node.address()).await;
    let _second = Raw::connect(node.address()).await;
    let began = Instant::now();
    soon(cases["tcp_rate_limit_silent_client"].check(&node)).await;
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    node.stop().await;
}

#[tokio::test]
async fn a_host_that_asks_too_often_gets_retry_after() {
    let (node, cases) = (node(limited).await, cases());
    let case = &cases["http_rate_limit"];
    let mut client = Raw::connect(node.address()).await;
    for _ in 0..2 {
        client.send(&case.request()).await;
        let answer = soon(client.answer()).await.unwrap();
        assert_eq!(answer.status, "HTTP/1.1 404 Not Found");
        client.exactly(19).await.unwrap();
    }
    client.send(&case.request()).await;
    soon(case.check_answer(&mut client)).await;
    node.stop().await;
}

#[tokio::test]
async fn idle_connections_end_as_recorded() {
    let (node, cases) = (node(|_| {}).await, cases());
    let timed = async |name: &str| {
        let case = &cases[name];
        assert_eq!(case.stage, "-");
        let began = Instant::now();
        case.check(&node).await;
        let (took, recorded) = (began.elapsed(), Duration::from_millis(case.answer_ms));
        assert!(took + Duration::from_millis(50) >= recorded, "{name}: {took:?}");
        assert!(took < recorded + Duration::from_secs(2), "{name}: {took:?}");
    };
    let all = [timed("header_timeout"), timed("silent_connection"), timed("keep_alive_idle")];
    soon(join_all(all)).await;
    node.stop().await;
}
