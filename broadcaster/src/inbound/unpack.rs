//! From the payload of a message to its body and its fingerprint.
//!
//! ```text
//!   payload ─┬─ short, not compressed ─▶ hashed here
//!            ├─ compressed ─▶ seen with these very bytes? ─▶ nothing more to do
//!            │                └─▶ a short body: here     └─▶ a large one: ┐
//!            └─ large ────────────────────────────────────────────────────┴─▶ a thread of its own
//! ```
//!
//! # Invariants
//!
//! * Nothing here keeps a thread of the runtime for longer than [`INLINE_BODY_BYTES`] take.
//! * Large messages of all peers together have a bounded number of threads, in the order they came; a
//!   peer has one at a time for each of its read loops, as those wait for it.
//! * A large message is decompressed only if its sender has room for the result: the processor time of all peers
//!   together is bounded, and nobody gets more by coming back with a new connection.
//! * Bytes that became more than a proposal plausibly does count several times, so that little of that time goes to
//!   messages made to take it.
//! * A message that came before in the same bytes is not decompressed again. Two encodings of one body
//!   have one fingerprint: that of the body.
//! * Memory for a body is charged before it is taken.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use gossip::{
    Compression, DisconnectReason, Tag, TagRule,
    wire::{
        digest::Digest,
        proposal::{self, MAX_DECOMPRESSED, ProposalError},
    },
};
use runtime::time::Instant;
use tokio::sync::Semaphore;

use super::{
    patience::{Patience, Refusal},
    rate::CommonBucket,
    work::Shares,
};
use crate::{
    budget::Reservation,
    context::Context,
    duplicates::{Duplicates, Fingerprint},
    encode,
    limits::Rates,
    metrics::{DropReason, Metrics},
};

/// Bytes of a body that are decompressed and hashed where they are read. Chosen: that takes less than
/// the 200 µs for which a loop may keep its thread.
pub(crate) const INLINE_BODY_BYTES: usize = 64 * 1024;

/// Compressed messages whose fingerprint is remembered. Chosen: an hour of proposals, in half a MiB.
const MAX_KNOWN: usize = 4_096;

/// Largest factor by which proposals are taken to shrink. Chosen: keys and signatures do not shrink, so that those of
/// a network shrink to a half; a block that consists of notes full of zeros shrinks to a tenth.
const PLAUSIBLE_FACTOR: usize = 64;

/// Price of each byte beyond that. Chosen: six of the largest messages of a few bytes at once, and two a
/// second.
const IMPLAUSIBLE_PRICE: usize = 4;

/// The amount for which a message of `compressed` bytes counts that becomes `bytes`.
const fn price(bytes: usize, compressed: usize) -> usize {
    let implausible = bytes.saturating_sub(compressed.saturating_mul(PLAUSIBLE_FACTOR));
    bytes.saturating_add(implausible.saturating_mul(IMPLAUSIBLE_PRICE - 1))
}

/// A payload that was looked into.
pub(crate) struct Unpacked {
    pub(crate) fingerprint: Fingerprint,
    /// `None` when the message came before in the same bytes and is remembered.
    pub(crate) body: Option<Bytes>,
    /// Filled where it was worked out on the way.
    pub(crate) digest: OnceLock<Option<Digest>>,
    pub(crate) held: Option<Reservation>,
    /// The price of decompressing it.
    pub(crate) price: usize,
}

/// Looks into payloads, the large ones on threads of its own.
pub(crate) struct Unpacker {
    threads: Arc<Semaphore>,
    known: Arc<Known>,
    duplicates: Arc<Duplicates>,
    /// Bytes that the compressed messages of all peers became of late.
    unpacked: Mutex<CommonBucket>,
}

/// The fingerprints of messages by what they were compressed to.
#[derive(Default)]
struct Known(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_wire: HashMap<Fingerprint, Fingerprint>,
    order: VecDeque<Fingerprint>,
}

impl Known {
    fn get(&self, wire: Fingerprint) -> Option<Fingerprint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).by_wire.get(&wire).copied()
    }

    fn note(&self, wire: Fingerprint, body: Fingerprint) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.by_wire.insert(wire, body).is_some() {
            return;
        }
        table.order.push_back(wire);
        if table.order.len() > MAX_KNOWN
            && let Some(oldest) = table.order.pop_front()
        {
            table.by_wire.remove(&oldest);
        }
    }
}

