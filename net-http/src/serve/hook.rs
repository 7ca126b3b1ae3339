//! The part of serving a connection that its transport adds: answers of its own, and upgrades.

use std::convert::Infallible;

use gossip::http::HttpResponse;
use http::{HeaderMap, Method, Uri};

use super::conn_state::Pipelined;

/// The head of a request, as a hook sees it. It was judged before: it has one host and one length, and its
/// path is clean.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target, as it stood in the request line.
    pub uri: &'a Uri,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// Bytes that the client sent behind the head, which must not be there when it asks for an upgrade.
    pub pipelined: Pipelined,
}

/// The decision about a request.
#[derive(Debug)]
pub enum Action<U> {
    /// The node's service answers it, under the permits and limits of the server.
    Pass,
    /// It is answered with this.
    Answer(HttpResponse),
    /// It is answered with this 101, and the connection becomes something else.
    Upgrade(HttpResponse, U),
    /// The connection ends without an answer.
    Close,
}

/// A transport's part in the serving of one connection. Nothing in it may wait.
pub trait ConnectionHook: Send + Sync {
    /// Data that goes with an upgraded connection; it comes back from
    /// [`HttpServer::serve`](super::HttpServer::serve) with the stream.
    type Upgrade: Send;

    /// Counts a request, before its path is looked at. `Some` is the answer of a request that is not to be
    /// served, such as that of a host that asks too often.
    fn refusal(&self) -> Option<HttpResponse>;

    /// Decides about a request that was admitted.
    fn route(&self, request: &RequestHead<'_>) -> Action<Self::Upgrade>;
}

/// A hook that passes every request to the node's service.
#[derive(Clone, Copy, Debug)]
pub struct NoHook;

impl ConnectionHook for NoHook {
    type Upgrade = Infallible;

    fn refusal(&self) -> Option<HttpResponse> {
        None
    }

    fn route(&self, _request: &RequestHead<'_>) -> Action<Infallible> {
        Action::Pass
    }
}
