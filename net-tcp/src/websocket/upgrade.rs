//! The upgrade of a connection that has nothing else to serve: the request of a dialler, and the answer to it.
//!
//! # Invariants
//!
//! * Of a head at most [`MAX_HEAD_BYTES`] are read. Bytes that follow it belong to the stream and are kept.
//! * The deadline is the caller's.
//! * A refused client gets one line of answer; nothing that it sent is repeated in it.

use std::io;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use httparse::{EMPTY_HEADER, Status};
use mesh::{Door, PagePlace};
use rand::Rng;
use runtime::Random;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Carrier, WsStream,
    request::{self, NoUpgrade},
};
use crate::{
    frame::Role,
    origins::{PageOrigins, origin_of},
};

/// Longest head of a request or an answer, in bytes. Source: the bound of the WebSocket port, 8 KiB.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Largest number of header lines. Chosen: browsers send twenty, with the cookies of a site thirty.
const MAX_HEADERS: usize = 64;

/// The reason why a connection was not upgraded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The connection broke.
    #[error("the connection broke during the upgrade to WebSocket")]
    Broken(#[source] io::Error),
    /// The head was longer than [`MAX_HEAD_BYTES`].
    #[error("the head of the upgrade is longer than {MAX_HEAD_BYTES} bytes")]
    LongHead,
    /// The head was not HTTP.
    #[error("the upgrade is not HTTP")]
    Malformed,
    /// The request asked for something else.
    #[error("the request is refused: {0}")]
    NoUpgrade(NoUpgrade),
    /// The request was for another path than `/`.
    #[error("the request is for another path than /")]
    Path,
    /// The request came from a page of an origin that is not let in.
    #[error("pages of this origin are not let in: the operator of the node has not listed it")]
    Origin,
    /// The request came from a page of an origin that has as many as allowed.
    #[error("this node has as many pages of this origin as its operator allows")]
    Full,
    /// The request had no key.
    #[error("the request has no Sec-WebSocket-Key")]
    NoKey,
    /// The server answered with another status.
    #[error("the upgrade to WebSocket was answered by the status {0}")]
    Status(u16),
    /// The answer did not accept this request.
    #[error("the answer does not accept the upgrade to WebSocket")]
    NotAccepted,
}

/// The rules for pages among the clients.
#[derive(Clone, Copy, Debug)]
pub struct PageRules<'a> {
    /// The origins whose pages are let in.
    pub origins: &'a PageOrigins,
    /// Counts the pages of each origin.
    pub door: &'a Door,
}

/// Reads the request of a client for a WebSocket at `/`, and accepts it, unless it is a page that `pages` refuse. Returns the place of a page
/// among those of its origin, which is to be kept as long as the connection.
///
/// # Errors
///
/// [`UpgradeError`]; a client that was understood has been answered.
///
/// # Cancel safety
///
/// Not safe: bytes that were read are lost.
pub async fn accept<Io: Carrier>(
    mut io: Io,
    pages: PageRules<'_>,
    random: Random,
) -> Result<(WsStream<Io>, Option<PagePlace>), UpgradeError> {
    let mut bytes = BytesMut::new();
    let (asked, length) = loop {
        if let Some(asked) = Asked::parse(&bytes)? {
            break asked;
        }
        more(&mut io, &mut bytes).await?;
    };
    let (key, page) = match asked.key(pages) {
        Ok(accepted) => accepted,
        Err(error) => {
            let status = match error {
                UpgradeError::Path => "404 Not Found",
                UpgradeError::Origin => "403 Forbidden",
                UpgradeError::Full => "503 Service Unavailable",
                UpgradeError::NoUpgrade(NoUpgrade::Method) => "405 Method Not Allowed",
                _ => "400 Bad Request",
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nSec-WebSocket-Version: 13\r\nConnection: close\r\n\r\n"
            );
            if io.write_all(answer.as_bytes()).await.is_ok() {
                // A client that has gone already needs no answer.
                let _ = io.shutdown().await;
            }
            return Err(error);
        }
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        request::accept_key(key.as_bytes())
    );
    io.write_all(answer.as_bytes()).await.map_err(UpgradeError::Broken)?;
    io.flush().await.map_err(UpgradeError::Broken)?;
    Ok((WsStream::new(io, Role::Server, random, bytes.split_off(length)), page))
}

