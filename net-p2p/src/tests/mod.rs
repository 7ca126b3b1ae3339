//! Tests that use private items of the crate.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

mod addresses;
mod alone;
mod attacked;
mod bursts;
mod by_hand;
#[cfg(feature = "tls")]
mod certificates;
#[cfg(feature = "reachability")]
mod circuits;
pub(crate) mod control;
mod control_floods;
#[cfg(feature = "dht")]
mod dht;
mod door;
#[cfg(feature = "quic")]
mod half_open_quic;
pub(crate) mod host;
mod http;
mod identities;
mod invalid_messages;
mod keys;
mod library;
mod library_metrics;
mod links;
mod local_network;
#[cfg(feature = "quic")]
mod many_over_quic;
#[cfg(feature = "reachability")]
mod meetings;
mod mesh_slots;
mod one_address;
#[cfg(all(feature = "quic", feature = "webrtc"))]
mod one_udp_port;
mod own_topics;
#[cfg(feature = "private-network")]
mod private;
mod reach;
mod recorded;
mod restart;
pub(crate) mod rpc;
mod streams;
mod subscription_floods;
mod topic_backlog;
mod topics;
mod transports;
#[cfg(feature = "reachability")]
mod two_ways;
mod unread;
#[cfg(feature = "websocket")]
mod web;
mod withheld_topics;
