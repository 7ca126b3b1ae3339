//! Blocks: served, passed on and fetched, against what was recorded and against fakes.

mod fake;
mod fetch;
mod gossip;
mod http;
mod passing;
