//! Upgrades that ask for no gossip: they belong to another network of the node, which speaks its protocol over the
//! WebSocket.
//!
//! # Invariants
//!
//! * Only `/` is handed over, and only a complete request for a WebSocket. Every other request is answered as on a node
//!   without another network.
//! * A page of an origin that is not let in gets no WebSocket here either.
//! * The socket keeps its place with the door: its pass goes with it.

use gossip::http::{Caller, HttpBody};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use net_http::serve::{Action, Pipelined, RequestHead};
use net_tcp::websocket::request as websocket;

use super::reply;
use crate::{context::Context, metrics::UpgradeRefusal};

/// A request that was upgraded.
pub(super) enum Taken<G> {
    /// The client becomes a peer of this network.
    Gossip(G),
    /// The WebSocket of this client goes to another network.
    Other(Caller),
}

/// The upgrade of a request that belongs to another network; `None` for any other request.
pub(super) fn upgrade<G>(context: &Context, request: &RequestHead<'_>) -> Option<Action<Taken<G>>> {
    websocket::judge(request.method, request.headers).ok()?;
    let key = websocket::key(request.headers)?;
    if request.uri.path() != "/" || request.pipelined == Pipelined::Something {
        return None;
    }
    if !context.page_origins.let_in_client(request.headers) {
        context.metrics.note_upgrade(UpgradeRefusal::Origin);
        return Some(Action::Answer(reply::refused(StatusCode::FORBIDDEN, reply::FOREIGN)));
    }
    let accept = HeaderValue::try_from(websocket::accept_key(key.as_bytes())).ok()?;
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    let mut response = Response::new(HttpBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    Some(Action::Upgrade(response, Taken::Other(request.caller.clone())))
}
