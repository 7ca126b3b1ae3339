//! Accepts inbound HTTP streams and has each one served.
//!
//! # Invariants
//!
//! * At most [`MAX_STREAMS`] streams have a task, including those that wait for a permit or are being refused.
//!   Further streams are reset and counted.

use std::{net::IpAddr, sync::Arc};

use gossip::{NetworkProfile, Transport, http::Caller};
use libp2p::{Multiaddr, multiaddr::Protocol};
use net_http::{
    HttpServer,
    serve::{Connection, Terms},
};
use runtime::TaskSet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::well_known::ProtocolsDocument;
use crate::{
    address::identity_of,
    metrics::{P2pEvent, P2pMetrics},
    streams::{AcceptQueue, InboundStream, StreamIo},
};

/// Largest number of HTTP streams with a task. Chosen: twice as many as an [`HttpServer`] serves and queues by
/// default, so that the server's permits decide and this bound is a backstop.
const MAX_STREAMS: usize = 4_096;

/// Spawns a task for each stream of the accept queue. One acceptor per swarm.
pub(crate) struct StreamAcceptor {
    accept: AcceptQueue,
    service: Arc<Service>,
    metrics: P2pMetrics,
}

/// State shared by all streams.
struct Service {
    http_server: HttpServer,
    document: ProtocolsDocument,
    terms: Terms,
    places: Arc<Semaphore>,
}

impl StreamAcceptor {
    pub(crate) fn new(
        accept: AcceptQueue,
        http_server: HttpServer,
        profile: &NetworkProfile,
        metrics: P2pMetrics,
    ) -> Self {
        let limits = http_server.limits();
        let service = Service {
            terms: limits.for_stream(profile.http_streams, profile.header_case),
            document: ProtocolsDocument::new(profile),
            places: Arc::new(Semaphore::new(MAX_STREAMS)),
            http_server,
        };
        Self { accept, service: Arc::new(service), metrics }
    }

    /// Accepts streams until cancelled. The streams' tasks are spawned on `tasks`.
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
        let connection = Connection { io, caller, terms: self.terms };
        match self.http_server.serve(connection, &self.document, &cancel).await {
            None => {}
            // Upgrades are not possible on streams: this type has no value.
            Some(upgraded) => match upgraded.upgrade {},
        }
    }
}

/// The peer at the other end; `None` for a peer ID that is no identity.
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
