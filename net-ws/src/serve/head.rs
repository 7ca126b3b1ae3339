//! The first request head of a connection, read before an HTTP library sees it.
//!
//! # Invariants
//!
//! * At most [`MAX_HEAD_BYTES`] of a head are kept, whatever is sent.
//! * What follows the head in the same read is kept, so that nothing is lost.

use std::io;

use bytes::BytesMut;
use httparse::{Error, Header, Request, Status};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest request head: request line, headers and blank line. Source: wire facts 1.6, row 3.
pub(super) const MAX_HEAD_BYTES: usize = 8192;

/// Most header lines. Chosen: what the HTTP library takes; existing nodes send fourteen.
const MAX_HEADERS: usize = 100;

/// What came of reading a head.
#[derive(Debug)]
pub(super) enum Head {
    /// It is complete.
    Complete {
        /// The head, and what was read behind it.
        bytes: BytesMut,
        /// Whether anything was.
        behind: Behind,
    },
    /// The peer went away.
    Gone,
    /// It is longer than allowed.
    TooLong,
    /// It is not HTTP.
    Malformed,
    /// It does not say for whom it is.
    NoHost,
}

/// Whether a client sent more together with its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// It waits for the answer.
    Nothing,
    /// It does not.
    Something,
}

/// Reads the first head.
///
/// # Cancel safety
///
/// None: what was read is lost.
pub(super) async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
    let mut bytes = BytesMut::with_capacity(1024);
    loop {
        let room = MAX_HEAD_BYTES + 1 - bytes.len();
        let mut chunk = io.take(room as u64);
        if chunk.read_buf(&mut bytes).await? == 0 {
            return Ok(Head::Gone);
        }
        match judge(&bytes) {
            Judged::Partial if bytes.len() > MAX_HEAD_BYTES => return Ok(Head::TooLong),
            Judged::Partial => {}
            Judged::Refused(refusal) => return Ok(refusal),
            Judged::Complete { len, .. } if len > MAX_HEAD_BYTES => return Ok(Head::TooLong),
            Judged::Complete { len, version_at } => {
                if let Some(version) = version_at.and_then(|at| bytes.get_mut(at)) {
                    *version = b'1';
                }
                let is_more = bytes.len() > len;
                let behind = if is_more { Behind::Something } else { Behind::Nothing };
                return Ok(Head::Complete { bytes, behind });
            }
        }
    }
}

enum Judged {
    Partial,
    Refused(Head),
    Complete {
        len: usize,
        /// Where to turn HTTP/1.0 into HTTP/1.1. The HTTP library upgrades nothing else, and existing
        /// nodes upgrade both. Source: wire facts 1.2.
        version_at: Option<usize>,
    },
}

fn judge(bytes: &[u8]) -> Judged {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Judged::Partial,
        Err(Error::TooManyHeaders) => return Judged::Refused(Head::TooLong),
        Err(_) => return Judged::Refused(Head::Malformed),
    };
    let has = |name: &str| {
        request.headers.iter().any(|Header { name: other, .. }| other.eq_ignore_ascii_case(name))
    };
    let is_old = request.version == Some(0);
    if !is_old && !has("host") {
        return Judged::Refused(Head::NoHost);
    }
    let version_at = (is_old && has("upgrade")).then(|| end_of_request_line(bytes)).flatten();
    Judged::Complete { len, version_at }
}

/// Where the last character of the request line is.
fn end_of_request_line(bytes: &[u8]) -> Option<usize> {
    // The parser skips empty lines in front.
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let line = bytes.get(start..)?;
    let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    (start + end).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8]) -> Head {
        read(&mut &bytes[..]).await.unwrap()
    }

    fn padded(len: usize) -> Vec<u8> {
        let (start, end) = (b"GET / HTTP/1.1\r\nHost: x\r\nX-Padding: ", b"\r\n\r\n");
        let padding = vec![b'x'; len - start.len() - end.len()];
        [&start[..], &padding, &end[..]].concat()
    }

    #[tokio::test]
    async fn a_head_of_8192_bytes_is_the_longest() {
        assert!(matches!(read_all(&padded(8192)).await, Head::Complete { .. }));
        for len in [8193, 20_000] {
            assert!(matches!(read_all(&padded(len)).await, Head::TooLong), "{len}");
        }
    }

    #[tokio::test]
    async fn what_is_no_http_is_refused_at_once() {
        for bytes in [&b"hello\r\n\r\n"[..], b"\x16\x03\x01\x00\x05\x01", b"GET / HTTP/3\r\n"] {
            assert!(matches!(read_all(bytes).await, Head::Malformed), "{bytes:?}");
        }
        assert!(matches!(read_all(b"GET / HTTP/1.1\r\n\r\n").await, Head::NoHost));
        assert!(matches!(read_all(b"GET / HTTP/1.1\r\n").await, Head::Gone));
    }

    #[tokio::test]
    async fn what_follows_the_head_is_kept() {
        let sent = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nmore";
        let Head::Complete { bytes, behind } = read_all(sent).await else { panic!("incomplete") };
        assert_eq!((&bytes[..], behind), (&sent[..], Behind::Something));
    }

    #[tokio::test]
    async fn an_old_request_for_an_upgrade_counts_as_a_new_one() {
        let sent = b"GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n";
        let Head::Complete { bytes, .. } = read_all(sent).await else { panic!("incomplete") };
        assert!(bytes.starts_with(b"GET / HTTP/1.1\r\n"));
        let sent = b"GET / HTTP/1.0\r\n\r\n";
        let Head::Complete { bytes, .. } = read_all(sent).await else { panic!("incomplete") };
        assert!(bytes.starts_with(b"GET / HTTP/1.0\r\n"));
    }
}
