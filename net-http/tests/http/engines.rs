//! All engines, on the same bytes: what they write is the same, but for the date.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;

use bytes::Bytes;
use futures::{StreamExt, stream};
use gossip::{
    HeaderCase, StreamUse,
    http::{HttpBody, HttpRequest, HttpResponse, HttpService, read_all},
};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use proptest::{collection::vec, prelude::*, sample::select};
use tandem_net_http::{
    HttpServer, ServeContext, ServeLimits, reply,
    serve::{Connection, Engine, NoHook},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::sync::CancellationToken;

use crate::common::{PATIENCE, Served, from_peer};

/// A body whose length is not known before its end.
fn streamed(pieces: &[&'static str]) -> HttpBody {
    let frames: Vec<_> = pieces
        .iter()
        .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes()))))
        .collect();
    HttpBody::new(StreamBody::new(stream::iter(frames)))
}

/// A body whose pieces come one after the other, each as long as a buffer for several short ones.
fn long() -> HttpBody {
    let frames = stream::iter(1..4_u8).then(async |number| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'0' + number; 10_000])))
    });
    HttpBody::new(StreamBody::new(Box::pin(frames)))
}

async fn answer(request: HttpRequest) -> Result<HttpResponse, std::io::Error> {
    let with = |status: u16, headers: &[(&'static str, &'static str)], body| {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            let (name, value) = (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
            response.headers_mut().append(name, value);
        }
        response
    };
    Ok(match request.uri().path() {
        "/hi" => reply::refused(StatusCode::OK, "hi"),
        "/seen" => {
            let head = (request.version(), request.uri(), request.headers());
            with(200, &[], HttpBody::full(format!("{head:?}")))
        }
        "/full" => with(200, &[], HttpBody::full("full")),
        "/empty" => with(200, &[], HttpBody::empty()),
        "/echo" => with(200, &[], request.into_body()),
        "/length" => match read_all(request.into_body(), 100_000).await {
            Ok(body) => with(200, &[], HttpBody::full(body.len().to_string())),
            Err(_) => with(400, &[], HttpBody::full("the body is none")),
        },
        "/streamed" => with(200, &[], streamed(&["a", "", "bcd", "0123456789abcdefg"])),
        "/long" => with(200, &[], HttpBody::full("long".repeat(10_000))),
        "/long-streamed" => with(200, &[], long()),
        "/long-declared" => with(200, &[("content-length", "30000")], long()),
        "/long-longer" => with(200, &[("content-length", "25000")], long()),
        "/nothing" => with(200, &[], streamed(&[])),
        "/declared" => with(200, &[("content-length", "4")], streamed(&["ab", "cd"])),
        "/longer" => with(200, &[("content-length", "3")], streamed(&["ab", "cd"])),
        "/shorter" => with(200, &[("content-length", "5")], streamed(&["ab", "cd"])),
        "/head" => with(200, &[("a", "b"), ("content-length", "7")], HttpBody::empty()),
        "/204" => with(204, &[("x", "y")], HttpBody::empty()),
        "/204-full" => with(204, &[], HttpBody::full("full")),
        "/304" => with(304, &[("etag", "\"x\"")], streamed(&["ab"])),
        "/299" => with(299, &[("x-a", "b"), ("x-a", "c"), ("x", "")], HttpBody::empty()),
        "/close" => with(200, &[("connection", "close")], HttpBody::full("full")),
        "/keep" => with(200, &[("connection", "keep-alive")], HttpBody::full("full")),
        "/fails" => return Err(std::io::Error::other("out of order")),
        "/panics" => std::panic::resume_unwind(Box::new("without a line on stderr")),
        path => with(404, &[], HttpBody::full(format!("{} {path}", request.method()))),
    })
}

/// Without the dates, and with the lines of each head in order: their order means nothing.
fn comparable(text: &str) -> String {
    let part = |part: &str| {
        let mut lines: Vec<_> =
            part.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
        if let [_status, fields @ ..] = &mut *lines {
            fields.sort_unstable();
        }
        lines.join("\r\n")
    };
    text.split("\r\n\r\n").map(part).collect::<Vec<_>>().join("\r\n\r\n")
}

