//! Pages in a browser: the hello in the query, the answer as the first message, and the origins that are let in.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use broadcaster::Broadcaster;
use gossip::{
    Admission, GossipNode, NetworkId, NetworkProfile, Outbound, Tag,
    wire::{
        hello::{Header, Hello},
        hello_query::{self, MAX_QUERY_BYTES, QueryHello},
        identity::{self, Challenge, Keypair},
        proposal::MAX_DECOMPRESSED,
    },
};
use mesh::{InboundLimits, Refusal};
use tandem_net_ws::{PageOrigins, UpgradeRefusal, WsConfig, WsNetwork};
use tokio_util::sync::CancellationToken;

use crate::common::{
    Node, Recipe,
    raw::{Answer, Frame, Raw, masked},
    soon, until,
};

const PROFILE: &NetworkProfile = &NetworkProfile::TANDEM;
const SITE: &str = "https://app.example";
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;

fn listening() -> Recipe {
    let origins = PageOrigins::default().with(SITE.parse().unwrap());
    Recipe::new(PROFILE).listening().with(|config| config.page_origins = origins)
}

/// The hello of a page that proves this key, if there is one.
fn hello(key: Option<&Keypair>) -> Hello {
    let challenge = key.map(|key| identity::request_header(key, "127.0.0.1:1", Challenge([7; 32])));
    Hello {
        version: PROFILE.version.into(),
        genesis: "test-v1".into(),
        node_random: Some("AAECAwQFBgcICQ==".into()),
        identity_challenge: challenge,
        ..Hello::default()
    }
}

fn query() -> String {
    hello_query::encode(&hello(None), PROFILE)
}

