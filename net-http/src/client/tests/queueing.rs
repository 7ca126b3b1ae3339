//! The order in which waiting callers are admitted.

use futures::future::join_all;
use gossip::http::Timeout;
use http::Response;
use tokio::time::Instant;

use super::*;

fn window(requests: usize, window: Duration) -> Option<RequestWindow> {
    Some(RequestWindow { requests: NonZeroUsize::new(requests).unwrap(), window })
}

async fn hi(_request: Request<Incoming>) -> Response<HttpBody> {
    Response::new(HttpBody::full("hi"))
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_spread_over_windows_in_order_and_the_excess_is_refused() {
    for streams in [StreamUse::KeptAlive, StreamUse::OneRequest] {
        let limits = ClientLimits { window: window(60, Duration::from_secs(1)), ..limits() };
        let served = Bench::with(limits, streams, 4096).serve(hi);
        let began = Instant::now();
        let calls = (0..700).map(|_| async {
            let outcome = served.client.get("/").await.map(|_response| ());
            (outcome, began.elapsed())
        });
        let outcomes = join_all(calls).await;
        for (at, (outcome, after)) in outcomes.iter().enumerate() {
            if at < 600 {
                outcome.as_ref().unwrap();
                let expected = Duration::from_secs(at as u64 / 60);
                let late = after.saturating_sub(expected);
                assert!(*after >= expected && late < Duration::from_millis(50), "{at}: {after:?}");
            }
        }
        let refused = outcomes.iter().filter_map(|(outcome, _after)| outcome.as_ref().err());
        let refused: Vec<_> = refused.collect();
        assert!((40..=100).contains(&refused.len()), "{}", refused.len());
        for error in refused {
            assert!(matches!(error, HttpError::QueueTimeout { waited } if *waited == limits.queue));
            assert!(!error.may_have_reached());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_stops_waiting_uses_up_no_turn() {
    let limits = ClientLimits { window: window(1, Duration::from_secs(4)), ..limits() };
    let served = Bench::new(limits).serve(hi);
    served.client.get("/").await.unwrap();
    let began = Instant::now();
    let hasty = (0..20).map(|_| async {
        let request = Request::get("/").extension(Timeout(Duration::from_secs(1)));
        served.client.send(request.body(HttpBody::empty()).unwrap()).await.unwrap_err()
    });
    for error in join_all(hasty).await {
        assert!(matches!(error, HttpError::DeadlineUnsent), "{error:?}");
    }
    served.client.get("/").await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 4);
}

#[tokio::test(start_paused = true)]
async fn callers_get_connections_in_their_order_of_arrival() {
    let connections = NonZeroUsize::MIN;
    let bench = Bench::new(ClientLimits { connections, ..limits() });
    let served = bench.serve(|request| async move {
        time::sleep(Duration::from_millis(100)).await;
        Response::new(HttpBody::full(request.uri().to_string()))
    });
    let began = Instant::now();
    let calls = (0..50_u128).map(|caller| {
        let client = &served.client;
        async move {
            text(client.get("/").await.unwrap()).await;
            assert_eq!(began.elapsed().as_millis() / 100, caller + 1);
        }
    });
    join_all(calls).await;
    assert_eq!(served.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_connection_has_a_deadline_and_a_bound() {
    let connections = NonZeroUsize::MIN;
    let mut bench = Bench::new(ClientLimits { connections, waiting: 3, ..limits() });
    let (response, mut peer) = tokio::join!(bench.client.get("/"), async {
        let mut peer = bench.accept.next().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
        peer
    });
    let busy = response.unwrap();
    let began = Instant::now();
    let calls =
        (0..5).map(|_| async { (bench.client.get("/").await.unwrap_err(), began.elapsed()) });
    let errors = join_all(calls).await;
    for (error, after) in &errors[..3] {
        assert!(matches!(error, HttpError::QueueTimeout { .. }), "{error:?}");
        assert_eq!(after.as_secs(), 10);
    }
    for (error, after) in &errors[3..] {
        assert!(matches!(error, HttpError::QueueFull { waiting: 3 }), "{error:?}");
        assert!(!error.may_have_reached() && after.is_zero());
    }
    peer.say("hi").await;
    assert_eq!(text(busy).await, "hi");
    let (again, ()) = tokio::join!(bench.client.get("/"), async {
        // The two clients share nothing but the peer, so this request is still in progress.
        peer.head().await;
        peer.say(HI).await;
    });
    assert_eq!(text(again.unwrap()).await, "hi");
}
