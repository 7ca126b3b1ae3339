//! The two questions of a fetch to one peer, and what comes of a body.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use gossip::http::{BodyError, HttpBody, HttpError, HttpResponse, read_all};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;

use super::PeerError;
use crate::files::{Client, FileId, Outline};

/// Asks a peer for the outline of a file of at most `limit` bytes.
pub(super) async fn outline(client: &Client, id: FileId, limit: u64) -> Result<Outline, PeerError> {
    let response = ask(client, &format!("/files/{id}/outline"), None).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(PeerError::Missing),
        status => return Err(PeerError::Status { status }),
    }
    let longest = usize::try_from(Outline::wire_bytes(limit)).unwrap_or(usize::MAX);
    let wire = read_all(response.into_body(), longest).await.map_err(|error| match error {
        BodyError::TooLong { .. } => PeerError::TooLong { limit },
        error => PeerError::Broken { source: error.into() },
    })?;
    let outline = Outline::parse(id, &wire);
    let outline = outline.map_err(|source| PeerError::WrongOutline { source })?;
    if outline.bytes() > limit { Err(PeerError::TooLong { limit }) } else { Ok(outline) }
}

/// Asks a peer for a part of a file that has `bytes`.
pub(super) async fn content(
    client: &Client,
    id: FileId,
    part: Range<u64>,
    bytes: u64,
) -> Result<Source, PeerError> {
    let Range { start, end } = part;
    let last = end.saturating_sub(1);
    let range = match (start, end) {
        (0, end) if end == bytes => None,
        (start, end) if end == bytes => Some(format!("bytes={start}-")),
        (start, _) => Some(format!("bytes={start}-{last}")),
    };
    let is_whole = range.is_none();
    let response = ask(client, &format!("/files/{id}"), range).await?;
    let expected = format!("bytes {start}-{last}/{bytes}");
    let range = response.headers().get(header::CONTENT_RANGE);
    match response.status() {
        StatusCode::OK if is_whole => Ok(Source::new(response.into_body())),
        StatusCode::PARTIAL_CONTENT if range.is_some_and(|range| range == &*expected) => {
            Ok(Source::new(response.into_body()))
        }
        StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            Err(PeerError::OtherPart)
        }
        StatusCode::NOT_FOUND => Err(PeerError::Missing),
        status => Err(PeerError::Status { status }),
    }
}

async fn ask(
    client: &Client,
    path: &str,
    range: Option<String>,
) -> Result<HttpResponse, PeerError> {
    let mut request = Request::get(path);
    if let Some(range) = range {
        request = request.header(header::RANGE, range);
    }
    let request = request.body(HttpBody::empty());
    let request = request.map_err(|source| HttpError::Invalid { source: source.into() });
    let sent = match request {
        Ok(request) => client.http().send(request).await,
        Err(error) => Err(error),
    };
    sent.map_err(|source| PeerError::NoAnswer { source })
}

/// Content as it comes.
#[derive(Debug)]
pub(super) struct Source {
    body: HttpBody,
    /// Received and not taken: less than a group and a frame.
    received: BytesMut,
}

impl Source {
    fn new(body: HttpBody) -> Self {
        Self { body, received: BytesMut::new() }
    }

    /// The next bytes, so many.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was received stays for the next call.
    pub(super) async fn take(&mut self, bytes: usize) -> Result<Bytes, PeerError> {
        while self.received.len() < bytes {
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.received.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(PeerError::Broken { source: error }),
                None => {
                    return Err(PeerError::Broken { source: "the content is too short".into() });
                }
            }
        }
        Ok(self.received.split_to(bytes).freeze())
    }
}
