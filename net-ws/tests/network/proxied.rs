//! Connections and requests through proxies, whose own bytes are written by hand. Issue 10, 6; threats and goals, row 32.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{net::Ipv4Addr, time::Duration};

use crate::common::{
    self, Node, Recipe,
    raw::{End, Raw, gossip_request},
    soon, until,
};
use gossip::{
    GossipNode, LoopbackRule, NetworkProfile, NodeAddress, PeerClass, http::Caller,
    http::HttpService,
};
use mesh::{InboundLimits, RateWindow, Refusal};
use net_http::{HttpServer, ServeLimits};
use tandem_net_ws::{ProxyFault, ProxyProtocol, ProxyRules, RealIpHeader};
use tokio::time::Instant;

/// The address of the proxy of these tests.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 7, 0, 1);
/// The address of a client that is no proxy.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 8, 0, 1);

/// A node that trusts [`PROXY`], counts loopback like any other host, and tells its callers who they are.
async fn node(protocol: ProxyProtocol, header: RealIpHeader, per_ip: usize) -> Node {
    let tell = async |caller: Caller| format!("{} {}", caller.ip.unwrap(), caller.address);
    let service = HttpService::new(axum::Router::new().fallback(tell));
    // A window so long that a slow machine does not reach its end.
    let rate = RateWindow::new(60, Duration::from_secs(3600));
    let limits = InboundLimits::default().with_loopback(LoopbackRule::Counted).with_rate(rate);
    let limits = limits.with_per_ip(per_ip);
    let trusted = vec!["127.7.0.0/16".parse().unwrap()];
    let rules = ProxyRules::default().with_trusted(trusted).with_protocol(protocol);
    let recipe = Recipe::new(&NetworkProfile::ALGORAND).listening().guarded(limits);
    let recipe = recipe.with(|config| {
        config.proxies = rules.with_header(header);
        config.http_server = Some(HttpServer::new(service, ServeLimits::default()));
    });
    recipe.start().await
}

fn version_2(client: [u8; 4], port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
    [start.as_slice(), &client, &[127, 0, 0, 1, high, low, 0, 80]].concat()
}

/// The status of a request, and its body.
async fn ask(raw: &mut Raw, lines: &str) -> (String, String) {
    raw.send(format!("GET /who HTTP/1.1\r\nHost: x\r\n{lines}\r\n").as_bytes()).await;
    let Some(answer) = raw.answer().await else { return Default::default() };
    let len: usize = answer.headers["content-length"][0].parse().unwrap();
    let body = raw.exactly(len).await.unwrap();
    let status = answer.status.split(' ').nth(1).unwrap().to_owned();
    (status, String::from_utf8(body).unwrap())
}

async fn told(raw: &mut Raw, lines: &str, expected: &str) {
    assert_eq!(ask(raw, lines).await, ("200".to_owned(), expected.to_owned()), "{lines}");
}

async fn upgraded(node: &Node, from: Ipv4Addr, start: &[u8], lines: &str) -> (Raw, String) {
    let mut raw = Raw::connect_from(from, node.address()).await;
    raw.send(start).await;
    raw.send(gossip_request("X-Algorand-", lines).as_bytes()).await;
    let status = raw.answer().await.map(|answer| answer.status).unwrap_or_default();
    (raw, status)
}

