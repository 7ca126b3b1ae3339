//! Whole exchanges: a table of requests and their results.

use std::time::Duration;

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use gossip::http::{HttpBody, Timeout};
use http::{Method, Request, StatusCode};
use testkit::{
    http::{
        pattern::{self, Ending, Framing, Pattern},
        route::Route,
        service::{Asked, Event, Swallowed, WhoAmI},
    },
    wait::{soon, until},
};
use tokio::time::Instant;

use crate::{
    outcome::Outcome,
    scene::{Scene, get, post, text_of},
};

/// A request, and its result on every route.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) request: Request<HttpBody>,
    outcome: Outcome,
}

fn row(name: &'static str, request: Request<HttpBody>, outcome: Outcome) -> Row {
    Row { name, request, outcome }
}

fn asked(method: &Method, uri: &str, test: &[&str]) -> Outcome {
    let asked = Asked {
        method: method.to_string(),
        uri: uri.to_owned(),
        test: test.iter().map(ToString::to_string).collect(),
    };
    Outcome::text(200, &serde_json::to_string(&asked).expect("it is JSON"))
}

fn swallowed(bytes: u64) -> Outcome {
    let swallowed = Swallowed { bytes, blake3: pattern::hash(bytes) };
    Outcome::text(200, &serde_json::to_string(&swallowed).expect("it is JSON"))
}

fn with_deadline(mut request: Request<HttpBody>, ms: u64) -> Request<HttpBody> {
    request.extensions_mut().insert(Timeout(Duration::from_millis(ms)));
    request
}

pub(crate) fn methods() -> Vec<Row> {
    let purge = Method::from_bytes(b"PURGE").expect("it is a method");
    let [get, delete, options, patch, put, trace] =
        [Method::GET, Method::DELETE, Method::OPTIONS, Method::PATCH, Method::PUT, Method::TRACE];
    let all = [get, delete, options, patch, put, trace, Method::POST, purge];
    let mut rows: Vec<Row> = all
        .into_iter()
        .map(|method| {
            let outcome = asked(&method, "/methods", &[]);
            let request = Request::builder().method(method).uri("/methods");
            row("a method", request.body(HttpBody::empty()).expect("a request"), outcome)
        })
        .collect();
    let head = Request::head("/methods").body(HttpBody::empty()).expect("a request");
    rows.push(row("a head alone", head, Outcome::text(200, "")));
    let headers = Request::get("/methods?a=1&b=%20c").header("x-test", "1").header("x-test", "2");
    let headers = headers.body(HttpBody::empty()).expect("a request");
    let outcome = asked(&Method::GET, "/methods?a=1&b=%20c", &["1", "2"]);
    rows.push(row("a query and headers", headers, outcome));
    rows
}

pub(crate) fn statuses() -> Vec<Row> {
    let status = |code: u16| (format!("/status/{code}"), Outcome::text(code, ""));
    let mut rows: Vec<Row> = [200, 201, 204, 301, 304, 400, 404, 418, 429, 500, 503]
        .into_iter()
        .map(status)
        .map(|(path, outcome)| row("a status", get(&path), outcome))
        .collect();
    rows.extend([
        row("no such path", get("/nothing"), Outcome::text(404, "")),
        row("a path with dots", get("/a/../hello"), Outcome::text(301, "")),
        row("another method", post("/hello", HttpBody::empty()), Outcome::text(405, "")),
        row("a path parameter", get("/v1/net-v1.0/thing"), Outcome::text(200, "net-v1.0")),
        row("a panic", get("/panic"), Outcome::text(500, "")),
    ]);
    rows
}

pub(crate) fn bodies() -> Vec<Row> {
    const LONG: u64 = 5_000_000;
    let whole = |len| Outcome::hashed(200, pattern::hash(len));
    let chunked = |len| Pattern::of(len).framed(Framing::Chunked);
    let short = String::from_utf8_lossy(&pattern::bytes(100)).into_owned();
    vec![
        row("no bytes", get("/bytes/0"), Outcome::text(200, "")),
        row("no bytes in chunks", get("/bytes/0?chunked=true"), Outcome::text(200, "")),
        row("a few bytes", get("/bytes/100"), Outcome::text(200, &short)),
        row("many bytes", get(&format!("/bytes/{LONG}")), whole(LONG)),
        row("many in chunks", get(&format!("/bytes/{LONG}?chunked=true")), whole(LONG)),
        row("many until the end", get(&format!("/until-close/{LONG}")), whole(LONG)),
        row("nothing up", post("/sink", HttpBody::empty()), swallowed(0)),
        row("many up", post("/sink", Pattern::of(LONG)), swallowed(LONG)),
        row("many up in chunks", post("/sink", chunked(LONG)), swallowed(LONG)),
        row("nothing back", post("/echo", HttpBody::empty()), Outcome::text(200, "")),
        row("many back", post("/echo", Pattern::of(LONG)), whole(LONG)),
        row("many back in chunks", post("/echo", chunked(LONG)), whole(LONG)),
        row("up to the limit", post("/limited/sink", Pattern::of(1 << 20)), swallowed(1 << 20)),
    ]
}

