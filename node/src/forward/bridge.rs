//! A bridge for clients that speak HTTP over TCP alone, such as pages: requests for `/p2p/ID/PATH` go to the libp2p peer of that ID.
//!
//! ```text
//!   page ── GET /p2p/ID/status ──▶ this node ── GET /status, over libp2p ──▶ peer
//! ```
//!
//! # Invariants
//!
//! * Requests go to peers that are connected over libp2p at the moment, where the connection proves their identity. Nobody is
//!   dialled for one, so the bridge leads nowhere else.
//! * Only what asks goes on (`GET` and `HEAD`), through one bridge at most, with a few headers: nothing by which the peer could
//!   know the client, or by which it could act for it.
//! * An answer comes back with headers that describe its body, and nothing else; a browser runs nothing of it, because it would run
//!   as a page of this node.

use std::time::Duration;

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use gossip::{
    Identity, LateNode, PeerClass, Transport,
    http::{HttpBody, HttpClient, HttpRequest, Timeout},
};
use tower::ServiceExt;

use super::pass::Pass;

/// Longest time for one exchange with a peer. Chosen: half a minute; a page that asks for more asks in parts.
const EXCHANGE_TIME: Duration = Duration::from_secs(30);

/// Headers of a request that go to the peer.
const ASKED: [HeaderName; 5] = [
    header::ACCEPT,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::RANGE,
];

/// Headers of an answer that go to the client.
const ANSWERED: [HeaderName; 9] = [
    header::ACCEPT_RANGES,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
];

/// Headers of every answer: a browser takes it for data.
const AS_DATA: [(HeaderName, HeaderValue); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; sandbox; frame-ancestors 'none'"),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// The router of the bridge of a node.
pub(super) fn router(node: LateNode) -> Router {
    Router::new()
        .route("/p2p/{peer}", get(pass_on))
        .route("/p2p/{peer}/", get(pass_on))
        .route("/p2p/{peer}/{*path}", get(pass_on))
        .with_state(node)
}

async fn pass_on(
    State(node): State<LateNode>,
    Path(parts): Path<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let peer = parts.first().map(|(_, peer)| peer.as_str()).unwrap_or_default();
    match asked(&node, peer, &request) {
        Ok((client, request)) => {
            // The service answers whatever happens.
            let Ok(answer) = Pass::new(client).oneshot(request).await;
            let (parts, body) = answer.into_parts();
            let kept = only(&parts.headers, &ANSWERED);
            (parts.status, AS_DATA, kept, axum::body::Body::new(body)).into_response()
        }
        Err((status, words)) => (status, AS_DATA, format!("{words}\n")).into_response(),
    }
}

/// The client of the peer that a request is for, and the request as the peer gets it.
fn asked(
    node: &LateNode,
    peer: &str,
    request: &Request,
) -> Result<(HttpClient, HttpRequest), (StatusCode, &'static str)> {
    let identity: Identity =
        peer.parse().map_err(|_| (StatusCode::BAD_REQUEST, "the path names no peer ID"))?;
    let path = request.uri().path().strip_prefix("/p2p/").unwrap_or_default();
    let path = path.find('/').and_then(|at| path.get(at..)).unwrap_or("/");
    if path.starts_with("/p2p/") {
        return Err((StatusCode::BAD_REQUEST, "a request goes through one bridge only"));
    }
    let stopping = (StatusCode::SERVICE_UNAVAILABLE, "the node is stopping");
    let node = node.node().ok_or(stopping)?;
    let is_there = node
        .peers(PeerClass::Connected)
        .iter()
        .any(|known| known.identity == Some(identity) && known.transport == Transport::Libp2p);
    let away = (StatusCode::NOT_FOUND, "the peer is not connected to this node over libp2p");
    let client = is_there.then(|| node.http_client_of(&identity).ok()).flatten().ok_or(away)?;
    let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
    let mut passed = Request::builder()
        .method(request.method().clone())
        .uri(format!("{path}{query}"))
        .extension(Timeout(EXCHANGE_TIME))
        .body(HttpBody::empty())
        .map_err(|_| (StatusCode::BAD_REQUEST, "the path cannot be passed on"))?;
    *passed.headers_mut() = only(request.headers(), &ASKED);
    Ok((client, passed))
}

fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| names.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}
