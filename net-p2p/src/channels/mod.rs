//! Connections whose streams are data channels, whatever carries these: SCTP of this crate (`webrtc`), or a host that has
//! WebRTC of its own (`given/channels`).
//!
//! ```text
//!   Muxer ◀─▶ Driver ◀─▶ Pump: moves what the association sends and receives
//!                │
//!   ChannelStream ◀─▶ Shared ◀─▶ Channels: streams, flags, bounds ◀─▶ Association: messages on numbered channels
//! ```
//!
//! # Invariants
//!
//! * A peer is who the Noise handshake says. It covers the certificates of both ends, so nobody stands between them.
//! * Messages, flags and the life cycle of a stream are the same over every association.

mod association;
mod channel;
mod driver;
mod fingerprint;
mod halves;
mod ids;
mod message;
mod noise;
mod pressure;
mod shared;
mod stream;
mod streams;

pub(crate) use self::{
    association::{Association, Event, Message},
    driver::{MEASURE_EVERY, Made, Pump},
    fingerprint::{Fingerprint, SHA_256},
    ids::{HANDSHAKE, Ids},
    noise::{Certificates, authenticate},
    shared::{Session, Shared},
    stream::ChannelStream,
    streams::Channels,
};

/// The end of a connection that this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Listener,
    Dialer,
}

/// The reason why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("this node has closed the connection")]
    Here,
    #[error("a library panicked")]
    Panicked,
    #[error("SCTP has failed")]
    Sctp,
    #[error("{0}")]
    Transport(#[source] std::io::Error),
    #[cfg(feature = "webrtc")]
    #[error("the peer has closed the connection")]
    ByPeer,
    #[cfg(feature = "webrtc")]
    #[error("the peer was silent for too long")]
    Silent,
    #[cfg(feature = "webrtc")]
    #[error("the peer has another certificate than its address says")]
    OtherCertificate,
    #[cfg(feature = "webrtc")]
    #[error("DTLS has failed")]
    Dtls(#[from] dimpl::Error),
    #[cfg(feature = "webrtc")]
    #[error("the socket is gone")]
    Socket,
}
