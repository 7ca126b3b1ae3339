//! A read loop of one peer.
//!
//! ```text
//!   wire ─▶ FrameSource ─▶ Reader ─┬─ MI, MS, TS, NI: end here
//!                                  ├─ gossip  ─▶ the one way in
//!                                  └─ request ─▶ its share of the requests
//! ```
//!
//! # Invariants
//!
//! * A panic ends the link, and nothing else.
//! * At most one message of a peer and lane waits for its place; while it waits nothing more is read,
//!   so the backpressure reaches the peer.
//! * The wait has a deadline of its own and does not count as the peer's silence.
//! * A request never holds up what comes behind it.
//! * Nothing is read faster than the peer may send, and others run in between however much there is.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use futures::FutureExt;
use gossip::{
    DisconnectReason, Forwarding, Inbound, Lane, Tag, TagRule,
    wire::{digest::Digest, interest},
};
use runtime::{
    Breath,
    time::{self, Instant},
};

use crate::{
    assembler::{INLINE_BYTES, MessageMemory},
    codec::{Decoded, Decoder},
    fair::Refused,
    frame::Frame,
    inbound::{
        Arrival, Source, WayIn,
        patience::{Patience, Refusal},
        rate::{Pace, Pacer},
        work::{HeardOn, Held, Shares, Work},
    },
    link::{FrameSource, Received},
    metrics::{DropReason, Traffic},
    peer::Peer,
    requests::Answered,
};

pub(crate) struct Reader<R> {
    peer: Arc<Peer>,
    source: R,
    way_in: Arc<WayIn>,
    traffic: Traffic,
    origin: Source,
    pacer: Pacer,
    decoder: Option<Box<dyn Decoder>>,
}

impl<R: FrameSource> Reader<R> {
    /// A loop for one source of a peer, which may have `shares` under way.
    pub(crate) fn new(peer: Arc<Peer>, source: R, way_in: Arc<WayIn>, shares: Arc<Shares>) -> Self {
        let context = &way_in.context;
        let traffic = context.metrics.receiving(peer.transport);
        let origin = Source {
            forwarder: None,
            peer: Some(Arc::clone(&peer)),
            transport: peer.transport,
            heard_on: HeardOn::Stream,
            shares,
        };
        let pacer = Pacer::new(context.tags, peer.rates(&context.limits.rates), Instant::now());
        Self { peer, source, way_in, traffic, origin, pacer, decoder: None }
    }

    /// With the inbound half of the link's codec.
    pub(crate) fn decoding(self, decoder: Option<Box<dyn Decoder>>) -> Self {
        Self { decoder, ..self }
    }

    /// Reads until the peer ends. After its link was replaced by another, or closed by the peer on the
    /// other lane, what it had sent before is still read.
    pub(crate) async fn run(&mut self) {
        let (peer, context) = (Arc::clone(&self.peer), Arc::clone(&self.way_in.context));
        let ended = async {
            peer.cancel.cancelled().await;
            let orderly = [DisconnectReason::Duplicate, DisconnectReason::RemoteClosed];
            if orderly.contains(&peer.end_reason()) {
                time::sleep(context.limits.close_timeout).await;
            }
        };
        tokio::select! {
            biased;
            () = ended => {}
            // A link that was replaced has its reason already.
            reason = self.read() => context.registry.end(&peer, reason),
        }
    }

    async fn read(&mut self) -> DisconnectReason {
        let mut breath = Breath::new();
        loop {
            let mut tag = None;
            let turn = AssertUnwindSafe(self.turn(&mut tag)).catch_unwind();
            match breath.during(turn).await {
                Ok(Ok(())) => {}
                // The peer does not know yet that its other link stays, so its messages are read on.
                Ok(Err(DisconnectReason::Duplicate)) => {
                    self.way_in.context.registry.end(&self.peer, DisconnectReason::Duplicate);
                }
                Ok(Err(reason)) => return reason,
                Err(_panic) => {
                    let peer = self.peer.id;
                    let rule = tag.and_then(|tag| self.way_in.context.tags.rule(tag));
                    if let Some(rule) = rule {
                        self.way_in.context.metrics.dropped(DropReason::LinkPanicked, rule.lane);
                    }
                    let tag = tag.map(tracing::field::display);
                    if let Some(left_out) = self.way_in.context.metrics.lines().link_panicked.due()
                    {
                        tracing::error!(%peer, tag, left_out, "a read panicked; its link ends");
                    }
                    return DisconnectReason::Internal;
                }
            }
            breath.take().await;
        }
    }

