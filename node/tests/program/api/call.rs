//! Calls of the admin API of a running node, over its Unix socket.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::Value;

use crate::support::PATIENCE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Lower case.
    pub kind: String,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Reads an answer to its end.
    pub fn read(stream: impl Read) -> Self {
        let (head, mut rest) = head(BufReader::new(stream));
        let mut body = Vec::new();
        // A connection whose request was not read to its end is reset behind the answer.
        let _ = rest.read_to_end(&mut body);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
        Self {
            status,
            kind: kind.unwrap_or_default().to_owned(),
            body: String::from_utf8(body).unwrap(),
        }
    }
}

/// Reads the head of an answer, in lower case, and returns what follows.
pub fn head<R: Read>(mut stream: BufReader<R>) -> (String, BufReader<R>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
    }
    (head.to_lowercase(), stream)
}

/// Sends a request, and returns the connection for its answer.
pub fn send(dir: &Path, method: &str, path: &str, (headers, body): (&str, &str)) -> UnixStream {
    let mut stream = UnixStream::connect(dir.join("admin.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    // A request that is refused before it was read may be closed while it is written.
    let _ = write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: tandem\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    stream
}

/// Calls, and reads the answer.
pub fn call(dir: &Path, method: &str, path: &str, body: &str) -> Answer {
    Answer::read(send(dir, method, path, ("", body)))
}

/// Asks, and returns the JSON of an answer that is a success.
pub fn get(dir: &Path, path: &str) -> Value {
    let answer = call(dir, "GET", path, "");
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}