#[tokio::test]
async fn each_request_through_a_proxy_is_its_clients() {
    let node = node(ProxyProtocol::Off, RealIpHeader::XForwardedFor, 8).await;
    let mut proxy = Raw::connect_from(PROXY, node.address()).await;
    told(&mut proxy, "X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1 192.0.2.1").await;
    let chain =
        "X-Forwarded-For: 127.0.0.1, 192.0.2.9\r\nx-forwarded-for: 192.0.2.2, 127.7.0.9\r\n";
    told(&mut proxy, chain, "192.0.2.2 192.0.2.2").await;
    told(&mut proxy, "X-Forwarded-For: [2001:db8::1]:5\r\n", "2001:db8::1 2001:db8::1").await;
    // The header that is not configured says nothing.
    let other = "Forwarded: for=192.0.2.66\r\nX-Forwarded-For: 192.0.2.3\r\n";
    told(&mut proxy, other, "192.0.2.3 192.0.2.3").await;
    assert_eq!(node.network.metrics().proxy_faults(ProxyFault::RequestClient), 0);
    // A request counts as the proxy's own if its header cannot be read, or names nobody who can be a client.
    for lines in ["X-Forwarded-For: unknown\r\n", "X-Forwarded-For: 192.0.2.1, ::\r\n", ""] {
        let (status, body) = ask(&mut proxy, lines).await;
        assert!(status == "200" && body.starts_with("127.7.0.1 127.7.0.1:"), "{lines} {body}");
    }
    assert_eq!(node.network.metrics().proxy_faults(ProxyFault::RequestClient), 3);
    node.stop().await;
}

#[tokio::test]
async fn forwarded_of_rfc_7239_is_read_where_it_is_configured() {
    let node = node(ProxyProtocol::Off, RealIpHeader::Forwarded, 8).await;
    let mut proxy = Raw::connect_from(PROXY, node.address()).await;
    let lines = "Forwarded: for=192.0.2.1;proto=http, For=\"[2001:db8::1]:4711\"\r\nX-Forwarded-For: 192.0.2.9\r\n";
    told(&mut proxy, lines, "2001:db8::1 2001:db8::1").await;
    node.stop().await;
}

// A stranger could escape its limits, or use up those of another.
#[tokio::test]
async fn nothing_that_a_stranger_tells_of_its_address_counts() {
    let node = node(ProxyProtocol::On, RealIpHeader::XForwardedFor, 8).await;
    let mut refused = 0;
    for number in 0..63 {
        let mut stranger = Raw::connect_from(STRANGER, node.address()).await;
        let (status, body) =
            ask(&mut stranger, &format!("X-Forwarded-For: 192.0.2.{number}\r\n")).await;
        match status.as_str() {
            "200" => assert!(body.starts_with("127.8.0.1 127.8.0.1:"), "{body}"),
            _ => refused += 1,
        }
    }
    assert_eq!(refused, 3);
    // A preamble is garbage as before.
    let other = Ipv4Addr::new(127, 8, 0, 2);
    for start in [&b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"[..], &version_2([192, 0, 2, 1], 1)] {
        let (_, status) = upgraded(&node, other, start, "").await;
        assert_eq!(status, "HTTP/1.1 400 Bad Request");
    }
    for why in ProxyFault::ALL {
        assert_eq!(node.network.metrics().proxy_faults(why), 0, "{}", why.label());
    }
    node.stop().await;
}

#[tokio::test]
async fn peers_of_a_proxy_are_limited_by_their_own_hosts() {
    let node = node(ProxyProtocol::Off, RealIpHeader::XForwardedFor, 2).await;
    let mut peers = Vec::new();
    for host in 1..=5 {
        for number in 1..=3 {
            let lines = format!("X-Forwarded-For: 198.51.{host}.1\r\n");
            let (raw, status) = upgraded(&node, PROXY, b"", &lines).await;
            let expected = if number <= 2 { "101" } else { "503" };
            assert!(status.contains(expected), "{host} {number}: {status}");
            peers.push(raw);
        }
    }
    node.until_peers(10).await;
    assert_eq!(node.door.refused(Refusal::PerIp), 5);
    assert!(node.peers().iter().any(|peer| peer.address == "198.51.5.1"), "{:?}", node.peers());
    drop(peers);
    node.until_peers(0).await;
    until("the door is empty", || node.door.sockets() == 0).await;
    node.stop().await;
}

