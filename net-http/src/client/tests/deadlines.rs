//! Deadlines: each wait for the peer has one, and no wait for the caller has.

use bytes::Bytes;
use gossip::http::{BodyError, Timeout};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::*;

fn within(seconds: u64) -> Request<HttpBody> {
    let request = Request::get("/").extension(Timeout(Duration::from_secs(seconds)));
    request.body(HttpBody::empty()).unwrap()
}

#[track_caller]
fn took(began: time::Instant, expected: Duration) {
    let took = began.elapsed();
    let late = took.saturating_sub(expected);
    assert!(took >= expected && late <= Duration::from_millis(5), "{took:?}, not {expected:?}");
}

/// Checks a time that may be up to a sixteenth of a minute late, because the clock is read on a timer.
#[track_caller]
fn took_about(began: time::Instant, expected: Duration) {
    let took = began.elapsed();
    let late = took.saturating_sub(expected);
    assert!(took >= expected && late <= limits().still / 16, "{took:?}, not {expected:?}");
}

struct Never;

impl Connect for Never {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, BoxError>> {
        Box::pin(std::future::pending())
    }
}

fn unreachable_client(bench: &Bench) -> HttpClient {
    let target = target(&bench.pipes, StreamUse::KeptAlive);
    bench.clients.client(Target { connect: Arc::new(Never), ..target })
}

