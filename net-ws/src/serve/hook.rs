//! The network's own handling of requests, before the node's HTTP services get them.
//!
//! # Invariants
//!
//! * The door counts every request, whatever its path.

use gossip::http::HttpResponse;
use net_http::{
    reply,
    serve::{Action, ConnectionHook, RequestHead},
};
use tokio::time::Instant;

use super::{
    Place,
    route::genesis_of,
    upgrade::{self, Accepted},
};
use crate::config::GossipService;

/// The door and the gossip path of one socket.
pub(super) struct GossipHook<'a>(pub(super) &'a Place);

impl ConnectionHook for GossipHook<'_> {
    type Upgrade = Box<Accepted>;

    fn refusal(&self) -> Option<HttpResponse> {
        self.0.pass.headed();
        let now = Instant::now().into_std();
        let admitted = self.0.context.door.request(self.0.from.ip(), now);
        admitted.err().map(|too_many| reply::too_many(too_many.retry_after))
    }

    fn route(&self, request: &RequestHead<'_>) -> Action<Box<Accepted>> {
        let context = &self.0.context;
        if context.gossip_service == GossipService::Off {
            return Action::Pass;
        }
        match genesis_of(request.uri.path()) {
            None => Action::Pass,
            Some(genesis) => upgrade::decide(context, request, &genesis, &self.0.pass),
        }
    }
}
