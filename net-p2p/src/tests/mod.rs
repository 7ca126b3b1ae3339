//! Tests that need the inside of the crate.

mod host;
mod links;
mod recorded;
mod restart;
mod streams;
mod topics;
