//! Bodies of any length, in bounded memory, and trailers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};

use super::*;

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 1024;
const WINDOW: usize = 64 << 10;

/// Most bytes between the two ends: hyper's buffers on both sides and in both directions, the pipe, and a
/// frame or two.
const IN_BETWEEN: usize = 4 << 20;

/// A body of 64 MiB, and the number of bytes that were taken from it.
struct Long {
    left: usize,
    made: Arc<AtomicUsize>,
}

impl Body for Long {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.made.fetch_add(CHUNK, SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; CHUNK])))))
    }
}

#[tokio::test]
async fn sixty_four_mebibytes_go_up_and_down_in_bounded_memory() {
    let bench = Bench::with(limits(), StreamUse::KeptAlive, WINDOW);
    let served =
        bench.serve(|request| async move { Response::new(HttpBody::new(request.into_body())) });
    let made = Arc::new(AtomicUsize::new(0));
    let body = Long { left: CHUNKS, made: Arc::clone(&made) };
    let request = Request::post("/echo").body(HttpBody::new(body)).unwrap();
    let mut echo = served.client.send(request).await.unwrap().into_body();
    let (mut read, mut most) = (0, 0);
    while let Some(frame) = echo.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.iter().all(|&byte| byte == 7));
        read += data.len();
        most = most.max(made.load(SeqCst) - read);
    }
    assert_eq!(read, CHUNK * CHUNKS);
    assert!(most <= IN_BETWEEN, "{most} bytes on the way");
    let again = served.client.get("/again").await.unwrap();
    assert_eq!(text(again).await, "");
    assert_eq!(served.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_read_is_not_sent() {
    let bench = Bench::with(limits(), StreamUse::KeptAlive, WINDOW);
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let served = bench.serve(move |_request| {
        let body = Long { left: CHUNKS, made: Arc::clone(&counted) };
        async move { Response::new(HttpBody::new(body)) }
    });
    let response = served.client.get("/").await.unwrap();
    settle().await;
    assert!(made.load(SeqCst) <= IN_BETWEEN);
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn trailers_pass_in_both_directions() {
    let bench = Bench::new(limits());
    let served = bench.serve(|request| async move {
        let collected = request.into_body().collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap();
        let frames =
            [Ok::<_, BoxError>(Frame::data(collected.to_bytes())), Ok(Frame::trailers(trailers))];
        let body = HttpBody::new(StreamBody::new(futures::stream::iter(frames)));
        Response::builder().header("trailer", "x-sum").body(body).unwrap()
    });
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames = [
        Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"body"))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = HttpBody::new(StreamBody::new(futures::stream::iter(frames)));
    let request = Request::post("/").header("trailer", "x-sum").header("te", "trailers");
    let response = served.client.send(request.body(body).unwrap()).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
    assert_eq!(collected.to_bytes(), "body");
}

#[tokio::test(start_paused = true)]
async fn the_caller_reads_the_peers_bytes_however_they_are_split() {
    let mut bench = Bench::with(limits(), StreamUse::KeptAlive, 3);
    let (response, _peer) =
        tokio::join!(async { text(bench.client.get("/").await.unwrap()).await }, async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            peer.say("1\r\nf\r\n6;x=y\r\nive by\r\n3\r\n te\r\n0\r\n\r\n").await;
            peer
        });
    assert_eq!(response, "five by te");
    assert_eq!(bench.pool().idle(), 1);
}

/// Asks, and is answered with the head and the beginning of a body of five bytes.
async fn begun(bench: &mut Bench, first: &str) -> (HttpResponse, Peer) {
    let answering = async {
        let mut peer = bench.accept.next().await;
        peer.head().await;
        peer.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{first}")).await;
        peer
    };
    let (response, peer) = tokio::join!(bench.client.get("/"), answering);
    (response.unwrap(), peer)
}

// Issue 9, 8: a short body that came with the head is taken with it.
#[tokio::test]
async fn a_short_body_arrives_whole_however_it_is_split() {
    for (first, rest) in [("hello", ""), ("he", "llo"), ("", "hello")] {
        let mut bench = Bench::new(limits());
        let (response, mut peer) = begun(&mut bench, first).await;
        assert_eq!(response.body().size_hint().exact(), Some(5), "{first:?}");
        peer.say(rest).await;
        assert_eq!(text(response).await, "hello");
        settle().await;
        assert_eq!(bench.pool().idle(), 1, "{first:?}");
    }
}

#[tokio::test]
async fn a_short_body_that_breaks_off_ends_in_an_error() {
    for first in ["", "he"] {
        let mut bench = Bench::new(limits());
        let (response, peer) = begun(&mut bench, first).await;
        drop(peer);
        assert!(read_all(response.into_body(), 1 << 10).await.is_err(), "{first:?}");
        settle().await;
        assert_eq!((bench.pool().idle(), bench.alive()), (0, 0));
    }
}
