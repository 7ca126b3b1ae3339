//! The checks of a request head, before an HTTP library parses it.
//!
//! # Invariants
//!
//! * A head that passes can be read in one way only: one body length, one host, lines that end in CRLF.
//! * A head is refused before it is complete only if it is not HTTP or too long.

use std::mem::MaybeUninit;

use httparse::{Error, Header, Request, Status};

use super::{host::is_host, plain, refusal::Refusal};
use crate::serve::limits::{MAX_HEAD_BYTES, UpgradeOffer};

/// Largest number of header lines. Chosen: the HTTP library's limit; existing nodes send fourteen.
pub(crate) const MAX_HEADERS: usize = 100;

/// The length of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// This many bytes.
    Known(u64),
    /// Chunked; the last chunk marks the end.
    Chunked,
}

/// The result of checking the bytes read so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// The head is not complete yet.
    Partial,
    /// The head is refused.
    Refused(Refusal),
    /// The head is complete, of this length in bytes, and in its plainest form (`plain.rs`). No body follows it.
    Plain(usize),
    /// The head is complete and passes.
    Complete {
        /// Length of the head in bytes.
        len: usize,
        /// The body that follows it.
        body: Length,
        /// Position of the version digit if HTTP/1.0 must be changed to HTTP/1.1: the HTTP library upgrades
        /// only 1.1, and existing nodes upgrade both. Source: wire facts 1.2.
        version_at: Option<usize>,
    },
}

/// Checks the head at the start of `bytes`.
pub(crate) fn judge(bytes: &[u8], upgrade: UpgradeOffer) -> Judged {
    match plain::length(bytes) {
        Some(len) => Judged::Plain(len),
        None => parse(bytes, upgrade),
    }
}

/// Checks a head of any form.
pub(super) fn parse(bytes: &[u8], upgrade: UpgradeOffer) -> Judged {
    // Left uninitialized, because it is needed for every request.
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(len)) if len > MAX_HEAD_BYTES => {
            return Judged::Refused(Refusal::TooLong);
        }
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) if bytes.len() > MAX_HEAD_BYTES => {
            return Judged::Refused(Refusal::TooLong);
        }
        Ok(Status::Partial) => return Judged::Partial,
        Err(Error::TooManyHeaders) => return Judged::Refused(Refusal::TooLong),
        Err(_) => return Judged::Refused(Refusal::Malformed),
    };
    let fields = Fields::of(&request);
    let is_old = request.version == Some(0);
    if !is_old && fields.host.is_none() {
        return Judged::Refused(Refusal::NoHost);
    }
    if !fields.host.is_none_or(is_host) {
        return Judged::Refused(Refusal::Malformed);
    }
    let is_strict = bytes.get(..len).is_some_and(lines_end_in_crlf)
        && fields.repeated == Repeated::Nothing
        && request.method != Some("CONNECT")
        && !(fields.has_upgrade && upgrade == UpgradeOffer::Refused)
        && request.path.is_some_and(|target| names_one_host(target, fields.host));
    let body = match (fields.length, fields.coding) {
        (None, None) => Some(Length::Known(0)),
        (Some(length), None) => decimal(length).map(Length::Known),
        (None, Some(coding)) if !is_old && coding.eq_ignore_ascii_case(b"chunked") => {
            Some(Length::Chunked)
        }
        (_, Some(_)) => None,
    };
    match body {
        Some(body) if is_strict => {
            let version_at = (is_old && fields.has_upgrade).then(|| end_of_request_line(bytes));
            Judged::Complete { len, body, version_at: version_at.flatten() }
        }
        _ => Judged::Refused(Refusal::Ambiguous),
    }
}

/// Tells that a header which must not be repeated was repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeated {
    Nothing,
    Something,
}

/// The headers that decide how a message is framed and routed.
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    has_upgrade: bool,
    repeated: Repeated,
}

impl<'a> Fields<'a> {
    fn of(request: &Request<'_, 'a>) -> Self {
        let mut fields = Self {
            host: None,
            length: None,
            coding: None,
            has_upgrade: false,
            repeated: Repeated::Nothing,
        };
        for Header { name, value } in request.headers.iter() {
            let field = match name.len() {
                4 if name.eq_ignore_ascii_case("host") => &mut fields.host,
                14 if name.eq_ignore_ascii_case("content-length") => &mut fields.length,
                17 if name.eq_ignore_ascii_case("transfer-encoding") => &mut fields.coding,
                7 if name.eq_ignore_ascii_case("upgrade") => {
                    fields.has_upgrade = true;
                    continue;
                }
                _ => continue,
            };
            if field.replace(value).is_some() {
                fields.repeated = Repeated::Something;
            }
        }
        fields
    }
}

/// Parses a length: only digits, within 64 bits.
fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let length = std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()?;
    i64::try_from(length).is_ok().then_some(length)
}

