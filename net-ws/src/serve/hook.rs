//! The network's own handling of requests, before the node's HTTP services get them.
//!
//! # Invariants
//!
//! * The door counts every request, whatever its path.

use gossip::{
    Transport,
    http::{Caller, HttpResponse},
};
use http::{HeaderMap, StatusCode};
use net_http::{
    reply,
    serve::{Action, ConnectionHook, RequestHead},
};
use tokio::time::Instant;

use super::{
    Place,
    handed::{self, Taken},
    origin::{Origin, Sender},
    route::genesis_of,
    upgrade::{self, Accepted},
};
use crate::{config::GossipService, metrics::ProxyFault};

/// The door and the gossip path of one socket.
pub(super) struct GossipHook<'a> {
    pub(super) place: &'a Place,
    pub(super) origin: &'a Origin,
}

impl ConnectionHook for GossipHook<'_> {
    type Upgrade = Taken<Box<Accepted>>;

    fn client(&self, headers: &HeaderMap) -> Option<Caller> {
        if self.origin.sender == Sender::Client {
            return None;
        }
        let context = &self.place.context;
        let Some(ip) = context.proxies.client_of(headers, self.origin.ip) else {
            context.metrics.note_proxy(ProxyFault::RequestClient);
            return None;
        };
        let address = ip.to_string().into();
        Some(Caller { identity: None, transport: Transport::WebSocket, address, ip: Some(ip) })
    }

    fn refusal(&self, caller: &Caller) -> Option<HttpResponse> {
        self.place.pass.headed();
        let now = || Instant::now().into_std();
        let ip = caller.ip.unwrap_or(self.origin.ip);
        // Any other connection is closed when its client is banned; a proxy's is not its client's.
        if self.origin.sender == Sender::Proxy
            && self.place.context.door.lets_in(ip, now()).is_err()
        {
            return Some(reply::empty(StatusCode::FORBIDDEN));
        }
        let admitted = self.place.context.door.request(ip, now);
        admitted.err().map(|too_many| reply::too_many(too_many.retry_after))
    }

    fn route(&self, request: &RequestHead<'_>) -> Action<Taken<Box<Accepted>>> {
        let context = &self.place.context;
        let known = || {
            if self.origin.sender == Sender::Proxy {
                self.place.pass.comes_from(request.caller.ip.unwrap_or(self.origin.ip));
            }
        };
        if context.hand_over.is_some()
            && let Some(action) = handed::upgrade(context, request)
        {
            known();
            return action;
        }
        if context.gossip_service == GossipService::Off {
            return Action::Pass;
        }
        match genesis_of(request.uri.path()) {
            None => Action::Pass,
            Some(genesis) => {
                known();
                upgrade::decide(context, request, &genesis, &self.place.pass)
            }
        }
    }
}