// The proxy opens far more than 60 connections a second, and each host may open 60.
#[tokio::test]
async fn a_preamble_names_the_host_that_is_limited() {
    let node = node(ProxyProtocol::On, RealIpHeader::XForwardedFor, 1).await;
    let mut peers = Vec::new();
    for host in 1..=100_u8 {
        let preamble = match host % 3 {
            0 => format!("PROXY TCP4 198.51.{host}.1 127.0.0.1 4711 80\r\n").into_bytes(),
            1 => format!("PROXY TCP6 2001:db8:{host:x}::1 ::1 4711 80\r\n").into_bytes(),
            _ => version_2([198, 51, host, 1], 4711),
        };
        let (raw, status) = upgraded(&node, PROXY, &preamble, "").await;
        assert!(status.contains(" 101 "), "{host}: {status}");
        peers.push(raw);
        // A second one of the same host is one too many.
        let (_, status) = upgraded(&node, PROXY, &preamble, "").await;
        assert!(status.contains(" 503 "), "{host}: {status}");
    }
    node.until_peers(100).await;
    let addresses: Vec<_> = node.peers().into_iter().map(|peer| peer.address).collect();
    for address in ["198.51.3.1:4711", "[2001:db8:4::1]:4711", "198.51.5.1:4711"] {
        assert!(addresses.iter().any(|known| known == address), "{addresses:?}");
    }
    // The rate of one host holds through the proxy.
    let mut closed = 0;
    for _ in 0..70 {
        let mut raw = Raw::connect_from(PROXY, node.address()).await;
        raw.send(&version_2([203, 0, 113, 9], 1)).await;
        closed += usize::from(ask(&mut raw, "").await.0 != "200");
    }
    assert_eq!(closed, 10);
    node.stop().await;
}

#[tokio::test]
async fn a_proxy_may_speak_for_itself_and_for_other_proxies() {
    let node = node(ProxyProtocol::On, RealIpHeader::XForwardedFor, 8).await;
    for start in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut check = Raw::connect_from(PROXY, node.address()).await;
        check.send(start).await;
        let (status, body) = ask(&mut check, "").await;
        assert!(status == "200" && body.starts_with("127.7.0.1 "), "{status} {body}");
    }
    // Behind this proxy is another one, which tells its client in a header.
    let mut chain = Raw::connect_from(PROXY, node.address()).await;
    chain.send(b"PROXY TCP4 127.7.9.9 127.0.0.1 1 2\r\n").await;
    told(&mut chain, "X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1 192.0.2.1").await;
    // The words of a client about itself count for nothing.
    let mut client = Raw::connect_from(PROXY, node.address()).await;
    client.send(b"PROXY TCP4 192.0.2.2 127.0.0.1 7 2\r\n").await;
    told(&mut client, "X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.2 192.0.2.2:7").await;
    node.stop().await;
}

#[tokio::test]
async fn garbage_of_a_proxy_ends_that_connection_with_a_counted_reason() {
    let node = node(ProxyProtocol::On, RealIpHeader::XForwardedFor, 8).await;
    let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 2000]].concat();
    for (start, why) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], ProxyFault::PreambleMalformed),
        (b"\x16\x03\x01\x00\x05", ProxyFault::PreambleMalformed),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", ProxyFault::PreambleMalformed),
        (&long, ProxyFault::PreambleTooLong),
        (b"PROXY TCP4 0.0.0.0 127.0.0.1 1 2\r\n", ProxyFault::PreambleClient),
        (b"PROXY TCP4 224.0.0.1 127.0.0.1 1 2\r\n", ProxyFault::PreambleClient),
    ] {
        let before = node.network.metrics().proxy_faults(why);
        let mut raw = Raw::connect_from(PROXY, node.address()).await;
        raw.send(start).await;
        assert_eq!(raw.read(common::PATIENCE).await, End::Over, "{start:?}");
        assert_eq!(node.network.metrics().proxy_faults(why), before + 1, "{start:?}");
    }
    // Half a preamble, and then nothing.
    let mut half = Raw::connect_from(PROXY, node.address()).await;
    half.send(b"PROXY TCP4 1.2.3.4 ").await;
    let began = Instant::now();
    assert_eq!(half.read(common::PATIENCE).await, End::Over);
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(node.network.metrics().proxy_faults(ProxyFault::PreambleMissing), 1);
    until("the door is empty", || node.door.sockets() == 0).await;
    node.stop().await;
}

