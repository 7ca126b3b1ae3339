//! Connections between two hosts that nobody can dial, as two browsers are: they tell each other over a circuit how to
//! connect, and have data channels directly from then on.
//! Source: libp2p specifications, `webrtc/webrtc.md`.
//!
//! ```text
//!   dial /…/p2p/RELAY/p2p-circuit/webrtc/p2p/ID ─▶ a stream on the circuit ─▶ exchange ◀─▶ Signals ◀─▶ host: offers
//!   a peer opens a stream on a circuit ─▶ Meetings ─▶ door ─▶ exchange ◀─▶ Signals ◀─▶ host: answers
//! ```
//!
//! # Invariants
//!
//! * The signals go over a connection whose peer has proven its identity, and they have the hashes of both certificates. So the
//!   peer of the new connection is that of the signals, without another handshake.
//! * Signals go over circuits alone: a peer with a direct connection is met already.
//! * A meeting passes the door like any other connection, from the address of its relay.
//! * At most [`MAX_MEETINGS`] that peers began are in progress, and one of each peer; further ones are refused and counted.

mod course;
mod exchange;
mod places;
mod signal;
mod transport;

use std::io;

use libp2p::StreamProtocol;

use self::signal::SignalFault;
pub(crate) use self::transport::{MeetingParts, Meetings};
pub use self::{
    exchange::{SignalReceiver, SignalSender, Signals},
    signal::Signal,
};
use crate::{
    channels::Ended,
    dial_hosts::NotPublic,
    given::transport::NotReached,
    streams::{Bounds, OpenError},
};

/// Between two ends of a circuit. Source: libp2p specifications, `webrtc/webrtc.md`.
const SIGNALLING: StreamProtocol = StreamProtocol::new("/webrtc-signaling/0.0.1");

/// Bounds on streams of signals that wait for the swarm. Chosen: it takes them within milliseconds.
const WAITING: Bounds = Bounds { per_connection: 2, in_all: 16 };

/// Meetings in progress that peers began, at most. Chosen: as many as circuits that relays hand over.
const MAX_MEETINGS: usize = 32;

/// The part of one end in a meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeetingRole {
    /// It begins: it describes itself first.
    Offers,
    /// It waits for the description of the other end.
    Answers,
}

impl MeetingRole {
    const fn other(self) -> Self {
        match self {
            Self::Offers => Self::Answers,
            Self::Answers => Self::Offers,
        }
    }
}

/// The reason why two hosts did not meet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeetingError {
    #[error("no transport of this node has WebRTC between two browsers")]
    NoHost,
    #[error(transparent)]
    NotPublic(#[from] NotPublic),
    #[error("the peer cannot be told how to connect")]
    NotTold(#[source] OpenError),
    #[error("the peer is connected directly already")]
    Direct,
    #[error("the peer has ended before it said how to connect")]
    Signals(#[source] io::Error),
    #[error("the peer broke the rules of signals: {0}")]
    OfPeer(#[source] SignalFault),
    #[error("the transport broke the rules of signals: {0}")]
    OfHost(#[source] SignalFault),
    #[error(transparent)]
    Host(#[from] NotReached),
    #[error(transparent)]
    Ended(#[from] Ended),
}

#[cfg(test)]
mod tests;
