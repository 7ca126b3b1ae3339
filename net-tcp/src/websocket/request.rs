//! The request for an upgrade to WebSocket, as RFC 6455 has a server judge it.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio_tungstenite::tungstenite::handshake;

/// The reason why a request is no request for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoUpgrade {
    /// It does not ask for an upgrade to WebSocket.
    #[error("it asks for no upgrade to WebSocket")]
    Headers,
    /// It is no `GET`.
    #[error("it is no GET")]
    Method,
    /// It asks for another version of WebSocket.
    #[error("it asks for another version of WebSocket than 13")]
    Version,
}

/// Returns `true` if the headers ask for an upgrade to WebSocket.
#[must_use]
pub fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, header::CONNECTION, "upgrade")
        && has_token(headers, header::UPGRADE, "websocket")
}

/// Judges a request, but for its origin and its key.
///
/// # Errors
///
/// [`NoUpgrade`], the first reason in the order of existing nodes.
pub fn judge(method: &Method, headers: &HeaderMap) -> Result<(), NoUpgrade> {
    if !asks_for_upgrade(headers) {
        return Err(NoUpgrade::Headers);
    }
    if *method != Method::GET {
        return Err(NoUpgrade::Method);
    }
    match has_token(headers, header::SEC_WEBSOCKET_VERSION, "13") {
        true => Ok(()),
        false => Err(NoUpgrade::Version),
    }
}

/// The key of a request; `None` if it has none.
#[must_use]
pub fn key(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty())
}

/// A key for a request, from random bytes.
#[must_use]
pub fn new_key(random: [u8; 16]) -> String {
    BASE64_STANDARD.encode(random)
}

/// The value of `Sec-WebSocket-Accept` that answers a key.
#[must_use]
pub fn accept_key(key: &[u8]) -> String {
    handshake::derive_accept_key(key)
}

/// Returns `true` if any line of a header lists `token`, compared without case.
#[must_use]
pub fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name);
    let mut items = lines.iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_stand_in_any_line_of_a_header() {
        let mut lines = HeaderMap::new();
        for (name, value) in [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")] {
            lines.append(name, HeaderValue::from_static(value));
        }
        assert!(has_token(&lines, header::CONNECTION, "upgrade"));
        assert!(has_token(&lines, header::UPGRADE, "websocket"));
        assert!(!has_token(&lines, header::UPGRADE, "socket"));
        assert_eq!(judge(&Method::GET, &lines), Err(NoUpgrade::Version));
    }
}
