//! The memory that a libp2p network uses beside the byte budget of its node.

/// Bounds on memory, in bytes, that follow from the byte budget of a node and are in addition to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryBounds {
    /// Bytes of all connections that are not read or not sent yet. Default: a quarter of the budget, at least 16 MiB.
    /// Chosen: 48 MiB with the default budget, of which 2,400 idle peers use less than half.
    pub backlog_bytes: usize,
    /// Bytes published to all peers that have not reached their connections. Half of the backlog's bound. Chosen: a
    /// burst of the outbox to a few peers.
    pub published_bytes: usize,
    /// Memory of the message IDs in GossipSub. Default: five sixths of the budget. Chosen: 160 MiB with the default
    /// budget, for 262,000 messages received within two minutes, 2,180 a second, of which
    /// 218,000 are passed to peers.
    pub message_id_bytes: usize,
}

/// Smallest default of the backlog's bound, in bytes. Chosen: 64 full streams that are not read.
const LEAST_BACKLOG_BYTES: usize = 16 * 1024 * 1024;

/// The bound on published bytes beside a backlog of `backlog_bytes`.
pub(crate) const fn published_bytes(backlog_bytes: usize) -> usize {
    backlog_bytes / 2
}

impl MemoryBounds {
    /// The defaults beside a budget of `budget_bytes`.
    #[must_use]
    pub fn beside(budget_bytes: usize) -> Self {
        let message_id_bytes = budget_bytes / 6 * 5;
        Self { backlog_bytes: 0, published_bytes: 0, message_id_bytes }
            .with_backlog((budget_bytes / 4).max(LEAST_BACKLOG_BYTES))
    }

    /// The same with another bound on the backlog.
    #[must_use]
    pub const fn with_backlog(mut self, bytes: usize) -> Self {
        (self.backlog_bytes, self.published_bytes) = (bytes, published_bytes(bytes));
        self
    }

    /// All bounds together, in bytes.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.backlog_bytes
            .saturating_add(self.published_bytes)
            .saturating_add(self.message_id_bytes)
    }
}
