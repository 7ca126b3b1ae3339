//! Refused handshakes in both directions: each has a name and a counter. The `tandem` profile reads the reply
//! to a dial by the rules of RFC 6455.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use crate::common::{
    HOUR, Node, PATIENCE, Recipe,
    raw::{self, End, Raw},
    soon, until,
};
use gossip::NetworkProfile;
use tandem_net_ws::{DialRefusal, UpgradeRefusal};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A node that dials a listener of the test, and the connection.
struct Dialled {
    node: Node,
    server: Raw,
    key: String,
    prefix: &'static str,
}

impl Dialled {
    async fn by(profile: &'static NetworkProfile) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recipe = Recipe::new(profile).dialling(&[listener.local_addr().unwrap()]);
        // The node dials once: the test accepts no second connection.
        let recipe = recipe.redialling(HOUR, HOUR);
        let node = recipe.start().await;
        let (stream, _) = soon(listener.accept()).await.unwrap();
        let mut server = Raw::over(stream);
        while !server.got.ends_with(b"\r\n\r\n") {
            assert_eq!(server.read(PATIENCE).await, End::Bytes);
        }
        let request = String::from_utf8(std::mem::take(&mut server.got)).unwrap();
        let name = "Sec-WebSocket-Key: ";
        let key = request.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        Self { node, server, key, prefix: profile.header_prefix }
    }

    /// A head that is accepted with `lines` for `Upgrade` and `Connection`, padded to `len` bytes.
    fn head(&self, lines: &str, len: usize) -> String {
        let Self { prefix, key, .. } = self;
        let accept = derive_accept_key(key.as_bytes());
        let start = format!(
            "HTTP/1.1 101 Switching Protocols\r\n{lines}Sec-WebSocket-Accept: {accept}\r\n\
             {prefix}Version: 2.2\r\n{prefix}Accept-Version: 2.2\r\n{prefix}Genesis: test-v1\r\n\
             {prefix}Noderandom: AAECAwQFBgcICQ==\r\nX-Padding: "
        );
        let padding = "x".repeat(len.saturating_sub(start.len() + 4));
        format!("{start}{padding}\r\n\r\n")
    }
}

const PLAIN: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";

async fn becomes_a_peer(profile: &'static NetworkProfile, lines: &str, len: usize) {
    let mut dialled = Dialled::by(profile).await;
    let head = dialled.head(lines, len);
    dialled.server.send(head.as_bytes()).await;
    dialled.node.until_peers(1).await;
    drop(dialled.server);
    dialled.node.stop().await;
}

async fn is_refused(
    profile: &'static NetworkProfile,
    reply: impl FnOnce(&Dialled) -> String,
    why: DialRefusal,
) {
    let mut dialled = Dialled::by(profile).await;
    let reply = reply(&dialled);
    dialled.server.send(reply.as_bytes()).await;
    let metrics = dialled.node.network.metrics();
    until(why.label(), || metrics.dials_refused(why) == 1).await;
    let others = DialRefusal::ALL.into_iter().filter(|other| *other != why);
    assert_eq!(others.map(|other| metrics.dials_refused(other)).sum::<u64>(), 0, "{why:?}");
    assert_eq!(dialled.node.peers().len(), 0, "{why:?}");
    drop(dialled.server);
    dialled.node.stop().await;
}

// Issue 8, 12.
#[tokio::test]
async fn a_reply_may_list_tokens_in_any_number_of_lines() {
    for lines in [
        "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade, keep-alive\r\n",
        "Upgrade: WebSocket\r\nConnection: keep-alive\r\nConnection:  upgrade \r\n",
        "Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n",
    ] {
        becomes_a_peer(&NetworkProfile::TANDEM, lines, 0).await;
        if !lines.contains("h2c") {
            let refused = |dialled: &Dialled| dialled.head(lines, 0);
            is_refused(&NetworkProfile::ALGORAND, refused, DialRefusal::ConnectionHeader).await;
        }
    }
}

