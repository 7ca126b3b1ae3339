//! The answers of the status service.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, time::Duration};

use axum::{Router, body::Body};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tandem_services::status::{Health, Peers, State, router};
use tower::ServiceExt;

fn service(state: State) -> Router {
    router(move || Health {
        state,
        reasons: Vec::new(),
        network: "test-v1".into(),
        profile: "tandem".into(),
        mode: "hybrid".into(),
        peers: Peers { ws: 3, p2p: 2 },
        uptime: Duration::from_millis(61_900),
        version: "0.1.0".into(),
    })
}

async fn ask(router: Router, method: Method, path: &str) -> (Response<()>, Vec<u8>) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let (head, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), body.to_vec())
}

#[tokio::test]
async fn status_is_answered_as_it_was_recorded() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../gossip/testdata/vectors/block_service.json");
    let vectors: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let cases = vectors["http_cases"].as_array().unwrap();
    let mut run = 0;
    for case in cases {
        let mut line = case["request"].as_str().unwrap().split(' ');
        let (method, path) = (line.next().unwrap(), line.next().unwrap());
        if path != "/status" {
            continue;
        }
        let recorded = case["response_text"].as_str().unwrap();
        let (response, body) = ask(service(State::Serving), method.parse().unwrap(), path).await;
        assert!(recorded.starts_with(&format!("HTTP/1.1 {}", response.status())), "{recorded}");
        // The server adds `Date` and `Content-Length: 0`; the service itself says nothing.
        assert!(recorded.ends_with("\r\nContent-Length: 0\r\n\r\n"), "{recorded}");
        assert!(body.is_empty());
        assert_eq!(response.headers().get(header::CONTENT_TYPE), None);
        run += 1;
    }
    assert_eq!(run, 2);
}

#[tokio::test]
async fn status_takes_any_method_also_while_the_node_stops() {
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let method = method.parse().unwrap();
        let (response, body) = ask(service(State::Stopping), method, "/status").await;
        assert_eq!((response.status(), body.len()), (StatusCode::OK, 0));
    }
}

#[tokio::test]
async fn health_says_what_the_node_is_and_whether_it_stops() {
    for (state, status, word) in [
        (State::Serving, StatusCode::OK, "serving"),
        // Issue 8, 30.
        (State::Degraded, StatusCode::OK, "degraded"),
        (State::Failing, StatusCode::SERVICE_UNAVAILABLE, "failing"),
        (State::Stopping, StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    ] {
        let (response, body) = ask(service(state), Method::GET, "/health").await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let said: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({
            "state": word,
            "reasons": [],
            "network": "test-v1",
            "profile": "tandem",
            "mode": "hybrid",
            "peers": { "ws": 3, "p2p": 2 },
            "uptime_seconds": 61,
            "version": "0.1.0",
        });
        assert_eq!(said, expected);
        let read: Health = serde_json::from_slice(&body).unwrap();
        assert_eq!((read.state, read.uptime), (state, Duration::from_secs(61)));
    }
    let (response, _) = ask(service(State::Serving), Method::POST, "/health").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

// Issue 8, 14.
#[tokio::test]
async fn a_load_balancer_learns_the_state_by_each_of_its_checks() {
    for (state, expected) in
        [(State::Serving, StatusCode::OK), (State::Stopping, StatusCode::SERVICE_UNAVAILABLE)]
    {
        for path in ["/", "/health"] {
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                let (response, body) = ask(service(state), method.clone(), path).await;
                assert_eq!(response.status(), expected, "{method} {path}");
                assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
                assert_eq!(body.is_empty(), method != Method::GET, "{method} {path}");
                if method == Method::OPTIONS {
                    assert_eq!(response.headers()[header::ALLOW], "GET, HEAD, OPTIONS");
                }
            }
        }
    }
}