/// Asks the server called `host`, with its port where that is not the usual one, for a WebSocket at `/`.
///
/// # Errors
///
/// [`UpgradeError`].
///
/// # Cancel safety
///
/// Not safe: bytes that were read are lost.
pub async fn connect<Io: Carrier>(
    mut io: Io,
    host: &str,
    mut random: Random,
) -> Result<WsStream<Io>, UpgradeError> {
    let key = request::new_key(random.random());
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await.map_err(UpgradeError::Broken)?;
    io.flush().await.map_err(UpgradeError::Broken)?;
    let mut bytes = BytesMut::new();
    let length = loop {
        if let Some(length) = answered(&bytes, &key)? {
            break length;
        }
        more(&mut io, &mut bytes).await?;
    };
    Ok(WsStream::new(io, Role::Client, random, bytes.split_off(length)))
}

/// Reads more of a head.
async fn more(io: &mut impl Carrier, bytes: &mut BytesMut) -> Result<(), UpgradeError> {
    let room = MAX_HEAD_BYTES - bytes.len();
    if room == 0 {
        return Err(UpgradeError::LongHead);
    }
    let mut chunk = io.take(room as u64);
    match chunk.read_buf(bytes).await.map_err(UpgradeError::Broken)? {
        0 => Err(UpgradeError::Broken(io::ErrorKind::UnexpectedEof.into())),
        _ => Ok(()),
    }
}

/// A request.
struct Asked {
    method: Method,
    path: String,
    headers: HeaderMap,
}

impl Asked {
    /// Parses a whole head, and returns it with its length.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, UpgradeError> {
        let mut lines = [EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut lines);
        let length = match request.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(UpgradeError::Malformed),
        };
        let method = request.method.and_then(|method| method.parse().ok());
        let (Some(method), Some(path)) = (method, request.path) else {
            return Err(UpgradeError::Malformed);
        };
        let asked = Self { method, path: path.to_owned(), headers: headers(request.headers)? };
        Ok(Some((asked, length)))
    }

    fn key(&self, pages: PageRules<'_>) -> Result<(HeaderValue, Option<PagePlace>), UpgradeError> {
        if self.path != "/" {
            return Err(UpgradeError::Path);
        }
        request::judge(&self.method, &self.headers).map_err(UpgradeError::NoUpgrade)?;
        if !pages.origins.let_in_client(&self.headers) {
            return Err(UpgradeError::Origin);
        }
        let key = request::key(&self.headers).cloned().ok_or(UpgradeError::NoKey)?;
        let page = origin_of(&self.headers).map(|origin| pages.door.page_of(&origin));
        Ok((key, page.transpose().map_err(|_counted| UpgradeError::Full)?))
    }
}

fn headers(lines: &[httparse::Header<'_>]) -> Result<HeaderMap, UpgradeError> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        let value = HeaderValue::from_bytes(line.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(UpgradeError::Malformed) };
        headers.append(name, value);
    }
    Ok(headers)
}

/// The length of a whole answer that accepts the request with `key`.
fn answered(bytes: &[u8], key: &str) -> Result<Option<usize>, UpgradeError> {
    let mut lines = [EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut lines);
    let length = match response.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(UpgradeError::Malformed),
    };
    match response.code {
        Some(101) => {}
        Some(status) => return Err(UpgradeError::Status(status)),
        None => return Err(UpgradeError::Malformed),
    }
    let headers = headers(response.headers)?;
    let accepts = headers.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    let fits = accepts == Some(request::accept_key(key.as_bytes()).as_bytes());
    match fits && request::asks_for_upgrade(&headers) {
        true => Ok(Some(length)),
        false => Err(UpgradeError::NotAccepted),
    }
}
