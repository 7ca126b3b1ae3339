//! Accepts the inbound streams of one protocol, and has each one handled.
//!
//! # Invariants
//!
//! * The server waits for streams only.
//! * A place is given back when its stream has ended, in any way.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
};

use futures::FutureExt;
use gossip::Identity;
use runtime::{Rarely, TaskSet, time};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{OwnProtocol, stream::PeerStream};
use crate::{
    metrics::{P2pEvent, P2pMetrics},
    streams::{AcceptQueue, InboundStream},
};

/// Serves the streams of one protocol. One server per swarm.
pub(crate) struct ProtocolServer {
    accept: AcceptQueue,
    service: Arc<Service>,
}

/// State shared by all streams of a protocol.
struct Service {
    protocol: OwnProtocol,
    places: Arc<Semaphore>,
    peers: Mutex<HashMap<Identity, usize>>,
    metrics: P2pMetrics,
    /// Limits log lines about the acceptor's panics, which peers can cause.
    panics: Rarely,
}

/// One of the places of a protocol and of a peer, held by a stream.
struct Place {
    service: Arc<Service>,
    identity: Identity,
    _of_protocol: OwnedSemaphorePermit,
}

impl ProtocolServer {
    pub(crate) fn new(accept: AcceptQueue, protocol: OwnProtocol, metrics: P2pMetrics) -> Self {
        let at_once = protocol.limits.at_once.get().min(Semaphore::MAX_PERMITS);
        let service = Service {
            places: Arc::new(Semaphore::new(at_once)),
            peers: Mutex::default(),
            panics: Rarely::default(),
            protocol,
            metrics,
        };
        Self { accept, service: Arc::new(service) }
    }

    /// Accepts streams until cancelled. The streams' tasks are spawned on `tasks`.
    pub(crate) async fn run(mut self, tasks: TaskSet, cancel: CancellationToken) {
        while let Some(Some(stream)) = cancel.run_until_cancelled(self.accept.next()).await {
            self.serve(stream, &tasks);
        }
    }

    fn serve(&self, inbound: InboundStream, tasks: &TaskSet) {
        let Some(stream) = PeerStream::accepted(inbound) else {
            return self.service.metrics.note(P2pEvent::ForeignKey);
        };
        match Service::place(&self.service, stream.identity()) {
            Ok(place) => {
                tasks.spawn("own protocol", |cancel| serve(place, stream, cancel));
            }
            Err(refused) => self.service.metrics.note(refused),
        }
    }
}

impl Service {
    /// Takes a place for a stream of a peer, or returns the reason why there is none.
    fn place(this: &Arc<Self>, identity: Identity) -> Result<Place, P2pEvent> {
        let of_protocol =
            Arc::clone(&this.places).try_acquire_owned().map_err(|_full| P2pEvent::AcceptorFull)?;
        let mut peers = this.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(identity).or_default();
        if *count >= this.protocol.limits.per_peer.get() {
            return Err(P2pEvent::AcceptorFullForPeer);
        }
        *count += 1;
        Ok(Place { service: Arc::clone(this), identity, _of_protocol: of_protocol })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut peers = self.service.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.identity);
            }
        }
    }
}

/// Has one stream handled, until the acceptor returns, its time is over, or the node stops.
async fn serve(place: Place, stream: PeerStream, cancel: CancellationToken) {
    let Service { protocol, metrics, panics, .. } = &*place.service;
    // The call itself may panic, before it returns a future.
    let served = AssertUnwindSafe(async { protocol.acceptor.accept(stream).await }).catch_unwind();
    match cancel.run_until_cancelled(time::timeout(protocol.limits.time, served)).await {
        None | Some(Ok(Ok(()))) => {}
        Some(Err(_elapsed)) => metrics.note(P2pEvent::AcceptorTimedOut),
        Some(Ok(Err(_panic))) => {
            metrics.note(P2pEvent::AcceptorPanicked);
            if let Some(left_out) = panics.due() {
                let (name, peer) = (protocol.name(), place.identity);
                tracing::error!(protocol = name, %peer, left_out, "the acceptor panicked; its stream is reset");
            }
        }
    }
}
