//! The checks that fuzz targets run, compiled for them alone.

use std::{convert::Infallible, time::SystemTime};

use gossip::{
    HeaderCase, StreamUse, Transport,
    http::{Caller, HttpRequest, HttpResponse, HttpService},
};
use runtime::WallClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::sync::CancellationToken;

pub use crate::serve::fuzzing::{chunks, head};
use crate::{
    HttpServer, ServeContext, ServeLimits,
    serve::{Connection, Engine, NoHook},
};

/// Serves a client that sends any bytes and closes its side, by every engine.
///
/// # Panics
///
/// If they do not write the same.
pub fn engines(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without sockets is made");
    let [by_hyper, portable, direct] = [Engine::Hyper, Engine::Portable, Engine::Direct]
        .map(|engine| runtime.block_on(answers(engine, bytes)).escape_ascii().to_string());
    assert_eq!(portable, by_hyper, "the engines differ");
    assert_eq!(direct, by_hyper, "the engines differ");
}

async fn answers(engine: Engine, bytes: &[u8]) -> Vec<u8> {
    let clock = WallClock::starting_at(SystemTime::UNIX_EPOCH);
    let context = ServeContext { clock, engine, ..ServeContext::default() };
    let echo = tower::service_fn(|request: HttpRequest| {
        std::future::ready(Ok::<_, Infallible>(HttpResponse::new(request.into_body())))
    });
    let server = HttpServer::within(HttpService::new(echo), ServeLimits::default(), context);
    // Room for all that is sent and written, so that neither waits for the other.
    let (mut client, io) = duplex(64 * (1024 + bytes.len()));
    let terms = server.limits().for_stream(StreamUse::KeptAlive, HeaderCase::Canonical);
    let (transport, address) = (Transport::Libp2p, "fuzz".into());
    let caller = Caller { identity: None, transport, address, ip: None };
    let cancel = CancellationToken::new();
    let mut got = Vec::new();
    let calling = async {
        // The server may have closed already.
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        client.read_to_end(&mut got).await.expect("a stream in memory does not fail");
    };
    tokio::join!(server.serve(Connection { io, caller, terms }, &NoHook, &cancel), calling);
    got
}
