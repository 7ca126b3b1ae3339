//! Blocks: served, passed on and fetched, against what was recorded and against fakes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fake;
mod fetch;
mod gossip;
mod http;
mod proxy;
