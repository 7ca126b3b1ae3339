//! Speaks to the admin socket of a running node, without a process for each command.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// The admin socket in a data directory.
#[derive(Clone, Debug)]
pub struct Admin {
    socket: PathBuf,
}

/// The lines of a stream, one JSON object each.
#[derive(Debug)]
pub struct JsonLines {
    stream: BufReader<UnixStream>,
}

impl Admin {
    /// The admin interface of the node which uses a data directory. Connects to nothing yet.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { socket: data_dir.join("admin.sock") }
    }

    /// Sends one request, and returns the body of the answer.
    ///
    /// # Errors
    ///
    /// When nobody answers, or with anything but success.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn ask(&self, method: &str, path: &str, body: &[u8]) -> io::Result<String> {
        let mut stream = self.open(method, path, body).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        if head.starts_with("HTTP/1.1 200") {
            Ok(body.to_owned())
        } else {
            Err(io::Error::other(body.to_owned()))
        }
    }

    /// Sends a message to the peers of the node.
    ///
    /// # Errors
    ///
    /// As [`Admin::ask`].
    ///
    /// # Cancel safety
    ///
    /// The message may have been sent.
    pub async fn send(&self, tag: &str, body: &[u8]) -> io::Result<()> {
        self.ask("POST", &format!("/v1/send?tag={tag}"), body).await.map(|_| ())
    }

    /// The messages with a tag that the node hears from now on.
    ///
    /// # Errors
    ///
    /// As [`Admin::ask`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn listen(&self, tag: &str) -> io::Result<JsonLines> {
        let stream = self.open("GET", &format!("/v1/listen?tags={tag}"), b"").await?;
        let mut lines = JsonLines { stream: BufReader::new(stream) };
        // The first line says that the node listens.
        lines.next().await?;
        Ok(lines)
    }

    async fn open(&self, method: &str, path: &str, body: &[u8]) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: admin\r\nContent-Length: {length}\r\nContent-Type: application/json\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        Ok(stream)
    }
}

impl JsonLines {
    /// The next line; those of the framing are passed over.
    ///
    /// # Errors
    ///
    /// When the node ends the stream.
    ///
    /// # Cancel safety
    ///
    /// A line of which a part was read may be lost.
    pub async fn next(&mut self) -> io::Result<Value> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(object) = line.starts_with('{').then(|| serde_json::from_str(&line).ok()) {
                return object.ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
        }
    }
}
