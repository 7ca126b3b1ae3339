//! Failures of an exchange, and the errors that the caller gets.

use bytes::Bytes;
use gossip::http::BodyError;
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;

/// The result of a request to a peer that reads the head, sends `answer` and closes.
async fn answered(answer: &str) -> Result<HttpResponse, HttpError> {
    let mut bench = Bench::new(limits());
    let (response, ()) = tokio::join!(bench.client.get("/"), async {
        let mut peer = bench.accept.next().await;
        peer.head().await;
        // The write fails if the client has already closed.
        let _ = peer.0.write_all(answer.as_bytes()).await;
    });
    settle().await;
    assert_eq!(bench.opened(), 1, "it was sent again");
    assert_eq!(bench.pool().idle(), 0);
    response
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_unreachable() {
    let bench = Bench::new(limits());
    drop(bench.accept);
    let error = bench.client.get("/").await.unwrap_err();
    let HttpError::Unreachable { source } = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "connection refused");
    assert!(!error.may_have_reached());
}

#[tokio::test(start_paused = true)]
async fn a_break_before_the_head_is_an_error_and_nothing_is_sent_again() {
    for cut in ["", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let error = answered(cut).await.unwrap_err();
        assert!(matches!(error, HttpError::Broken { .. }), "{cut:?}: {error:?}");
        assert!(error.may_have_reached());
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_response_is_a_protocol_error() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(80_000));
    let bad = [
        "SSH-2.0-OpenSSH_9\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        &long,
    ];
    for answer in bad {
        let error = answered(answer).await.unwrap_err();
        let start = &answer[..answer.len().min(60)];
        assert!(matches!(error, HttpError::Protocol { .. }), "{start:?}: {error:?}");
        assert!(error.may_have_reached());
    }
}

#[tokio::test(start_paused = true)]
async fn a_truncated_body_is_an_error_and_never_a_short_body() {
    let cuts = [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfour",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfour",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfour\r\n",
    ];
    for cut in cuts {
        let body = answered(cut).await.unwrap().into_body();
        let error = read_all(body, 100).await.unwrap_err();
        let BodyError::Broken { source } = error else { panic!("{cut:?}: {error:?}") };
        let source = source.downcast_ref::<ResponseBodyError>();
        assert!(matches!(source, Some(ResponseBodyError::Broken { .. })), "{cut:?}: {source:?}");
    }
}

