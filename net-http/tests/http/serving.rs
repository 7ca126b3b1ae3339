//! The server with honest clients, with clients that disconnect, and with handlers that fail.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::common::{self, Served, from_peer, from_socket, hello};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request},
    routing::{any, post},
};
use futures::{StreamExt, stream};
use gossip::{StreamUse, http::Caller};
use proptest::prelude::*;
use tandem_net_http::{Incident, ServeContext, ServeLimits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::{Instant, advance, sleep, timeout},
};

const KEPT: StreamUse = StreamUse::KeptAlive;

/// Counts the instances that exist.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

struct Living(Arc<AtomicUsize>);

impl Alive {
    fn one(&self) -> Living {
        self.0.fetch_add(1, Ordering::Relaxed);
        Living(Arc::clone(&self.0))
    }

    async fn until(&self, count: usize) {
        let reached = async {
            while self.0.load(Ordering::Relaxed) != count {
                tokio::task::yield_now().await;
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(common::PATIENCE, reached).await.expect("the count was never reached");
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn router(alive: &Alive) -> Router {
    let alive = alive.clone();
    hello()
        .route("/who", any(async |caller: Caller| caller.address.to_string()))
        .route(
            "/never",
            any(async move || {
                let _living = alive.one();
                std::future::pending::<()>().await;
            }),
        )
        .route("/panic", any(async || -> String { panic!("a bug in a handler") }))
        .route("/slow", any(async || sleep(Duration::from_secs(3)).await))
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route("/echo", post(async |request: Request| request.into_body()))
        .route(
            "/broken",
            any(async || {
                let parts = [Ok(Bytes::from_static(b"half")), Err("the disk is gone")];
                // A delay between the two parts.
                Body::from_stream(stream::iter(parts).then(async |part| {
                    sleep(Duration::from_millis(10)).await;
                    part
                }))
            }),
        )
        .route(
            "/endless",
            any(async || {
                let chunk = Ok::<_, Infallible>(Bytes::from(vec![7; 16_384]));
                Body::from_stream(stream::repeat(chunk))
            }),
        )
        .layer(DefaultBodyLimit::disable())
}

fn served(alive: &Alive) -> Served {
    Served::new(router(alive), ServeLimits::default())
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_is_answered_500_and_the_connection_lives() {
    let mut served = served(&Alive::default());
    let mut client = served.open(from_peer(1), KEPT);
    client.get("/panic").await;
    assert_eq!(client.status().await, Some(500));
    client.get("/who").await;
    assert_eq!(client.answer().await.unwrap().body, "peer 1");
    assert_eq!(served.http_server.metrics().count(Incident::Panicked), 1);
    assert_eq!(served.http_server.metrics().requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_body_was_read_says_connection_close() {
    let router = hello()
        .route("/unread", any(async || "unread"))
        .route("/length", any(async |body: Bytes| body.len().to_string()));
    let mut served = Served::new(router, ServeLimits::default());
    for (path, framing, ends) in [
        ("/unread", "Content-Length: 100000\r\n\r\n", true),
        ("/unread", "Transfer-Encoding: chunked\r\n\r\n", true),
        ("/unread", "Content-Length: 0\r\n\r\n", false),
        ("/unread", "Content-Length: 4\r\n\r\nbody", false),
        ("//hello", "Content-Length: 100000\r\n\r\n", true),
        ("/length", "Content-Length: 4\r\n\r\nbody", false),
        ("/length", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", false),
    ] {
        let mut client = served.open(from_peer(1), KEPT);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: \r\n{framing}")).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.headers.contains_key("Connection"), ends, "{path} {framing}");
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bug in what a body holds");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_breaks_its_connection_and_nothing_else() {
    let half = || Ok::<_, Infallible>(Bytes::from_static(b"half"));
    let polled = move || {
        let body = stream::iter(0..2).map(move |part| {
            assert_eq!(part, 0, "a bug in a body");
            half()
        });
        async { Body::from_stream(body) }
    };
    let dropped = move || {
        let bomb = Bomb;
        let body = stream::iter(0..2).map(move |_| {
            let _held = &bomb;
            half()
        });
        async { Body::from_stream(body) }
    };
    let router = hello().route("/polled", any(polled)).route("/dropped", any(dropped));
    let mut served = Served::new(router, ServeLimits::default());
    for (panics, path) in [(1, "/polled"), (2, "/dropped")] {
        let mut client = served.open(from_peer(1), KEPT);
        client.get(path).await;
        let got = client.rest().await;
        assert!(!got.ends_with(b"0\r\n\r\n"), "{path}: {got:?}");
        assert_eq!(served.http_server.metrics().count(Incident::Panicked), panics, "{path}");
    }
    let mut client = served.open(from_peer(1), KEPT);
    client.get("/hello").await;
    assert_eq!(client.status().await, Some(200));
    drop(client);
    // The task of the connection has not panicked.
    served.ended().await;
    assert_eq!(served.http_server.served(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_is_answered_500() {
    let failing = tower::service_fn(async |_: gossip::http::HttpRequest| {
        Err::<gossip::http::HttpResponse, _>("out of order")
    });
    let service = gossip::http::HttpService::new(failing);
    let mut served = Served::within(service, ServeLimits::default(), ServeContext::default());
    let mut client = served.open(from_peer(1), StreamUse::OneRequest);
    client.get("/").await;
    assert_eq!(client.status().await, Some(500));
    assert_eq!(served.http_server.metrics().count(Incident::Failed), 1);
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_disconnects_cancels_its_handler() {
    let alive = Alive::default();
    let mut served = served(&alive);
    let mut client = served.open_reset(from_peer(1), KEPT);
    client.get("/never").await;
    alive.until(1).await;
    client.reset();
    alive.until(0).await;
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_close_its_half_and_wait() {
    let mut served = served(&Alive::default());
    for streams in [KEPT, StreamUse::OneRequest] {
        let mut client = served.open(from_peer(1), streams);
        client.get("/slow").await;
        client.half_close().await;
        assert_eq!(client.status().await, Some(200));
        assert_eq!(client.rest().await, b"");
    }
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_is_never_a_short_whole_one() {
    let mut served = served(&Alive::default());
    let mut client = served.open(from_peer(1), KEPT);
    client.get("/broken").await;
    let got = client.rest().await;
    let text = String::from_utf8_lossy(&got);
    assert!(text.contains("Transfer-Encoding: chunked"), "{text}");
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_disconnected_after_30_seconds() {
    let mut served = served(&Alive::default());
    let mut client = served.open(from_peer(1), KEPT);
    client.get("/endless").await;
    let began = Instant::now();
    served.ended().await;
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(served.http_server.metrics().count(Incident::Stalled), 1);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_ends_the_connection_after_30_seconds() {
    let mut served = served(&Alive::default());
    let mut client = served.open(from_peer(1), KEPT);
    client.send("POST /length HTTP/1.1\r\nHost: \r\nContent-Length: 9\r\n\r\nhalf").await;
    let began = Instant::now();
    // The handler gets an error from the body.
    assert_eq!(client.status().await, Some(400));
    assert_eq!(began.elapsed().as_secs(), 30);
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_between_requests_has_a_deadline() {
    let mut served = served(&Alive::default());
    for (caller, idle) in [(from_peer(1), 30), (from_socket("192.0.2.1"), 4)] {
        let mut client = served.open(caller, KEPT);
        for _ in 0..3 {
            client.get("/hello").await;
            assert_eq!(client.status().await, Some(200));
            advance(Duration::from_secs(3)).await;
        }
        client.get("/hello").await;
        assert_eq!(client.status().await, Some(200));
        let began = Instant::now();
        assert_eq!(client.rest().await, b"");
        assert_eq!(began.elapsed().as_secs(), idle);
    }
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_and_later_heads_have_ten_seconds() {
    let mut served = served(&Alive::default());
    let mut silent = served.open(from_peer(1), KEPT);
    let mut later = served.open(from_peer(1), KEPT);
    later.get("/hello").await;
    assert_eq!(later.status().await, Some(200));
    let began = Instant::now();
    later.send("GET /").await;
    for client in [&mut silent, &mut later] {
        assert_eq!(client.rest().await, b"");
        assert_eq!(began.elapsed().as_secs(), 10);
    }
    assert_eq!(served.http_server.metrics().count(Incident::HeadTimeout), 2);
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_the_request_under_way_be_answered() {
    let mut served = served(&Alive::default());
    let (mut busy, mut idle) = (served.open(from_peer(1), KEPT), served.open(from_peer(1), KEPT));
    idle.get("/hello").await;
    assert_eq!(idle.status().await, Some(200));
    busy.get("/slow").await;
    sleep(Duration::from_secs(1)).await;
    served.cancel.cancel();
    let began = Instant::now();
    assert_eq!(idle.rest().await, b"");
    assert_eq!(began.elapsed().as_secs(), 0);
    assert_eq!(busy.status().await, Some(200));
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn three_hundred_pipelined_requests_are_answered_in_order() {
    let mut served = served(&Alive::default());
    let mut client = served.open(from_peer(1), KEPT);
    let sending = async {
        for number in 0..300_usize {
            let body = "x".repeat(number);
            let request = match number % 3 {
                0 => format!("GET /length HTTP/1.1\r\nHost: \r\nX: {body}\r\n\r\n"),
                1 => format!(
                    "POST /length HTTP/1.1\r\nHost: \r\nContent-Length: {number}\r\n\r\n{body}"
                ),
                _ => format!(
                    "POST /length HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n\
                     {number:x}\r\n{body}\r\n0\r\n\r\n"
                ),
            };
            client.send(request).await;
        }
        client
    };
    let mut client = timeout(common::PATIENCE, sending).await.unwrap();
    for number in 0..300_usize {
        let answer = client.answer().await.unwrap();
        match number % 3 {
            0 => assert_eq!(answer.code(), 405, "{number}"),
            _ => assert_eq!(answer.body, number.to_string()),
        }
    }
    client.half_close().await;
    assert_eq!(client.rest().await, b"");
    served.ended().await;
}

#[tokio::test]
async fn megabytes_go_both_ways_at_once() {
    const LEN: usize = 8 * 1024 * 1024;
    let mut served = served(&Alive::default());
    let mut client = served.open(from_peer(1), KEPT);
    client.send(format!("POST /echo HTTP/1.1\r\nHost: \r\nContent-Length: {LEN}\r\n\r\n")).await;
    let (mut reading, mut writing) = tokio::io::split(client.stream);
    let sent: Vec<u8> = (0..LEN).map(|index| (index % 251).try_into().unwrap()).collect();
    let mut got = Vec::new();
    let (written, read) = tokio::join!(
        async {
            writing.write_all(&sent).await.unwrap();
            writing.shutdown().await
        },
        timeout(common::PATIENCE, reading.read_to_end(&mut got)),
    );
    written.unwrap();
    read.unwrap().unwrap();
    let head = got.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(got[head..] == sent);
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_expects_100_continue_gets_it() {
    let mut served = served(&Alive::default());
    let mut client = served.open(from_peer(1), KEPT);
    let head =
        "POST /length HTTP/1.1\r\nHost: \r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.status().await, Some(100));
    client.send("abc").await;
    assert_eq!(client.answer().await.unwrap().body, "3");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_gets_no_permit_in_time_gets_retry_after() {
    let (alive, go) = (Alive::default(), Arc::new(Notify::new()));
    let limits = ServeLimits::default().with_requests(2);
    let (counted, told) = (alive.clone(), Arc::clone(&go));
    let wait = any(async move || {
        let _living = counted.one();
        told.notified().await;
    });
    let mut served = Served::new(Router::new().route("/", wait), limits);
    let mut clients: Vec<_> = (1..=3).map(|peer| served.open(from_peer(peer), KEPT)).collect();
    for (client, count) in clients.iter_mut().take(2).zip(1..) {
        client.get("/").await;
        alive.until(count).await;
    }
    let (began, third) = (Instant::now(), &mut clients[2]);
    third.get("/").await;
    let answer = third.answer().await.unwrap();
    assert_eq!((answer.code(), began.elapsed().as_secs()), (503, 1));
    assert_eq!(answer.headers["Retry-After"], ["1"]);
    // Idle connections take no request permit.
    go.notify_waiters();
    third.get("/").await;
    alive.until(1).await;
    go.notify_waiters();
    assert_eq!(third.status().await, Some(200));
    assert_eq!(served.http_server.metrics().count(Incident::Busy), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pipelined_requests_are_separated_however_their_bytes_are_split(
        requests in proptest::collection::vec((0..4_usize, 0..3000_usize), 1..12),
        cuts in proptest::collection::vec(1..700_usize, 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(requests_in_pieces(&requests, &cuts));
    }
}

async fn requests_in_pieces(requests: &[(usize, usize)], cuts: &[usize]) {
    let mut bytes = Vec::new();
    for &(kind, len) in requests {
        // A body that looks like a row of requests.
        let body = "GET /panic HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
        let body = &body[..len];
        bytes.extend_from_slice(b"POST /length HTTP/1.1\r\nHost: x\r\n");
        bytes.extend_from_slice(&match kind {
            0 => format!("Content-Length: {len}\r\n\r\n{body}").into_bytes(),
            1 if len > 0 => format!(
                "Transfer-Encoding: chunked\r\n\r\n{len:X};x=y\r\n{body}\r\n0\r\nX: y\r\n\r\n"
            )
            .into_bytes(),
            2 => {
                let (a, b) = body.split_at(len / 2);
                let chunk = |part: &str| match part.len() {
                    0 => String::new(),
                    len => format!("{len:x}\r\n{part}\r\n"),
                };
                format!("Transfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n", chunk(a), chunk(b))
                    .into_bytes()
            }
            _ => format!("Content-Length: {len}\r\nX: {}\r\n\r\n{body}", "y".repeat(len))
                .into_bytes(),
        });
    }
    let mut served = served(&Alive::default());
    let mut client = served.open(from_peer(1), KEPT);
    let (mut rest, mut cut) = (&bytes[..], cuts.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*cut.next().unwrap()));
        client.send(piece).await;
        tokio::task::yield_now().await;
        rest = after;
    }
    for &(_, len) in requests {
        assert_eq!(client.answer().await.unwrap().body, len.to_string());
    }
    client.half_close().await;
    assert_eq!(client.rest().await, b"");
    served.ended().await;
}
