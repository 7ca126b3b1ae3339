//! HTTP services beside gossip on one port: neither takes the other's places or permits.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::{
    self, Node, PATIENCE, Recipe,
    raw::{self, End, Raw},
    soon,
};
use axum::{Router, routing::any};
use gossip::{NetworkProfile, http::HttpService};
use net_http::{HttpServer, Incident, LoopbackRule, ServeContext, ServeLimits};
use tokio::time::{Instant, sleep};

fn http_server(limits: ServeLimits) -> HttpServer {
    http_server_within(limits, ServeContext::default())
}

fn http_server_within(limits: ServeLimits, context: ServeContext) -> HttpServer {
    let router = Router::new()
        .route("/hello", any(async || "hi"))
        .route("/hour", any(async || sleep(Duration::from_secs(3600)).await));
    HttpServer::within(HttpService::new(router), limits, context)
}

async fn node(http_server: &HttpServer) -> Node {
    let recipe = Recipe::new(&NetworkProfile::ALGORAND).listening();
    recipe.with(|config| config.http_server = Some(http_server.clone())).start().await
}

async fn asks(node: &Node, path: &str) -> Raw {
    let mut client = Raw::connect(node.address()).await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    client
}

#[tokio::test]
async fn gossip_takes_no_http_permit_and_http_no_place_of_a_peer() {
    let http_server = http_server(ServeLimits::default().with_connections(1));
    let node = node(&http_server).await;
    let mut busy = asks(&node, "/hello").await;
    assert_eq!(soon(busy.answer()).await.unwrap().status, "HTTP/1.1 200 OK");
    busy.exactly(2).await.unwrap();
    assert_eq!(http_server.served(), 1);
    let mut refused = asks(&node, "/hello").await;
    let answer = soon(refused.answer()).await.unwrap();
    assert_eq!(answer.status, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(answer.headers["retry-after"], ["1"]);
    assert_eq!(refused.read(PATIENCE).await, End::Over);
    let peer = soon(raw::upgraded(node.address())).await;
    node.until_peers(1).await;
    assert_eq!(http_server.served(), 1);
    assert_eq!(http_server.metrics().count(Incident::Full), 1);
    drop(busy);
    common::until("the permit", || http_server.served() == 0).await;
    let mut again = asks(&node, "/hello").await;
    assert_eq!(soon(again.answer()).await.unwrap().status, "HTTP/1.1 200 OK");
    drop((again, peer));
    node.stop().await;
}

// Issue 9, 8.
#[tokio::test]
async fn a_connection_that_becomes_a_peer_gives_its_permit_back() {
    let http_server = http_server(ServeLimits::default());
    let node = node(&http_server).await;
    let mut client = asks(&node, "/hello").await;
    assert_eq!(soon(client.answer()).await.unwrap().status, "HTTP/1.1 200 OK");
    client.exactly(2).await.unwrap();
    assert_eq!(http_server.served(), 1);
    client.send(raw::gossip_request("X-Algorand-", "").as_bytes()).await;
    let answer = soon(client.answer()).await.unwrap();
    assert!(answer.status.starts_with("HTTP/1.1 101 "), "{answer:?}");
    node.until_peers(1).await;
    common::until("the permit", || http_server.served() == 0).await;
    assert_eq!(node.peers().len(), 1);
    drop(client);
    node.stop().await;
}

// Issue 9, 8: the path of a request is checked once, before a permit is taken.
#[tokio::test]
async fn a_path_that_is_not_clean_is_moved_before_a_permit_is_taken() {
    let http_server = http_server(ServeLimits::default());
    let node = node(&http_server).await;
    let mut client = asks(&node, "//hello").await;
    let answer = soon(client.answer()).await.unwrap();
    assert_eq!(answer.status, "HTTP/1.1 301 Moved Permanently");
    assert_eq!(answer.headers["location"], ["/hello"]);
    assert_eq!((http_server.served(), http_server.metrics().requests()), (0, 0));
    client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(soon(client.answer()).await.unwrap().status, "HTTP/1.1 200 OK");
    assert_eq!((http_server.served(), http_server.metrics().requests()), (1, 1));
    node.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_queued_connections() {
    let limits = ServeLimits::default().with_per_peer(1);
    let context = ServeContext { loopback: LoopbackRule::Counted, ..ServeContext::default() };
    let http_server = http_server_within(limits, context);
    let recipe = Recipe::new(&NetworkProfile::ALGORAND).listening();
    let recipe = recipe.with(|config| {
        config.http_server = Some(http_server.clone());
    });
    let node = recipe.start().await;
    let mut idle = asks(&node, "/hello").await;
    soon(idle.answer()).await.unwrap();
    idle.exactly(2).await.unwrap();
    // Takes the permit of the idle connection, and then blocks in its handler.
    let busy = asks(&node, "/hour").await;
    assert_eq!(idle.read(PATIENCE).await, End::Over);
    common::until("the permit", || http_server.metrics().requests() == 2).await;
    let mut waiting = asks(&node, "/hello").await;
    common::until("one that waits", || http_server.waiting() == 1).await;
    drop(busy);
    let began = Instant::now();
    let stopping = async {
        // The handler takes an hour, so its task has to be aborted.
        let _forced = node.network.stop(Duration::from_secs(1)).await;
        node.broadcaster.stop(Duration::from_secs(1)).await
    };
    let (_stopped, answer) = tokio::join!(stopping, soon(waiting.answer()));
    assert_eq!(answer.unwrap().status, "HTTP/1.1 503 Service Unavailable");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