/// Cuts an answer at every position.
#[tokio::test(start_paused = true)]
async fn no_truncated_answer_passes_as_a_whole_response() {
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfour five",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4;x\r\nfour\r\n5\r\n five\r\n0\r\nx: y\r\n\r\n",
    ];
    for answer in answers {
        for cut in 0..=answer.len() {
            let body = match answered(&answer[..cut]).await {
                Ok(response) => read_all(response.into_body(), 100).await.ok(),
                Err(error) => {
                    assert!(error.may_have_reached());
                    None
                }
            };
            let whole = (cut == answer.len()).then_some(Bytes::from_static(b"four five"));
            assert_eq!(body, whole, "{:?}", &answer[..cut]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_a_peer_that_answers_early_and_closes_is_read() {
    let mut bench = Bench::with(limits(), StreamUse::KeptAlive, 1024);
    let request = Request::post("/").body(HttpBody::full(vec![b'x'; 1 << 20])).unwrap();
    let (response, ()) =
        tokio::join!(async { text(bench.client.send(request).await.unwrap()).await }, async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            peer.say("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 8\r\n\r\n")
                .await;
            settle().await;
            peer.say("too much").await;
        });
    assert_eq!(response, "too much");
    settle().await;
    assert_eq!((bench.pool().idle(), bench.pool().free(), bench.alive()), (0, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_without_a_length_ends_with_the_connection() {
    let response = answered("HTTP/1.1 200 OK\r\n\r\nall of it").await.unwrap();
    assert_eq!(text(response).await, "all of it");
}

#[tokio::test(start_paused = true)]
async fn a_body_of_the_request_that_fails_is_the_callers_error() {
    #[derive(Debug, thiserror::Error)]
    #[error("the disk is gone")]
    struct DiskGone;

    let mut bench = Bench::new(limits());
    let frames =
        [Ok(Frame::data(Bytes::from_static(b"half"))), Err(Box::new(DiskGone) as BoxError)];
    let body = StreamBody::new(futures::stream::iter(frames));
    let request = Request::post("/").body(HttpBody::new(body)).unwrap();
    let (response, rest) =
        tokio::join!(bench.client.send(request), async { bench.accept.next().await.rest().await });
    let error = response.unwrap_err();
    assert!(error.may_have_reached());
    let HttpError::RequestBody { source } = error else { panic!("{error:?}") };
    assert!(source.is::<DiskGone>());
    assert!(!rest.unwrap_or_default().ends_with(b"0\r\n\r\n"), "it looks whole");
    assert_eq!(bench.pool().free(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_declared_is_the_callers_error() {
    for length in [3, 4, 6, 10] {
        let mut bench = Bench::new(limits());
        let frames = ["four", "more"].map(|text| Ok::<_, BoxError>(Frame::data(text.into())));
        let body = HttpBody::new(StreamBody::new(futures::stream::iter(frames)));
        let request = Request::post("/").header("content-length", length).body(body).unwrap();
        let (response, rest) = tokio::join!(bench.client.send(request), async {
            let mut peer = bench.accept.next().await;
            if length == 4 {
                peer.head().await;
                peer.say(HI).await;
            }
            peer.rest().await.unwrap_or_default()
        });
        let rest = String::from_utf8(rest).unwrap();
        if length == 4 {
            // The bytes beyond the declared length are not requested: hyper stops there, and so does the body.
            assert_eq!(rest, "four");
            continue;
        }
        let error = response.unwrap_err();
        assert!(matches!(error, HttpError::RequestBody { .. }), "{length}: {error:?}");
        let sent = rest.split_once("\r\n\r\n").map_or("", |(_head, body)| body);
        assert!(sent.len() < length, "the peer takes it for whole: {sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_ends_its_request_and_nothing_else() {
    let mut bench = Bench::new(limits());
    let frames = futures::stream::once(async { panic!("a bug of the caller") });
    let body = StreamBody::new(Box::pin(futures::StreamExt::map(
        frames,
        |(): ()| -> Result<Frame<Bytes>, BoxError> { Ok(Frame::data(Bytes::new())) },
    )));
    let request = Request::post("/").body(HttpBody::new(body)).unwrap();
    let (response, _peer) = tokio::join!(bench.client.send(request), bench.accept.next());
    let HttpError::RequestBody { source } = response.unwrap_err() else { panic!() };
    assert_eq!(source.to_string(), "the body of the request panicked: a bug of the caller");
    assert!(!bench.clients.shared.tasks.token().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_sent_opens_no_connection() {
    let bench = Bench::new(limits());
    let error = bench.client.get("no path").await.unwrap_err();
    assert!(matches!(error, HttpError::Invalid { .. }));
    let tunnel = Request::connect("a:1").body(HttpBody::empty()).unwrap();
    let error = bench.client.send(tunnel).await.unwrap_err();
    assert!(matches!(error, HttpError::Invalid { .. }) && !error.may_have_reached());
    assert_eq!(bench.opened(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_closes_its_connection() {
    let mut bench = Bench::new(limits());
    let call = bench.client.get("/");
    let mut peer = tokio::select! {
        biased;
        _response = call => panic!("nobody answered"),
        peer = async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            peer
        } => peer,
    };
    assert_eq!(peer.rest().await, Some(Vec::new()));
    settle().await;
    assert_eq!((bench.pool().idle(), bench.pool().free(), bench.alive()), (0, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_dropped_before_its_end_closes_its_connection() {
    let mut bench = Bench::new(limits());
    let (mut peer, response) = tokio::join!(
        async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nstart").await;
            peer
        },
        bench.client.get("/")
    );
    drop(response.unwrap());
    assert_eq!(peer.rest().await, Some(Vec::new()));
    settle().await;
    assert_eq!((bench.pool().idle(), bench.pool().free(), bench.alive()), (0, 4, 0));
}
