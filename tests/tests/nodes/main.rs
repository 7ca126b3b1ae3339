//! Whole nodes in this process, over real sockets.
//!
//! Their tests run side by side. One that measures the process, or that loads the machine for seconds, belongs
//! elsewhere: see `floods` and `programs`.

mod bans;
mod blocks;
mod bridge;
mod bystander;
mod clock_jumps;
mod corpus;
mod crowded_subnet;
mod dead_holder;
mod dht;
mod dns;
mod embedding;
mod filters;
mod interest;
mod last_words;
mod line;
mod members;
mod misbehaviour;
mod own_profile;
mod own_protocol;
mod packed_votes;
mod subscriber;
mod tag_topics;
