//! A byte stream to a node, and a parser for its answers that is not the node's HTTP library.
//!
//! # Invariants
//!
//! * Reads are bounded in bytes and in time.

use std::{fmt, io, time::Duration};

use httparse::{EMPTY_HEADER, Status};
use runtime::TaskSet;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{self, Instant},
};

/// Longest total of the answers of a node, in bytes. Chosen: far more than any answer of these tests.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Largest number of headers of an answer.
const MAX_HEADERS: usize = 64;

/// The byte stream of a raw client.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A byte stream to a node.
pub struct RawStream {
    stream: Box<dyn Duplex>,
    /// Drives the connection below the stream, if it needs a task.
    _driver: Option<TaskSet>,
}

impl fmt::Debug for RawStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawStream").finish_non_exhaustive()
    }
}

/// The state of a stream after the last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The node closed its half, or reset the stream.
    Closed,
    /// The stream was still open when the deadline passed.
    Open,
}

impl RawStream {
    /// Wraps a stream, and the tasks that drive its connection.
    pub(crate) fn new(stream: impl Duplex + 'static, driver: Option<TaskSet>) -> Self {
        Self { stream: Box::new(stream), _driver: driver }
    }

    /// A stream of a connection that `driver` drives.
    pub fn from_parts(stream: impl Duplex + 'static, driver: TaskSet) -> Self {
        Self::new(stream, Some(driver))
    }

    /// Sends bytes.
    ///
    /// # Errors
    ///
    /// When the node has closed the stream.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Closes this end's half.
    ///
    /// # Errors
    ///
    /// When the node has closed the stream.
    pub async fn close_write(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads the next bytes; none at the end.
    ///
    /// # Errors
    ///
    /// When the stream broke.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 64 * 1024];
        let read = self.stream.read(&mut bytes).await?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Reads to the end, at most for `patience`.
    pub async fn rest(&mut self, patience: Duration) -> (Vec<u8>, End) {
        self.read_until(patience, |_| false).await
    }

    /// Reads until `enough` holds, to the end, or for `patience`.
    pub async fn read_until(
        &mut self,
        patience: Duration,
        enough: impl Fn(&[u8]) -> bool,
    ) -> (Vec<u8>, End) {
        let deadline = Instant::now() + patience;
        let mut all = Vec::new();
        while all.len() < MAX_BYTES && !enough(&all) {
            match time::timeout_at(deadline, self.read()).await {
                Err(_) => return (all, End::Open),
                // A reset after the answer counts as an end.
                Ok(Err(_)) => return (all, End::Closed),
                Ok(Ok(bytes)) if bytes.is_empty() => return (all, End::Closed),
                Ok(Ok(bytes)) => all.extend(bytes),
            }
        }
        (all, End::Open)
    }
}

/// A parsed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns `true` if the node closes the connection after this answer.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Parses the answers in `bytes`, and returns the rest that is no whole answer. Answers to `HEAD` are not
/// supported.
#[must_use]
pub fn answers(mut bytes: &[u8], end: End) -> (Vec<Answer>, &[u8]) {
    let mut answers = Vec::new();
    while let Some((answer, rest)) = answer(bytes, end) {
        answers.push(answer);
        bytes = rest;
    }
    (answers, bytes)
}

fn answer(bytes: &[u8], end: End) -> Option<(Answer, &[u8])> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(Status::Complete(len)) = head.parse(bytes) else { return None };
    let status = head.code?;
    let headers = head.headers.iter().map(|header| {
        let value = String::from_utf8_lossy(header.value).into_owned();
        (header.name.to_ascii_lowercase(), value)
    });
    let mut answer = Answer { status, headers: headers.collect(), body: Vec::new() };
    let behind = bytes.get(len..)?;
    let rest = if (100..200).contains(&status) || status == 204 || status == 304 {
        behind
    } else if answer.header("transfer-encoding").is_some() {
        unchunk(behind, &mut answer.body)?
    } else if let Some(len) = answer.header("content-length") {
        let (body, rest) = behind.split_at_checked(len.parse().ok()?)?;
        answer.body = body.to_vec();
        rest
    } else if end == End::Closed {
        answer.body = behind.to_vec();
        &[]
    } else {
        return None;
    };
    Some((answer, rest))
}

/// Parses a chunked body at the start of `bytes`, and drops its trailers.
fn unchunk<'a>(mut bytes: &'a [u8], body: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let Ok(Status::Complete((line, size))) = httparse::parse_chunk_size(bytes) else {
            return None;
        };
        bytes = bytes.get(line..)?;
        if size == 0 {
            break;
        }
        let (chunk, rest) = bytes.split_at_checked(usize::try_from(size).ok()?)?;
        body.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, rest) = bytes.split_at_checked(end)?;
        bytes = rest.get(2..)?;
        if line.is_empty() {
            return Some(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_parsed_one_after_the_other() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\nx-a: b\r\n\r\n\
            HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nno";
        let (read, rest) = answers(bytes, End::Closed);
        let read: Vec<_> = read.iter().map(|one| (one.status, one.body.as_slice())).collect();
        let expected: [(u16, &[u8]); 4] = [(100, b""), (200, b"hi"), (200, b"ho"), (400, b"no")];
        assert_eq!((read.as_slice(), rest), (&expected[..], &[][..]));
    }

    #[test]
    fn an_incomplete_answer_is_the_rest() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n",
            "HTTP/1.1 200 OK\r\nContent-",
            "nonsense",
        ] {
            assert_eq!(answers(bytes.as_bytes(), End::Closed), (Vec::new(), bytes.as_bytes()));
        }
    }
}