fn troubles() -> Vec<Row> {
    let broken = || Outcome::BrokenBody { status: 200 };
    let deadline = Outcome::Failed { error: "deadline", may_have_reached: true };
    let failed = Outcome::Failed { error: "request body", may_have_reached: true };
    let cut_up = |framing| Pattern::of(200_000).framed(framing).ending(Ending::Error);
    vec![
        row("a body that breaks off", get("/cut/200000"), broken()),
        row("one in chunks", get("/cut/200000?chunked=true"), broken()),
        row("a short one", get("/cut/2"), broken()),
        row("a body of ours that breaks", post("/sink", cut_up(Framing::Length)), failed.clone()),
        row("one of ours in chunks", post("/sink", cut_up(Framing::Chunked)), failed),
        row("no answer in time", with_deadline(get("/slow/60000"), 300), deadline),
        row("no end in time", with_deadline(get("/drip/1000/20"), 400), broken()),
        row("a body that panics", get("/cut/200000?panics=true"), broken()),
        row("one in chunks that panics", get("/cut/200000?chunked=true&panics=true"), broken()),
    ]
}

pub(crate) async fn every_row_of_the_table_has_its_outcome(way: Route) {
    let scene = Scene::on(way).await;
    let mut wrong = Vec::new();
    for Row { name, request, outcome } in
        [methods(), statuses(), bodies(), troubles()].into_iter().flatten()
    {
        let what = format!("{name}: {} {}", request.method(), request.uri());
        let got = Outcome::of(&scene.client, request).await;
        if got != outcome {
            wrong.push(format!("{what}\n    expected {outcome:?}\n    got      {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "over {way:?}:\n{}", wrong.join("\n"));
    assert_eq!(scene.text("/hello").await, "hi", "after all of them");
    let sending = || scene.seen().count(Event::Sending) == 0;
    until("no body is kept", sending).await;
}

pub(crate) async fn a_handler_knows_its_caller_and_the_transport(way: Route) {
    let scene = Scene::on(way).await;
    let who: WhoAmI = serde_json::from_str(&scene.text("/whoami").await).expect("it is JSON");
    let welcome = scene.ask(get("/peers-only")).await;
    assert_eq!(who.ip.as_deref(), Some("127.0.0.1"));
    // This differs between routes: a socket proves no identity, a libp2p connection does.
    match way {
        Route::Tcp | Route::Tls => {
            assert_eq!((who.peer, who.transport.as_str()), (None, "ws"));
            assert!(who.address.starts_with("127.0.0.1:"), "{}", who.address);
            assert_eq!(welcome.status(), StatusCode::UNAUTHORIZED);
        }
        Route::Libp2p | Route::Forward => {
            assert_eq!((who.peer, who.transport.as_str()), (Some(scene.reach.caller()), "p2p"));
            assert!(who.address.starts_with("/ip4/127.0.0.1/tcp/"), "{}", who.address);
            assert_eq!(text_of(welcome).await, "welcome");
        }
    }
}

pub(crate) async fn a_slow_handler_delays_no_other_request(way: Route) {
    let scene = Scene::on(way).await;
    let began = Instant::now();
    let mut slow: FuturesUnordered<_> =
        (0..8).map(|_| Outcome::of(&scene.client, get("/slow/2000"))).collect();
    let quick = async {
        for _ in 0..50 {
            assert_eq!(scene.text("/hello").await, "hi");
        }
        began.elapsed()
    };
    tokio::pin!(quick);
    let took = tokio::select! {
        biased;
        took = &mut quick => took,
        Some(outcome) = slow.next() => panic!("{outcome:?} came before the others"),
    };
    assert!(took < Duration::from_secs(2), "{took:?}");
    while let Some(outcome) = slow.next().await {
        assert_eq!(outcome, Outcome::text(200, "slow"));
    }
}

pub(crate) async fn a_handler_that_panics_costs_one_request(way: Route) {
    let scene = Scene::on(way).await;
    let patient = Outcome::of(&scene.client, get("/slow/1000"));
    let panicking = async {
        for _ in 0..5 {
            let head = Outcome::of(&scene.client, get("/panic")).await;
            assert_eq!(head, Outcome::text(500, ""));
            let body = Outcome::of(&scene.client, get("/cut/200000?panics=true")).await;
            assert_eq!(body, Outcome::BrokenBody { status: 200 });
            assert_eq!(scene.text("/hello").await, "hi");
        }
    };
    let (patient, ()) = futures::join!(patient, panicking);
    assert_eq!(patient, Outcome::text(200, "slow"), "a request beside them");
}

pub(crate) async fn many_callers_at_once_lose_no_request(way: Route) {
    const CALLERS: usize = 64;
    const REQUESTS: usize = 20;
    let scene = Scene::on(way).await;
    let callers = (0..CALLERS).map(|caller| {
        let scene = &scene;
        async move {
            for request in 0..REQUESTS {
                let path = format!("/methods?{caller}.{request}");
                let outcome = Outcome::of(&scene.client, get(&path)).await;
                assert_eq!(outcome, asked(&Method::GET, &path, &[]));
            }
        }
    });
    soon("every request is answered", join_all(callers)).await;
}