    /// Reads one message and deals with it. `tag` is the message's once it is there.
    async fn turn(&mut self, tag: &mut Option<Tag>) -> Result<(), DisconnectReason> {
        let received = self.source.next_message().await.map_err(|end| {
            if let Some(error) = end.error {
                tracing::debug!(peer = %self.peer.id, %error, "read failed");
            }
            end.reason
        })?;
        let came = received.tag;
        *tag = Some(came);
        let rule = self.way_in.context.tags.rule(came);
        let (lane, bytes) = (rule.map_or(Lane::Bulk, |rule| rule.lane), received.wire.len());
        self.traffic.count(lane, bytes);
        self.peer.tally.received(lane, bytes);
        let message = self.decode(received).await?;
        let stands_for = message.as_ref().map_or(came, |(message, _)| message.tag);
        *tag = Some(stands_for);
        // Also for what only the codec of the link heard: it costs a read, too.
        let pace = self.pace(stands_for)?;
        if let Some((message, packed)) = message {
            self.take(message, packed).await?;
        }
        if let Pace::Pause(pause) = pace {
            time::sleep(pause).await;
        }
        Ok(())
    }

    /// Notes a message at its rate, and counts it if it is beyond.
    fn pace(&mut self, tag: Tag) -> Result<Pace, DisconnectReason> {
        let now = Instant::now();
        self.peer.last_message.note(now);
        let pace = self.pacer.message(tag, now)?;
        if pace != Pace::Within {
            let lane = self.way_in.context.tags.rule(tag).map_or(Lane::Bulk, |rule| rule.lane);
            self.way_in.context.metrics.came_too_fast(self.peer.transport, lane);
        }
        Ok(pace)
    }

    /// Decodes a message as this link encodes it, and charges the result to the budget if it is large. A vote that came
    /// packed comes with its packed form.
    async fn decode(
        &mut self,
        coded: Received,
    ) -> Result<Option<(Received, Option<Bytes>)>, DisconnectReason> {
        let Some(decoder) = &mut self.decoder else { return Ok(Some((coded, None))) };
        let (wire, packed) = match decoder.decode(coded.tag, &coded.wire)? {
            Decoded::AsItCame => return Ok(Some((coded, None))),
            Decoded::Nothing => return Ok(None),
            Decoded::Answer(tag, payload) => {
                self.peer.lanes.urge(Frame::control(tag, Lane::Priority, &payload));
                return Ok(None);
            }
            Decoded::Message { wire, packed } => (wire, packed),
        };
        let tag = Tag(*wire.first_chunk().ok_or(DisconnectReason::BadData)?);
        let lane = self.way_in.context.tags.rule(tag).map_or(Lane::Bulk, |rule| rule.lane);
        let memory = if wire.len() <= INLINE_BYTES {
            MessageMemory::Uncharged
        } else {
            let room = self.way_in.context.budget.reserve(wire.len(), lane);
            let room = time::timeout(self.way_in.context.limits.inbound_wait, room).await;
            MessageMemory::Charged(room.map_err(|_elapsed| DisconnectReason::Stalled)?)
        };
        Ok(Some((Received { tag, wire, memory }, packed)))
    }

    /// Deals with one message.
    async fn take(
        &mut self,
        received: Received,
        packed: Option<Bytes>,
    ) -> Result<(), DisconnectReason> {
        let Received { tag, wire, memory } = received;
        match self.way_in.context.tags.rule(tag) {
            Some(rule) => self.known(rule, (wire, packed), memory).await,
            None => {
                self.dropped(DropReason::UnknownTag, Lane::Bulk);
                Ok(())
            }
        }
    }

