//! The head of an answer as bytes, and the form of its body.
//!
//! # Invariants
//!
//! * An answer has one length: the number of bytes that it declares, chunks, or the end of the connection. A body
//!   that is longer is cut, and one that is shorter ends the connection.

use bytes::{BufMut, Bytes, BytesMut};
use gossip::HeaderCase;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Body;

use super::head::{After, has_token};

/// The form of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// This many bytes are still to be written.
    Length(u64),
    /// Chunks; an empty one marks the end.
    Chunked,
    /// The body ends with the connection.
    UntilClosed,
}

/// A body that is shorter than its answer declares.
#[derive(Debug, thiserror::Error)]
#[error("the answer is {left} bytes shorter than it declares")]
pub(crate) struct TooShort {
    left: u64,
}

impl Form {
    /// Writes a piece of the body.
    pub(super) fn put(&mut self, out: &mut BytesMut, piece: &Bytes) {
        match self {
            Self::Chunked if piece.is_empty() => {}
            Self::Chunked => {
                out.put_slice(format!("{:X}\r\n", piece.len()).as_bytes());
                out.put_slice(piece);
                out.put_slice(b"\r\n");
            }
            Self::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
                *left -= count as u64;
                out.put_slice(piece.get(..count).unwrap_or_default());
            }
            Self::UntilClosed => out.put_slice(piece),
        }
    }

    /// Returns `true` if nothing more of the body can be written.
    pub(super) const fn is_over(self) -> bool {
        matches!(self, Self::Length(0))
    }

    /// Writes the end of the body.
    pub(super) fn end(self, out: &mut BytesMut) -> Result<(), TooShort> {
        match self {
            Self::Chunked => out.put_slice(b"0\r\n\r\n"),
            Self::Length(left @ 1..) => return Err(TooShort { left }),
            Self::Length(0) | Self::UntilClosed => {}
        }
        Ok(())
    }
}

/// The request that is answered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    /// The state of the connection after the answer, as far as request and server are concerned.
    pub(super) after: After,
    pub(super) case: HeaderCase,
}

/// Writes the head of an answer. Returns the form of its body, and the state of the connection after it.
pub(super) fn put_head<B: Body>(
    out: &mut BytesMut,
    asked: &Asked,
    response: &mut Response<B>,
) -> (Form, After) {
    let mut after = asked.after;
    if response.status().is_informational() {
        // An answer that says that there will be another one.
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response.headers_mut().clear();
        after = After::Closed;
    }
    let (status, is_old) = (response.status(), asked.version == Version::HTTP_10);
    let length = declared(response);
    let body = match response.body().is_end_stream() {
        true => Some(0),
        false => response.body().size_hint().exact(),
    };
    let headers = response.headers_mut();
    if body == Some(0) && asked.method != Method::HEAD {
        // Another length is written below.
        headers.remove(header::CONTENT_LENGTH);
    }
    after = connection(headers, is_old, after);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::TRAILER);
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_head = asked.method == Method::HEAD;
    let length = match (body, length) {
        (Some(0), length) if is_head => length,
        (Some(length), _) | (None, Some(length)) => Some(length),
        (None, None) => None,
    };
    match length.filter(|_| has_body) {
        // In the place of the one that was declared.
        Some(length) => drop(headers.insert(header::CONTENT_LENGTH, length.into())),
        None => drop(headers.remove(header::CONTENT_LENGTH)),
    }
    let form = match length {
        _ if is_head || !has_body => Form::Length(0),
        Some(length) => Form::Length(length),
        None if is_old => Form::UntilClosed,
        None => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            Form::Chunked
        }
    };
    if form == Form::UntilClosed {
        after = After::Closed;
    }
    let version = if is_old { "HTTP/1.0" } else { "HTTP/1.1" };
    let reason = status.canonical_reason().unwrap_or("<none>");
    out.put_slice(format!("{version} {} {reason}\r\n", status.as_str()).as_bytes());
    put_fields(out, headers, asked.case);
    (form, after)
}

/// The length that the headers of an answer declare.
fn declared<B>(response: &Response<B>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Completes `Connection`: says that the connection closes, or to a client of HTTP/1.0 that it does not.
fn connection(headers: &mut HeaderMap, is_old: bool, after: After) -> After {
    let said = if is_old { "keep-alive" } else { "close" };
    let must_say = is_old == (after == After::Kept);
    if must_say && !has_token(headers, said) {
        headers.append(header::CONNECTION, HeaderValue::from_static(said));
    }
    if has_token(headers, "close") { After::Closed } else { after }
}

fn put_fields(out: &mut BytesMut, headers: &HeaderMap, case: HeaderCase) {
    for name in headers.keys() {
        let values = headers.get_all(name).iter();
        if *name == header::CONNECTION {
            let tokens: Vec<_> = values.map(HeaderValue::as_bytes).collect();
            put_field(out, name, &tokens.join(&b", "[..]), case);
        } else {
            values.for_each(|value| put_field(out, name, value.as_bytes(), case));
        }
    }
    out.put_slice(b"\r\n");
}

fn put_field(out: &mut BytesMut, name: &HeaderName, value: &[u8], case: HeaderCase) {
    let mut starts_word = case == HeaderCase::Canonical;
    for byte in name.as_str().bytes() {
        out.put_u8(if starts_word { byte.to_ascii_uppercase() } else { byte });
        starts_word = case == HeaderCase::Canonical && byte == b'-';
    }
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}