/// The bytes that a server writes to a client that sends these pieces and then closes its side.
async fn answers(engine: Engine, streams: StreamUse, pieces: &[&[u8]]) -> String {
    let context = ServeContext { engine, ..ServeContext::default() };
    let service = HttpService::new(tower::service_fn(answer));
    let server = HttpServer::within(service, ServeLimits::default(), context);
    let (mut client, io) = duplex(1 << 20);
    let terms = server.limits().for_stream(streams, HeaderCase::Canonical);
    let connection = Connection { io, caller: from_peer(1), terms };
    let cancel = CancellationToken::new();
    let serving = async {
        assert!(server.serve(connection, &NoHook, &cancel).await.is_none());
    };
    let calling = async {
        for piece in pieces {
            // The server may have closed already.
            let _ = client.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        let _ = client.shutdown().await;
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        got
    };
    let both = async { tokio::join!(serving, calling).1 };
    let got = tokio::time::timeout(PATIENCE, both).await.expect("the connection never ended");
    comparable(&String::from_utf8_lossy(&got))
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

#[track_caller]
fn compare(streams: StreamUse, pieces: &[&[u8]]) -> String {
    runtime().block_on(async {
        let by_hyper = answers(Engine::Hyper, streams, pieces).await;
        let sent: Vec<_> = pieces.iter().map(|piece| piece.escape_ascii().to_string()).collect();
        for engine in [Engine::Portable, Engine::Direct] {
            let others = answers(engine, streams, pieces).await;
            assert_eq!(others, by_hyper, "{engine:?}: {sent:#?}");
        }
        by_hyper
    })
}

const PATHS: [&str; 29] = [
    "/seen",
    "/hi",
    "/full",
    "/empty",
    "/echo",
    "/length",
    "/streamed",
    "/long",
    "/long-streamed",
    "/long-declared",
    "/long-longer",
    "/nothing",
    "/declared",
    "/longer",
    "/shorter",
    "/head",
    "/204",
    "/204-full",
    "/304",
    "/299",
    "/close",
    "/keep",
    "/fails",
    "/panics",
    "/else",
    "/a?b=c",
    "//",
    "*",
    "http://x/hi",
];

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "OPTIONS", "TRACE", "A-b"];

const LINES: [&str; 15] = [
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "connection: Close, x\r\n",
    "Connection: x\r\nConnection: keep-alive\r\n",
    "Expect: 100-continue\r\n",
    "Expect: 200-ok\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    "X: y\r\n",
    "x: \u{e9}\r\n",
    "Accept: */*\r\nTE: trailers\r\n",
    "X-A:   y  z  \r\nx-a:\r\nCookie: a=b\r\n",
    "Upgrade: x\r\n",
];

const BODIES: [&str; 7] = [
    "",
    "abc",
    "abcdef",
    "3\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\r\nT: v\r\n\r\n",
    "3\r\nab",
    "zz",
];

#[test]
fn every_kind_of_request_is_answered_the_same() {
    for path in PATHS {
        for method in METHODS {
            for version in ["1.1", "1.0"] {
                for line in [""].into_iter().chain(LINES) {
                    let body = match line {
                        line if line.contains("chunked") => BODIES[3],
                        line if line.contains(": 3") => BODIES[1],
                        _ => "",
                    };
                    let request =
                        format!("{method} {path} HTTP/{version}\r\nHost: x\r\n{line}\r\n{body}");
                    let twice = request.repeat(2);
                    let got = compare(StreamUse::KeptAlive, &[twice.as_bytes()]);
                    // One of the answers breaks off before its head is sent.
                    let is_answered = got.starts_with("HTTP/1.") || path == "/shorter";
                    assert!(is_answered, "{request:?} gave {got:?}");
                }
            }
        }
    }
}

#[test]
fn a_stream_for_one_request_is_answered_the_same() {
    // One of the answers breaks off before its head is sent.
    for path in PATHS.into_iter().filter(|path| *path != "/shorter") {
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
        let got = compare(StreamUse::OneRequest, &[request.as_bytes()]);
        assert_eq!(got.matches("close\r\n").count(), 1, "{path}: {got}");
    }
}

/// Requests, whole and broken, one after the other.
fn stream_of_requests() -> impl Strategy<Value = Vec<u8>> {
    let request = (
        select(&METHODS[..]),
        select(&PATHS[..]),
        select(&["1.1", "1.1", "1.1", "1.0", "2"][..]),
        vec(select(&LINES[..]), 0..3),
        select(&BODIES[..]),
    );
    let text = request.prop_map(|(method, path, version, lines, body)| {
        let lines = lines.concat();
        format!("{method} {path} HTTP/{version}\r\nHost: x\r\n{lines}\r\n{body}").into_bytes()
    });
    let piece = prop_oneof![12 => text, 1 => vec(any::<u8>(), 0..8), 1 => Just(b"\r\n".to_vec())];
    vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn any_bytes_are_answered_the_same(sent in stream_of_requests()) {
        compare(StreamUse::KeptAlive, &[&sent]);
    }

    #[test]
    fn a_body_is_the_same_however_its_bytes_are_split(
        body in vec(vec(any::<u8>(), 0..50), 0..6),
        cut in 1..40_usize,
        path in select(&["/echo", "/length"][..]),
    ) {
        let mut sent = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
        for piece in body.iter().filter(|piece| !piece.is_empty()) {
            sent.extend(format!("{:x};e\r\n", piece.len()).bytes());
            sent.extend_from_slice(piece);
            sent.extend_from_slice(b"\r\n");
        }
        sent.extend_from_slice(b"0\r\n\r\n");
        let whole: Vec<u8> = body.concat();
        sent.extend(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", whole.len()).bytes());
        sent.extend_from_slice(&whole);
        let pieces: Vec<&[u8]> = sent.chunks(cut).collect();
        let got = runtime().block_on(answers(Engine::Portable, StreamUse::KeptAlive, &pieces));
        prop_assert_eq!(got.matches("HTTP/1.1 200 OK").count(), 2, "{}", got);
        if path == "/length" {
            let length = format!("\r\n\r\n{}", whole.len());
            prop_assert_eq!(got.matches(&length).count(), 2, "{}", got);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_of_a_request_reach_the_handler_by_hyper() {
    let trailers = axum::routing::any(async |request: axum::extract::Request| {
        let collected = request.into_body().collect().await.unwrap();
        let trailer = collected.trailers().unwrap()["x-sum"].to_str().unwrap().to_owned();
        trailer + &String::from_utf8_lossy(&collected.to_bytes())
    });
    let mut served = Served::new(axum::Router::new().route("/", trailers), ServeLimits::default());
    let mut client = served.open(from_peer(1), StreamUse::KeptAlive);
    client.send("POST / HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().body, "6abc");
    client.send("GET /nope HTTP/1.1\r\nHost: \r\n\r\n").await;
    assert_eq!(client.status().await, Some(404));
}
