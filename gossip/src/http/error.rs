//! Why there is no response.

use std::time::Duration;

use super::BoxError;
use crate::identity::Identity;

/// Why an address, or a peer, has no HTTP client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpAddressError {
    /// Its transport is not one of this node's.
    #[error("{address} is an address of a transport that this node does not have")]
    OtherTransport {
        /// The address.
        address: String,
    },
    /// It cannot be used.
    #[error("{address} cannot be asked: {reason}")]
    Unusable {
        /// The address.
        address: String,
        /// The rule that it breaks, in words.
        reason: String,
    },
    /// No link leads to the peer.
    #[error("{peer} is not connected")]
    NotConnected {
        /// The peer.
        peer: Identity,
    },
    /// The peer is connected over WebSocket and came from elsewhere, so only it could say where it listens.
    #[error("{peer} is connected and does not say where it serves HTTP")]
    NoAddress {
        /// The peer.
        peer: Identity,
    },
}

/// Why there is no response. [`HttpError::may_have_reached`] tells whether the peer may have acted on
/// the request all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The request cannot be sent as it is.
    #[error("the request cannot be sent as it is")]
    Invalid {
        /// The rule that it breaks, in words.
        source: BoxError,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
    /// No connection to the peer could be made.
    #[error("the peer cannot be reached")]
    Unreachable {
        /// The error of the transport.
        source: BoxError,
    },
    /// The request waited too long for its turn under the limits on requests to the peer.
    #[error("queueing timeout: no turn within {waited:?}")]
    QueueTimeout {
        /// Longest wait allowed.
        waited: Duration,
    },
    /// Too many requests wait for their turn at the peer already.
    #[error("{waiting} requests wait for the peer already")]
    QueueFull {
        /// Number of them.
        waiting: usize,
    },
    /// The deadline passed before the request was sent.
    #[error("the deadline passed before the request was sent")]
    DeadlineUnsent,
    /// The deadline passed, and there is no response.
    #[error("no response within the deadline")]
    Deadline,
    /// The connection broke before there was a response.
    #[error("the connection broke before there was a response")]
    Broken {
        /// The error that broke it.
        source: BoxError,
    },
    /// The peer sent something that is no response.
    #[error("the peer sent something that is not a response")]
    Protocol {
        /// The rule that it breaks, in words.
        source: BoxError,
    },
    /// The body of the request failed while it was sent.
    #[error("the body of the request failed while it was sent")]
    RequestBody {
        /// The error of the body.
        source: BoxError,
    },
}

impl HttpError {
    /// Returns whether the peer may have received the request, and so may have acted on it. If not, the request
    /// can be sent again, whatever it asks for.
    #[must_use]
    pub const fn may_have_reached(&self) -> bool {
        match self {
            Self::Invalid { .. }
            | Self::Stopped
            | Self::Unreachable { .. }
            | Self::QueueTimeout { .. }
            | Self::QueueFull { .. }
            | Self::DeadlineUnsent => false,
            Self::Deadline
            | Self::Broken { .. }
            | Self::Protocol { .. }
            | Self::RequestBody { .. } => true,
        }
    }
}
