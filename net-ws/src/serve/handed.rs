//! Upgrades that ask for no gossip: they belong to another network of the node, which speaks its protocol over the
//! WebSocket.
//!
//! # Invariants
//!
//! * Only `/` is handed over, and only a complete request for a WebSocket. Every other request is answered as on a node
//!   without another network.
//! * A page of an origin that is not let in gets no WebSocket here either, and one of an origin with as many pages as are allowed.
//! * The socket keeps its place with the door: its pass goes with it.

use gossip::http::{Caller, HttpBody};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use mesh::PagePlace;
use net_http::serve::{Action, Pipelined, RequestHead};
use net_tcp::{origins::origin_of, websocket::request as websocket};

use super::reply;
use crate::{context::Context, metrics::UpgradeRefusal};

/// A request that was upgraded.
pub(super) enum Taken<G> {
    /// The client becomes a peer of this network.
    Gossip(G),
    /// The WebSocket of this client goes to another network.
    Other(Client),
}

/// A client whose WebSocket goes to another network.
pub(super) struct Client {
    pub(super) caller: Caller,
    /// Its place among the pages of its origin, if it is one.
    pub(super) page: Option<PagePlace>,
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
    let page = match origin_of(request.headers).map(|origin| context.door.page_of(&origin)) {
        None => None,
        Some(Ok(page)) => Some(page),
        Some(Err(_counted)) => {
            context.metrics.note_upgrade(UpgradeRefusal::Full);
            return Some(Action::Answer(reply::refused(StatusCode::SERVICE_UNAVAILABLE, "")));
        }
    };
    let accept = HeaderValue::try_from(websocket::accept_key(key.as_bytes())).ok()?;
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    let mut response = Response::new(HttpBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    let client = Client { caller: request.caller.clone(), page };
    Some(Action::Upgrade(response, Taken::Other(client)))
}
