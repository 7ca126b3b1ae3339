//! The service under test, and the events of its handlers.
//!
//! The programs in `tests/interop` serve and call the same routes `/hello`, `/echo`, `/sink`, `/bytes/{n}`,
//! `/until-close/{n}` and `/cut/{n}`.

use std::{
    collections::BTreeMap,
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use futures::StreamExt;
use gossip::{
    Transport,
    http::{Caller, Peer},
};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, StreamBody};
use serde::{Deserialize, Serialize};
use tokio::time;

use super::{
    pattern::{Ending, Framing, Pattern},
    peer,
};

/// Longest sleep of `/slow`. Chosen: longer than any test waits.
const MAX_SLEEP: Duration = Duration::from_secs(120);

/// The trailer of `/trailers`.
pub const TRAILER: &str = "x-checksum";

/// Counts the events of the handlers. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    whole: AtomicUsize,
    broken: AtomicUsize,
    dropped: AtomicUsize,
    sending: AtomicUsize,
    smuggled: AtomicUsize,
    sent_bytes: AtomicUsize,
}

/// An event of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A body of a request was read to its end.
    Whole,
    /// The body of a request ended early.
    Broken,
    /// The body of a response was dropped before its end.
    Dropped,
    /// The body of a response is being sent; counted down when it is not any more.
    Sending,
    /// A request arrived that was hidden in another one.
    Smuggled,
}

impl Seen {
    fn counter(&self, event: Event) -> &AtomicUsize {
        match event {
            Event::Whole => &self.0.whole,
            Event::Broken => &self.0.broken,
            Event::Dropped => &self.0.dropped,
            Event::Sending => &self.0.sending,
            Event::Smuggled => &self.0.smuggled,
        }
    }

    fn note(&self, event: Event) {
        self.counter(event).fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the number of times that an event happened.
    #[must_use]
    pub fn count(&self, event: Event) -> usize {
        self.counter(event).load(Ordering::SeqCst)
    }

    /// Returns the number of bytes produced for responses.
    #[must_use]
    pub fn sent_bytes(&self) -> usize {
        self.0.sent_bytes.load(Ordering::SeqCst)
    }
}

/// The answer of `/sink`: the body that it read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Swallowed {
    /// Length of the body, in bytes.
    pub bytes: u64,
    /// Hash of the body, in hexadecimal.
    pub blake3: String,
}

/// The answer of `/whoami`: the caller as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct WhoAmI {
    /// The verified identity of the caller, as a peer ID.
    pub peer: Option<String>,
    /// The transport of the request.
    pub transport: String,
    /// The address of the caller.
    pub address: String,
    /// The IP address of the caller.
    pub ip: Option<String>,
}

/// The answer of `/methods`: the request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// The values of the `x-test` headers.
    pub test: Vec<String>,
}

/// The routes under test.
pub fn router(seen: Seen) -> Router {
    Router::new()
        .route("/hello", get(async || "hi"))
        .route("/methods", any(methods))
        .route("/echo", post(echo))
        .route("/sink", post(sink))
        .route("/bytes/{n}", get(bytes))
        .route("/cut/{n}", get(cut))
        .route("/until-close/{n}", get(until_close))
        .route("/drip/{n}/{ms}", get(drip))
        .route("/slow/{ms}", get(slow))
        .route("/panic", get(panics))
        .route("/trailers", post(trailers))
        .route("/status/{code}", any(status))
        .route("/forbidden", post(async || StatusCode::FORBIDDEN))
        .route("/whoami", get(caller_of))
        .route("/peers-only", get(async |Peer(_): Peer| "welcome"))
        .route("/v1/{genesisID}/thing", get(thing))
        .route("/memory", get(async || Json(peer::Memory::of_this_process())))
        .route("/smuggled", any(smuggled))
        .with_state(seen)
}

/// The routes whose request bodies are limited by the node.
pub fn limited(seen: Seen) -> Router {
    Router::new().route("/limited/sink", post(sink)).with_state(seen)
}

async fn methods(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let asked = Asked {
        method: method.to_string(),
        uri: uri.path_and_query().map_or_else(String::new, ToString::to_string),
        test: headers.get_all("x-test").iter().map(text).collect(),
    };
    let mut response = Json(asked).into_response();
    for value in ["one", "two"] {
        response.headers_mut().append("x-twice", HeaderValue::from_static(value));
    }
    response
}

async fn echo(State(seen): State<Seen>, request: Request) -> Response {
    Response::new(Body::new(Watched::new(request.into_body(), seen)))
}

