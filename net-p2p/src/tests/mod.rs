//! Tests that need the inside of the crate.

pub(crate) mod host;
mod http;
mod keys;
mod library;
mod links;
mod reach;
mod recorded;
mod restart;
mod rpc;
mod streams;
mod topics;
