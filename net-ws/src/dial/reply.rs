//! The reply to an upgrade request: bounded reading, and the checks it has to pass.
//!
//! # Invariants
//!
//! * A length that the peer announces can only shorten a read.
//! * The checks are in the order of existing nodes. Source: wire facts 1.3.

use std::time::Duration;

use bytes::BytesMut;
use gossip::{
    ReplyRule,
    wire::hello::{self, Header, Hello, Own, Unfit},
};
use httparse::{Response, Status};
use net_tcp::websocket::request::accept_key;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{DialError, Missing, Other};
use crate::context::Context;

/// Longest part of a refusal's body that is read, in bytes. Source: wire facts 1.3.
const MAX_BODY_BYTES: usize = 1024;
/// Longest part of a refusal's body that is logged, in characters. Source: wire facts 1.3.
const MAX_SHOWN_CHARS: usize = 128;
/// Largest number of header lines. Chosen: as many as 4,096 bytes can hold; existing nodes send a dozen.
const MAX_HEADERS: usize = 1024;

/// The head of a reply.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    headers: Vec<(String, Vec<u8>)>,
}

/// Reads the head, and returns it with the bytes that were read after it.
///
/// # Cancel safety
///
/// Not safe: bytes that were read are lost.
pub(super) async fn read_head(
    io: &mut (impl AsyncRead + Unpin),
    rule: ReplyRule,
) -> Result<(Reply, BytesMut), DialError> {
    let max = rule.max_head_bytes();
    let mut bytes = BytesMut::with_capacity(1024);
    loop {
        // At most `max` bytes are taken from the stream, so a longer head is refused before all of it is read.
        let room = max - bytes.len();
        let mut chunk = (&mut *io).take(room as u64);
        let count = chunk.read_buf(&mut bytes).await.map_err(DialError::broken)?;
        if let Some((reply, len)) = Reply::parse(&bytes)? {
            let early = bytes.split_off(len);
            return Ok((reply, early));
        }
        if bytes.len() >= max {
            return Err(DialError::LongHead { max });
        }
        if count == 0 {
            return Err(DialError::Broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Reads the start of a body of `length` bytes, or of one that ends with the connection.
pub(super) async fn read_body(
    io: &mut (impl AsyncRead + Unpin),
    mut body: BytesMut,
    length: Option<usize>,
) -> BytesMut {
    let wanted = length.unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES);
    while body.len() < wanted {
        let mut chunk = (&mut *io).take((wanted - body.len()) as u64);
        if !chunk.read_buf(&mut body).await.is_ok_and(|count| count > 0) {
            break;
        }
    }
    body
}

impl Reply {
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, DialError> {
        let mut headers = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = Response::new(&mut headers);
        let len = match response.parse(bytes) {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(DialError::Malformed),
        };
        let status = response.code.ok_or(DialError::Malformed)?;
        let headers = response.headers.iter();
        let headers =
            headers.map(|header| (header.name.to_owned(), header.value.to_vec())).collect();
        Ok(Some((Self { status, headers }, len)))
    }

    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let matching = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        matching.map(|(_, value)| value.as_slice())
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// The length of the body in bytes, if the head announces one.
    pub(super) fn body_length(&self) -> Option<usize> {
        std::str::from_utf8(self.first("content-length")?).ok()?.trim().parse().ok()
    }

    /// The error for a reply with a status other than 101.
    pub(super) fn refusal(&self, body: &[u8]) -> DialError {
        let retry_after = self.first("retry-after").filter(|_| self.status == 429);
        let seconds = retry_after.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        DialError::Status {
            status: self.status,
            retry_after: seconds.map(|seconds: u32| Duration::from_secs(seconds.into())),
            body: hello::printable(body).chars().take(MAX_SHOWN_CHARS).collect(),
        }
    }

    /// Checks status and headers of an accepted upgrade.
    pub(super) fn check_upgrade(&self, key: &str, rule: ReplyRule) -> Result<(), DialError> {
        for (name, token, missing) in [
            ("upgrade", "websocket", Missing::Upgrade),
            ("connection", "upgrade", Missing::Connection),
        ] {
            if !self.says(name, token, rule) {
                return Err(DialError::NotAccepted(missing));
            }
        }
        let accept = self.first("sec-websocket-accept").unwrap_or_default();
        if accept != accept_key(key.as_bytes()).as_bytes() {
            return Err(DialError::NotAccepted(Missing::AcceptKey));
        }
        Ok(())
    }

    /// Returns `true` if a header contains `token`, compared without case.
    fn says(&self, name: &str, token: &str, rule: ReplyRule) -> bool {
        let is_token = |item: &[u8]| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes());
        match rule {
            ReplyRule::FirstLine => self.first(name).is_some_and(is_token),
            ReplyRule::Tokens => {
                self.lines(name).flat_map(|line| line.split(|&byte| byte == b',')).any(is_token)
            }
        }
    }

    /// Reads the headers in which the peer introduces itself, and checks network, version and random text.
    pub(super) fn check_hello(&self, context: &Context) -> Result<Hello, DialError> {
        let profile = context.profile;
        let theirs = Hello::read(|header: Header| self.first(&header.name(profile)));
        let accepts = Header::AcceptVersion.name(profile);
        let accepted = self.lines(&accepts).filter_map(|value| std::str::from_utf8(value).ok());
        let own = Own {
            version: profile.version,
            node_random: context.node_random(),
            network: context.network.as_str(),
        };
        theirs.check_answer(accepted, own).map_err(|unfit| match unfit {
            Unfit::Version => DialError::Unsupported(Other::Version),
            Unfit::NoRandom => DialError::Unsupported(Other::NoRandom),
            Unfit::Network => DialError::Unsupported(Other::Network),
            Unfit::Ourselves => DialError::Ourselves,
        })?;
        Ok(theirs)
    }
}
