//! Tests that use private items of the crate.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

mod bursts;
pub(crate) mod control;
mod control_floods;
mod door;
pub(crate) mod host;
mod http;
mod identities;
mod keys;
mod library;
mod links;
mod one_address;
mod reach;
mod recorded;
mod restart;
pub(crate) mod rpc;
mod streams;
mod topic_backlog;
mod topics;
mod unread;
