//! Floods and peers that stall beside honest peers: measured at the losses, the times or the memory of the node.
//!
//! # Invariants
//!
//! * A test that measures times or losses runs [`alone`], and one that measures memory [`beside_one_other`]: a third
//!   flood on two cores would measure the machine.

mod hostile;
mod memory_ceiling;
mod returning_flooder;
mod slow_peers;
mod slow_senders;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Floods at one time. Chosen: the cores of the smallest machine that runs these tests.
const FLOODS: u32 = 2;

static FLOOD_PERMITS: Semaphore = Semaphore::const_new(FLOODS as usize);

/// Waits until no other test of this program runs, and keeps others back until the permit is dropped.
async fn alone() -> SemaphorePermit<'static> {
    FLOOD_PERMITS.acquire_many(FLOODS).await.expect("the semaphore is never closed")
}

/// Waits until at most one other test of this program runs.
async fn beside_one_other() -> SemaphorePermit<'static> {
    FLOOD_PERMITS.acquire().await.expect("the semaphore is never closed")
}
