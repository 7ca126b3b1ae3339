//! Exchanges at the level of bytes.

use std::{fmt::Write as _, time::Duration};

use testkit::{
    http::{
        raw::{Answer, End, RawStream, answers},
        route::Route,
        server::{head_time, limits},
        service::Event,
    },
    wait::{PATIENCE, soon, until},
};
use tokio::time::Instant;

use crate::scene::{SLACK, Scene};

/// Number of pipelined requests. Source: issue 4.
const PIPELINED: usize = 300;

const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

async fn write(stream: &mut RawStream, bytes: &[u8]) {
    soon("bytes are taken", stream.write(bytes)).await.expect("the stream is open");
}

/// Reads all answers up to the end of the stream.
async fn all(stream: &mut RawStream) -> Vec<Answer> {
    let (bytes, end) = stream.rest(PATIENCE).await;
    assert_eq!(end, End::Closed, "the server does not end the connection");
    let (all, rest) = answers(&bytes, end);
    assert!(rest.is_empty(), "behind the answers: {}", rest.escape_ascii());
    all
}

#[track_caller]
fn is_hello(answers: &[Answer]) {
    let read: Vec<_> = answers.iter().map(|one| (one.status, one.body.as_slice())).collect();
    assert_eq!(read, [(200, &b"hi"[..])]);
}

pub(crate) async fn three_hundred_pipelined_requests_are_answered_in_order(way: Route) {
    let scene = Scene::on(way).await;
    let mut stream = scene.reach.raw().await;
    let mut requests = String::new();
    for number in 0..PIPELINED {
        let close = if number + 1 == PIPELINED { "Connection: close\r\n" } else { "" };
        let body = "x".repeat(number % 7);
        // Writing to a string cannot fail.
        let _ = write!(
            requests,
            "POST /methods?{number} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n{close}\r\n{body}",
            body.len()
        );
    }
    write(&mut stream, requests.as_bytes()).await;
    let answers = all(&mut stream).await;
    let uri = |answer: &Answer| {
        let asked: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        format!("{} {}", answer.status, asked["uri"].as_str().unwrap_or_default())
    };
    let uris: Vec<String> = answers.iter().map(uri).collect();
    let expected: Vec<String> = (0..PIPELINED).map(|n| format!("200 /methods?{n}")).collect();
    assert_eq!(uris, expected);
    assert!(answers.last().is_some_and(Answer::is_last));
}

pub(crate) async fn a_request_in_single_bytes_is_answered(way: Route) {
    let scene = Scene::on(way).await;
    let mut stream = scene.reach.raw().await;
    for byte in HELLO {
        write(&mut stream, &[*byte]).await;
    }
    is_hello(&all(&mut stream).await);
}

pub(crate) async fn a_request_is_answered_after_the_end_of_writing(way: Route) {
    let scene = Scene::on(way).await;
    for request in [
        &b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"[..],
        b"GET /hello HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
    ] {
        let mut stream = scene.reach.raw().await;
        write(&mut stream, request).await;
        stream.close_write().await.expect("the stream is open");
        is_hello(&all(&mut stream).await);
    }
}

pub(crate) async fn a_client_is_told_to_go_on(way: Route) {
    let scene = Scene::on(way).await;
    let mut stream = scene.reach.raw().await;
    let head = b"POST /sink HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\
                 Expect: 100-continue\r\nConnection: close\r\n\r\n";
    write(&mut stream, head).await;
    let go_on = |bytes: &[u8]| bytes.ends_with(b"\r\n\r\n");
    let (bytes, _) = stream.read_until(PATIENCE, go_on).await;
    assert!(bytes.starts_with(b"HTTP/1.1 100 "), "{}", bytes.escape_ascii());
    write(&mut stream, b"hello").await;
    let statuses: Vec<u16> = all(&mut stream).await.iter().map(|answer| answer.status).collect();
    assert_eq!((statuses, scene.seen().count(Event::Whole)), (vec![200], 1));
}

