//! A read loop of one peer.
//!
//! ```text
//!   wire ─▶ FrameSource ─▶ Reader ─┬─ MI, MS, TS, NI: end here
//!                                  ├─ gossip ─▶ decompress ─▶ duplicate filter ─▶ forward, or worker queue
//!                                  └─ request ─▶ worker queue
//! ```
//!
//! # Invariants
//!
//! * At most one message of a peer waits for a place with a worker; while it waits nothing more is
//!   read, so the backpressure reaches the peer.
//! * The wait has a deadline of its own and does not count as the peer's silence.
//! * A message is handed on at most once per window of the duplicate filter, whatever carried it.

use std::sync::Arc;

use bytes::Bytes;
use gossip::{
    Compression, DisconnectReason, Forwarding, Inbound, Lane, Tag, TagRule,
    wire::{
        digest::Digest,
        interest,
        proposal::{self, MAX_DECOMPRESSED},
    },
};
use tokio::time::{self, Instant};

use crate::{
    budget::Reservation,
    duplicates::Seen,
    link::{FrameSource, Received},
    metrics::{DropReason, Traffic},
    peer::Peer,
    requests::Answered,
    shared::Shared,
    workers::{HeardOn, Work},
};

pub(crate) struct Reader<R> {
    pub(crate) peer: Arc<Peer>,
    pub(crate) source: R,
    pub(crate) shared: Arc<Shared>,
    pub(crate) traffic: Traffic,
}

impl<R: FrameSource> Reader<R> {
    /// Reads until the peer ends. After its link was replaced by another, what it had sent before
    /// is still read.
    pub(crate) async fn run(mut self) {
        let peer = Arc::clone(&self.peer);
        let reason = tokio::select! {
            biased;
            () = peer.cancel.cancelled() => None,
            reason = self.read() => Some(reason),
        };
        match reason {
            Some(reason) => self.shared.end(&peer, reason),
            None if peer.end_reason() == DisconnectReason::Duplicate => {
                // However the rest ends, the link has its reason already.
                let _ = time::timeout(self.shared.limits.close_timeout, self.read()).await;
            }
            None => {}
        }
    }

    async fn read(&mut self) -> DisconnectReason {
        loop {
            let received = match self.source.next_message().await {
                Ok(received) => received,
                Err(end) => {
                    if let Some(error) = end.error {
                        tracing::debug!(peer = %self.peer.id, %error, "read failed");
                    }
                    return end.reason;
                }
            };
            if let Err(reason) = self.take(received).await {
                return reason;
            }
        }
    }

    /// Deals with one message.
    async fn take(&mut self, received: Received) -> Result<(), DisconnectReason> {
        let Received { tag, wire, held } = received;
        let Some(rule) = self.shared.profile.tags.rule(tag) else {
            self.traffic.count(Lane::Bulk, wire.len());
            self.shared.metrics.dropped(DropReason::UnknownTag, Lane::Bulk);
            return Ok(());
        };
        self.traffic.count(rule.lane, wire.len());
        let payload = wire.slice(Tag::BYTES.min(wire.len())..);
        if payload.len() > rule.max_payload {
            return Err(DisconnectReason::Oversized);
        }
        match (rule.forwarding, tag) {
            (Forwarding::Gossip, _) => self.gossip(rule, wire, payload, held).await,
            (Forwarding::HopLocal, Tag::UE) => self.request(rule, wire, payload, held).await,
            (Forwarding::HopLocal, _) => self.control(tag, &payload),
        }
    }

    /// Messages that end here.
    fn control(&self, tag: Tag, payload: &Bytes) -> Result<(), DisconnectReason> {
        match tag {
            Tag::MI => {
                let wanted = interest::decode(payload, &self.shared.profile.tags)
                    .map_err(|_malformed| DisconnectReason::BadData)?;
                self.peer.set_interest(wanted);
            }
            Tag::MS => {
                // A digest of another length is ignored, as existing nodes do.
                if let Ok(digest) = <[u8; 32]>::try_from(&payload[..]) {
                    self.peer.has(Digest(digest));
                }
            }
            Tag::TS => {
                if self.peer.requests().answer(payload)? == Answered::Late {
                    self.shared.metrics.dropped(DropReason::LateAnswer, Lane::Bulk);
                }
            }
            _ => {
                if let Some(hooks) = &self.peer.hooks {
                    hooks.control(self.peer.id, tag, payload)?;
                }
            }
        }
        Ok(())
    }

    /// A message for everybody.
    async fn gossip(
        &mut self,
        rule: &TagRule,
        wire: Bytes,
        payload: Bytes,
        held: Option<Reservation>,
    ) -> Result<(), DisconnectReason> {
        let body = match rule.compression {
            Compression::None => payload,
            Compression::Zstd => proposal::decompress(&payload, MAX_DECOMPRESSED)
                .map_err(|_malformed| DisconnectReason::BadData)?,
        };
        let now = Instant::now();
        let fingerprint = self.shared.duplicates.fingerprint(rule.tag, &body);
        let seen = self.shared.duplicates.sight(rule.lane, fingerprint, now);
        let mut work = self.work(rule, wire, body, held);
        work.fingerprint = Some(fingerprint);
        match seen {
            Seen::First => {}
            Seen::Passed { generation } => {
                self.shared.metrics.dropped(DropReason::Duplicate, rule.lane);
                self.shared.forward_to_newcomers(&work, fingerprint, generation);
                return Ok(());
            }
            Seen::Held => {
                self.shared.metrics.dropped(DropReason::Duplicate, rule.lane);
                return Ok(());
            }
        }
        self.shared.announce(rule.tag, &work.message.body, Some(self.peer.id));
        if self.shared.needs_worker(rule.tag) {
            self.hand_over(work).await
        } else {
            self.shared.accepted(&work);
            Ok(())
        }
    }

    /// A request to this node. Requests are not gossip: the same one may be asked again.
    async fn request(
        &mut self,
        rule: &TagRule,
        wire: Bytes,
        payload: Bytes,
        held: Option<Reservation>,
    ) -> Result<(), DisconnectReason> {
        if !self.shared.needs_worker(rule.tag) {
            self.shared.metrics.dropped(DropReason::Unhandled, rule.lane);
            return Ok(());
        }
        let work = self.work(rule, wire, payload, held);
        self.hand_over(work).await
    }

    fn work(&self, rule: &TagRule, wire: Bytes, body: Bytes, held: Option<Reservation>) -> Work {
        let message = Inbound {
            tag: rule.tag,
            body,
            from: Some(self.peer.id),
            transport: self.peer.transport,
            received: Instant::now().into_std(),
        };
        Work {
            message,
            wire,
            fingerprint: None,
            lane: rule.lane,
            peer: Some(Arc::clone(&self.peer)),
            _held: held,
            token: None,
            heard_on: HeardOn::Stream,
            report: None,
        }
    }

    /// Waits for the peer's turn and for a place with its worker.
    async fn hand_over(&mut self, mut work: Work) -> Result<(), DisconnectReason> {
        let place = async {
            let token = Arc::clone(&self.peer.tokens).acquire_owned().await.ok()?;
            work.token = Some(token);
            let queue = self.shared.workers.queue(work.lane, Some(self.peer.id));
            queue.send(work).await.ok()
        };
        match time::timeout(self.shared.limits.inbound_wait, place).await {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(DisconnectReason::LocalShutdown),
            Err(_elapsed) => Err(DisconnectReason::Stalled),
        }
    }
}
