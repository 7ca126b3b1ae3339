//! The refusals of the layers: their reasons, times and texts; and honest callers that are served meanwhile.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{num::NonZeroU32, time::Duration};

use crate::common::{self, Client, Served, from_peer, from_socket, hello};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::Request,
    routing::{any, post},
};
use futures::future::join_all;
use gossip::{StreamUse, http::Caller};
use http_body_util::BodyExt;
use tandem_net_http::{
    LoopbackRule, Protection, ServeLimits,
    protect::{BodyLimitLayer, BodyRate, InFlightLayer, PaceLayer, RateLayer, RequestRate},
};
use tokio::time::{Instant, advance, sleep};
use tower::ServiceExt;

const KEPT: StreamUse = StreamUse::KeptAlive;

fn router() -> Router {
    hello()
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route("/unread", post(async || "unread"))
        .route("/slow", any(async || sleep(Duration::from_secs(3)).await))
        .route("/hour", any(async || sleep(Duration::from_secs(3600)).await))
        .route("/echo", post(async |request: Request| request.into_body()))
}

fn rate(per_second: u32, burst: u32) -> RequestRate {
    let number = |number| NonZeroU32::new(number).unwrap();
    RequestRate::new(number(per_second), number(burst))
}

fn protected() -> Served {
    Served::new(Protection::default().apply(router()), ServeLimits::default())
}

