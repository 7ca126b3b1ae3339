//! The files of one peer.
//!
//! # Invariants
//!
//! * Content is named before it is sent, so that the peer refuses content that changed on the way.
//! * An answer that is no file is read up to a bound.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use gossip::http::{BodyError, BoxError, HttpBody, HttpClient, HttpError, HttpResponse, read_all};
use http::{Method, Request, StatusCode, header};
use http_body::Body;
use tokio::sync::watch;

use super::{
    FileId, Hashing, Kept, Outline, Section, Stored, Transferred, routes::Receipt, store::blocking,
};

/// Longest text read of an answer, in bytes. Chosen: a receipt has 90, a reason one line.
const ANSWER_BYTES: usize = 1024;

/// Sends files to one peer. A cheap handle; to get files, see [`Fetch`](super::Fetch).
#[derive(Clone, Debug)]
pub struct Client {
    http: HttpClient,
}

/// The reason for which a peer did not take a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// There is no answer.
    #[error("the peer does not answer")]
    NoAnswer {
        /// The reason.
        source: HttpError,
    },
    /// The peer refused it.
    #[error("the peer refused it: {status}: {reason}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The words of the peer: a line at most, printable.
        reason: String,
    },
    /// The answer broke off.
    #[error("the answer of the peer broke off")]
    Answer {
        /// The reason.
        source: BodyError,
    },
    /// The peer took it for another file.
    #[error("the peer answers with another file")]
    OtherFile,
}

impl Client {
    /// The files of the peer that `http` asks.
    #[must_use]
    pub const fn new(http: HttpClient) -> Self {
        Self { http }
    }

    /// Sends a file, unless the peer has it.
    ///
    /// `progress` learns how far it is; the receiver may be dropped.
    ///
    /// # Errors
    ///
    /// [`PutFileError`] when the file cannot be read, or the peer refuses it or does not answer.
    ///
    /// # Cancel safety
    ///
    /// A dropped call ends the upload; the peer keeps nothing of it, or all.
    pub async fn put(
        &self,
        path: &Path,
        progress: watch::Sender<Transferred>,
    ) -> Result<Stored, PutFileError> {
        let to_name = path.to_owned();
        let named = blocking(move || named(&to_name)).await;
        let unread = |source| PutFileError::File { path: path.to_owned(), source };
        let (file, outline) = named.map_err(unread)?;
        let (id, bytes) = (outline.id(), outline.bytes());
        progress.send_replace(Transferred { bytes: 0, of: Some(bytes) });
        if self.has(id, bytes).await? {
            progress.send_replace(Transferred { bytes, of: Some(bytes) });
            return Ok(Stored { id, bytes, kept: Kept::Already });
        }
        self.send(id, bytes, Section::new(Arc::new(file), 0..bytes).watched(progress)).await
    }

    /// Sends bytes as a file.
    ///
    /// # Errors
    ///
    /// [`PutFileError`] when the peer refuses it or does not answer.
    ///
    /// # Cancel safety
    ///
    /// As [`Client::put`].
    pub async fn put_bytes(&self, content: impl Into<Bytes>) -> Result<Stored, PutFileError> {
        let content = content.into();
        self.send(FileId::of(&content), content.len() as u64, HttpBody::full(content)).await
    }

    /// Asks whether the peer has the file.
    async fn has(&self, id: FileId, bytes: u64) -> Result<bool, PutFileError> {
        let request = request(Method::HEAD, &format!("/files/{id}"), HttpBody::empty());
        let response = self.answer(request).await?;
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(response.status() == StatusCode::OK && length == Some(bytes))
    }

    async fn send<B>(&self, id: FileId, bytes: u64, content: B) -> Result<Stored, PutFileError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut request = request(Method::PUT, &format!("/files/{id}"), content);
        request.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
        let response = self.answer(request).await?;
        let status = response.status();
        let kept = match status {
            StatusCode::CREATED => Kept::New,
            _ => Kept::Already,
        };
        let answer = read_all(response.into_body(), ANSWER_BYTES).await;
        if !status.is_success() {
            // The status says enough if its reason cannot be read.
            let reason = printable(&answer.unwrap_or_default());
            return Err(PutFileError::Refused { status, reason });
        }
        let answer = answer.map_err(|source| PutFileError::Answer { source })?;
        match serde_json::from_slice(&answer) {
            Ok(Receipt { id: its, bytes: its_bytes }) if its == id && its_bytes == bytes => {
                Ok(Stored { id, bytes, kept })
            }
            _ => Err(PutFileError::OtherFile),
        }
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<HttpResponse, PutFileError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.http.send(request).await.map_err(|source| PutFileError::NoAnswer { source })
    }

    pub(super) const fn http(&self) -> &HttpClient {
        &self.http
    }
}

/// A request for a path that is made here and therefore is one.
fn request<B>(method: Method, path: &str, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

/// Opens a file and reads it through, to name it.
pub(super) fn named(path: &Path) -> io::Result<(File, Outline)> {
    let mut file = File::open(path)?;
    let mut hashing = Hashing::default();
    let mut piece = vec![0; 256 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => hashing.update(piece.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((file, hashing.finish()))
}

/// The words of a peer, fit for a terminal.
fn printable(text: &[u8]) -> String {
    let line = String::from_utf8_lossy(text);
    line.chars().take_while(|c| *c != '\n').filter(|c| !c.is_control()).take(200).collect()
}
