//! The state of a configured address: the outcome of its last dial, the last error, and the next try.

use crate::Instant;

/// The state of a configured address, as shown to an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DialState {
    /// The address as it was configured.
    pub address: String,
    /// Result of its last dial.
    pub outcome: DialOutcome,
    /// Number of dials in a row that led to nothing; zero after a success.
    pub failures: u64,
    /// Why the last of them did; kept after a success.
    pub last_error: Option<String>,
    /// Time of the next dial, if that is known.
    pub next_try: Option<Instant>,
    /// Number of times that its failure was told since it was last connected.
    pub told: u32,
}

impl DialState {
    /// The state of an address that has not been dialled yet.
    #[must_use]
    pub const fn pending(address: String) -> Self {
        let outcome = DialOutcome::Pending;
        Self { address, outcome, failures: 0, last_error: None, next_try: None, told: 0 }
    }
}

/// The result of the last dial of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialOutcome {
    /// Nothing yet: it is being dialled, or soon will be.
    Pending,
    /// A link, which is up.
    Connected,
    /// The peer is connected by another link, so the address is not needed.
    ConnectedOtherwise,
    /// Nothing; it will be dialled again.
    Failed,
}

impl DialOutcome {
    /// Returns the name of the outcome in output for programs. Names stay as they are.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Connected => "connected",
            Self::ConnectedOtherwise => "connected_otherwise",
            Self::Failed => "failed",
        }
    }

    /// Returns `true` if a link to the peer at the address is up, over this address or otherwise.
    #[must_use]
    pub const fn is_connected(self) -> bool {
        matches!(self, Self::Connected | Self::ConnectedOtherwise)
    }
}