// Issue 8, 12.
#[tokio::test]
async fn a_reply_may_have_a_head_of_8192_bytes() {
    for len in [4_097, 4_200, 8_192] {
        becomes_a_peer(&NetworkProfile::TANDEM, PLAIN, len).await;
    }
    let (tandem, algorand) = (&NetworkProfile::TANDEM, &NetworkProfile::ALGORAND);
    let head_of = |len| move |dialled: &Dialled| dialled.head(PLAIN, len);
    is_refused(tandem, head_of(8_193), DialRefusal::LongHead).await;
    is_refused(algorand, head_of(4_097), DialRefusal::LongHead).await;
}

// Issue 8, 12.
#[tokio::test]
async fn a_refused_dial_is_counted_by_its_reason() {
    let tandem = &NetworkProfile::TANDEM;
    let without = |line: &'static str| {
        move |dialled: &Dialled| {
            let head = dialled.head(PLAIN, 0);
            head.lines()
                .filter(|other| !other.starts_with(line))
                .map(|line| format!("{line}\r\n"))
                .collect()
        }
    };
    let with = |from: &'static str, to: &'static str| {
        move |dialled: &Dialled| dialled.head(PLAIN, 0).replace(from, to)
    };
    is_refused(tandem, without("Upgrade: "), DialRefusal::UpgradeHeader).await;
    is_refused(tandem, without("Connection: "), DialRefusal::ConnectionHeader).await;
    is_refused(
        tandem,
        with("Connection: Upgrade", "Connection: xUpgrade"),
        DialRefusal::ConnectionHeader,
    )
    .await;
    is_refused(tandem, without("Sec-WebSocket-Accept: "), DialRefusal::AcceptKey).await;
    is_refused(tandem, without("X-Tandem-Noderandom: "), DialRefusal::NoRandom).await;
    is_refused(tandem, with("Version: 2.2", "Version: 3.0"), DialRefusal::Version).await;
    is_refused(tandem, with("Genesis: test-v1", "Genesis: other"), DialRefusal::Network).await;
    is_refused(tandem, |_| "hello\r\n\r\n".to_owned(), DialRefusal::Malformed).await;
    let refusal = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n";
    is_refused(tandem, |_| refusal.to_owned(), DialRefusal::Status).await;
}

// Issue 8, 12.
#[tokio::test]
async fn a_refused_upgrade_is_counted_by_its_reason() {
    let recipe = Recipe::new(&NetworkProfile::ALGORAND).listening();
    let node = recipe.with(|config| config.node_random = Some([7; 10])).start().await;
    let request = |from: &str, to: &str| raw::gossip_request("X-Algorand-", "").replace(from, to);
    let pipelined = format!("{}early", raw::gossip_request("X-Algorand-", ""));
    for (sent, why) in [
        (request("Connection: Upgrade", "Connection: close"), UpgradeRefusal::NoUpgrade),
        (request("Upgrade: websocket", "Upgrade: h2c"), UpgradeRefusal::NoUpgrade),
        (request("GET ", "PUT "), UpgradeRefusal::Method),
        (
            request("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
            UpgradeRefusal::WebSocketVersion,
        ),
        (request("Sec-WebSocket-Key", "X-Key"), UpgradeRefusal::NoKey),
        (
            request("Upgrade: websocket", "Origin: http://other\r\nUpgrade: websocket"),
            UpgradeRefusal::Origin,
        ),
        (request("/v1/test-v1/", "/v1/other/"), UpgradeRefusal::Network),
        (request("Version: 2.2", "Version: 3.0"), UpgradeRefusal::Version),
        (request("X-Algorand-Noderandom", "X-Random"), UpgradeRefusal::NoRandom),
        (pipelined, UpgradeRefusal::Pipelined),
    ] {
        let metrics = node.network.metrics();
        let before = metrics.upgrades_refused(why);
        let mut client = Raw::connect(node.address()).await;
        client.send(sent.as_bytes()).await;
        until(why.label(), || metrics.upgrades_refused(why) == before + 1).await;
    }
    let all = UpgradeRefusal::ALL.into_iter();
    assert_eq!(all.map(|why| node.network.metrics().upgrades_refused(why)).sum::<u64>(), 10);
    node.stop().await;
}
