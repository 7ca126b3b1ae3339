//! The tasks of one link.
//!
//! ```text
//!   write loop (1, or 1 per lane) ──┐
//!                                   ├─ the last to end drops ─▶ OnPeerEnd
//!   read loop  (1, or 1 per lane) ──┘
//! ```
//!
//! # Invariants
//!
//! * A peer's end is carried out once, after the last of its loops, also when the node stops before they run.
//! * Messages that were not written are handed over after the peer is out of the registry, so that they do not
//!   come back to it.
//! * A loop is kept in its task once. An idle link costs little more than its loops.

use std::sync::Arc;

use gossip::DisconnectReason;
use runtime::Opening;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    codec::LinkCodec,
    context::Context,
    events::Events,
    inbound::WayIn,
    lanes::Serves,
    link::{FrameSink, FrameSource},
    peer::Peer,
    reader::Reader,
    writer::{Writer, Writing},
};

/// Removes a peer, hands its unsent messages over and tells the listeners and the transport, when it is dropped.
pub(crate) struct OnPeerEnd {
    context: Arc<Context>,
    events: Events,
    peer: Arc<Peer>,
    ended: Option<oneshot::Sender<DisconnectReason>>,
}

impl OnPeerEnd {
    pub(crate) fn new(
        context: &Arc<Context>,
        events: &Events,
        peer: Arc<Peer>,
        ended: oneshot::Sender<DisconnectReason>,
    ) -> Self {
        let (context, events) = (Arc::clone(context), events.clone());
        Self { context, events, peer, ended: Some(ended) }
    }
}

impl Drop for OnPeerEnd {
    fn drop(&mut self) {
        let Self { context, events, peer, ended } = self;
        let reason = peer.end_reason();
        context.registry.remove(peer.id);
        context.registry.hand_over_unsent(peer, peer.take_unsent());
        context.metrics.disconnected(peer.transport, reason);
        peer.events.disconnected(events, || peer.info(), reason);
        if let Some(ended) = ended.take() {
            // The transport may have stopped listening.
            let _ = ended.send(reason);
        }
    }
}

/// The loops of a link that is about to run.
pub(crate) struct Loops<S, R> {
    pub(crate) peer: Arc<Peer>,
    pub(crate) sinks: Vec<(Serves, S)>,
    pub(crate) sources: Vec<R>,
    pub(crate) codec: Option<LinkCodec>,
}

impl<S: FrameSink, R: FrameSource> Loops<S, R> {
    /// Starts the loops. The last of them to end drops `on_end`.
    pub(crate) fn spawn(
        self,
        tasks: &Opening<'_>,
        way_in: &Arc<WayIn>,
        writing: &Arc<Writing>,
        on_end: OnPeerEnd,
    ) {
        let Self { peer, sinks, sources, codec } = self;
        let metrics = &way_in.context.metrics;
        let on_end = Arc::new(on_end);
        // Every read loop holds the guard; the token is cancelled when the last one is gone.
        let read_out = CancellationToken::new();
        let reading = Arc::new(read_out.clone().drop_guard());
        let (mut encoder, mut decoder) = codec.map(|codec| (codec.encoder, codec.decoder)).unzip();
        for (serves, sink) in sinks {
            let mut writer = Writer {
                peer: Arc::clone(&peer),
                sink,
                serves,
                writing: Arc::clone(writing),
                traffic: metrics.sending(peer.transport),
                batch: Vec::new(),
                // The priority lane's comes first.
                encoder: encoder.take(),
                encoded: Vec::new(),
                read_out: read_out.clone(),
            };
            let on_end = Arc::clone(&on_end);
            tasks.spawn("writer", |_cancel| async move {
                writer.run().await;
                drop((writer, on_end));
            });
        }
        let shares = Arc::new(way_in.shares_of_peer(&peer));
        for source in sources {
            let (peer, way_in) = (Arc::clone(&peer), Arc::clone(way_in));
            let mut reader =
                Reader::new(peer, source, way_in, Arc::clone(&shares)).decoding(decoder.take());
            let held = (Arc::clone(&reading), Arc::clone(&on_end));
            tasks.spawn("reader", |_cancel| async move {
                reader.run().await;
                drop((reader, held));
            });
        }
    }
}
