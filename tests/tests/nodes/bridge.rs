//! The bridge: a request over TCP reaches the HTTP services of a peer that has libp2p alone.

use std::time::Duration;

use axum::{Router, http::HeaderMap, routing::get};
use gossip::{
    LateNode, NetworkId, NodeAddress, PeerClass,
    http::{HttpBody, read_all},
};
use http::{Request, StatusCode};
use tandem::{Forward, Mode, NodeBuilder, PageOrigins, Running, Shutdown};
use testkit::wait::{soon, until};
use tokio_util::sync::CancellationToken;

const SITE: &str = "https://app.example";

fn builder(mode: Mode) -> NodeBuilder {
    let network = NetworkId::new("bridged-v1").expect("the name is a short path segment");
    NodeBuilder::new(network).mode(mode)
}

/// Tells the names of the headers that came, and tries to speak for the bridge.
async fn seen(headers: HeaderMap) -> (StatusCode, [(&'static str, &'static str); 4], String) {
    let mut names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let told = [
        ("content-type", "text/html"),
        ("set-cookie", "a=b"),
        ("access-control-allow-origin", "https://evil.example"),
        ("etag", "\"1\""),
    ];
    (StatusCode::OK, told, names.join(","))
}

async fn ask(asker: &Running, at: &NodeAddress, path: &str) -> (StatusCode, HeaderMap, String) {
    let client = asker.node().http_client(at).expect("it is an address over TCP");
    let request = Request::get(path)
        .header("cookie", "secret")
        .header("authorization", "secret")
        .header("origin", SITE)
        .header("range", "bytes=0-")
        .body(HttpBody::empty())
        .expect("the request is well-formed");
    let answer = soon("the answer", client.send(request)).await.expect("the node answers");
    let (parts, body) = answer.into_parts();
    let body = soon("the body", read_all(body, 10_000)).await.expect("it is whole");
    (parts.status, parts.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_page_asks_a_libp2p_node_through_its_relay() {
    let (root, late) = (CancellationToken::new(), LateNode::new());
    let router = Router::new().route("/seen", get(seen)).route("/query", get(query));
    let behind =
        builder(Mode::Libp2p).http(router).start(&root).await.expect("the libp2p node starts");
    let id = behind.identity();
    let relay = builder(Mode::Hybrid)
        .page_origins(PageOrigins::default().with(SITE.parse().expect("it is an origin")))
        .http(Forward::bridge(late.clone()))
        .late_node(&late)
        .peer(behind.node().addresses()[0].clone())
        .start(&root)
        .await
        .expect("the relay starts");
    let asker = builder(Mode::WebSocket).start(&root).await.expect("a node starts");
    let node = relay.node();
    until("the relay is connected", || !node.peers(PeerClass::Connected).is_empty()).await;
    let at: NodeAddress =
        relay.ws_url().expect("it listens").parse().expect("the URL is an address");

    let (status, headers, names) = ask(&asker, &at, &format!("/p2p/{id}/seen")).await;
    assert_eq!((status, names.as_str()), (StatusCode::OK, "host,range,user-agent"));
    assert_eq!(headers["access-control-allow-origin"], SITE, "the relay's word, not the peer's");
    assert!(!headers.contains_key("set-cookie") && headers.contains_key("etag"), "{headers:?}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let policy = headers["content-security-policy"].to_str().expect("it is text");
    assert!(policy.contains("sandbox"), "{policy}");
    let (status, _, asked) = ask(&asker, &at, &format!("/p2p/{id}/query?a=%2F&b")).await;
    assert_eq!((status, asked.as_str()), (StatusCode::OK, "a=%2F&b"));
    let (status, ..) = ask(&asker, &at, &format!("/p2p/{id}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "the peer has no /");

    let own = asker.identity();
    for (path, status) in [
        (format!("/p2p/{id}/p2p/{id}/seen"), StatusCode::BAD_REQUEST),
        (format!("/p2p/{own}/seen"), StatusCode::NOT_FOUND),
        ("/p2p/nobody/seen".to_owned(), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(ask(&asker, &at, &path).await.0, status, "{path}");
    }
    for node in [asker, relay, behind] {
        assert_eq!(node.stop(Duration::from_secs(5)).await, Shutdown::Clean);
    }
}

async fn query(request: axum::extract::Request) -> String {
    request.uri().query().unwrap_or_default().to_owned()
}
