//! The recorded answers to requests over streams.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use crate::common::{Parsed, Served, from_peer, hello, parse};
use gossip::StreamUse;
use serde::Deserialize;
use tandem_net_http::ServeLimits;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
    client_request: String,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    request: String,
    half_closed: bool,
    response_text: String,
    stream_end: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../testdata/p2p_http.json")).unwrap()
}

/// The parts that are compared: everything except the date.
fn comparable(text: &str) -> Parsed {
    let mut parsed = parse(text);
    let is_dated = parsed.headers.remove("Date").is_some();
    // Only the bare refusals have no date.
    assert_eq!(is_dated, parsed.headers.contains_key("Content-Length"), "{text}");
    parsed
}

#[tokio::test(start_paused = true)]
async fn a_stream_for_one_request_is_answered_as_recorded() {
    let mut served = Served::new(hello(), ServeLimits::default());
    let vectors = vectors();
    assert_eq!(vectors.cases.len(), 9);
    for case in vectors.cases {
        let mut client = served.open(from_peer(1), StreamUse::OneRequest);
        client.send(&case.request).await;
        if case.half_closed {
            client.half_close().await;
        }
        let got = String::from_utf8(client.rest().await).unwrap();
        assert_eq!(comparable(&got), comparable(&case.response_text), "{}", case.name);
        assert_eq!(case.stream_end, "EOF");
    }
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_kept_stream_gives_the_same_answers_and_stays_open() {
    let mut served = Served::new(hello(), ServeLimits::default());
    for case in vectors().cases {
        let is_refusal = comparable(&case.response_text).status.contains(" 400 ");
        let mut client = served.open(from_peer(1), StreamUse::KeptAlive);
        client.send(&case.request).await;
        let mut expected = comparable(&case.response_text);
        if is_refusal {
            let got = String::from_utf8(client.rest().await).unwrap();
            assert_eq!(comparable(&got), expected, "{}", case.name);
            continue;
        }
        if case.name != "registered_path" {
            // Only that client asks for the connection to be closed.
            expected.headers.remove("Connection");
        }
        let answers = if case.name == "two_requests" { 2 } else { 1 };
        for _ in 0..answers {
            let mut got = client.answer().await.unwrap();
            got.headers.remove("Date").unwrap();
            assert_eq!(got, expected, "{}", case.name);
        }
        client.half_close().await;
        assert_eq!(client.rest().await, b"", "{}", case.name);
    }
    served.ended().await;
}

#[tokio::test(start_paused = true)]
async fn the_request_of_existing_clients_is_answered() {
    let mut served = Served::new(hello(), ServeLimits::default());
    let mut client = served.open(from_peer(1), StreamUse::OneRequest);
    client.send(vectors().client_request).await;
    client.half_close().await;
    let got = String::from_utf8(client.rest().await).unwrap();
    assert_eq!(comparable(&got).status, "HTTP/1.1 404 Not Found");
}