/// Returns `true` if every line ends in CRLF, and CR occurs nowhere else.
fn lines_end_in_crlf(head: &[u8]) -> bool {
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    // No early exit, so that the compiler can vectorize the loop.
    let loose =
        pairs.fold(false, |loose, (&before, &byte)| loose | ((byte == b'\n') != (before == b'\r')));
    !loose && head.first() != Some(&b'\n') && head.last() == Some(&b'\n')
}

/// Returns `true` if the request target is a path, or names the same host as the header.
fn names_one_host(target: &str, host: Option<&[u8]>) -> bool {
    if target.starts_with('/') || target == "*" {
        return true;
    }
    let Some((_scheme, rest)) = target.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    !authority.is_empty() && host.is_none_or(|host| authority.as_bytes().eq_ignore_ascii_case(host))
}

/// The position of the last character of the request line.
fn end_of_request_line(bytes: &[u8]) -> Option<usize> {
    // The parser skips empty lines before the request line.
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let line = bytes.get(start..)?;
    let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    (start + end).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(head: &str, expected: Refusal) {
        let judged = judge(head.as_bytes(), UpgradeOffer::Refused);
        assert_eq!(judged, Judged::Refused(expected), "{head:?}");
    }

    #[track_caller]
    fn passes(head: &str, expected: Length) {
        let judged = judge(head.as_bytes(), UpgradeOffer::Refused);
        let (len, body) = match judged {
            Judged::Plain(len) => (len, Length::Known(0)),
            Judged::Complete { len, body, .. } => (len, body),
            Judged::Partial | Judged::Refused(_) => panic!("{head:?}: {judged:?}"),
        };
        assert_eq!((len, body), (head.len(), expected), "{head:?}");
    }

    fn padded(len: usize) -> String {
        let (start, end) = ("GET / HTTP/1.1\r\nHost: x\r\nX-Padding: ", "\r\n\r\n");
        format!("{start}{}{end}", "x".repeat(len - start.len() - end.len()))
    }

    #[test]
    fn a_head_of_8192_bytes_is_the_longest() {
        passes(&padded(8192), Length::Known(0));
        refused(&padded(8193), Refusal::TooLong);
        refused(&padded(20_000)[..8193], Refusal::TooLong);
        assert_eq!(judge(&padded(9000).as_bytes()[..8192], UpgradeOffer::Offered), Judged::Partial);
    }

    #[test]
    fn bytes_that_are_not_http_are_refused_at_once() {
        for head in
            ["hello\r\n\r\n", "\x16\x03\x01\x00\x05\x01", "GET / HTTP/3\r\n", "PRI * HTTP/2.0\r\n"]
        {
            refused(head, Refusal::Malformed);
        }
        refused("GET / HTTP/1.1\r\n\r\n", Refusal::NoHost);
        assert_eq!(judge(b"GET / HTTP/1.1\r\n", UpgradeOffer::Offered), Judged::Partial);
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        let invalid = [
            "h evil", "h, evil", "h/evil", "u@h", "h:80:81", "h:x", "[::1", "[]", "::1", "[::1]x",
            "h?", "h#", "h\\", "h\u{e9}", "[::1]:8]", "<h>",
        ];
        for host in invalid {
            refused(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), Refusal::Malformed);
            refused(&format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n"), Refusal::Malformed);
        }
        let valid =
            ["", "h", "h:", "h:80", "a.b-c_d~:8", "[::1]", "[fe80::1%25eth0]:80", "1.2.3.4:5"];
        for host in valid {
            passes(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), Length::Known(0));
        }
    }

    #[test]
    fn an_ambiguous_message_is_refused() {
        for lines in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: \r\n",
            "Content-Length: 0x3\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 9223372036854775808\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Host: y\r\n",
            "Upgrade: h2c\r\n",
            "X: a\nY: b\r\n",
        ] {
            refused(&format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n"), Refusal::Ambiguous);
        }
        for head in [
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\n",
            "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
            "GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET http:///a HTTP/1.1\r\nHost: \r\n\r\n",
            "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            refused(head, Refusal::Ambiguous);
        }
        for lines in ["A: b\r\n c\r\n", "A : b\r\n", "A: \0\r\n", "A: b\rc\r\n", ": b\r\n"] {
            refused(&format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n"), Refusal::Malformed);
        }
    }

    #[test]
    fn an_ordinary_request_passes() {
        passes("GET / HTTP/1.1\r\nHost: \r\n\r\n", Length::Known(0));
        passes("\r\nGET http://x/a HTTP/1.1\r\nhost: X\r\n\r\n", Length::Known(0));
        passes("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", Length::Known(0));
        passes("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", Length::Known(3));
        passes("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n", Length::Chunked);
        passes("GET / HTTP/1.0\r\n\r\n", Length::Known(0));
    }

    #[test]
    fn an_http_1_0_upgrade_is_passed_on_as_http_1_1() {
        let sent = b"GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n";
        let Judged::Complete { version_at, .. } = judge(sent, UpgradeOffer::Offered) else {
            panic!("refused")
        };
        assert_eq!(version_at.map(|at| sent[at]), Some(b'0'));
    }
}
