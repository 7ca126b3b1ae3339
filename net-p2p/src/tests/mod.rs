//! Tests that need the inside of the crate.

mod host;
mod recorded;
mod restart;
mod streams;
