//! A file service behind a client, and peers that do not do what they should.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "each test crate uses its own part of this")]

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures::{StreamExt, stream};
use gossip::{
    Identity, Transport,
    http::{Caller, HttpBody, HttpClient, HttpError, HttpRequest, HttpResponse, HttpService},
};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use tandem_services::files::{self, Client, FetchLimits, FileId, Store, StoreLimits, Uploads};
use tower::{ServiceExt, service_fn};

/// Content in which no group is like another.
pub(crate) fn content(bytes: usize) -> Bytes {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&bytes.to_le_bytes()).finalize_xof().fill(&mut content);
    content.into()
}

pub(crate) async fn store(dir: &Path) -> Store {
    Store::open(dir, StoreLimits::default()).await.unwrap()
}

/// A stream of these bytes, in pieces.
pub(crate) fn pieces(content: &Bytes, piece: usize) -> Vec<Result<Bytes, Infallible>> {
    content.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect()
}

pub(crate) async fn put(store: &Store, content: &Bytes) -> FileId {
    store.put(stream::iter(pieces(content, 100_000))).await.unwrap().id
}

/// A request to a router that came over a network.
pub(crate) fn from(identity: Option<Identity>, mut request: Request<Body>) -> Request<Body> {
    let caller =
        Caller { identity, transport: Transport::Libp2p, address: "peer".into(), ip: None };
    request.extensions_mut().insert(caller);
    request
}

pub(crate) async fn ask(router: &Router, request: Request<Body>) -> http::Response<Body> {
    router.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn body(response: http::Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Requests that reached a peer: path and range.
pub(crate) type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Waits of a test: as short as they may be, and no peer is given up for being slow by accident.
pub(crate) fn limits() -> FetchLimits {
    let pause = Duration::from_millis(1);
    FetchLimits::default().with_pause(pause).with_group_within(Duration::from_secs(30))
}

/// A peer that serves the files of a store, with `spoil` done to every answer.
pub(crate) fn peer_that(
    store: Store,
    spoil: impl Fn(&str, HttpResponse) -> HttpResponse + Clone + Send + Sync + 'static,
) -> (Client, Asked) {
    let asked = Asked::default();
    let noted = asked.clone();
    let service = HttpService::new(files::router(store, Uploads::Anyone));
    let service = service_fn(move |request: HttpRequest| {
        let (service, spoil) = (service.clone(), spoil.clone());
        let path = request.uri().path().to_owned();
        let range = request.headers().get("range").map(|range| range.to_str().unwrap().to_owned());
        noted.lock().unwrap().push((path.clone(), range));
        async move {
            let response = service.oneshot(request).await;
            response
                .map(|response| spoil(&path, response))
                .map_err(|source| HttpError::Broken { source })
        }
    });
    (Client::new(HttpClient::new(service)), asked)
}

/// A peer that does as it should.
pub(crate) fn peer(store: Store) -> (Client, Asked) {
    peer_that(store, |_, response| response)
}

/// A peer that cannot be reached.
pub(crate) fn nobody() -> Client {
    Client::new(HttpClient::new(service_fn(|_request: HttpRequest| async {
        Err(HttpError::Unreachable { source: "nobody is there".into() })
    })))
}

/// The end of a body that a test cuts short.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// With an error, as when a connection breaks.
    Break,
    /// As if it were whole.
    Early,
    /// Never.
    Hang,
}

/// The first bytes of a body, and then its end.
pub(crate) fn cut(response: HttpResponse, after: usize, end: End) -> HttpResponse {
    response.map(|body| {
        let mut left = after;
        let frames = body.into_data_stream().map(move |piece| {
            let mut piece = piece?;
            let piece = piece.split_to(piece.len().min(left));
            left -= piece.len();
            Ok(piece)
        });
        let mut sum = 0;
        let frames = frames.take_while(move |piece: &Result<Bytes, gossip::http::BoxError>| {
            let whole = sum < after;
            sum += piece.as_ref().map_or(0, Bytes::len);
            futures::future::ready(whole)
        });
        let last = match end {
            End::Break => stream::once(async { Err("killed".into()) }).boxed(),
            End::Early => stream::empty().boxed(),
            End::Hang => stream::pending().boxed(),
        };
        HttpBody::new(StreamBody::new(
            frames.chain(last).map(|piece| piece.map(http_body::Frame::data)),
        ))
    })
}

/// A body with one bit changed.
pub(crate) fn flip(response: HttpResponse, at: usize) -> HttpResponse {
    response.map(|body| {
        let mut passed = 0;
        let frames = body.into_data_stream().map(move |piece| {
            let mut piece = piece?.to_vec();
            if let Some(byte) = at.checked_sub(passed).and_then(|at| piece.get_mut(at)) {
                *byte ^= 0x10;
            }
            passed += piece.len();
            Ok::<_, gossip::http::BoxError>(http_body::Frame::data(Bytes::from(piece)))
        });
        HttpBody::new(StreamBody::new(frames))
    })
}
