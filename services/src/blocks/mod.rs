//! Blocks: kept, served, passed on and fetched.
//!
//! ```text
//!   HTTP ─▶ router ─┐                                     ┌─▶ MemoryStore
//!                   ├─▶ Responder ─▶ Blocks ─▶ BlockStore ┤
//!   UE ─────────────┘       │           ▲                 └─▶ RedbStore
//!                           │           └─ Fetcher ◀─ sources: HTTP clients, gossip peers
//!                           └─▶ BlockProxy ─▶ other peers
//! ```
//!
//! A block and its certificate are kept as they travel. What is served over HTTP and what is answered to
//! messages comes from one store and keeps one bound of memory, a [`Capacity`].
//!
//! # Invariants
//!
//! * Answers are those of existing nodes byte for byte; `testdata/` holds what they were recorded with.
//! * A block is looked into only as far as its round: whether it is the right one, a ledger tells.
//! * Nothing here starts a task. Who calls drives what it called, and ends it by dropping it; calls of a
//!   blocking store run to their end on threads made for that, a bounded number of them.

mod capacity;
mod fetch;
mod http;
mod memory;
mod proxy;
mod redb_store;
mod responder;
mod round;
pub mod sample;
mod store;
mod stored;

pub(crate) use self::responder::is_refusal;
pub use self::{
    capacity::{Capacity, MAX_BYTES_IN_FLIGHT},
    fetch::{
        Failure, FetchLimits, Fetched, Fetcher, Gap, Progress, Source, SourceReport, Tally, Why,
    },
    http::{Fallback, FallbackError, X_LATEST_ROUND, page_not_found, router},
    memory::MemoryStore,
    proxy::{BlockProxy, BlockProxyLimits},
    redb_store::{OpenError, RedbStore},
    responder::{MAX_REQUESTS, Responder},
    round::{Base36, RoundError, path},
    store::{Access, BlockStore, Blocks, Found, MAX_BLOCKING, StoreError},
    stored::{BlockError, CONTENT_TYPE, LEGACY_CONTENT_TYPE, MAX_BODY_BYTES, StoredBlock},
};
