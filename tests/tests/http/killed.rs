//! A peer that is killed in the middle of a body, without any message of its end.

use std::{path::Path, sync::atomic::Ordering};

use gossip::http::HttpBody;
use http_body_util::BodyExt;
use testkit::{
    http::{
        pattern::{Framing, Pattern, Reader},
        peer::{FarServer, PeerProcess},
        route::{Reach, Route},
    },
    wait::{soon, until},
};

use crate::{
    outcome::kind,
    scene::{answered, get, post},
};

/// The path of the serving program.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_interop_peer"))
}

/// Number of bytes after which the peer is killed.
const BEFORE: u64 = 2_000_000;

/// Reads the body, kills the peer after [`BEFORE`] bytes, and returns the end of the body.
async fn killed_while_reading(peer: &mut PeerProcess, mut body: HttpBody) {
    let mut reader = Reader::default();
    while reader.read() < BEFORE {
        let frame = soon("the body goes on", body.frame()).await.expect("it has no end");
        let bytes = frame.expect("the peer lives").into_data().expect("it is data");
        assert_eq!(reader.take(&bytes), Ok(()));
    }
    peer.kill().await;
    let broken = async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return true,
                None => return false,
            }
        }
    };
    assert!(soon("the body ends", broken).await, "a short body was taken for whole");
}

pub(crate) async fn a_peer_killed_in_the_middle_of_a_download_is_an_error(way: Route) {
    for path in ["/bytes/1000000000000", "/bytes/1000000000000?chunked=true"] {
        let mut server = FarServer::start(program()).await;
        let reach = server.reach(way).await;
        let response = answered(&reach.client(), get(path)).await;
        killed_while_reading(server.process(), response.into_body()).await;
    }
}

pub(crate) async fn a_peer_killed_in_the_middle_of_an_upload_is_an_error(way: Route) {
    let mut server = FarServer::start(program()).await;
    let reach = server.reach(way).await;
    let response = answered(&reach.client(), post("/echo", Pattern::endless())).await;
    killed_while_reading(server.process(), response.into_body()).await;

    for framing in [Framing::Length, Framing::Chunked] {
        let mut server = FarServer::start(program()).await;
        let reach = server.reach(way).await;
        killed_before_an_answer(&mut server, &reach, framing).await;
    }
}

async fn killed_before_an_answer(server: &mut FarServer, reach: &Reach, framing: Framing) {
    let client = reach.client();
    let body = Pattern::of(u64::MAX / 2).framed(framing);
    let sent = body.sent();
    let mut sending = Box::pin(client.send(post("/sink", body)));
    let under_way = until("the body is under way", || sent.load(Ordering::Relaxed) > BEFORE);
    tokio::select! {
        biased;
        early = &mut sending => panic!("{early:?} before the end of the body"),
        () = under_way => {}
    }
    let killed = server.process().kill();
    let (outcome, ()) = soon("the upload ends", futures::future::join(&mut sending, killed)).await;
    match (reach.way(), outcome) {
        (_, Err(error)) => assert!(error.may_have_reached(), "{}", kind(&error)),
        // This differs between routes: the local port exists, and answers that the peer does not.
        (Route::Forward, Ok(response)) => assert_eq!(response.status(), 502),
        (_, Ok(response)) => panic!("an answer of a dead peer: {response:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_killed_in_the_middle_of_a_body_is_an_error() {
    let server = FarServer::start(program()).await;
    for path in ["/bytes/1000000000000", "/bytes/1000000000000?chunked=true"] {
        let (mut forward, reach) = server.through_forward().await;
        let response = answered(&reach.client(), get(path)).await;
        killed_while_reading(&mut forward, response.into_body()).await;
    }
}
