//! The head of a request, from bytes that the guard has passed.
//!
//! # Invariants
//!
//! * The guard refuses a head that can be read in two ways, so the first length found here is the only one.

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use httparse::{EMPTY_HEADER, Status};

use crate::serve::guard::{Length, MAX_HEADERS};

/// A request without its body, and what its head says about the connection.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: Request<()>,
    pub(super) body: Length,
    pub(super) after: After,
    pub(super) expect: Expect,
}

/// The state of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::serve) enum After {
    /// The next request may follow.
    Kept,
    /// The connection is closed.
    Closed,
}

/// The client's wait before it sends the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// None: the body follows at once.
    Nothing,
    /// The body follows when `100 Continue` was sent.
    Continue,
}

/// A head of which no request can be made, although the guard passes it: its target is no URI.
#[derive(Debug, thiserror::Error)]
#[error("the target of the request is no URI")]
pub(super) struct Unusable;

/// Takes the head at the start of `held`; `None` if it has not arrived whole.
pub(super) fn take(held: &mut BytesMut) -> Result<Option<Head>, Unusable> {
    let mut fields = [EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut fields);
    let Status::Complete(len) = parsed.parse(held).map_err(|_| Unusable)? else { return Ok(None) };
    let head = head(&parsed);
    held.advance(len.min(held.len()));
    head.map(Some)
}

fn head(parsed: &httparse::Request<'_, '_>) -> Result<Head, Unusable> {
    let mut request = Request::new(());
    let method = parsed.method.unwrap_or_default().as_bytes();
    *request.method_mut() = Method::from_bytes(method).map_err(|_| Unusable)?;
    *request.uri_mut() = parsed.path.unwrap_or_default().parse::<Uri>().map_err(|_| Unusable)?;
    *request.version_mut() = match parsed.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Unusable)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Unusable)?;
        request.headers_mut().append(name, value);
    }
    let (version, headers) = (request.version(), request.headers());
    let body = length(headers).ok_or(Unusable)?;
    let after = match (has_token(headers, "close"), version) {
        (true, _) => After::Closed,
        (false, Version::HTTP_11) => After::Kept,
        (false, _) if has_token(headers, "keep-alive") => After::Kept,
        (false, _) => After::Closed,
    };
    let waits = version == Version::HTTP_11 && body != Length::Known(0);
    let expected = headers.get_all(header::EXPECT).iter().next_back();
    let expect = match expected {
        Some(value) if waits && value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Expect::Continue
        }
        _ => Expect::Nothing,
    };
    Ok(Head { request, body, after, expect })
}

/// The length of the body.
fn length(headers: &HeaderMap) -> Option<Length> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Some(Length::Chunked);
    }
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Some(Length::Known(0)) };
    length.to_str().ok()?.parse().ok().map(Length::Known)
}

/// Returns `true` if a value of `Connection` names this token.
pub(in crate::serve) fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|named| named.trim().eq_ignore_ascii_case(token))
}
