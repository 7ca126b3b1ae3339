//! Tests that need the inside of the crate.

pub(crate) mod host;
mod http;
mod keys;
mod links;
mod reach;
mod recorded;
mod restart;
mod streams;
mod topics;
