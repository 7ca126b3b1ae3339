//! Files named by their content: a store on disk, its router, and a client that trusts no peer.
//!
//! ```text
//!   body ─▶ Hashing ─▶ put-*.part ── fsync, rename ─▶ <id>, <id>.outline     Store
//!                                                        │
//!   GET /files/{id} (ranges)   GET /files/{id}/outline ◀─┘                   router
//!            │                          │
//!            │      Outline: its hashes merge to the id, or it is refused
//!            ▼                          ▼
//!   1 MiB group ─▶ its hash is the one in the outline? ─▶ <path>.part ─▶ <path>   Fetch
//! ```
//!
//! A file is named by the BLAKE3 hash of its content. BLAKE3 is a tree, so the hashes of the 1 MiB
//! groups of a file can be merged to its name: that list is the [`Outline`]. A client checks it before
//! the first byte, and then every group as it arrives. Nothing but a range request is needed of a
//! server, so `curl --range` works, and a fetch goes on at any peer where the last one left off.
//!
//! # Invariants
//!
//! * No text from the wire becomes a path: only a parsed [`FileId`] names a file, and symbolic links,
//!   hard links and anything else that is not a plain file of its own are not served.
//! * A file appears under its name whole and on disk, or not at all.
//! * No more than [`StoreLimits::quota_bytes`] are ever on disk, uploads under way included.
//! * A client hands out no byte that it has not verified; a peer's lie costs that peer, no other.
//! * Nothing holds more of a file than one group.

mod client;
mod fetch;
mod id;
mod link;
mod outline;
mod progress;
mod range;
mod routes;
mod section;
mod share;
mod store;

pub use client::{Client, PutFileError};
pub use fetch::{Fetch, FetchError, FetchLimits, Fetched, PeerError};
pub use id::{FileId, FileIdError};
pub use link::{FileLink, FileLinkError};
pub use outline::{GROUP_BYTES, Hashing, Outline, OutlineError};
pub use progress::Transferred;
pub use range::{Requested, requested};
pub use routes::{Uploads, router};
pub use section::Section;
pub use share::SharedFile;
pub use store::{Content, Kept, OpenStoreError, PutError, Store, StoreLimits, Stored};
