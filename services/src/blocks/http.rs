//! Blocks over HTTP, the way existing nodes serve them.
//!
//! ```text
//!   any method  /v{version}/{genesisID}/block/{round}
//!     no such pattern ─▶ 404 with a text       version, genesis, round wrong ─▶ 400
//!     block ─▶ 200 {block, cert}               none, or no room ─▶ 307 to somebody else, if there is one
//!     none  ─▶ 404 X-Latest-Round              no room ─▶ 503 Retry-After      store broken ─▶ 500
//! ```
//!
//! A block that is missing here is asked of peers first, if the [`Responder`] does that.
//!
//! # Invariants
//!
//! * The bytes of answers are counted until they are sent or given up; above the bound nothing is sent.
//! * An answer with a block has a `Content-Length`, also to `HEAD`.
//!
//! Source: wire facts 9.4, and the raw answers in `testdata/block_service.json`.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::any,
};
use gossip::{
    NetworkId,
    http::{Caller, NoCaller},
};
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
    },
};

use super::{
    proxy::{Asker, Origin},
    responder::{Resolved, Responder},
    round::{self, Base36, RoundError},
    stored,
};

/// Name of the header that tells the newest round of a node in an answer without the block. Source: wire facts 9.4.
pub const X_LATEST_ROUND: HeaderName = HeaderName::from_static("x-latest-round");

/// The only version there is. Source: wire facts 9.4.
const VERSION: &str = "1";

/// A block never changes. Source: wire facts 9.4.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// That a block is missing changes soon. Source: wire facts 9.4.
const FOR_A_SECOND: HeaderValue = HeaderValue::from_static("public, max-age=1, must-revalidate");

/// Seconds after which to ask again when there is no room. Source: wire facts 9.4.
const RETRY_AFTER_SECONDS: u64 = 3;

const BLOCK_TYPE: HeaderValue = HeaderValue::from_static(stored::CONTENT_TYPE);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A place that serves blocks with the same paths: `http://host:port`, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback(String);

/// A text that names no place which serves blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an http or https URL of a host, or host:port")]
pub struct FallbackError {
    /// The text as given.
    pub text: String,
}

impl std::str::FromStr for Fallback {
    type Err = FallbackError;

    /// Reads a URL; `host:port` is taken for `http://host:port`.
    fn from_str(text: &str) -> Result<Self, FallbackError> {
        let error = || FallbackError { text: text.to_owned() };
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: http::Uri = url.parse().map_err(|_not_a_url| error())?;
        let web = matches!(uri.scheme_str(), Some("http" | "https"));
        if !web || uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
            return Err(error());
        }
        Ok(Self(url.trim_end_matches('/').to_owned()))
    }
}

/// Serves what `responder` finds to clients of the network `genesis`. What it does not find is asked of the
/// `fallbacks`, by redirects to them in turn.
///
/// It has no fallback of its own, so that it can be merged with others; [`page_not_found`] is the one
/// existing nodes have.
pub fn router(responder: Responder, genesis: NetworkId, fallbacks: Vec<Fallback>) -> Router {
    let redirects = AtomicUsize::new(0);
    let shared = Arc::new(BlockRoutes { responder, genesis, fallbacks, redirects });
    Router::new().route("/v{version}/{genesisID}/block/{round}", any(serve)).with_state(shared)
}

/// Answers like existing nodes where there is nothing: 404 and a text.
///
/// # Cancel safety
///
/// Safe: it does not wait.
// A handler of axum is async.
#[allow(clippy::unused_async)]
pub async fn page_not_found() -> Response {
    let headers = [(CONTENT_TYPE, TEXT), (X_CONTENT_TYPE_OPTIONS, NO_SNIFF)];
    (StatusCode::NOT_FOUND, headers, "404 page not found\n").into_response()
}

/// The source of an answer.
struct BlockRoutes {
    responder: Responder,
    genesis: NetworkId,
    fallbacks: Vec<Fallback>,
    /// Counts redirects, so that the fallbacks are used in rotation.
    redirects: AtomicUsize,
}

async fn serve(
    State(shared): State<Arc<BlockRoutes>>,
    method: Method,
    caller: Result<Caller, NoCaller>,
    path: Result<Path<(String, String, String)>, PathRejection>,
) -> Response {
    let Ok(Path((version, genesis, round))) = path else {
        return page_not_found().await;
    };
    let digits = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    if version.is_empty() || !version.bytes().all(digits) {
        return page_not_found().await;
    }
    let round = match round.parse() {
        Ok(Base36(round)) => Ok(round),
        Err(RoundError::NotDigits) => return page_not_found().await,
        Err(RoundError::TooLarge) => Err(StatusCode::BAD_REQUEST),
    };
    let ours = version == VERSION && genesis == shared.genesis.as_str();
    match round {
        Ok(round) if ours => shared.answer(&method, round, Asker::over_http(caller.ok())).await,
        _ => empty(StatusCode::BAD_REQUEST),
    }
}

impl BlockRoutes {
    async fn answer(&self, method: &Method, round: u64, asker: Asker) -> Response {
        // A request over HTTP is never one that a relay passed on: those are messages.
        match self.responder.find(round, Some((asker, Origin::Asker))).await {
            Resolved::Block(block) => match self.responder.hold(block.to_body()) {
                Some(body) => {
                    let headers = [(CACHE_CONTROL, FOR_EVER), (CONTENT_TYPE, BLOCK_TYPE)];
                    let length = [(CONTENT_LENGTH, HeaderValue::from(body.len()))];
                    (headers, length, Body::from(body)).into_response()
                }
                None => self.elsewhere(method, round).unwrap_or_else(over_capacity),
            },
            Resolved::Unavailable { latest } => {
                self.elsewhere(method, round).unwrap_or_else(|| missing(latest))
            }
            Resolved::Busy => self.elsewhere(method, round).unwrap_or_else(over_capacity),
            Resolved::Broken => empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// Redirects the client to the next of the fallbacks.
    fn elsewhere(&self, method: &Method, round: u64) -> Option<Response> {
        let fallbacks = &self.fallbacks;
        let redirects = self.redirects.fetch_add(1, Ordering::Relaxed);
        let fallback = fallbacks.get(redirects.checked_rem(fallbacks.len())?)?;
        let url = format!("{}{}", fallback.0, round::path(&self.genesis, round));
        let location = HeaderValue::try_from(&url).ok()?;
        let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
        // As existing nodes do it: a page for who looks, and none for who sends.
        if matches!(*method, Method::GET | Method::HEAD) {
            let page = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escape(&url));
            response.headers_mut().insert(CONTENT_TYPE, HTML);
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(page.len()));
            *response.body_mut() = Body::from(page);
        }
        response.headers_mut().insert(LOCATION, location);
        Some(response)
    }
}

fn missing(latest: u64) -> Response {
    let headers = [(CACHE_CONTROL, FOR_A_SECOND), (X_LATEST_ROUND, HeaderValue::from(latest))];
    (headers, empty(StatusCode::NOT_FOUND)).into_response()
}

fn over_capacity() -> Response {
    let retry = [(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))];
    (retry, empty(StatusCode::SERVICE_UNAVAILABLE)).into_response()
}

/// A response without a body, that says so.
fn empty(status: StatusCode) -> Response {
    (status, [(CONTENT_LENGTH, HeaderValue::from(0))]).into_response()
}

/// Text that may stand in an attribute of HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&lt;").replace('\'', "&#39;")
}
