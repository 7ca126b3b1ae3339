//! The reply to a dial: the bound on what is read of it, and the checks it has to pass.
//!
//! # Invariants
//!
//! * Nothing here trusts a length that a peer announces: it only shortens what is read.
//! * The checks stand in the order of existing nodes. Source: wire facts 1.3.

use std::time::Duration;

use bytes::BytesMut;
use gossip::{
    ReplyRule,
    wire::hello::{self, Header, Hello},
};
use httparse::{Response, Status};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{DialError, Missing, Other};
use crate::context::Context;

/// Most bytes of the body of a refusal that are read. Source: wire facts 1.3.
const MAX_BODY_BYTES: usize = 1024;
/// Most characters of it that are shown. Source: wire facts 1.3.
const MAX_SHOWN_CHARS: usize = 128;
/// Most header lines. Chosen: existing nodes send a dozen; as many as 4,096 bytes can hold.
const MAX_HEADERS: usize = 1024;

/// The head of a reply.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    headers: Vec<(String, Vec<u8>)>,
}

/// Reads the head, and gives what was read behind it.
///
/// # Cancel safety
///
/// None: bytes that were read are lost.
pub(super) async fn read_head(
    io: &mut (impl AsyncRead + Unpin),
    rule: ReplyRule,
) -> Result<(Reply, BytesMut), DialError> {
    let max = rule.max_head_bytes();
    let mut bytes = BytesMut::with_capacity(1024);
    loop {
        // The fields of a longer head do not fit; what follows a head is left to be read later.
        let room = max - bytes.len();
        let mut chunk = (&mut *io).take(room as u64);
        let count = chunk.read_buf(&mut bytes).await.map_err(DialError::Broken)?;
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

    /// The body's length, if it is announced.
    pub(super) fn body_length(&self) -> Option<usize> {
        std::str::from_utf8(self.first("content-length")?).ok()?.trim().parse().ok()
    }

    /// The error of a reply other than 101.
    pub(super) fn refusal(&self, body: &[u8]) -> DialError {
        let retry_after = self.first("retry-after").filter(|_| self.status == 429);
        let seconds = retry_after.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        DialError::Status {
            status: self.status,
            retry_after: seconds.map(|seconds: u32| Duration::from_secs(seconds.into())),
            body: hello::printable(body).chars().take(MAX_SHOWN_CHARS).collect(),
        }
    }

    /// Checks that the upgrade was accepted.
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
        if accept != derive_accept_key(key.as_bytes()).as_bytes() {
            return Err(DialError::NotAccepted(Missing::AcceptKey));
        }
        Ok(())
    }

    /// `true` if a header has a token, in whatever case.
    fn says(&self, name: &str, token: &str, rule: ReplyRule) -> bool {
        let is_token = |item: &[u8]| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes());
        match rule {
            ReplyRule::FirstLine => self.first(name).is_some_and(is_token),
            ReplyRule::Tokens => {
                self.lines(name).flat_map(|line| line.split(|&byte| byte == b',')).any(is_token)
            }
        }
    }

    /// Reads what the peer says of itself, and checks that it is one to gossip with.
    pub(super) fn check_hello(&self, context: &Context) -> Result<Hello, DialError> {
        let profile = context.profile;
        let theirs = Hello::read(|header: Header| self.first(&header.name(profile)));
        let accepts = Header::AcceptVersion.name(profile);
        let accepted = self.lines(&accepts).filter_map(|value| std::str::from_utf8(value).ok());
        hello::negotiate(accepted, Some(&theirs.version), profile.version)
            .map_err(|_mismatch| DialError::Unsupported(Other::Version))?;
        match theirs.node_random.as_deref() {
            None => return Err(DialError::Unsupported(Other::NoRandom)),
            Some(theirs) if theirs == context.node_random() => return Err(DialError::Ourselves),
            Some(_) => {}
        }
        if theirs.genesis != context.network.as_str() {
            return Err(DialError::Unsupported(Other::Network));
        }
        Ok(theirs)
    }
}