pub(crate) async fn an_old_client_is_answered_and_the_connection_closed(way: Route) {
    let scene = Scene::on(way).await;
    let mut stream = scene.reach.raw().await;
    write(&mut stream, b"GET /hello HTTP/1.0\r\nHost: h\r\n\r\n").await;
    is_hello(&all(&mut stream).await);
}

pub(crate) async fn a_head_that_does_not_come_ends_the_connection(way: Route) {
    let scene = Scene::on(way).await;
    let limit = head_time(way);
    let waits = ["", "GET /hel", "GET /hello HTTP/1.1\r\nHost: h\r\n"].map(|start| {
        let scene = &scene;
        async move {
            let mut stream = scene.reach.raw().await;
            write(&mut stream, start.as_bytes()).await;
            let began = Instant::now();
            let (bytes, end) = stream.rest(limit + SLACK).await;
            assert_eq!(end, End::Closed, "it still waits after {start:?}");
            let statuses: Vec<_> = answers(&bytes, end).0.iter().map(|one| one.status).collect();
            assert!(statuses.iter().all(|status| *status == 408), "{start:?}: {statuses:?}");
            assert!(began.elapsed() + Duration::from_millis(500) > limit, "{start:?}");
        }
    });
    futures::future::join_all(waits).await;
    assert_eq!(scene.text("/hello").await, "hi");
}

pub(crate) async fn a_body_that_ends_too_early_is_not_taken_for_whole(way: Route) {
    let scene = Scene::on(way).await;
    let starts = [
        &b"POST /sink HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello"[..],
        b"POST /sink HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"POST /sink HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"POST /sink HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    for start in starts {
        let mut stream = scene.reach.raw().await;
        write(&mut stream, start).await;
        stream.close_write().await.expect("the stream is open");
        let (bytes, end) = stream.rest(limits().stall + SLACK).await;
        assert_eq!(end, End::Closed, "it still waits: {}", start.escape_ascii());
        let statuses: Vec<_> = answers(&bytes, end).0.iter().map(|one| one.status).collect();
        assert!(statuses.iter().all(|status| *status >= 400), "{statuses:?}");
    }
    // `tandem forward` does not forward a request whose body breaks before it was sent on.
    if way != Route::Forward {
        let broken = || scene.seen().count(Event::Broken) == starts.len();
        until("every handler sees a broken body", broken).await;
    }
    assert_eq!(scene.seen().count(Event::Whole), 0);
}

pub(crate) async fn an_answer_that_breaks_off_cannot_be_read_as_whole(way: Route) {
    let scene = Scene::on(way).await;
    for path in ["/cut/200000", "/cut/200000?chunked=true"] {
        let mut stream = scene.reach.raw().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        write(&mut stream, request.as_bytes()).await;
        let (bytes, end) = stream.rest(PATIENCE).await;
        assert_eq!(end, End::Closed, "{path}: the connection stays open");
        assert!(bytes.starts_with(b"HTTP/1.1 200 "), "{path}");
        // `tandem forward` ends its own answer where it hears of the break, which may overtake bytes that it has read.
        if way != Route::Forward {
            assert!(bytes.len() > 50_000, "{path}: {} bytes", bytes.len());
        }
        let (whole, _) = answers(&bytes, end);
        assert!(whole.is_empty(), "{path}: half an answer looks whole");
    }
}

pub(crate) async fn an_upgrade_that_is_not_offered_changes_nothing(way: Route) {
    let scene = Scene::on(way).await;
    for protocol in ["h2c", "websocket"] {
        let mut stream = scene.reach.raw().await;
        let request = format!(
            "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: upgrade, close\r\nUpgrade: {protocol}\r\n\r\n"
        );
        write(&mut stream, request.as_bytes()).await;
        let answers = all(&mut stream).await;
        match way {
            Route::Tcp | Route::Tls | Route::Forward => is_hello(&answers),
            // This differs between routes. A socket can be upgraded where a route offers it, so an `Upgrade`
            // that no route offers is ignored. A stream is never upgraded, and refuses it.
            Route::Libp2p => {
                let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
                assert_eq!(statuses, [400], "{protocol}");
            }
        }
    }
}
