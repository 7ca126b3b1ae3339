//! The transport's own part of serving a connection: its own answers, and upgrades.

use std::convert::Infallible;

use gossip::http::{Caller, HttpResponse};
use http::{HeaderMap, Method, Uri};

use super::conn_state::Pipelined;

/// The head of a request, for a hook. It has been checked: it has one host and one length, and its path is
/// clean.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The request target as in the request line.
    pub uri: &'a Uri,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The client that sent the request.
    pub caller: &'a Caller,
    /// Bytes that the client sent after the head. A request for an upgrade must not have any.
    pub pipelined: Pipelined,
}

/// A hook's decision about a request.
#[derive(Debug)]
pub enum Action<U> {
    /// The node's service answers, under the permits and limits of the server.
    Pass,
    /// The request is answered with this response.
    Answer(HttpResponse),
    /// The request is answered with this 101, and the connection is upgraded.
    Upgrade(HttpResponse, U),
    /// The connection is closed without an answer.
    Close,
}

/// A transport's own part of serving one connection. Its methods must not block.
pub trait ConnectionHook: Send + Sync {
    /// Data that belongs to an upgraded connection. [`HttpServer::serve`](super::HttpServer::serve) returns it
    /// with the stream.
    type Upgrade: Send;

    /// The client that a request of these headers comes from, if the caller of the connection is a proxy that passes on
    /// requests of others. Default: none, every request comes from the caller of the connection.
    fn client(&self, headers: &HeaderMap) -> Option<Caller> {
        let _: &HeaderMap = headers;
        None
    }

    /// Counts a request of `caller`, before its path is checked. Returns the answer if the request is refused, for
    /// example because its host sends too many.
    fn refusal(&self, caller: &Caller) -> Option<HttpResponse>;

    /// Decides about a request that was not refused.
    fn route(&self, request: &RequestHead<'_>) -> Action<Self::Upgrade>;
}

/// A hook that passes every request to the node's service.
#[derive(Clone, Copy, Debug)]
pub struct NoHook;

impl ConnectionHook for NoHook {
    type Upgrade = Infallible;

    fn refusal(&self, _caller: &Caller) -> Option<HttpResponse> {
        None
    }

    fn route(&self, _request: &RequestHead<'_>) -> Action<Infallible> {
        Action::Pass
    }
}
