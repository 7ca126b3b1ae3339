//! The upgrade request, byte for byte that of existing nodes. Source: wire facts 1.2.

use base64::{Engine, prelude::BASE64_STANDARD};
use gossip::wire::{
    hello::Hello,
    identity::{self, Challenge},
};
use rand::Rng;

use super::Target;
use crate::context::{Context, Exchange};

/// A request, and the values that the reply is checked against.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    /// `Sec-WebSocket-Key`: the reply must contain a hash of it.
    pub(super) key: String,
    /// The identity challenge; the peer must sign it.
    pub(super) challenge: Option<Challenge>,
}

impl Sent {
    /// Builds the request for `target`.
    pub(super) fn new(context: &Context, target: &Target) -> Self {
        let mut random = context.environment().random();
        let key = BASE64_STANDARD.encode(random.random::<[u8; 16]>());
        let (challenge, identity_challenge) = match &context.exchange {
            Exchange::Off => (None, None),
            Exchange::On { key, .. } => {
                let challenge = Challenge(random.random());
                let header = identity::request_header(key, &target.name, challenge);
                (Some(challenge), Some(header))
            }
        };
        let hello = Hello { identity_challenge, ..context.hello.clone() };
        let mut text = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n",
            target.path, target.authority, context.user_agent
        );
        for (name, value) in hello.headers(context.profile) {
            text.extend([&name, ": ", &value, "\r\n"]);
        }
        text.push_str("\r\n");
        Self { bytes: text.into_bytes(), key, challenge }
    }
}
