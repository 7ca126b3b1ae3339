//! Answers block requests, whichever way they come: as messages (UE in, TS out), and over HTTP by its router.
//!
//! ```text
//!   UE ────▶ Responder ─▶ store ─ found ──────────────────────────────▶ the block
//!   router ──▶  │           └─ missing, or no store ─▶ BlockProxy ─ found ─▶ the block
//!               │                                        └─ nobody ─────▶ not available, latest round
//! ```
//!
//! # Invariants
//!
//! * Texts and topics are those of existing nodes, byte for byte. Source: wire facts 4.3, and the recorded
//!   exchanges in `testdata/block_service.json`.
//! * A block that is missing is never answered without the latest round: who asked would ask again at once,
//!   a thousand times over. Only a broken store and a lack of room are, as existing nodes do it.
//! * The answer to a request does not depend on its transport: an existing node asks by message or over HTTP,
//!   as it happens to be connected, and takes the first answer for what this node has.
//! * At most [`MAX_REQUESTS`] messages are being answered. What comes on top is not answered, so that the
//!   asker waits its four seconds.

use std::sync::Arc;

use bytes::Bytes;
use gossip::{
    BoxFuture, Handler, Inbound, LinkId, Verdict,
    wire::{
        block::{self, BlockRequest},
        topics::Topics,
    },
};
use runtime::Rarely;
use tokio::sync::Semaphore;

use super::{
    capacity::Capacity,
    proxy::{Asker, BlockProxy, Origin, Passed},
    store::{Blocks, Found},
    stored::StoredBlock,
};

/// Most requests being answered at once. Source: wire facts 4.3, ten times `CatchupParallelBlocks`.
pub const MAX_REQUESTS: usize = 160;

/// Key and texts of answers that only a node with a store gives. Source: wire facts 4.3.
const ERROR: &str = "Error";
const NO_ROOM: &str = "block service memory over capacity";
const NOT_AVAILABLE: &str = "requested block is not available";

/// Returns `true` if an answer to a block request says that there is no block.
pub(crate) fn is_refusal(answer: &Topics) -> bool {
    answer.get(ERROR).is_some()
}

/// The outcome of a search for a block.
#[derive(Debug)]
pub(super) enum Resolved {
    /// The block.
    Block(StoredBlock),
    /// Neither this node nor a peer that was asked has it.
    Unavailable {
        /// The newest round that this node has or heard of; 0 if there is none.
        latest: u64,
    },
    /// The store is broken.
    Broken,
    /// Too much is being asked for.
    Busy,
}

/// Answers block requests, from a store, from other peers, or both: a handler for [`Tag::UE`](gossip::Tag::UE),
/// and the source of what [`router`](super::router) serves. A cheap handle; clones share everything.
///
/// Without either it tells everybody that there are no blocks here.
#[derive(Clone, Debug)]
pub struct Responder {
    blocks: Option<Blocks>,
    proxy: Option<BlockProxy>,
    capacity: Capacity,
    places: Arc<Semaphore>,
    /// Lines about blocks that the store could not give: anybody may ask for the same one again and again.
    unserved: Arc<Rarely>,
}

impl Responder {
    /// A responder with neither store nor peers to ask. `capacity` bounds the answers on their way, those over
    /// HTTP included.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        let places = Arc::new(Semaphore::new(MAX_REQUESTS));
        Self { blocks: None, proxy: None, capacity, places, unserved: Arc::default() }
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
        let asker = asker.map(|link| (Asker::Link(link), Origin::of(payload, round)));
        match self.find(round, asker).await {
            Resolved::Block(block) => Some(self.found(block)),
            Resolved::Unavailable { latest } => Some(block::unavailable(latest)),
            Resolved::Broken => Some(Topics::new().with(ERROR, NOT_AVAILABLE)),
            Resolved::Busy => None,
        }
    }

    /// Looks for a block in the store, and then at other peers on behalf of `asker`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves what other peers are asked to the others that wait for it, or ends it.
    pub(super) async fn find(&self, round: u64, asker: Option<(Asker, Origin)>) -> Resolved {
        let latest = match &self.blocks {
            None => 0,
            Some(blocks) => match blocks.find(round).await {
                Ok(Found::Block(block)) => return Resolved::Block(block),
                Ok(Found::Missing { latest }) => latest,
                Err(error) => {
                    if let Some(left_out) = self.unserved.due() {
                        tracing::warn!(%error, round, left_out, "a block could not be served");
                    }
                    return Resolved::Broken;
                }
            },
        };
        let (Some(proxy), Some((asker, origin))) = (&self.proxy, asker) else {
            return Resolved::Unavailable { latest };
        };
        match proxy.obtain(round, asker, origin).await {
            Passed::Block(block) => Resolved::Block(block),
            Passed::Unavailable { latest: heard } => {
                Resolved::Unavailable { latest: latest.max(heard) }
            }
            Passed::Busy => Resolved::Busy,
        }
    }

    /// Counts bytes of an answer for as long as they live; `None` when there is no room for them.
    pub(super) fn hold(&self, bytes: impl AsRef<[u8]> + Send + 'static) -> Option<Bytes> {
        self.capacity.hold(bytes)
    }

    fn found(&self, stored: StoredBlock) -> Topics {
        let StoredBlock { block, cert } = stored;
        match (self.hold(block), self.hold(cert)) {
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
