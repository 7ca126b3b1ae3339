//! Exchanges that end by a deadline or by a failure.

use std::time::Duration;

use gossip::http::{HttpError, Timeout};
use http_body_util::BodyExt;
use tandem::ClientLimits;
use testkit::{
    http::{
        route::{Route, STILL},
        service::Event,
    },
    wait::{soon, until},
};
use tokio::{net::TcpListener, time::Instant};

use crate::{
    outcome::{Outcome, kind},
    scene::{SLACK, Scene, get},
};

/// Resolution of timers.
const TICK: Duration = Duration::from_millis(1);

#[track_caller]
fn in_time(took: Duration, expected: Duration) {
    assert!(took + TICK >= expected && took < expected + SLACK, "{took:?} instead of {expected:?}");
}

pub(crate) async fn a_deadline_ends_the_wait_for_an_answer(way: Route) {
    let scene = Scene::on(way).await;
    let limit = Duration::from_millis(500);
    for _ in 0..3 {
        let mut request = get("/slow/60000");
        request.extensions_mut().insert(Timeout(limit));
        let began = Instant::now();
        let error = soon("the wait ends", scene.client.send(request)).await;
        let error = error.expect_err("the handler is slower");
        in_time(began.elapsed(), limit);
        assert!(matches!(error, HttpError::Deadline), "{error:?}");
        assert!(error.may_have_reached());
        assert_eq!(scene.text("/hello").await, "hi");
    }
}

pub(crate) async fn a_deadline_before_its_turn_means_that_nothing_was_sent(way: Route) {
    let scene = Scene::on(way).await;
    let connections = ClientLimits::default().connections.get();
    let waiting = (0..connections).map(|_| scene.client.get("/slow/60000"));
    let mut waiting = Box::pin(futures::future::join_all(waiting));
    let mut request = get("/hello");
    request.extensions_mut().insert(Timeout(Duration::from_millis(700)));
    let late = Outcome::of(&scene.client, request);
    let outcome = tokio::select! {
        biased;
        early = &mut waiting => panic!("an answer came: {early:?}"),
        outcome = late => outcome,
    };
    let unsent = Outcome::Failed { error: "deadline unsent", may_have_reached: false };
    assert_eq!(outcome, unsent);
    drop(waiting);
    // This differs between routes. A socket that a client has closed looks like one that is only half-closed,
    // so `tandem forward` waits for the answers, and holds the permits of its peer for that time.
    if way != Route::Forward {
        assert_eq!(scene.text("/hello").await, "hi", "after the others have left");
    }
}

pub(crate) async fn a_deadline_ends_a_body(way: Route) {
    let scene = Scene::on(way).await;
    let limit = Duration::from_millis(700);
    let mut request = get("/drip/1000/50");
    request.extensions_mut().insert(Timeout(limit));
    let began = Instant::now();
    let response = scene.ask(request).await;
    let body = soon("the body ends", response.into_body().collect()).await;
    in_time(began.elapsed(), limit);
    assert!(body.is_err(), "half a body was taken for whole");
    until("the handler's body is dropped", || scene.seen().count(Event::Dropped) == 1).await;
    assert_eq!(scene.text("/hello").await, "hi");
}

pub(crate) async fn a_body_that_stands_still_is_given_up(way: Route) {
    let scene = Scene::on(way).await;
    let response = scene.ask(get("/drip/2/60000")).await;
    let began = Instant::now();
    let body = soon("the body ends", response.into_body().collect()).await;
    let took = began.elapsed();
    assert!(body.is_err(), "half a body was taken for whole");
    assert!(took < STILL + SLACK, "{took:?}");
    assert_eq!(scene.text("/hello").await, "hi");
}

pub(crate) async fn a_peer_that_is_not_there_was_not_reached(way: Route) {
    let scene = Scene::on(way).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port is there");
    let port = nobody.local_addr().expect("it listens").port();
    drop(nobody);
    let reach = scene.server.reach_at(way, port).await;
    let outcome = Outcome::of(&reach.client(), get("/hello")).await;
    match (way, outcome) {
        // This differs between routes: the local port exists, and answers that the peer does not.
        (Route::Forward, Outcome::Answer { status, body }) => {
            assert_eq!(status, 502, "{body}");
        }
        (_, outcome) => {
            let expected = Outcome::Failed {
                error: kind(&HttpError::Unreachable { source: "".into() }),
                may_have_reached: false,
            };
            assert_eq!(outcome, expected);
        }
    }
}
