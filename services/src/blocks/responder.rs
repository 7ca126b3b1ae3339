//! Answers block requests that come in as messages: UE in, TS out.
//!
//! ```text
//!   UE ─▶ Responder ─▶ store ─ found ───────────────────────────────▶ TS with the block
//!                        └─ missing, or no store ─▶ BlockProxy ─ found ─▶ TS with the block
//!                                                     └─ nobody ─────▶ TS: not available, latest round
//! ```
//!
//! # Invariants
//!
//! * Texts and topics are those of existing nodes, byte for byte. Source: wire facts 4.3, and the recorded
//!   exchanges in `testdata/block_service.json`.
//! * A block that is missing is never answered without the latest round: who asked would ask again at once,
//!   a thousand times over. Only a broken store and a lack of room are, as existing nodes do it.
//! * At most [`MAX_REQUESTS`] requests are being answered. What comes on top is not answered, so that who
//!   asks waits its four seconds.

use std::sync::Arc;

use bytes::Bytes;
use gossip::{
    BoxFuture, Handler, Inbound, LinkId, Verdict,
    wire::{
        block::{self, BlockRequest},
        topics::Topics,
    },
};
use tokio::sync::Semaphore;

use super::{
    capacity::Capacity,
    proxy::{BlockProxy, Origin, Passed},
    store::{Blocks, Found},
    stored::StoredBlock,
};

/// Most requests being answered at once. Source: wire facts 4.3, ten times `CatchupParallelBlocks`.
pub const MAX_REQUESTS: usize = 160;

/// Key and texts of answers that only a node with a store gives. Source: wire facts 4.3.
const ERROR: &str = "Error";
const NO_ROOM: &str = "block service memory over capacity";
const NOT_AVAILABLE: &str = "requested block is not available";

/// Answers block requests, from a store, from other peers, or both; a handler for [`Tag::UE`](gossip::Tag::UE).
///
/// Without either it tells everybody that there are no blocks here.
#[derive(Clone, Debug)]
pub struct Responder {
    blocks: Option<Blocks>,
    proxy: Option<BlockProxy>,
    capacity: Capacity,
    places: Arc<Semaphore>,
}

impl Responder {
    /// A responder with neither store nor peers to ask. `capacity` is best shared with what serves the same
    /// blocks over HTTP.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        let places = Arc::new(Semaphore::new(MAX_REQUESTS));
        Self { blocks: None, proxy: None, capacity, places }
    }

    /// Answers from this store first.
    #[must_use]
    pub fn store(self, blocks: Blocks) -> Self {
        Self { blocks: Some(blocks), ..self }
    }

    /// Passes on what it cannot answer from a store.
    #[must_use]
    pub fn proxy(self, proxy: BlockProxy) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    async fn answer(&self, payload: &Bytes, asker: Option<LinkId>) -> Option<Topics> {
        let _place = self.places.try_acquire().ok()?;
        let round = match BlockRequest::parse(payload) {
            Ok(request) => request.round,
            Err(error) => return Some(block::refusal(&error)),
        };
        let latest = match &self.blocks {
            None => 0,
            Some(blocks) => match blocks.find(round).await {
                Ok(Found::Block(block)) => return Some(self.found(block)),
                Ok(Found::Missing { latest }) => latest,
                Err(error) => {
                    tracing::warn!(%error, round, "a block could not be served");
                    return Some(Topics::new().with(ERROR, NOT_AVAILABLE));
                }
            },
        };
        let (Some(proxy), Some(asker)) = (&self.proxy, asker) else {
            return Some(block::unavailable(latest));
        };
        match proxy.obtain(round, asker, Origin::of(payload, round)).await {
            Passed::Block(block) => Some(self.found(block)),
            Passed::Unavailable { latest: heard } => Some(block::unavailable(latest.max(heard))),
            Passed::Busy => None,
        }
    }

    fn found(&self, stored: StoredBlock) -> Topics {
        let StoredBlock { block, cert } = stored;
        match (self.capacity.hold(block), self.capacity.hold(cert)) {
            (Some(block), Some(cert)) => block::found(block, cert),
            _ => Topics::new().with(ERROR, NO_ROOM),
        }
    }
}

impl Handler for Responder {
    fn handle(&self, message: Inbound) -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            let answer = self.answer(&message.body, message.from).await;
            answer.map_or(Verdict::Ignore, Verdict::Respond)
        })
    }
}