/// Calls a router without a connection.
async fn ask(router: &Router, caller: Caller, path: &str) -> axum::response::Response {
    let mut request = Request::get(path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(caller);
    router.clone().oneshot(request).await.unwrap()
}

async fn announce(client: &mut Client, path: &str, len: usize) {
    client.send(format!("POST {path} HTTP/1.1\r\nHost: \r\nContent-Length: {len}\r\n\r\n")).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_of_a_mebibyte_is_the_longest() {
    let mut served = protected();
    let mib = 1024 * 1024;
    let mut client = served.open(from_peer(1), KEPT);
    announce(&mut client, "/length", mib).await;
    client.send(vec![7; mib]).await;
    assert_eq!(client.answer().await.unwrap().body, mib.to_string());
    let mut client = served.open(from_peer(1), KEPT);
    announce(&mut client, "/length", mib + 1).await;
    assert_eq!(client.status().await, Some(413));
    let mut client = served.open(from_peer(1), KEPT);
    client.send("POST /length HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(format!("{:x}\r\n", mib + 1)).await;
    client.send(vec![7; mib + 1]).await;
    assert_eq!(client.status().await, Some(413));
}

#[tokio::test(start_paused = true)]
async fn a_body_below_the_minimum_rate_is_answered_408() {
    let mut served = protected();
    let mut client = served.open(from_peer(1), KEPT);
    announce(&mut client, "/length", 1000).await;
    let began = Instant::now();
    let sending = async {
        loop {
            client.send("x").await;
            if let Ok(answer) = tokio::time::timeout(Duration::from_secs(1), client.answer()).await
            {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(common::PATIENCE, sending).await.unwrap().unwrap();
    assert_eq!((answer.code(), began.elapsed().as_secs()), (408, 5));
    assert_eq!(answer.headers["Connection"], ["close"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_above_the_minimum_rate_may_take_minutes() {
    let rate = BodyRate::new(1000, Duration::from_secs(5));
    let layer = PaceLayer::new(rate, Duration::from_secs(30));
    let mut served = Served::new(router().layer(layer), ServeLimits::default());
    let mut client = served.open(from_peer(1), KEPT);
    announce(&mut client, "/length", 200_000).await;
    let began = Instant::now();
    for _ in 0..200 {
        client.send(vec![7; 1000]).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(client.answer().await.unwrap().body, "200000");
    assert!(began.elapsed() > Duration::from_secs(190));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_answer_gets_503_after_30_seconds() {
    let mut served = protected();
    for with_body in [0, 5] {
        let mut client = served.open(from_peer(1), KEPT);
        announce(&mut client, "/hour", with_body).await;
        client.send(vec![7; with_body]).await;
        let began = Instant::now();
        assert_eq!(client.status().await, Some(503));
        assert_eq!(began.elapsed().as_secs(), 30);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_is_not_charged_to_the_client() {
    let dawdling = post(async |request: Request| {
        let mut body = request.into_body();
        let mut len = 0;
        while let Some(frame) = body.frame().await {
            len += frame.unwrap().into_data().unwrap().len();
            sleep(Duration::from_secs(10)).await;
        }
        len.to_string()
    });
    let router = Protection::default().apply(Router::new().route("/", dawdling));
    let mut served = Served::new(router, ServeLimits::default());
    let mut client = served.open(from_peer(1), KEPT);
    client.send("POST / HTTP/1.1\r\nHost: \r\nContent-Length: 6\r\n\r\nabc").await;
    sleep(Duration::from_secs(11)).await;
    client.send("def").await;
    assert_eq!(client.answer().await.unwrap().body, "6");
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_rate_get_retry_after() {
    let router = router().layer(RateLayer::new(rate(2, 4)));
    for _ in 0..4 {
        assert_eq!(ask(&router, from_peer(1), "/hello").await.status(), 200);
    }
    let refused = ask(&router, from_peer(1), "/hello").await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"1".parse().unwrap())
    );
    // Other callers have rates of their own, and loopback callers have none.
    assert_eq!(ask(&router, from_peer(2), "/hello").await.status(), 200);
    for _ in 0..20 {
        assert_eq!(ask(&router, from_socket("127.0.0.1"), "/hello").await.status(), 200);
    }
    advance(Duration::from_millis(499)).await;
    assert_eq!(ask(&router, from_peer(1), "/hello").await.status(), 429);
    advance(Duration::from_millis(1)).await;
    assert_eq!(ask(&router, from_peer(1), "/hello").await.status(), 200);
    assert_eq!(ask(&router, from_peer(1), "/hello").await.status(), 429);
}

#[tokio::test(start_paused = true)]
async fn loopback_has_a_rate_if_it_is_counted() {
    let router = router().layer(RateLayer::new(rate(1, 1))).layer(Extension(LoopbackRule::Counted));
    assert_eq!(ask(&router, from_socket("127.0.0.1"), "/hello").await.status(), 200);
    assert_eq!(ask(&router, from_socket("127.0.0.1"), "/hello").await.status(), 429);
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_peer_beyond_the_bound_in_progress_are_refused() {
    let router = router().layer(InFlightLayer::new(2));
    let one = || ask(&router, from_peer(1), "/slow");
    let (began, three) = (Instant::now(), join_all([one(), one(), one()]).await);
    let statuses: Vec<_> = three.iter().map(|answer| answer.status().as_u16()).collect();
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(three[2].headers()["retry-after"], "1");
    assert_eq!(began.elapsed().as_secs(), 3);
    // A request that its client drops is no longer counted.
    let given_up = tokio::time::timeout(Duration::from_secs(1), join_all([one(), one()])).await;
    assert!(given_up.is_err());
    assert_eq!(ask(&router, from_peer(1), "/hello").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_layer_may_be_set_for_one_route() {
    let limited = post(async |body: Bytes| body.len().to_string()).layer(BodyLimitLayer::new(3));
    let paced = PaceLayer::new(BodyRate::default(), Duration::from_secs(1));
    let router = Router::new()
        .route("/hour", any(async || sleep(Duration::from_secs(3600)).await))
        .route_layer(paced)
        .route_layer(RateLayer::new(rate(1, 1)))
        .route_layer(InFlightLayer::new(1))
        .route("/limited", limited)
        .merge(hello());
    let mut served = Served::new(router, ServeLimits::default());
    let mut client = served.open(from_peer(1), KEPT);
    client.get("/hour").await;
    assert_eq!(client.status().await, Some(503));
    announce(&mut client, "/limited", 4).await;
    assert_eq!(client.status().await, Some(413));
    let mut client = served.open(from_peer(1), KEPT);
    for _ in 0..3 {
        client.get("/hello").await;
        assert_eq!(client.status().await, Some(200));
    }
}

/// Longest wait of an honest peer for an answer during an attack.
async fn honest_worst(served: &mut Served) -> Duration {
    let mut worst = Duration::ZERO;
    let mut client = served.open(from_peer(2), KEPT);
    for _ in 0..50 {
        let began = Instant::now();
        client.get("/hello").await;
        assert_eq!(client.status().await, Some(200));
        worst = worst.max(began.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    worst
}

#[tokio::test(start_paused = true)]
async fn a_hostile_peer_does_not_delay_others() {
    // The paused clock advances only when every task waits. An answer that waited for the hostile peer would be
    // late by whole milliseconds.
    let mut served = protected();
    let mut hostile = Vec::new();
    // Slow bodies that take every permit, streams up to the limit that wait behind them, and streams beyond it.
    for _ in 0..1000 {
        let mut client = served.open(from_peer(1), KEPT);
        client.send("POST /length HTTP/1.1\r\nHost: \r\nContent-Length: 1000\r\n\r\nx").await;
        hostile.push(client);
    }
    assert!(honest_worst(&mut served).await < Duration::from_millis(2));
    let told = served.http_server.metrics().count(tandem_net_http::Incident::PeerFull);
    let ServeLimits { per_peer, waiting_per_peer, .. } = *served.http_server.limits();
    assert_eq!(told, (1000 - per_peer - waiting_per_peer) as u64);
    drop(hostile);
    // Slow requests that take every permit.
    let mut hostile = Vec::new();
    for _ in 0..200 {
        let mut client = served.open(from_peer(3), KEPT);
        client.get("/hour").await;
        hostile.push(client);
    }
    assert!(honest_worst(&mut served).await < Duration::from_millis(2));
    // A flood on one connection: each refused request costs the client time.
    let mut flood = served.open(from_peer(4), KEPT);
    let (began, mut refused) = (Instant::now(), 0);
    for _ in 0..3000 {
        flood.get("/hello").await;
        refused += usize::from(flood.status().await == Some(429));
    }
    assert!((1..=20).contains(&refused), "{refused}");
    assert!(began.elapsed() > Duration::from_millis(1900), "{:?}", began.elapsed());
    assert!(honest_worst(&mut served).await < Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn delayed_refusals_take_no_request_permits() {
    let router = router().layer(RateLayer::new(rate(1, 1)));
    let mut served = Served::new(router, ServeLimits::default().with_requests(1));
    let mut flood = Vec::new();
    for _ in 0..16 {
        let mut client = served.open(from_peer(1), KEPT);
        for _ in 0..64 {
            client.get("/hello").await;
        }
        flood.push(client);
    }
    let mut honest = served.open(from_peer(2), KEPT);
    let began = Instant::now();
    honest.get("/hello").await;
    assert_eq!(honest.status().await, Some(200));
    assert!(began.elapsed() < Duration::from_millis(2));
    // Each connection of the flood waits for one refusal at a time.
    assert_eq!(flood[0].status().await, Some(200));
    let mut refused_after = Vec::new();
    for client in &mut flood[1..] {
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.code(), answer.headers["Retry-After"][0].as_str()), (429, "1"));
        refused_after.push(began.elapsed());
    }
    assert!(refused_after.iter().all(|after| *after >= Duration::from_millis(249)));
    assert!(refused_after.iter().all(|after| *after < Duration::from_millis(300)));
}
