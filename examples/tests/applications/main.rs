//! The applications as processes of their own, over both transports.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

#[path = "../../../node/tests/support/process.rs"]
#[allow(dead_code, reason = "it is shared with the tests of the program")]
mod process;

#[path = "../../chat/message.rs"]
#[allow(dead_code, reason = "it is a part of the chat")]
mod message;

mod chat;
mod client;
mod key_value;
mod publish_subscribe;
mod relay_client;
mod remote_web_server;
mod replicated_log;
mod terminal;