async fn sink(State(seen): State<Seen>, request: Request) -> Response {
    let mut reading = Reading { seen, event: Event::Broken };
    let mut body = request.into_body().into_data_stream();
    let mut hasher = blake3::Hasher::new();
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => _ = hasher.update(&piece),
            Err(error) if is_too_long(&error) => {
                return StatusCode::PAYLOAD_TOO_LARGE.into_response();
            }
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        }
    }
    reading.event = Event::Whole;
    let blake3 = hasher.finalize().to_hex().to_string();
    Json(Swallowed { bytes: hasher.count(), blake3 }).into_response()
}

/// Returns `true` if a body exceeded its limit. A handler that reads a body as a stream has to check this.
fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Counts the end of a body, also when its handler is dropped while it reads.
struct Reading {
    seen: Seen,
    event: Event,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.seen.note(self.event);
    }
}

/// The query of `/bytes` and `/cut`: how they send.
#[derive(Debug, Default, Deserialize)]
struct How {
    #[serde(default)]
    chunked: bool,
    #[serde(default)]
    panics: bool,
}

async fn bytes(Path(n): Path<u64>, Query(how): Query<How>, State(seen): State<Seen>) -> Response {
    Response::new(Body::new(Watched::new(Pattern::of(n).framed(how.framing()), seen)))
}

/// Sends `n` bytes without a length, which end with the connection.
async fn until_close(Path(n): Path<u64>, State(seen): State<Seen>) -> Response {
    let body = Pattern::of(n).framed(Framing::Chunked);
    let mut response = Response::new(Body::new(Watched::new(body, seen)));
    *response.version_mut() = Version::HTTP_10;
    response
}

/// Announces `n` bytes, and breaks off after half of them.
async fn cut(Path(n): Path<u64>, Query(how): Query<How>, State(seen): State<Seen>) -> Response {
    let ending = if how.panics { Ending::Panic } else { Ending::Error };
    let body = Pattern::of(n).framed(how.framing()).ending(ending);
    Response::new(Body::new(Watched::new(body, seen)))
}

impl How {
    const fn framing(&self) -> Framing {
        if self.chunked { Framing::Chunked } else { Framing::Length }
    }
}

/// Sends one byte, waits, and so on.
async fn drip(Path((n, ms)): Path<(u64, u64)>, State(seen): State<Seen>) -> Response {
    let drops = futures::stream::iter(0..n).then(move |_| async move {
        time::sleep(Duration::from_millis(ms).min(MAX_SLEEP)).await;
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b".")))
    });
    Response::new(Body::new(Watched::new(StreamBody::new(drops.boxed()), seen)))
}

async fn slow(Path(ms): Path<u64>) -> &'static str {
    time::sleep(Duration::from_millis(ms).min(MAX_SLEEP)).await;
    "slow"
}

async fn panics() -> StatusCode {
    panic!("a handler panics on purpose")
}

/// Returns the trailers of the request, and sends one.
async fn trailers(request: Request) -> Response {
    let Ok(collected) = request.into_body().collect().await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let came: BTreeMap<String, String> = collected
        .trailers()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let data = Bytes::from(serde_json::to_vec(&came).unwrap_or_default());
    let sum = HeaderValue::from(data.len());
    let mut last = HeaderMap::new();
    last.insert(TRAILER, sum);
    let frames = [Ok::<_, std::io::Error>(Frame::data(data)), Ok(Frame::trailers(last))];
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static(TRAILER));
    response
}

async fn status(Path(code): Path<u16>) -> Response {
    StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST).into_response()
}

async fn caller_of(peer: Option<Peer>, transport: Transport, caller: Caller) -> Json<WhoAmI> {
    Json(WhoAmI {
        peer: peer.map(|Peer(identity)| identity.to_string()),
        transport: transport.label().to_owned(),
        address: caller.address.to_string(),
        ip: caller.ip.map(|ip| ip.to_string()),
    })
}

async fn thing(Path(genesis): Path<String>) -> String {
    genesis
}

async fn smuggled(State(seen): State<Seen>) -> &'static str {
    seen.note(Event::Smuggled);
    "smuggled"
}

/// The body of a response, which counts its end.
struct Watched<B: http_body::Body> {
    body: B,
    seen: Seen,
    ended: bool,
}

impl<B: http_body::Body> Watched<B> {
    fn new(body: B, seen: Seen) -> Self {
        seen.note(Event::Sending);
        Self { body, seen, ended: false }
    }
}

impl<B: http_body::Body + Unpin> http_body::Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, bytes::Buf::remaining);
                self.seen.0.sent_bytes.fetch_add(bytes, Ordering::SeqCst);
            }
            Poll::Ready(None | Some(Err(_))) => self.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: http_body::Body> Drop for Watched<B> {
    fn drop(&mut self) {
        self.seen.counter(Event::Sending).fetch_sub(1, Ordering::SeqCst);
        if !self.ended && !self.body.is_end_stream() {
            self.seen.note(Event::Dropped);
        }
    }
}