// Many clients share the connections of an HTTP proxy, so these are no host's.
#[tokio::test]
async fn connections_of_a_proxy_are_not_those_of_one_host() {
    let node = node(ProxyProtocol::Off, RealIpHeader::XForwardedFor, 8).await;
    let mut kept = Vec::new();
    for number in 0..100 {
        let mut raw = Raw::connect_from(PROXY, node.address()).await;
        let client = format!("198.51.{number}.1");
        let lines = format!("X-Forwarded-For: {client}\r\n");
        told(&mut raw, &lines, &format!("{client} {client}")).await;
        kept.push(raw);
    }
    // Each of them may be used for any client.
    for (number, raw) in kept.iter_mut().enumerate() {
        let client = format!("203.0.113.{}", number % 2 + 1);
        told(raw, &format!("X-Forwarded-For: {client}\r\n"), &format!("{client} {client}")).await;
    }
    assert_eq!(node.door.refused(Refusal::HostRate), 0);
    node.stop().await;
}

// A dialled address that proxies stand before is nothing special to the dialler.
#[tokio::test]
async fn a_node_behind_a_trusted_address_that_sends_no_header_is_a_peer() {
    let listener = node(ProxyProtocol::Off, RealIpHeader::XForwardedFor, 8).await;
    let peer: NodeAddress = listener.address().to_string().parse().unwrap();
    let recipe = Recipe::new(&NetworkProfile::ALGORAND);
    let dialling = recipe.with(|config| config.peers.push(peer)).start().await;
    soon(dialling.until_peers(1)).await;
    assert_eq!(listener.network.peers(gossip::PeerClass::Connected).len(), 1);
    dialling.stop().await;
    listener.stop().await;
}

// Issue 10, 4: the proxy's own address is never the banned one's.
#[tokio::test]
async fn a_banned_client_is_refused_behind_a_proxy_and_the_others_are_not() {
    let node = node(ProxyProtocol::Off, RealIpHeader::XForwardedFor, 8).await;
    let mut proxy = Raw::connect_from(PROXY, node.address()).await;
    let (one, other) = ("X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-For: 198.51.100.1\r\n");
    told(&mut proxy, one, "192.0.2.1 192.0.2.1").await;
    let (mut peer, status) = upgraded(&node, PROXY, b"", one).await;
    assert!(status.starts_with("HTTP/1.1 101"), "{status}");
    let hour = Duration::from_secs(3_600);
    node.broadcaster.ban("192.0.2.0/24".parse().unwrap(), hour, "a test").unwrap();
    // Its link ends, and the connection that the proxy uses for others stays.
    let _ended = peer.frames().await;
    until("no peer", || node.network.peers(PeerClass::Connected).is_empty()).await;
    assert_eq!(ask(&mut proxy, one).await, ("403".to_owned(), String::new()));
    told(&mut proxy, other, "198.51.100.1 198.51.100.1").await;
    let (_, status) = upgraded(&node, PROXY, b"", one).await;
    assert_eq!(status, "HTTP/1.1 403 Forbidden");
    let (_peer, status) = upgraded(&node, PROXY, b"", other).await;
    assert!(status.starts_with("HTTP/1.1 101"), "{status}");
    // The request, and the upgrade: once each.
    assert_eq!(node.door.refused(Refusal::Banned), 3, "with the connection that was ended");
    node.stop().await;

    let node = self::node(ProxyProtocol::On, RealIpHeader::XForwardedFor, 8).await;
    node.broadcaster.ban("192.0.2.1".parse().unwrap(), hour, "a test").unwrap();
    let (_, status) = upgraded(&node, PROXY, &version_2([192, 0, 2, 1], 1), "").await;
    assert_eq!(status, "", "it is closed before a byte of HTTP is read");
    let (_peer, status) = upgraded(&node, PROXY, &version_2([192, 0, 2, 2], 1), "").await;
    assert!(status.starts_with("HTTP/1.1 101"), "{status}");
    assert_eq!(node.door.refused(Refusal::Banned), 1);
    node.stop().await;
}