    /// Deals with a message whose tag this network has.
    async fn known(
        &mut self,
        rule: &'static TagRule,
        (wire, packed): (Bytes, Option<Bytes>),
        memory: MessageMemory,
    ) -> Result<(), DisconnectReason> {
        let payload = wire.slice(Tag::BYTES.min(wire.len())..);
        if payload.len() > rule.max_payload {
            return Err(DisconnectReason::Oversized);
        }
        match (rule.forwarding, rule.tag) {
            (Forwarding::Gossip, _) => {
                let (wire, source) = (Some(wire), self.origin.clone());
                let arrival = Arrival { rule, wire, payload, packed, memory, source };
                match self.way_in.take_in(arrival, Patience::Waits, &mut None).await {
                    // A message without room was counted.
                    Ok(()) | Err(Refusal::NoRoom) => Ok(()),
                    Err(Refusal::End(reason)) => Err(reason),
                }
            }
            (Forwarding::HopLocal, Tag::UE) => {
                self.request(rule, wire, payload, memory);
                Ok(())
            }
            (Forwarding::HopLocal, tag) => self.control(tag, &payload),
        }
    }

    /// Messages that end here.
    fn control(&self, tag: Tag, payload: &Bytes) -> Result<(), DisconnectReason> {
        match tag {
            Tag::MI => {
                let wanted = interest::decode(payload, &self.way_in.context.tags)
                    .map_err(|_malformed| DisconnectReason::BadData)?;
                self.peer.set_interest(wanted, &self.way_in.context.tags);
            }
            Tag::MS => {
                // A digest of another length is ignored, as existing nodes do.
                if let Ok(digest) = <[u8; 32]>::try_from(&payload[..]) {
                    self.peer.has(Digest(digest));
                }
            }
            Tag::TS => {
                if self.peer.requests().answer(payload)? == Answered::Late {
                    self.dropped(DropReason::LateAnswer, Lane::Bulk);
                }
            }
            // A message that the codec of the link could not have read, if there is one.
            Tag::VP => self.dropped(DropReason::PackedVote, Lane::Priority),
            _ => {
                if let Some(hooks) = &self.peer.hooks {
                    hooks.control(self.peer.id, tag, payload)?;
                }
            }
        }
        Ok(())
    }

    /// A request to this node. Requests are not gossip: the same one may be asked again. They never hold
    /// up the messages behind them: what a peer asks for beyond its share is dropped.
    fn request(&self, rule: &'static TagRule, wire: Bytes, body: Bytes, memory: MessageMemory) {
        if !self.way_in.application.awaits(rule.tag) {
            return self.dropped(DropReason::Unhandled, rule.lane);
        }
        let make = || self.requested(rule, wire, body, memory);
        if self.origin.shares.requests().try_push_with(make) == Err(Refused::Full) {
            self.dropped(DropReason::RequestsFull, rule.lane);
        }
    }

    /// Counts a message of the peer that goes no further.
    fn dropped(&self, reason: DropReason, lane: Lane) {
        self.way_in.context.dropped_of(&self.peer, reason, lane);
    }

    fn requested(&self, rule: &TagRule, wire: Bytes, body: Bytes, memory: MessageMemory) -> Work {
        let message = Inbound {
            tag: rule.tag,
            body,
            from: Some(self.peer.id),
            identity: self.peer.identity(),
            transport: self.peer.transport,
            received: time::into_std(Instant::now()),
        };
        Work {
            message,
            wire,
            packed: None,
            fingerprint: None,
            digest: OnceLock::new(),
            lane: rule.lane,
            peer: Some(Arc::clone(&self.peer)),
            held: Held { wire: memory, _body: None },
            heard_on: HeardOn::Stream,
            shares: Arc::clone(&self.origin.shares),
            sighting: None,
            traced: None,
        }
    }
}
