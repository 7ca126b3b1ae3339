//! The head of an answer as bytes, and the form of its body.
//!
//! # Invariants
//!
//! * An answer has one length: the number of bytes that it declares, chunks, or the end of the connection. A body
//!   that is longer is cut, and one that is shorter ends the connection.

use std::iter;

use bytes::{BufMut, Bytes, BytesMut};
use gossip::HeaderCase;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Body;

use super::head::{After, has_token};

/// Room that is made for a head at once, in bytes. Chosen: most heads fit.
const HEAD_BYTES: usize = 512;

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
    /// Writes what precedes a piece of the body. Returns as much of the piece as is to be written then.
    pub(super) fn begin(&mut self, out: &mut BytesMut, mut piece: Bytes) -> Bytes {
        match self {
            Self::Chunked if !piece.is_empty() => {
                out.put_slice(format!("{:X}\r\n", piece.len()).as_bytes());
            }
            Self::Length(left) => {
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
            }
            Self::Chunked | Self::UntilClosed => {}
        }
        piece
    }

    /// Writes what follows a piece of this length.
    pub(super) fn finish(self, out: &mut BytesMut, len: usize) {
        if self == Self::Chunked && len > 0 {
            out.put_slice(b"\r\n");
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
#[derive(Clone, Copy, Debug)]
pub(in crate::serve) struct Asked<'a> {
    pub(in crate::serve) method: &'a Method,
    pub(in crate::serve) version: Version,
    /// The state of the connection after the answer, as far as request and server are concerned.
    pub(in crate::serve) after: After,
    pub(in crate::serve) case: HeaderCase,
}

/// Writes the head of an answer. Returns the form of its body, and the state of the connection after it.
pub(super) fn put_head<B: Body>(
    out: &mut BytesMut,
    asked: &Asked<'_>,
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
    let mut said = Said::of(response.headers());
    let length = said.length;
    let body = match response.body().is_end_stream() {
        true => Some(0),
        false => response.body().size_hint().exact(),
    };
    let headers = response.headers_mut();
    if body == Some(0) && asked.method != Method::HEAD && said.lengths > 0 {
        // It is written below, behind the other headers, as hyper does.
        headers.remove(header::CONTENT_LENGTH);
        said.lengths = 0;
    }
    if said.connection || is_old || after == After::Closed {
        after = connection(headers, is_old, after);
    }
    if said.coding {
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::TRAILER);
    }
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_head = asked.method == Method::HEAD;
    let length = match (body, length) {
        (Some(0), length) if is_head => length,
        (Some(length), _) | (None, Some(length)) => Some(length),
        (None, None) => None,
    };
    match length.filter(|_| has_body) {
        Some(length) if said.is_exactly(length) => {}
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
    out.reserve(HEAD_BYTES);
    out.put_slice(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.put_slice(status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(status.canonical_reason().unwrap_or("<none>").as_bytes());
    out.put_slice(b"\r\n");
    put_fields(out, headers, asked.case);
    (form, after)
}

/// The headers of an answer that matter here, found in one pass: a look-up in the map costs as much for each.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// The length that the first `Content-Length` declares.
    length: Option<u64>,
    /// Number of `Content-Length`s, and the characters of the last one.
    lengths: usize,
    digits: usize,
    connection: bool,
    /// `Transfer-Encoding` or `Trailer`.
    coding: bool,
}

impl Said {
    fn of(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            if *name == header::CONTENT_LENGTH {
                if said.lengths == 0 {
                    said.length = value.to_str().ok().and_then(|text| text.parse().ok());
                }
                (said.lengths, said.digits) = (said.lengths + 1, value.len());
            }
            said.connection |= *name == header::CONNECTION;
            said.coding |= *name == header::TRANSFER_ENCODING || *name == header::TRAILER;
        }
        said
    }

    /// Returns `true` if this length is declared, once and in its usual form.
    fn is_exactly(self, length: u64) -> bool {
        let digits = length.checked_ilog10().map_or(1, |least| least as usize + 1);
        self.length == Some(length) && self.lengths == 1 && self.digits == digits
    }
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
    let mut connection = headers.get_all(header::CONNECTION).iter();
    for (name, value) in headers {
        if *name != header::CONNECTION {
            put_field(out, name, value.as_bytes(), case);
        } else if let Some(first) = connection.next() {
            // All of them in one line, in the place of the first.
            let rest = connection.by_ref().map(HeaderValue::as_bytes);
            let tokens: Vec<_> = iter::once(first.as_bytes()).chain(rest).collect();
            put_field(out, name, &tokens.join(&b", "[..]), case);
        }
    }
    out.put_slice(b"\r\n");
}

fn put_field(out: &mut BytesMut, name: &HeaderName, value: &[u8], case: HeaderCase) {
    let begin = out.len();
    out.put_slice(name.as_str().as_bytes());
    if case == HeaderCase::Canonical {
        let words = out.get_mut(begin..).unwrap_or_default().split_mut(|byte| *byte == b'-');
        words.filter_map(|word| word.first_mut()).for_each(u8::make_ascii_uppercase);
    }
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}
