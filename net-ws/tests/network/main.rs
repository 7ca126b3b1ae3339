//! Nodes and raw sockets over loopback: gossip, handshakes, frames, TLS, and services on the same port.

mod claims;
mod client_certificates;
mod dial_tls;
mod gossip;
mod handshake_refusals;
mod http_refusals;
mod identity;
mod interop;
mod pages;
mod priority;
mod proxied;
mod services;
mod tls;
mod ws_frames;

#[path = "../common/mod.rs"]
mod common;
