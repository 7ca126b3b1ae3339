//! The contender Tandem: a node at each end, with default limits.

use std::sync::Arc;

use broadcaster::Setup;
use bytes::Bytes;
use gossip::{
    Admission, BoxFuture, Inbound, NetworkProfile, Outbound, Tag, Verdict,
    http::{HttpClient, HttpService},
};
use net_http::HttpServer;

use super::stage::{Contending, Stage};
use crate::{
    error::Failure,
    http::{client_limits, router, serve_limits},
    node::{Http, Node},
    transport::Transport,
};

/// Both nodes. Messages go from `near` to `far`.
pub(super) struct Ours {
    near: Node,
    _far: Node,
    http: HttpClient,
}

/// Starts both nodes and connects them.
pub(super) async fn start(transport: Transport, stage: Stage) -> Result<Ours, Failure> {
    let (votes, bulk) = (Arc::clone(&stage.probe), Arc::clone(&stage.probe));
    let vote = move |message: Inbound| {
        votes.priority(&message.body);
        std::future::ready(Verdict::Ignore)
    };
    let bundle = move |message: Inbound| {
        bulk.bulk(message.body.len());
        std::future::ready(Verdict::Ignore)
    };
    let profile = &NetworkProfile::TANDEM;
    // Bulk is sent as VB: on libp2p a TX would use a topic instead of the streams that are measured.
    let setup =
        Setup::new(profile).handler(Tag::AV, Arc::new(vote)).handler(Tag::VB, Arc::new(bundle));
    let parent = stage.tasks.token();
    let service = HttpService::new(router(0));
    let http_server = Some(HttpServer::new(service, serve_limits()));
    let serving = Http { http_server, ..Http::default() };
    let asking = Http { clients: client_limits(), ..Http::default() };
    let near = Node::start(transport, Setup::new(profile), None, serving, parent).await?;
    let address = near.address()?;
    let far = Node::start(transport, setup, Some(address.clone()), asking, parent).await?;
    near.connected(1).await?;
    far.connected(1).await?;
    let http = far.network.http_client(&address)?;
    Ok(Ours { near, _far: far, http })
}

impl Contending for Ours {
    fn priority(&self, body: Bytes) -> Result<(), Failure> {
        match self.near.network.broadcast(Outbound::new(Tag::AV, body)) {
            Ok(Admission::Queued) => Ok(()),
            refused => Err(format!("a vote was not queued: {refused:?}").into()),
        }
    }

    fn http(&self) -> Option<HttpClient> {
        Some(self.http.clone())
    }

    fn bulk(&self, body: Bytes) -> BoxFuture<'static, Result<(), Failure>> {
        let written = self.near.broadcaster.broadcast_and_wait(&Outbound::new(Tag::VB, body));
        Box::pin(async move {
            match written.await {
                Ok(delivery) if delivery.given_up == 0 => Ok(()),
                Ok(_) => Err("a bulk message was dropped".into()),
                Err(refused) => Err(format!("a bulk message was not queued: {refused:?}").into()),
            }
        })
    }
}