impl Unpacker {
    /// Looks into at most `threads` large messages at a time.
    pub(crate) fn new(threads: usize, duplicates: Arc<Duplicates>) -> Self {
        let (threads, known) = (Arc::new(Semaphore::new(threads)), Arc::default());
        let unpacked = Mutex::new(CommonBucket::new(Instant::now()));
        Self { threads, known, duplicates, unpacked }
    }

    /// Looks into a payload.
    ///
    /// # Cancel safety
    ///
    /// Safe: what a thread has begun it finishes, for nobody.
    pub(crate) async fn unpack(
        &self,
        context: &Context,
        rule: &'static TagRule,
        payload: &Bytes,
        (patience, shares): (Patience, &Shares),
    ) -> Result<Unpacked, Refusal> {
        let job = Job {
            rule,
            payload: payload.clone(),
            duplicates: Arc::clone(&self.duplicates),
            known: Arc::clone(&self.known),
        };
        if !job.is_compressed() {
            return match payload.len() {
                ..=INLINE_BODY_BYTES => Ok(job.plain()),
                _ => self.on_a_thread(&context.metrics, move || Ok(job.large())).await,
            };
        }
        let limit = longest_body(payload)?;
        if payload.len() <= INLINE_BODY_BYTES
            && let Some(unpacked) = job.unpack_short(limit)?
        {
            return Ok(unpacked);
        }
        let longest = limit.min(context.budget.total());
        let highest = price(longest, payload.len());
        if !shares.has_part_of(&self.unpacked, highest, context.limits.rates.unpacked_in_all) {
            context.metrics.dropped(DropReason::OverRate, rule.lane);
            shares.charge(highest).map_err(Refusal::End)?;
            return Err(Refusal::NoRoom);
        }
        let room = context.budget.reserve(longest, rule.lane);
        let room = patience.wait(context, rule.lane, DropReason::BudgetFull, room).await?;
        self.on_a_thread(&context.metrics, move || job.unpack_large(room, limit)).await
    }

    /// Charges a peer for what a message of it became; false if it has no room for so much.
    ///
    /// # Errors
    ///
    /// [`Refusal::End`] when it was too much of late.
    pub(crate) fn admits(
        &self,
        price: usize,
        shares: &Shares,
        rates: &Rates,
    ) -> Result<bool, Refusal> {
        if price == 0 {
            return Ok(true);
        }
        shares.charge(price).map_err(Refusal::End)?;
        Ok(shares.takes_of(&self.unpacked, price, rates.unpacked_in_all))
    }

    async fn on_a_thread(
        &self,
        metrics: &Metrics,
        work: impl FnOnce() -> Result<Unpacked, Refusal> + Send + 'static,
    ) -> Result<Unpacked, Refusal> {
        // The semaphore is never closed.
        let thread = Arc::clone(&self.threads).acquire_owned().await;
        let done = runtime::on_a_thread(move || {
            // Held by the thread, which goes on if nobody waits for it any more.
            let _thread = thread;
            work()
        });
        done.await.unwrap_or_else(|error| {
            if let Some(left_out) = metrics.lines().link_panicked.due() {
                tracing::error!(%error, left_out, "looking into a message panicked; its link ends");
            }
            Err(Refusal::End(DisconnectReason::Internal))
        })
    }
}

/// The longest body that a compressed payload may have: as much as it announces.
///
/// # Errors
///
/// [`Refusal::End`] when it announces more than is allowed.
fn longest_body(payload: &[u8]) -> Result<usize, Refusal> {
    let announced = proposal::announced_len(payload).map(usize::try_from);
    let len = announced.unwrap_or(Ok(MAX_DECOMPRESSED));
    len.ok().filter(|len| *len <= MAX_DECOMPRESSED).ok_or(Refusal::End(DisconnectReason::BadData))
}

/// A payload on its way to a thread, with what is known of it.
struct Job {
    rule: &'static TagRule,
    payload: Bytes,
    duplicates: Arc<Duplicates>,
    known: Arc<Known>,
}

impl Job {
    fn is_compressed(&self) -> bool {
        self.rule.compression == Compression::Zstd && proposal::is_compressed(&self.payload)
    }

    /// A payload that is the body, however long.
    fn plain(self) -> Unpacked {
        let fingerprint = self.duplicates.fingerprint(self.rule.tag, &self.payload);
        let (body, digest) = (Some(self.payload), OnceLock::new());
        Unpacked { fingerprint, body, digest, held: None, price: 0 }
    }

