//! The framing of a connection for fuzz targets, compiled for them alone.

use std::sync::Arc;

use broadcaster::Framing;
use tokio::time::Instant;

use crate::{frame::Role, framing::WsFraming, port::Port};

/// The end of a connection that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It listened.
    Listener,
    /// It dialled.
    Dialer,
}

/// The decoder for the frames of a new connection.
#[must_use]
pub fn framing(end: End) -> impl Framing {
    let role = match end {
        End::Listener => Role::Server,
        End::Dialer => Role::Client,
    };
    WsFraming::new(role, Arc::<Port>::default(), Instant::now())
}