/// The request of a browser for a WebSocket of a page.
fn request(query: &str, host: &str, origin: &str, extra: &str) -> String {
    format!(
        "GET /v1/test-v1/gossip?{query} HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\n{origin}Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

async fn ask(address: SocketAddr, request: &str) -> (Raw, Answer) {
    let mut raw = Raw::connect(address).await;
    raw.send(request.as_bytes()).await;
    let answer = raw.answer().await.unwrap();
    (raw, answer)
}

/// A page of the site that is let in, and the answer to its hello.
async fn joined(node: &Node, key: Option<&Keypair>) -> (Raw, Hello) {
    let query = hello_query::encode(&hello(key), PROFILE);
    let origin = format!("Origin: {SITE}\r\n");
    let (mut raw, answer) =
        ask(node.address(), &request(&query, "relay.example", &origin, "")).await;
    assert!(answer.status.starts_with("HTTP/1.1 101 "), "{answer:?}");
    let told = raw.frame().await.unwrap();
    assert_eq!((told.first, told.masked), (TEXT, false));
    let told = QueryHello::read(std::str::from_utf8(&told.payload).unwrap()).unwrap();
    let told = Hello::read(|header: Header| told.get(header));
    (raw, told)
}

async fn is_refused(node: &Node, request: &str, (status, why): (&str, UpgradeRefusal)) -> Answer {
    let before = node.network.metrics().upgrades_refused(why);
    let (_raw, answer) = ask(node.address(), request).await;
    assert!(answer.status.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer:?}");
    assert_eq!(node.network.metrics().upgrades_refused(why), before + 1, "{request}");
    assert_eq!(node.door.peers(), 0, "the place is given back");
    answer
}

#[tokio::test]
async fn a_page_joins_and_both_ends_learn_the_identity_of_the_other() {
    let (ours, theirs) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
    let node = listening()
        .with(|config| config.identity = Some(std::sync::Arc::new(ours.clone())))
        .start()
        .await;
    let (mut page, told) = joined(&node, Some(&theirs)).await;
    assert_eq!((&*told.genesis, &*told.version), ("test-v1", PROFILE.version));
    let challenge = told.identity_challenge.unwrap();
    let seen = identity::read_response_header(&challenge, &Challenge([7; 32])).unwrap();
    assert_eq!(seen.key, ours.identity());
    let proof = identity::verification(&theirs, seen.response_challenge);
    page.send(&masked(BINARY, &[b"NI", &proof[..]].concat())).await;
    until("the page is known", || {
        node.peers().iter().any(|peer| peer.identity == Some(theirs.identity()))
    })
    .await;
    // It speaks, and hears, as any peer does; what it says of where it listens is not believed.
    assert_eq!(node.peers()[0].http_address, None);
    page.send(&masked(BINARY, b"TXa transaction")).await;
    until("its transaction", || node.heard.summary() == ["TX:13"]).await;
    let vote = Outbound::new(Tag::AV, &b"a vote"[..]);
    assert_eq!(node.network.broadcast(vote), Ok(Admission::Queued));
    assert_eq!(binary(&mut page).await, b"AVa vote");
    node.stop().await;
}

/// The next binary message, put together of its frames.
async fn binary(page: &mut Raw) -> Vec<u8> {
    let mut message = Vec::new();
    loop {
        let Frame { first, payload, .. } = soon(page.frame()).await.unwrap();
        assert!(matches!(first, 0x00 | 0x02 | 0x80 | BINARY), "{first:#x}");
        message.extend_from_slice(&payload);
        if first & 0x80 != 0 {
            return message;
        }
    }
}

#[tokio::test]
async fn the_longest_proposal_arrives_whole_and_plain() {
    let node = listening().start().await;
    let (mut page, _told) = joined(&node, None).await;
    node.until_peers(1).await;
    let body: Vec<u8> = (0..MAX_DECOMPRESSED).map(|at| (at / 1_000) as u8).collect();
    let proposal = Outbound::new(Tag::PP, body.clone());
    assert_eq!(node.network.broadcast(proposal), Ok(Admission::Queued));
    let message = binary(&mut page).await;
    assert_eq!(message[..2], *b"PP");
    assert!(message[2..] == body);
    // The same message back, plain too, is one like any other.
    let (mut other, _told) = joined(&node, None).await;
    other.send(&masked(BINARY, &[b"PP", &body[..100_000]].concat())).await;
    until("the proposal of a page", || node.heard.summary() == ["PP:100000"]).await;
    node.stop().await;
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_is_refused_and_told_so() {
    let node = listening().start().await;
    let refused = ("403", UpgradeRefusal::Origin);
    for origin in ["https://evil.example", "http://app.example", "https://app.example:8443", "null"]
    {
        let request = request(&query(), "relay.example", &format!("Origin: {origin}\r\n"), "");
        let answer = is_refused(&node, &request, refused).await;
        assert!(answer.headers.contains_key("content-length"), "it has words: {answer:?}");
    }
    // The owner of a name can make it lead here (DNS rebinding).
    let rebound = request(&query(), "evil.example", "Origin: http://evil.example\r\n", "");
    is_refused(&node, &rebound, refused).await;
    // Pages of this host by its number, and programs that are no pages.
    for origin in ["Origin: http://127.0.0.1:1\r\n", ""] {
        let (_raw, answer) =
            ask(node.address(), &request(&query(), "127.0.0.1:1", origin, "")).await;
        assert!(answer.status.starts_with("HTTP/1.1 101 "), "{answer:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_node_lets_no_page_in_unless_it_is_told_to() {
    let node = Recipe::new(PROFILE).listening().start().await;
    let asked = request(&query(), "relay.example", &format!("Origin: {SITE}\r\n"), "");
    is_refused(&node, &asked, ("403", UpgradeRefusal::Origin)).await;
    node.stop().await;
    let any = Recipe::new(PROFILE).listening();
    let node = any.with(|config| config.page_origins = PageOrigins::any()).start().await;
    let asked = request(&query(), "relay.example", "Origin: null\r\n", "");
    let (_raw, answer) = ask(node.address(), &asked).await;
    assert!(answer.status.starts_with("HTTP/1.1 101 "), "{answer:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_sub_protocol_is_echoed_if_it_is_ours() {
    let node = listening().start().await;
    for (offered, echoed) in
        [("tandem-gossip.1", true), ("chat, tandem-gossip.1", true), ("chat", false)]
    {
        let extra = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        let (_raw, answer) = ask(node.address(), &request(&query(), "127.0.0.1", "", &extra)).await;
        assert!(answer.status.starts_with("HTTP/1.1 101 "), "{answer:?}");
        let told = answer.headers.get("sec-websocket-protocol");
        assert_eq!(told.is_some_and(|told| told == &["tandem-gossip.1"]), echoed, "{answer:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_hello_that_is_none_is_refused_by_its_reason() {
    let node = listening().start().await;
    let good = query();
    let long = format!("{good}&x={}", "a".repeat(MAX_QUERY_BYTES));
    let other = good.replace("version=2.2", "version=9.9");
    let nobody = good.replace("noderandom", "nobody");
    for (query, status, why) in [
        (long, "412", UpgradeRefusal::Query),
        (format!("{good}&version=2.2"), "412", UpgradeRefusal::Query),
        (format!("{good}&identitychallenge=%ff%00!!"), "200", UpgradeRefusal::Identity),
        (format!("{good}&identitychallenge=AAAA"), "200", UpgradeRefusal::Identity),
        (other, "412", UpgradeRefusal::Version),
        (nobody, "412", UpgradeRefusal::NoRandom),
        ("%zz=%&&&==;+".to_owned(), "412", UpgradeRefusal::Version),
    ] {
        is_refused(&node, &request(&query, "127.0.0.1", "", ""), (status, why)).await;
    }
    let wrong = request(&good, "127.0.0.1", "", "").replace("/v1/test-v1/", "/v1/other-v1/");
    is_refused(&node, &wrong, ("412", UpgradeRefusal::Network)).await;
    // A hello in the headers makes a query mean nothing, as ever.
    let extra = "X-Tandem-Version: 2.2\r\nX-Tandem-Noderandom: AAECAwQFBgcICQ==\r\n";
    let asked = request("version=9.9&version=9.9", "127.0.0.1", "", extra);
    let (mut raw, answer) = ask(node.address(), &asked).await;
    assert!(answer.status.starts_with("HTTP/1.1 101 "), "{answer:?}");
    let vote = Outbound::new(Tag::AV, &b"a vote"[..]);
    node.until_peers(1).await;
    assert_eq!(node.network.broadcast(vote), Ok(Admission::Queued));
    assert_eq!(raw.frame().await.unwrap().first, BINARY, "only a page is told in a text message");
    node.stop().await;
}

#[tokio::test]
async fn pages_of_one_origin_take_no_more_than_their_places() {
    let limits = InboundLimits::default().with_per_origin(2);
    let node = listening().guarded(limits).start().await;
    let first = joined(&node, None).await;
    let _second = joined(&node, None).await;
    let origin = format!("Origin: {SITE}\r\n");
    let asked = request(&query(), "relay.example", &origin, "");
    let (_raw, answer) = ask(node.address(), &asked).await;
    assert!(answer.status.starts_with("HTTP/1.1 503 "), "{answer:?}");
    assert_eq!(node.door.refused(Refusal::PerOrigin), 1);
    // Others are let in beside them, and the places come back.
    let (_program, answer) = ask(node.address(), &request(&query(), "127.0.0.1", "", "")).await;
    assert!(answer.status.starts_with("HTTP/1.1 101 "), "{answer:?}");
    drop(first);
    until("a place that is given back", || node.door.peers() == 2).await;
    let _third = joined(&node, None).await;
    node.stop().await;
}

#[tokio::test]
async fn the_algorand_profile_has_no_hello_for_pages() {
    let node = Recipe::new(&NetworkProfile::ALGORAND).listening().start().await;
    is_refused(&node, &request(&query(), "127.0.0.1", "", ""), ("412", UpgradeRefusal::Version))
        .await;
    node.stop().await;
    let root = CancellationToken::new();
    let broadcaster = Broadcaster::start(broadcaster::Setup::new(&NetworkProfile::ALGORAND), &root);
    let mut config = WsConfig::new(NetworkId::new("test-v1").unwrap());
    config.page_origins = PageOrigins::any();
    let refused = WsNetwork::start(config, broadcaster, &root).await.unwrap_err();
    assert!(refused.to_string().contains("algorand"), "{refused}");
}
