//! Sharing of the permits: of one peer, of all peers, and the order of waiting.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{convert::Infallible, time::Duration};

use crate::common::{Client, Served, from_peer, from_socket, hello};
use axum::{Router, routing::any};
use futures::{StreamExt, future::join_all, stream};
use gossip::{StreamUse, http::HttpService};
use tandem_net_http::{Incident, LoopbackRule, ServeContext, ServeLimits};
use tokio::time::{Instant, sleep};

const KEPT: StreamUse = StreamUse::KeptAlive;

fn router() -> Router {
    hello()
        .route("/slow", any(async || sleep(Duration::from_secs(3)).await))
        .route("/hour", any(async || sleep(Duration::from_secs(3600)).await))
}

async fn asked(mut client: Client, path: &str) -> Option<u16> {
    client.get(path).await;
    client.status().await
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_a_stream_per_request_loses_none() {
    let mut served = Served::new(router(), ServeLimits::default());
    let began = Instant::now();
    let clients: Vec<_> = (0..16 * 4)
        .map(|_| {
            let mut client = served.open(from_peer(1), StreamUse::OneRequest);
            async move {
                client.get("/slow").await;
                client.half_close().await;
                client.status().await
            }
        })
        .collect();
    assert!(join_all(clients).await.into_iter().all(|status| status == Some(200)));
    // Four rounds of sixteen connections; the last round had waited for nine seconds.
    assert_eq!(began.elapsed().as_secs(), 12);
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_gets_no_permit_in_time_gets_retry_after() {
    let mut served = Served::new(router(), ServeLimits::default());
    let mut busy: Vec<_> = (0..16).map(|_| served.open(from_peer(1), KEPT)).collect();
    join_all(busy.iter_mut().map(|client| client.get("/hour"))).await;
    let began = Instant::now();
    let mut client = served.open(from_peer(1), KEPT);
    client.get("/hello").await;
    let text = String::from_utf8(client.rest().await).unwrap();
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
    assert!(text.contains("\r\nRetry-After: 1\r\n"), "{text}");
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(served.http_server.metrics().count(Incident::WaitedInVain), 1);
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_queue_are_refused_at_once() {
    let limits = ServeLimits::default().with_per_peer(1).with_waiting_per_peer(2);
    let mut served = Served::new(router(), limits);
    let mut busy = served.open(from_peer(1), KEPT);
    busy.get("/slow").await;
    sleep(Duration::from_millis(1)).await;
    let mut waiting = [served.open(from_peer(1), KEPT), served.open(from_peer(1), KEPT)];
    for client in &mut waiting {
        client.send("GET /hello HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n").await;
    }
    sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    assert_eq!(asked(served.open(from_peer(1), KEPT), "/hello").await, Some(503));
    assert!(began.elapsed() < Duration::from_secs(1));
    // Other peers are served, and so are the connections that wait.
    assert_eq!(asked(served.open(from_peer(2), KEPT), "/hello").await, Some(200));
    for client in &mut waiting {
        assert_eq!(client.status().await, Some(200));
    }
    assert_eq!(served.http_server.metrics().count(Incident::PeerFull), 1);
}

// Issue 9, 5. Before, a newcomer was refused when every permit was taken, although most connections were idle.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_of_the_peer_with_the_most_makes_room_for_another_peer() {
    let limits = ServeLimits::default().with_connections(3);
    let mut served = Served::new(router(), limits);
    let mut crowd = [served.open(from_peer(1), KEPT), served.open(from_peer(1), KEPT)];
    let mut single = served.open(from_peer(2), KEPT);
    for client in crowd.iter_mut().chain([&mut single]) {
        client.get("/hello").await;
        assert_eq!(client.status().await, Some(200));
    }
    let began = Instant::now();
    let mut newcomer = served.open(from_peer(3), KEPT);
    newcomer.get("/hello").await;
    assert_eq!(newcomer.status().await, Some(200));
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
    // One idle connection was dismissed for it.
    assert_eq!(served.http_server.metrics().count(Incident::Dismissed), 1);
    single.get("/hello").await;
    assert_eq!(single.status().await, Some(200));
    // While all connections are busy, none can be dismissed.
    for client in crowd.iter_mut().chain([&mut single, &mut newcomer]) {
        client.get("/hour").await;
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(asked(served.open(from_peer(4), KEPT), "/hello").await, None);
    assert_eq!(served.http_server.metrics().count(Incident::Full), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_dismissed_for_one_that_waits() {
    let limits = ServeLimits::default().with_per_peer(2);
    let mut served = Served::new(router(), limits);
    let mut first = [served.open(from_peer(1), KEPT), served.open(from_peer(1), KEPT)];
    for client in &mut first {
        client.get("/hello").await;
        assert_eq!(client.status().await, Some(200));
    }
    let began = Instant::now();
    let mut third = served.open(from_peer(1), KEPT);
    third.get("/hello").await;
    assert_eq!(third.status().await, Some(200));
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
    // Exactly one connection was dismissed.
    assert_eq!(served.http_server.metrics().count(Incident::Dismissed), 1);
    let mut left = 0;
    for client in &mut first {
        client.get("/hello").await;
        left += usize::from(client.status().await == Some(200));
    }
    assert_eq!(left, 1);
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_closes_after_its_answer_when_others_wait() {
    let limits = ServeLimits::default().with_per_peer(1);
    let mut served = Served::new(router(), limits);
    let mut busy = served.open(from_peer(1), KEPT);
    busy.get("/slow").await;
    sleep(Duration::from_millis(1)).await;
    let mut waiting = served.open(from_peer(1), KEPT);
    waiting.get("/hello").await;
    let answer = busy.answer().await.unwrap();
    assert_eq!((answer.code(), &*answer.headers["Connection"]), (200, &["close".to_owned()][..]));
    assert_eq!(waiting.status().await, Some(200));
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_is_the_last_when_others_wait_by_its_end() {
    let limits = ServeLimits::default().with_per_peer(1);
    let long = any(async || {
        let parts = stream::iter(["a long", " answer"]).then(async |part| {
            sleep(Duration::from_secs(1)).await;
            Ok::<_, Infallible>(part)
        });
        axum::body::Body::from_stream(parts)
    });
    let mut served = Served::new(router().route("/long", long), limits);
    let mut busy = served.open(from_peer(1), KEPT);
    busy.get("/long").await;
    sleep(Duration::from_millis(1500)).await;
    // The head of the answer has been sent, without `Connection: close`.
    let began = Instant::now();
    assert_eq!(asked(served.open(from_peer(1), KEPT), "/hello").await, Some(200));
    assert_eq!(began.elapsed().as_millis(), 500);
    let text = String::from_utf8(busy.rest().await).unwrap();
    assert!(text.contains("a long") && text.ends_with("0\r\n\r\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn all_transports_share_one_limit() {
    let limits = ServeLimits::default().with_connections(2);
    let mut served = Served::new(router(), limits);
    let mut held = [served.open(from_peer(1), KEPT), served.open(from_socket("192.0.2.1"), KEPT)];
    join_all(held.iter_mut().map(|client| client.get("/hour"))).await;
    sleep(Duration::from_millis(1)).await;
    for caller in [from_peer(2), from_socket("192.0.2.2"), from_socket("127.0.0.1")] {
        assert_eq!(asked(served.open(caller, KEPT), "/hello").await, None);
    }
    assert_eq!(served.http_server.metrics().count(Incident::Full), 3);
}

#[tokio::test(start_paused = true)]
async fn loopback_callers_are_separate_peers_unless_counted() {
    for (loopback, expected) in
        [(LoopbackRule::Exempt, Some(200)), (LoopbackRule::Counted, Some(503))]
    {
        let limits = ServeLimits::default().with_per_peer(1);
        let context = ServeContext { loopback, ..ServeContext::default() };
        let service = HttpService::new(router());
        let mut served = Served::within(service, limits, context);
        let mut busy = served.open(from_socket("127.0.0.1"), KEPT);
        busy.get("/hour").await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(asked(served.open(from_socket("127.0.0.1"), KEPT), "/hello").await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn ipv6_addresses_of_one_64_are_one_peer() {
    let limits = ServeLimits::default().with_per_peer(1).with_wait(Duration::from_secs(1));
    let mut served = Served::new(router(), limits);
    let mut busy = served.open(from_socket("2001:db8::1"), KEPT);
    busy.get("/hour").await;
    sleep(Duration::from_millis(1)).await;
    let near = served.open(from_socket("2001:db8::2"), KEPT);
    assert_eq!(asked(near, "/hello").await, Some(503));
    let far = served.open(from_socket("2001:db8:0:1::2"), KEPT);
    assert_eq!(asked(far, "/hello").await, Some(200));
}
