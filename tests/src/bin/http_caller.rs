//! Calls the HTTP services of a peer that is not a native node, and attacks it.
//!
//! ```text
//!   http_caller call PEER            dials the peer, a multiaddr with /p2p/ID
//!   http_caller call-whom ORIGIN     prints a multiaddr over /ws that pages of ORIGIN may dial, and calls the peer that does
//!   http_caller attack PEER          sends what no client should, over streams of connections of their own
//! ```
//!
//! The peer serves `/hello` ("hi"), `/echo` (the body), `/bytes/{n}`, and `/throws`, `/rejects`, `/breaks` (an answer that breaks off) and `/never`.
//! A line for each thing that held; the first that did not is an error.

use std::{error::Error, io, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use gossip::{
    PeerClass,
    http::{HttpBody, HttpClient, read_all},
};
use http::{Method, Request, StatusCode};
use tandem::{Mode, NodeBuilder, PageOrigins, Running};
use testkit::{
    harness::network,
    http::{
        pattern,
        raw::{End, RawStream, answers},
        route::{STREAM_PROTOCOL, client_of, describe_caller},
    },
    libp2p::open_stream,
    wait::until,
};
use tokio::time::Instant;
use tokio_util::{compat::FuturesAsyncReadCompatExt, sync::CancellationToken};

/// Length of a body.
const MIB: usize = 1 << 20;

/// Requests at a time.
const AT_ONCE: usize = 100;

/// Requests in a row on one stream.
const IN_A_ROW: usize = 5;

/// Longest time for a node to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Longest wait for the end of an attacked stream: past every deadline of the server.
const PATIENCE: Duration = Duration::from_secs(60);

type Failed = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["call", peer] => {
            let node = describe_caller(Mode::Libp2p, None).start(&CancellationToken::new()).await?;
            let called = call(&client_of(&node, peer)).await;
            stopped(node).await;
            called?;
            row(peer).await
        }
        ["call-whom", origin] => call_whom(origin).await,
        ["attack", peer] => attack(peer).await,
        _ => Err("http_caller call PEER | call-whom ORIGIN | attack PEER".into()),
    }
}

async fn stopped(node: Running) {
    // Nothing waits for its end.
    let _ = node.stop(GRACE).await;
}

/// Waits for a peer that dials, and calls it.
async fn call_whom(origin: &str) -> Result<(), Failed> {
    let origins = PageOrigins::default().with(origin.parse()?);
    let builder = NodeBuilder::new(network()).mode(Mode::Libp2p).page_origins(origins);
    let builder = builder.listen_p2p(["/ip4/127.0.0.1/tcp/0/ws"]);
    let node = builder.start(&CancellationToken::new()).await?;
    let address = node.p2p_addresses().into_iter().next().ok_or("the node listens nowhere")?;
    println!("{address}");
    let linked = || node.node().peers(PeerClass::Connected);
    until("a peer has dialled", || !linked().is_empty()).await;
    let peers = linked();
    let peer = peers.first().and_then(|peer| peer.identity).ok_or("the peer has no identity")?;
    let called = call(&client_of(&node, &format!("/p2p/{peer}"))).await;
    stopped(node).await;
    called
}