    /// A large payload that is the body. Its digest is worked out too, unless it came before.
    fn large(self) -> Unpacked {
        let (rule, duplicates) = (self.rule, Arc::clone(&self.duplicates));
        let payload_bytes = self.payload.len();
        let unpacked = self.plain();
        if !is_remembered(&duplicates, rule, unpacked.fingerprint) {
            unpacked.work_out_digest(rule, payload_bytes);
        }
        unpacked
    }

    /// A message that came in the same bytes before and is remembered.
    fn known_already(&self, wire: Fingerprint) -> Option<Unpacked> {
        let fingerprint = self.known.get(wire)?;
        is_remembered(&self.duplicates, self.rule, fingerprint).then(|| Unpacked {
            fingerprint,
            body: None,
            digest: OnceLock::from(None),
            held: None,
            price: 0,
        })
    }

    /// A short payload with a body of at most `limit` bytes. `None` when what is in it is not short.
    fn unpack_short(&self, limit: usize) -> Result<Option<Unpacked>, Refusal> {
        let wire = self.duplicates.fingerprint(self.rule.tag, &self.payload);
        if let Some(known) = self.known_already(wire) {
            return Ok(Some(known));
        }
        if limit > INLINE_BODY_BYTES && proposal::announced_len(&self.payload).is_some() {
            return Ok(None);
        }
        match proposal::decompress(&self.payload, INLINE_BODY_BYTES) {
            Ok(body) => Ok(Some(self.unpacked(wire, body))),
            Err(ProposalError::TooLarge { .. }) => Ok(None),
            Err(_malformed) => Err(Refusal::End(DisconnectReason::BadData)),
        }
    }

    /// Any payload, with room for a body of `limit` bytes.
    fn unpack_large(self, room: Reservation, limit: usize) -> Result<Unpacked, Refusal> {
        let wire = self.duplicates.fingerprint(self.rule.tag, &self.payload);
        if let Some(known) = self.known_already(wire) {
            return Ok(known);
        }
        let body = proposal::decompress(&self.payload, limit)
            .map_err(|_malformed| Refusal::End(DisconnectReason::BadData))?;
        let held = Some(room.shrunk_to(body.len()));
        let unpacked = Unpacked { held, ..self.unpacked(wire, body) };
        if !is_remembered(&self.duplicates, self.rule, unpacked.fingerprint) {
            unpacked.work_out_digest(self.rule, self.payload.len());
        }
        Ok(unpacked)
    }

    fn unpacked(&self, wire: Fingerprint, body: Bytes) -> Unpacked {
        let fingerprint = self.duplicates.fingerprint(self.rule.tag, &body);
        self.known.note(wire, fingerprint);
        let price = price(body.len(), self.payload.len());
        Unpacked { fingerprint, body: Some(body), digest: OnceLock::new(), held: None, price }
    }
}

impl Unpacked {
    fn work_out_digest(&self, rule: &TagRule, payload_bytes: usize) {
        if let Some(body) = &self.body {
            let wire_bytes = Tag::BYTES + payload_bytes;
            self.digest.get_or_init(|| encode::digest(rule.tag, body, wire_bytes));
        }
    }
}

fn is_remembered(duplicates: &Duplicates, rule: &TagRule, message: Fingerprint) -> bool {
    duplicates.meet(rule.lane, message, Instant::now(), &mut None).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 8, 25.
    #[test]
    fn a_message_that_became_implausibly_much_counts_several_times() {
        assert_eq!(price(1_000_000, 400_000), 1_000_000);
        assert_eq!(
            price(MAX_DECOMPRESSED, MAX_DECOMPRESSED / PLAUSIBLE_FACTOR + 1),
            MAX_DECOMPRESSED
        );
        assert!(price(MAX_DECOMPRESSED, 200) > 3 * MAX_DECOMPRESSED);
        assert!(price(usize::MAX, usize::MAX / 2) >= usize::MAX / 2);
    }

    #[test]
    fn memory_of_compressed_messages_is_bounded() {
        let filter = Duplicates::new(&crate::limits::Limits::default(), [1; 32]);
        let name = |number: usize| filter.fingerprint(gossip::Tag::PP, &number.to_le_bytes());
        let known = Known::default();
        for number in 0..MAX_KNOWN + 10 {
            known.note(name(number), name(0));
        }
        assert_eq!(known.get(name(9)), None, "the oldest is forgotten");
        assert_eq!(known.get(name(10)), Some(name(0)));
        assert_eq!(known.0.lock().unwrap().by_wire.len(), MAX_KNOWN);
    }
}
