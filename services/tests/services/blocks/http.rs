//! The router against the raw answers of an existing block service.

use std::collections::BTreeMap;

use axum::{Router, routing::any};
use bytes::Bytes;
use gossip::{NetworkId, http::read_all};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tandem_services::blocks::{Capacity, Fallback, Responder, page_not_found, router};
use tower::ServiceExt;

use super::fake::{self, Ledger};

fn network() -> NetworkId {
    NetworkId::new("test-v1").unwrap()
}

fn serve(capacity: Capacity, fallbacks: Vec<Fallback>) -> Router {
    let responder = Responder::new(capacity).store(Ledger::blocks());
    // The health endpoint is not of this router, but recorded in the same file.
    router(responder, network(), fallbacks)
        .route("/status", any(|| async {}))
        .fallback(page_not_found)
}

/// Status, headers by lower-case name without the date, and body.
type Raw = (u16, BTreeMap<String, String>, Vec<u8>);

/// Takes a recorded response apart.
fn parse(raw: &[u8]) -> Raw {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&raw[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers = headers.filter(|(name, _)| name != "date").collect();
    (status, headers, raw[end + 4..].to_vec())
}

async fn ask(router: &Router, method: Method, path: &str) -> Raw {
    let request = Request::builder().method(method).uri(path).body(axum::body::Body::empty());
    let response: Response<_> = router.clone().oneshot(request.unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let headers = head.headers.iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    let headers = headers.collect();
    (head.status.as_u16(), headers, read_all(body, 1 << 20).await.unwrap().to_vec())
}

#[tokio::test]
async fn every_recorded_request_gets_the_recorded_answer() {
    let cases = fake::vectors()["http_cases"].as_array().unwrap().clone();
    assert_eq!(cases.len(), 15);
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap();
        let (mut capacity, mut fallbacks) = (Capacity::default(), Vec::new());
        match text("name") {
            "over_memory_cap" => capacity = Capacity::new(0),
            "redirect_to_fallback" => fallbacks.push("http://relay.example:4160".parse().unwrap()),
            _ => {}
        }
        let mut line = text("request").split(' ');
        let method = line.next().unwrap().parse().unwrap();
        let answer = ask(&serve(capacity, fallbacks), method, line.next().unwrap()).await;
        let mut expected = parse(&hex::decode(text("response_hex")).unwrap());
        // Left to the server: what it says of a body that has no length of its own.
        expected.1.entry("content-length".into()).or_insert_with(|| "0".into());
        assert_eq!(answer, expected, "{}", text("name"));
    }
}

#[tokio::test]
async fn paths_that_are_not_of_the_pattern_are_not_found() {
    let serve = serve(Capacity::default(), Vec::new());
    let (_, headers, body) = ask(&serve, Method::GET, "/v1/test-v1/block/8C").await;
    for path in [
        "/",
        "/v1/test-v1/block",
        "/v1/test-v1/block/",
        "/v1/test-v1/block/1/",
        "/v1/test-v1/block/-1",
        "/v1/test-v1/block/%2e%2e",
        "/v1/test-v1/block/%ff",
        "/v1/test-v1/block/1%2f2",
        "/va/test-v1/block/1",
        "/v/test-v1/block/1",
        "/1/test-v1/block/1",
    ] {
        assert_eq!(
            ask(&serve, Method::GET, path).await,
            (404, headers.clone(), body.clone()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_answer_counts_until_its_body_is_dropped() {
    let capacity = Capacity::new(40);
    let serve = serve(capacity.clone(), Vec::new());
    let get = || {
        let request = Request::get("/v1/test-v1/block/1").body(axum::body::Body::empty()).unwrap();
        serve.clone().oneshot(request)
    };
    let (first, second) = (get().await.unwrap(), get().await.unwrap());
    assert_eq!(capacity.used(), 2 * 19);
    let refused = get().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "3");
    drop(first);
    let mut body = second.into_body();
    let sent: Bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(capacity.used(), 19, "what is being written still counts");
    drop(sent);
    assert_eq!(capacity.used(), 0);
    assert_eq!(get().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn fallbacks_take_turns_for_what_is_missing_and_for_what_has_no_room() {
    let fallbacks: Vec<Fallback> =
        ["http://a:1", "b.example:2/"].map(|text| text.parse().unwrap()).into();
    let serve = serve(Capacity::new(0), fallbacks);
    for (method, path, host) in [
        (Method::GET, "/v1/test-v1/block/zz", "http://a:1"),
        (Method::GET, "/v1/test-v1/block/1", "http://b.example:2"),
        (Method::POST, "/v1/test-v1/block/1", "http://a:1"),
    ] {
        let (status, headers, body) = ask(&serve, method.clone(), path).await;
        assert_eq!((status, &headers["location"]), (307, &format!("{host}{path}")));
        assert_eq!(body.is_empty(), method == Method::POST);
    }
    for bad in ["", "ftp://a", "http://", "http://a/?b", "a b"] {
        assert!(bad.parse::<Fallback>().is_err(), "{bad:?}");
    }
}
