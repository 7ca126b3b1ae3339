//! The program `tandem`, run as a user runs it, and the pages of the manual.

mod api;
mod bursts;
mod certificates;
mod commands;
mod demo;
mod deployment;
mod dht;
mod docs;
mod doctor;
mod dual_stack;
mod health;
mod http;
mod listening;
mod local_network;
mod metrics_page;
mod nat;
mod output;
mod peer;
mod perf;
mod phonebook;
mod proxies;
mod refusals;
mod run;
mod service_manager;
mod signals;
#[cfg(feature = "otlp")]
mod spans;
mod strange_words;
#[path = "../support/mod.rs"]
mod support;
mod top;
mod topics;
mod trace;
#[cfg(feature = "quic")]
mod transports;
