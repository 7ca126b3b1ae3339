//! Stopping the clients of a node.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stop_closes_idle_connections_and_lets_exchanges_end() {
    let mut bench = Bench::new(limits());
    let (idle, in_flight) = {
        let serve = async {
            let mut first = bench.accept.next().await;
            let mut second = bench.accept.next().await;
            first.head().await;
            second.head().await;
            first.say(HI).await;
            second.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
            (first, second)
        };
        let (first, second, (idle, busy)) =
            tokio::join!(bench.client.get("/1"), bench.client.get("/2"), serve);
        text(first.unwrap()).await;
        (idle, (second.unwrap(), busy))
    };
    let (mut idle, (response, mut busy)) = (idle, in_flight);
    let began = time::Instant::now();
    let (outcome, rest, ()) = tokio::join!(
        bench.clients.stop(Duration::from_secs(5)),
        async { (idle.rest().await, began.elapsed()) },
        async {
            time::sleep(Duration::from_secs(2)).await;
            let error = bench.client.get("/3").await.unwrap_err();
            assert!(matches!(error, HttpError::Stopped) && !error.may_have_reached());
            busy.say("hi").await;
            assert_eq!(text(response).await, "hi");
        }
    );
    assert_eq!(rest, (Some(Vec::new()), Duration::ZERO));
    assert_eq!(outcome, Shutdown::Clean);
    assert_eq!(began.elapsed().as_secs(), 2);
    assert!(bench.accept.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_exchange_cut_after_the_grace_may_have_reached_the_peer() {
    let mut bench = Bench::new(limits());
    let ask = bench.client.get("/");
    let (response, outcome) = tokio::join!(ask, async {
        let mut peer = bench.accept.next().await;
        peer.head().await;
        bench.clients.stop(Duration::from_secs(5)).await
    });
    let error = response.unwrap_err();
    assert!(matches!(error, HttpError::Broken { .. }) && error.may_have_reached(), "{error:?}");
    assert_eq!(outcome, Shutdown::Forced(1));
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_get_an_error_at_once_when_the_node_stops() {
    let connections = NonZeroUsize::MIN;
    let mut bench = Bench::new(ClientLimits { connections, ..limits() });
    let began = time::Instant::now();
    let (_first, waiting, ()) = tokio::join!(
        bench.client.get("/"),
        async {
            settle().await;
            (bench.client.get("/").await.unwrap_err(), began.elapsed())
        },
        async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            settle().await;
            settle().await;
            bench.stop.cancel();
            time::sleep(Duration::from_secs(1)).await;
            peer.say(HI).await;
        }
    );
    assert!(matches!(waiting, (HttpError::Stopped, after) if after.is_zero()), "{waiting:?}");
}