async fn asked(
    client: &HttpClient,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Failed> {
    let request = Request::builder().method(method).uri(path).body(HttpBody::full(body))?;
    let answer = client.send(request).await?;
    let status = answer.status();
    Ok((status, read_all(answer.into_body(), 4 * MIB).await?))
}

fn check(name: &str, held: bool, began: Instant) -> Result<(), Failed> {
    if !held {
        return Err(format!("{name}: another answer").into());
    }
    println!("{name}: {} ms", began.elapsed().as_millis());
    Ok(())
}

/// Calls every service of the peer.
async fn call(client: &HttpClient) -> Result<(), Failed> {
    let get = |path: &'static str| asked(client, Method::GET, path, Bytes::new());
    let began = Instant::now();
    check("get", get("/hello").await? == (StatusCode::OK, Bytes::from("hi")), began)?;
    let began = Instant::now();
    let body = pattern::bytes(MIB);
    let answer = asked(client, Method::POST, "/echo", body.clone()).await?;
    check("a mebibyte there and back", answer == (StatusCode::OK, body), began)?;
    let began = Instant::now();
    let answer = asked(client, Method::POST, "/echo", pattern::bytes(MIB + 1)).await?.0;
    check("a byte more", answer == StatusCode::PAYLOAD_TOO_LARGE, began)?;
    let began = Instant::now();
    let answer = get("/bytes/1048576").await?.1;
    check("a mebibyte", answer == pattern::bytes(MIB), began)?;
    let began = Instant::now();
    let mut all: FuturesUnordered<_> = (0..AT_ONCE)
        .map(|number| {
            let body = Bytes::from(format!("request {number}").repeat(100));
            async move {
                let answer = asked(client, Method::POST, "/echo", body.clone()).await?;
                Ok::<_, Failed>(answer == (StatusCode::OK, body))
            }
        })
        .collect();
    let mut held = 0;
    while let Some(one) = all.next().await {
        held += usize::from(one?);
    }
    check("100 at once", held == AT_ONCE, began)?;
    let began = Instant::now();
    let document = get("/.well-known/libp2p/protocols").await?.1;
    check("the document of protocols", document.starts_with(b"{\"/"), began)?;
    let began = Instant::now();
    let answer = asked(client, Method::HEAD, "/hello", Bytes::new()).await?;
    check("a head", answer == (StatusCode::OK, Bytes::new()), began)?;
    for (path, expected) in [
        ("/nothing", StatusCode::NOT_FOUND),
        ("/throws", StatusCode::INTERNAL_SERVER_ERROR),
        ("/rejects", StatusCode::INTERNAL_SERVER_ERROR),
        ("/never", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let began = Instant::now();
        check(path, get(path).await?.0 == expected, began)?;
    }
    let began = Instant::now();
    check("an answer that breaks off", get("/breaks").await.is_err(), began)
}

/// A stream for HTTP over a connection of its own.
async fn stream(peer: &str) -> io::Result<RawStream> {
    let opened = open_stream(peer, STREAM_PROTOCOL).await;
    let (stream, driver) =
        opened.map_err(|error| io::Error::other(format!("no stream is opened: {error}")))?;
    Ok(RawStream::from_parts(stream.compat(), driver))
}

/// Requests in a row on one stream, and then as many at once.
async fn row(peer: &str) -> Result<(), Failed> {
    let began = Instant::now();
    let mut stream = stream(peer).await?;
    let request = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    let count = |got: &[u8]| answers(got, End::Open).0.len();
    for _ in 0..IN_A_ROW {
        stream.write(request).await?;
        let (got, _) = stream.read_until(PATIENCE, |got| count(got) == 1).await;
        if count(&got) != 1 {
            return Err(format!("in a row: {}", got.escape_ascii()).into());
        }
    }
    stream.write(&request.repeat(IN_A_ROW)).await?;
    let (got, _) = stream.read_until(PATIENCE, |got| count(got) == IN_A_ROW).await;
    check("five in a row on one stream, and five at once", count(&got) == IN_A_ROW, began)
}

/// Attacks that end at a deadline, by their names, with the bytes that they send.
const SLOW: [(&str, &[u8]); 2] = [
    ("stops in its head", b"GET /hello HTTP/1.1\r\nHo"),
    ("stops in its body", b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"),
];

/// Attacks that end at once, by their names, with the bytes that they send, and the status of the answer that they get, if they get one.
const ATTACKS: [(&str, &[u8], Option<u16>); 5] = [
    ("sends garbage", b"\x16\x03\x01\x02\x00\n", Some(400)),
    ("names no host", b"GET /hello HTTP/1.1\r\n\r\n", Some(400)),
    (
        "has two lengths",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        Some(400),
    ),
    (
        "has bad chunks",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        None,
    ),
    ("asks for an upgrade", b"GET /hello HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n", Some(400)),
];

/// The attacks, those that are cut at once one after the other, and an honest client beside them: a host has eight places.
async fn attack(peer: &str) -> Result<(), Failed> {
    let long = format!("GET /hello HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let quick = async {
        for (name, bytes, status) in ATTACKS {
            one(peer, name, bytes, status).await?;
        }
        one(peer, "has a long head", long.as_bytes(), Some(431)).await
    };
    let slow = SLOW.map(|(name, bytes)| one(peer, name, bytes, None));
    let honest = async {
        for _ in 0..20 {
            row(peer).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok::<_, Failed>(())
    };
    tokio::try_join!(quick, futures::future::try_join_all(slow), unread(peer), honest)?;
    Ok(())
}

async fn one(peer: &str, name: &str, bytes: &[u8], status: Option<u16>) -> Result<(), Failed> {
    let began = Instant::now();
    let mut stream = stream(peer).await?;
    stream.write(bytes).await?;
    let (got, end) = stream.rest(PATIENCE).await;
    let (all, _) = answers(&got, end);
    let is_answered =
        status.is_none_or(|status| all.first().is_some_and(|one| one.status == status));
    if end == End::Open || !is_answered || all.len() > 1 {
        return Err(format!("a client that {name} got {}", got.escape_ascii()).into());
    }
    println!("a client that {name} is cut after {} ms", began.elapsed().as_millis());
    Ok(())
}

/// A client that asks for more than its window and reads nothing of it.
async fn unread(peer: &str) -> Result<(), Failed> {
    let began = Instant::now();
    let mut stream = stream(peer).await?;
    stream.write(b"GET /bytes/67108864 HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    // The stream ends with a reset, which a write notices.
    while stream.write(b"GET ").await.is_ok() {
        if began.elapsed() > PATIENCE {
            return Err("a client that does not read its answer is served for ever".into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!(
        "a client that does not read its answer is cut after {} ms",
        began.elapsed().as_millis()
    );
    Ok(())
}
