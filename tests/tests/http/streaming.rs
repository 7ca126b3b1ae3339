//! Streamed bodies, and exchanges that one side ends early.

use bytes::Bytes;
use gossip::http::HttpResponse;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tandem::Incident;
use testkit::{
    http::{
        pattern::{self, Framing, Pattern, Reader},
        route::Route,
        service::{Event, TRAILER},
    },
    wait::{soon, until},
};
use tokio::sync::mpsc;

use crate::{
    outcome::Outcome,
    scene::{Scene, get, post},
};

/// Most bytes between two ends that wait for each other: buffers of sockets, windows of streams. Chosen: the
/// buffers of two sockets, and a margin.
const BETWEEN: usize = 24 * 1024 * 1024;

/// Reads the next bytes of a body.
async fn next(response: &mut HttpResponse) -> Option<Bytes> {
    let frame = soon("the next bytes come", response.body_mut().frame()).await?;
    frame.expect("the body is not broken").into_data().ok()
}

pub(crate) async fn a_body_streams_both_ways_at_once(way: Route) {
    let scene = Scene::on(way).await;
    let (feed, fed) = mpsc::channel(1);
    let mut response = scene.ask(post("/echo", pattern::fed(fed))).await;
    for round in 0..20 {
        let question = Bytes::from(format!("round {round}"));
        feed.send(question.clone()).await.expect("the body is being sent");
        let mut answer = Vec::new();
        while answer.len() < question.len() {
            answer.extend(next(&mut response).await.expect("the body goes on"));
        }
        assert_eq!(answer, question);
    }
    drop(feed);
    assert_eq!(next(&mut response).await, None);
}

pub(crate) async fn trailers_go_both_ways(way: Route) {
    let scene = Scene::on(way).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let frames = [
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"data"))),
        Ok(Frame::trailers(trailers)),
    ];
    let request = Request::post("/trailers").header("te", "trailers").header("trailer", "x-sum");
    let request = request.body(StreamBody::new(futures::stream::iter(frames)));
    let request = request.expect("a request").map(gossip::http::HttpBody::new);
    let response = scene.ask(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let collected = soon("the body ends", response.into_body().collect()).await;
    let collected = collected.expect("the body is whole");
    let last = collected.trailers().and_then(|trailers| trailers.get(TRAILER)).cloned();
    let came = collected.to_bytes();
    assert_eq!(came, r#"{"x-sum":"7"}"#);
    assert_eq!(last, Some(HeaderValue::from(came.len())));
}

pub(crate) async fn a_body_longer_than_its_limit_is_refused(way: Route) {
    let scene = Scene::on(way).await;
    for framing in [Framing::Length, Framing::Chunked] {
        for len in [(1 << 20) + 1, 50_000_000] {
            let body = Pattern::of(len).framed(framing);
            let outcome = Outcome::of(&scene.client, post("/limited/sink", body)).await;
            assert_refused(&outcome, 413);
            assert_eq!(scene.text("/hello").await, "hi");
        }
    }
    assert_eq!(scene.seen().count(Event::Whole), 0);
}

/// Checks the result of an upload that the server answers early: the client gets the answer, or an error that
/// there may have been one. It depends on the bytes in transit when the server closes.
#[track_caller]
fn assert_refused(outcome: &Outcome, with: u16) {
    match outcome {
        Outcome::Answer { status, .. } => assert_eq!(*status, with),
        Outcome::BrokenBody { status } => panic!("half an answer {status}"),
        Outcome::Failed { may_have_reached, .. } => assert!(may_have_reached, "{outcome:?}"),
    }
}

pub(crate) async fn a_server_that_reads_no_further_ends_an_upload(way: Route) {
    let scene = Scene::on(way).await;
    for _ in 0..3 {
        let outcome = Outcome::of(&scene.client, post("/forbidden", Pattern::endless())).await;
        assert_refused(&outcome, 403);
        assert_eq!(scene.text("/hello").await, "hi");
    }
}

pub(crate) async fn a_client_that_drops_a_download_ends_it(way: Route) {
    let scene = Scene::on(way).await;
    for round in 1..=20 {
        let mut response = scene.ask(get("/bytes/1000000000000")).await;
        let mut reader = Reader::default();
        while reader.read() < 3_000_000 {
            let bytes = next(&mut response).await.expect("the body goes on");
            assert_eq!(reader.take(&bytes), Ok(()));
        }
        assert_eq!(scene.text("/hello").await, "hi", "beside the download");
        drop(response);
        let ended = || scene.seen().count(Event::Dropped) == round;
        until("the handler's body is dropped", ended).await;
        assert_eq!(scene.text("/hello").await, "hi", "after the download");
    }
    assert_eq!(scene.seen().count(Event::Sending), 0);
    assert_eq!(
        scene.server.incidents(Incident::Stalled),
        0,
        "the server had to find out by itself"
    );
}

pub(crate) async fn a_client_that_drops_an_upload_ends_it(way: Route) {
    let scene = Scene::on(way).await;
    for (round, framing) in [(1, Framing::Length), (2, Framing::Chunked)] {
        let (feed, fed) = mpsc::channel::<Bytes>(1);
        let body = match framing {
            Framing::Length => gossip::http::HttpBody::new(Announced { len: 1_000_000, fed }),
            Framing::Chunked => gossip::http::HttpBody::new(pattern::fed(fed)),
        };
        let mut sending = Box::pin(scene.client.send(post("/sink", body)));
        // The second piece is taken only after the first one was sent.
        let feeding = async {
            for _ in 0..3 {
                feed.send(pattern::bytes(100_000)).await.expect("the body is being sent");
            }
        };
        tokio::select! {
            biased;
            early = &mut sending => panic!("{early:?} before the end of the body"),
            () = soon("the body is sent", feeding) => {}
        }
        drop(sending);
        let broken = || scene.seen().count(Event::Broken) == round;
        until("the handler's body breaks", broken).await;
        assert_eq!(scene.text("/hello").await, "hi");
    }
    assert_eq!(scene.seen().count(Event::Whole), 0);
}

/// A body that announces more bytes than it has so far.
struct Announced {
    len: u64,
    fed: mpsc::Receiver<Bytes>,
}

impl http_body::Body for Announced {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.fed.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.len)
    }
}

pub(crate) async fn a_download_waits_for_its_reader(way: Route) {
    let scene = Scene::on(way).await;
    let mut response = scene.ask(get("/bytes/1000000000000")).await;
    assert!(next(&mut response).await.is_some());
    for _ in 0..50 {
        assert_eq!(scene.text("/hello").await, "hi", "beside a download that nobody reads");
    }
    let sent = scene.seen().sent_bytes();
    assert!(sent < BETWEEN, "{sent} bytes were made for a reader that waits");
}