#[tokio::test(start_paused = true)]
async fn opening_a_connection_has_a_deadline() {
    let bench = Bench::new(limits());
    let client = unreachable_client(&bench);
    let began = time::Instant::now();
    let error = client.get("/").await.unwrap_err();
    assert!(matches!(error, HttpError::Unreachable { .. }) && !error.may_have_reached());
    took(began, limits().connect);

    let began = time::Instant::now();
    let error = client.send(within(3)).await.unwrap_err();
    assert!(matches!(error, HttpError::DeadlineUnsent) && !error.may_have_reached());
    took(began, Duration::from_secs(3));
    assert_eq!(bench.pool().free(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_nothing_ends_the_exchange_at_its_deadline() {
    let mut bench = Bench::new(limits());
    for (request, after) in [
        (Request::get("/").body(HttpBody::empty()).unwrap(), limits().response),
        (within(7), Duration::from_secs(7)),
        (within(200), Duration::from_secs(200)),
    ] {
        let began = time::Instant::now();
        let (response, mut peer) = tokio::join!(bench.client.send(request), async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            peer
        });
        let error = response.unwrap_err();
        assert!(matches!(error, HttpError::Deadline) && error.may_have_reached());
        took_about(began, after);
        assert_eq!(peer.rest().await, Some(Vec::new()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_arrives_byte_by_byte_has_a_deadline() {
    let mut bench = Bench::new(limits());
    let began = time::Instant::now();
    let drip = async {
        let mut peer = bench.accept.next().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\n").await;
        loop {
            time::sleep(Duration::from_secs(10)).await;
            peer.say("HTTP/1.1 102 Processing\r\n\r\n").await;
        }
    };
    let error = tokio::select! {
        response = bench.client.get("/") => response.unwrap_err(),
        () = drip => return,
    };
    assert!(matches!(error, HttpError::Deadline | HttpError::Protocol { .. }), "{error:?}");
    assert!(began.elapsed() <= limits().response * 17 / 16);
}

#[tokio::test(start_paused = true)]
async fn informational_answers_do_not_move_the_deadline() {
    let mut bench = Bench::new(limits());
    let began = time::Instant::now();
    let stall = async {
        let mut peer = bench.accept.next().await;
        peer.head().await;
        for _ in 0..100 {
            time::sleep(Duration::from_secs(10)).await;
            if peer.0.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.is_err() {
                break;
            }
        }
    };
    let (response, ()) = tokio::join!(bench.client.get("/"), stall);
    assert!(matches!(response, Err(HttpError::Deadline)), "{response:?}");
    assert!(began.elapsed() < limits().response + Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_ends_the_exchange_and_a_slow_one_does_not() {
    let mut bench = Bench::new(limits());
    let serve = async {
        let mut peer = bench.accept.next().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await;
        for _ in 0..5 {
            time::sleep(Duration::from_secs(59)).await;
            peer.say("x").await;
        }
        peer.rest().await
    };
    let read = async {
        let response = bench.client.get("/").await.unwrap();
        let began = time::Instant::now();
        let error = read_all(response.into_body(), 100).await.unwrap_err();
        took_about(began, Duration::from_secs(5 * 59) + limits().still);
        error
    };
    let (_rest, error) = tokio::join!(serve, read);
    let BodyError::Broken { source } = error else { panic!("{error:?}") };
    let source = source.downcast_ref::<ResponseBodyError>();
    assert!(matches!(source, Some(ResponseBodyError::StoodStill)), "{source:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_read_slowly_without_a_deadline() {
    let mut bench = Bench::with(limits(), StreamUse::KeptAlive, 1024);
    let serve = async {
        let mut peer = bench.accept.next().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n").await;
        peer.say(&"x".repeat(4_000_000)).await;
        peer
    };
    let read = async {
        let mut body = bench.client.get("/").await.unwrap().into_body();
        let mut bytes = 0;
        let mut frames = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.unwrap().into_data().unwrap().len();
            frames += 1;
            if frames % 64 == 0 {
                time::sleep(Duration::from_secs(500)).await;
            }
        }
        bytes
    };
    let (_peer, bytes) = tokio::join!(serve, read);
    assert_eq!(bytes, 4_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_write_slowly_without_a_deadline() {
    let mut bench = Bench::new(limits());
    let frames = futures::stream::unfold(0_u8, |sent| async move {
        time::sleep(Duration::from_secs(200)).await;
        let frame = Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x")));
        (sent < 3).then_some((frame, sent + 1))
    });
    let request = Request::post("/").body(HttpBody::new(StreamBody::new(frames))).unwrap();
    let (response, _peer) = tokio::join!(bench.client.send(request), async {
        let mut peer = bench.accept.next().await;
        peer.head().await;
        let mut body = String::new();
        while !body.ends_with("0\r\n\r\n") {
            body.push(char::from(peer.0.read_u8().await.unwrap()));
        }
        peer.say(HI).await;
        peer
    });
    assert_eq!(text(response.unwrap()).await, "hi");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_the_request_ends_the_exchange() {
    let mut bench = Bench::with(limits(), StreamUse::KeptAlive, 1024);
    let began = time::Instant::now();
    let request = Request::post("/").body(HttpBody::full(vec![0; 1 << 20])).unwrap();
    let (response, _peer) = tokio::join!(bench.client.send(request), bench.accept.next());
    let error = response.unwrap_err();
    assert!(matches!(error, HttpError::Deadline) && error.may_have_reached(), "{error:?}");
    took_about(began, limits().still);
    settle().await;
    assert_eq!((bench.pool().free(), bench.alive()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_an_exchange_includes_the_last_byte() {
    let mut bench = Bench::new(limits());
    let serve = async {
        let mut peer = bench.accept.next().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        loop {
            time::sleep(Duration::from_secs(1)).await;
            if peer.0.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    let read = async {
        let began = time::Instant::now();
        let response = bench.client.send(within(30)).await.unwrap();
        let error = read_all(response.into_body(), 1000).await.unwrap_err();
        took(began, Duration::from_secs(30));
        error
    };
    let ((), error) = tokio::join!(serve, read);
    let BodyError::Broken { source } = error else { panic!("{error:?}") };
    let source = source.downcast_ref::<ResponseBodyError>();
    assert!(matches!(source, Some(ResponseBodyError::Deadline)), "{source:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unread_response_is_closed_at_its_deadline() {
    let mut bench = Bench::new(limits());
    let (mut peer, response) = tokio::join!(
        async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nstart").await;
            peer
        },
        bench.client.send(within(30))
    );
    let body = response.unwrap().into_body();
    let began = time::Instant::now();
    assert_eq!(peer.rest().await, Some(Vec::new()));
    assert!(began.elapsed() <= Duration::from_secs(30) + TCP_IDLE);
    assert!(read_all(body, 1000).await.is_err());
}
