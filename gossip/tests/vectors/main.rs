//! Wire formats against the recordings of existing nodes.

mod address;
mod digest;
mod frames;
mod hello;
mod identity;
mod priority;
mod proposal;
mod support;
mod topics;
mod vote;
