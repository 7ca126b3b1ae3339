//! A read loop of one peer.
//!
//! ```text
//!   wire ─▶ FrameSource ─▶ Reader ─┬─ MI, MS, TS, NI: end here
//!                                  ├─ gossip ─▶ decompress ─▶ token ─▶ duplicate filter ─▶ forward, or worker queue
//!                                  └─ request ─▶ token ─▶ worker queue
//! ```
//!
//! # Invariants
//!
//! * At most one message of a peer waits for a place with a worker; while it waits nothing more is
//!   read, so the backpressure reaches the peer.
//! * The wait has a deadline of its own and does not count as the peer's silence.
//! * A message is handed on at most once per window of the duplicate filter, whatever carried it.
//! * A message counts as heard once it has its peer's token, not while it waits for it: what a stalled
//!   peer sent is taken from another one.
//! * Memory is charged to the budget before it is taken, also for what a message is decompressed to.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gossip::{
    Compression, DisconnectReason, Forwarding, Inbound, Lane, Tag, TagRule,
    wire::{
        digest::Digest,
        interest,
        proposal::{self, MAX_DECOMPRESSED},
    },
};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};

use crate::{
    assembler::MessageMemory,
    budget::Reservation,
    duplicates::Seen,
    link::{FrameSource, Received},
    metrics::{DropReason, Traffic},
    peer::Peer,
    requests::Answered,
    shared::Shared,
    workers::{HeardOn, Held, Work},
};

pub(crate) struct Reader<R> {
    pub(crate) peer: Arc<Peer>,
    pub(crate) source: R,
    pub(crate) shared: Arc<Shared>,
    pub(crate) traffic: Traffic,
    /// The lane of a message that waits for a place; if the loop ends meanwhile, it is lost.
    pub(crate) waiting: Option<Lane>,
}

impl<R: FrameSource> Reader<R> {
    /// Reads until the peer ends. After its link was replaced by another, or closed by the peer on the
    /// other lane, what it had sent before is still read.
    pub(crate) async fn run(mut self) {
        let (peer, shared) = (Arc::clone(&self.peer), Arc::clone(&self.shared));
        let ended = async {
            peer.cancel.cancelled().await;
            let orderly = [DisconnectReason::Duplicate, DisconnectReason::RemoteClosed];
            if orderly.contains(&peer.end_reason()) {
                time::sleep(shared.limits.close_timeout).await;
            }
        };
        tokio::select! {
            biased;
            () = ended => {}
            // A link that was replaced has its reason already.
            reason = self.read() => shared.end(&peer, reason),
        }
        if let Some(lane) = self.waiting {
            shared.metrics.dropped(DropReason::WorkerFull, lane);
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
            match self.take(received).await {
                Ok(()) => {}
                // What the peer sent before it learns that its other link stays is read.
                Err(DisconnectReason::Duplicate) => {
                    self.shared.end(&self.peer, DisconnectReason::Duplicate);
                }
                Err(reason) => return reason,
            }
        }
    }

    /// Deals with one message.
    async fn take(&mut self, received: Received) -> Result<(), DisconnectReason> {
        let Received { tag, wire, memory } = received;
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
            (Forwarding::Gossip, _) => self.gossip(rule, wire, payload, memory).await,
            (Forwarding::HopLocal, Tag::UE) => self.request(rule, wire, payload, memory).await,
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
        memory: MessageMemory,
    ) -> Result<(), DisconnectReason> {
        let (body, unpacked) = match rule.compression {
            Compression::None => (payload, None),
            Compression::Zstd => self.unpack(rule, &payload).await?,
        };
        let held = Held { _wire: memory, _body: unpacked };
        let fingerprint = self.shared.duplicates.fingerprint(rule.tag, &body);
        let mut work = self.work(rule, wire, body, held);
        work.fingerprint = Some(fingerprint);
        if self.shared.needs_worker(rule.tag) {
            self.take_token(&mut work).await?;
        }
        let seen = self.shared.duplicates.sight(rule.lane, fingerprint, Instant::now());
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
        self.shared.announce(&work);
        if self.shared.needs_worker(rule.tag) {
            let (shared, lane) = (Arc::clone(&self.shared), work.lane);
            let queue = shared.workers.queue(lane, Some(self.peer.id));
            self.hand_over(work, lane, queue).await
        } else {
            self.shared.accepted(&work);
            Ok(())
        }
    }

    /// Decompresses a body, once the budget has room for the longest there may be.
    async fn unpack(
        &mut self,
        rule: &TagRule,
        payload: &Bytes,
    ) -> Result<(Bytes, Option<Reservation>), DisconnectReason> {
        let shared = Arc::clone(&self.shared);
        let longest = MAX_DECOMPRESSED.min(shared.budget.total());
        let room = self.within_patience(rule.lane, shared.budget.reserve(longest, rule.lane));
        let room = room.await?;
        let body = proposal::decompress(payload, MAX_DECOMPRESSED)
            .map_err(|_malformed| DisconnectReason::BadData)?;
        let is_payload = body.as_ptr() == payload.as_ptr();
        let room = (!is_payload).then(|| room.shrunk_to(body.len()));
        Ok((body, room))
    }

    /// A request to this node. Requests are not gossip: the same one may be asked again.
    async fn request(
        &mut self,
        rule: &TagRule,
        wire: Bytes,
        payload: Bytes,
        memory: MessageMemory,
    ) -> Result<(), DisconnectReason> {
        if !self.shared.needs_worker(rule.tag) {
            self.shared.metrics.dropped(DropReason::Unhandled, rule.lane);
            return Ok(());
        }
        let mut work = self.work(rule, wire, payload, Held { _wire: memory, _body: None });
        self.take_token(&mut work).await?;
        let (shared, lane) = (Arc::clone(&self.shared), work.lane);
        self.hand_over(work, lane, shared.workers.requests()).await
    }

    fn work(&self, rule: &TagRule, wire: Bytes, body: Bytes, held: Held) -> Work {
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
            digest: OnceLock::new(),
            lane: rule.lane,
            peer: Some(Arc::clone(&self.peer)),
            _held: held,
            token: None,
            heard_on: HeardOn::Stream,
            report: None,
        }
    }

    /// Waits until few enough messages of the peer wait for a handler.
    async fn take_token(&mut self, work: &mut Work) -> Result<(), DisconnectReason> {
        let token = Arc::clone(&self.peer.tokens).acquire_owned();
        work.token = self.within_patience(work.lane, token).await?.ok();
        Ok(())
    }

    /// Waits for a place in a queue.
    async fn hand_over(
        &mut self,
        work: Work,
        lane: Lane,
        queue: &mpsc::Sender<Work>,
    ) -> Result<(), DisconnectReason> {
        let place = self.within_patience(lane, queue.send(work)).await?;
        place.map_err(|_closed| DisconnectReason::LocalShutdown)
    }

    /// Waits for what a message of a lane needs to go on, as long as a peer may be held up.
    async fn within_patience<T>(
        &mut self,
        lane: Lane,
        wait: impl Future<Output = T>,
    ) -> Result<T, DisconnectReason> {
        self.waiting = Some(lane);
        let waited = time::timeout(self.shared.limits.inbound_wait, wait).await;
        let waited = waited.map_err(|_elapsed| DisconnectReason::Stalled)?;
        self.waiting = None;
        Ok(waited)
    }
}
