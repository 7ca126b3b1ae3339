//! Takes streams of HTTP, and has each one served.
//!
//! # Invariants
//!
//! * At most [`MAX_STREAMS`] streams are in service, those included that wait for a seat or are being
//!   refused one. What comes on top is reset and counted.

use std::{net::IpAddr, sync::Arc};

use gossip::{StreamUse, Transport, http::Caller};
use libp2p::{Multiaddr, multiaddr::Protocol};
use net_http::HttpServer;
use runtime::TaskSet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::stream::StreamIo;
use crate::{
    config::identity_of,
    metrics::{P2pEvent, P2pMetrics},
    streams::{AcceptQueue, InboundStream},
};

/// Streams of HTTP that have a task. Chosen: twice as many as an [`HttpServer`] serves and lets wait by
/// default, so that it decides and this bound is a backstop.
const MAX_STREAMS: usize = 4_096;

/// Takes streams from the accept queue and gives each a task. One for each life of the swarm.
pub(crate) struct StreamAcceptor {
    accept: AcceptQueue,
    service: Arc<Service>,
    metrics: P2pMetrics,
}

/// What every stream needs.
struct Service {
    http_server: HttpServer,
    streams: StreamUse,
    places: Arc<Semaphore>,
}

impl StreamAcceptor {
    pub(crate) fn new(
        accept: AcceptQueue,
        http_server: HttpServer,
        streams: StreamUse,
        metrics: P2pMetrics,
    ) -> Self {
        let places = Arc::new(Semaphore::new(MAX_STREAMS));
        Self { accept, service: Arc::new(Service { http_server, streams, places }), metrics }
    }

    /// Runs until asked to stop. The streams' tasks are spawned on `tasks`.
    pub(crate) async fn run(mut self, tasks: TaskSet, cancel: CancellationToken) {
        while let Some(Some(stream)) = cancel.run_until_cancelled(self.accept.next()).await {
            self.serve(stream, &tasks);
        }
    }

    fn serve(&self, inbound: InboundStream, tasks: &TaskSet) {
        let Some(caller) = caller(&inbound) else {
            return self.metrics.note(P2pEvent::ForeignKey);
        };
        let Ok(place) = Arc::clone(&self.service.places).try_acquire_owned() else {
            return self.metrics.note(P2pEvent::TooManyHttpStreams);
        };
        let (service, io) = (Arc::clone(&self.service), StreamIo::from(inbound));
        tasks.spawn("http stream", |cancel| service.stream(io, caller, place, cancel));
    }
}

impl Service {
    async fn stream(
        self: Arc<Self>,
        io: StreamIo,
        caller: Caller,
        _place: OwnedSemaphorePermit,
        cancel: CancellationToken,
    ) {
        self.http_server.serve(io, caller, self.streams, cancel).await;
    }
}

/// Who is at the other end; `None` for a peer ID that is no identity.
fn caller(inbound: &InboundStream) -> Option<Caller> {
    let about = &inbound.about;
    Some(Caller {
        identity: Some(identity_of(&about.peer)?),
        transport: Transport::Libp2p,
        address: about.address.to_string().into(),
        ip: ip(&about.address),
    })
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}
