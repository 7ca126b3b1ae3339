//! Requests that can be read in two ways: each is refused on sockets and streams, as the first or as a later
//! request, and never followed by a second answer.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use crate::common::{Served, from_peer, from_socket};
use axum::{Router, body::Bytes, routing::any};
use gossip::StreamUse;
use tandem_net_http::ServeLimits;
use tokio::time::{Duration, Instant};

/// A request after each bad one, which must never be answered.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// Headers of a request with a body of three bytes.
const LINES: [&str; 41] = [
    "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    "Content-Length: 3\r\nContent-Length: 3\r\n",
    "Content-Length: 3\r\nContent-Length: 4\r\n",
    "Content-Length: 0\r\ncontent-length: 3\r\n",
    "Content-Length: 3, 3\r\n",
    "Content-Length: 3 3\r\n",
    "Content-Length: +3\r\n",
    "Content-Length: -3\r\n",
    "Content-Length: 0x3\r\n",
    "Content-Length: 3.0\r\n",
    "Content-Length: \r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Content-Length: 3\u{e9}\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunkedx\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    "Transfer-Encoding: \x00chunked\r\n",
    "Transfer-Encoding\t: chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n",
    "X: y\r\n\tz\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    "X: y\nTransfer-Encoding: chunked\r\n",
    "X: y\n\r\n",
    "X: \x00\r\n",
    "X\x00: y\r\n",
    ": y\r\n",
    "X Y: z\r\n",
    "no colon\r\n",
    "Host: y\r\n",
    "Host: x\r\n",
];

/// Whole heads: lines with other ends, and targets that name two hosts or none.
const HEADS: [&str; 22] = [
    "GET /first HTTP/1.1\nHost: x\n\n",
    "GET /first HTTP/1.1\r\nHost: x\n\r\n",
    "GET /first HTTP/1.1\r\nHost: x\r\n\n",
    "GET /first HTTP/1.1\r\rHost: x\r\n\r\n",
    "GET  /first HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /first  HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET\t/first HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /fi\x00rst HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /first HTTP/1.2\r\nHost: x\r\n\r\n",
    "GET /first HTTP/2.0\r\nHost: x\r\n\r\n",
    "GET /first http/1.1\r\nHost: x\r\n\r\n",
    "GET /first\r\nHost: x\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
    "CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET http://y/first HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET http:///first HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
    "POST /first HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "GET /first HTTP/1.1\r\n\r\n",
    "\x16\x03\x01\x02\x00\n",
];

/// Chunked bodies that other parsers end elsewhere: the handler that reads the body gets an error.
const CHUNKS: [&str; 12] = [
    "3\nabc\r\n0\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "+3\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "3\r\nabc\n0\r\n\r\n",
    "3;a\nb\r\nabc\r\n0\r\n\r\n",
    "00000000000000003\r\nabc\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\r\nX: y\n\r\n",
    "-1\r\nabc\r\n0\r\n\r\n",
    ";\r\n\r\n",
];

fn corpus() -> Vec<(Vec<u8>, u16)> {
    let mut corpus: Vec<(Vec<u8>, u16)> = Vec::new();
    let mut bad = |text: &str| corpus.push((text.as_bytes().to_vec(), 400));
    for lines in LINES {
        bad(&format!("POST /first HTTP/1.1\r\nHost: x\r\n{lines}\r\nabc"));
    }
    for text in HEADS {
        bad(text);
    }
    for chunks in CHUNKS {
        bad(&format!(
            "POST /first HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
    }
    let long = format!("3;{}", "x".repeat(1 << 20));
    bad(&format!("POST /first HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{long}"));
    let head = format!("GET /first HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(9000));
    corpus.push((head.into_bytes(), 431));
    let lines = "X: y\r\n".repeat(101);
    corpus.push((format!("GET /first HTTP/1.1\r\nHost: x\r\n{lines}\r\n").into_bytes(), 431));
    corpus
}

fn router() -> Router {
    Router::new()
        .route("/first", any(async |body: Bytes| body))
        .route("/before", any(async || "before"))
        .route("/smuggled", any(async || -> String { panic!("smuggled") }))
}

async fn check(caller: &gossip::http::Caller, streams: StreamUse, before: usize) {
    let mut served = Served::new(router(), ServeLimits::default());
    let corpus = corpus();
    assert!(corpus.len() >= 60, "{}", corpus.len());
    for (request, expected) in corpus {
        let name = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        let mut client = served.open(caller.clone(), streams);
        for _ in 0..before {
            client.send("GET /before HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert_eq!(client.answer().await.unwrap().body, "before");
        }
        let began = Instant::now();
        client.send(&request).await;
        client.send(SMUGGLED).await;
        client.send(SMUGGLED).await;
        let got = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert!(got.starts_with(&format!("HTTP/1.1 {expected} ")), "{name:?} gave {got:?}");
        assert_eq!(got.matches("HTTP/1.").count(), 1, "{name:?} gave {got:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{name:?} took {:?}", began.elapsed());
    }
    assert_eq!(served.http_server.metrics().count(tandem_net_http::Incident::Panicked), 0);
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_refused_on_sockets() {
    check(&from_socket("192.0.2.1"), StreamUse::KeptAlive, 0).await;
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_refused_on_streams() {
    check(&from_peer(1), StreamUse::KeptAlive, 0).await;
    check(&from_peer(1), StreamUse::OneRequest, 0).await;
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_refused_behind_good_ones() {
    check(&from_peer(1), StreamUse::KeptAlive, 2).await;
    check(&from_socket("192.0.2.1"), StreamUse::KeptAlive, 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_refused_on_streams_and_answered_on_sockets() {
    let upgrade = "GET /before HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    for (caller, expected) in [(from_peer(1), 400), (from_socket("192.0.2.1"), 200)] {
        let mut served = Served::new(router(), ServeLimits::default());
        let mut client = served.open(caller, StreamUse::KeptAlive);
        client.send(upgrade).await;
        let got = client.answer().await.unwrap();
        assert_eq!(got.code(), expected);
    }
}
