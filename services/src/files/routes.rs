//! The routes of the file service.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /files`, `PUT /files` | 201, or 200 if it was there: `{"id": …, "bytes": …}`, `Location` |
//! | `PUT /files/{id}` | the same, or 422 if the content has another name |
//! | `GET /files/{id}`, `HEAD` | the content: 200, 206, 304, 416; 404 |
//! | `GET /files/{id}/outline`, `HEAD` | what [`Outline::parse`](super::Outline::parse) reads; 404 |
//!
//! # Invariants
//!
//! * An upload is admitted or refused before its body is read.
//! * Uploaded content is handed out as bytes of no type, which no browser runs.

use std::{collections::HashSet, io, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use gossip::{Identity, http::Peer};
use http_body_util::BodyExt;
use runtime::Rarely;
use serde::{Deserialize, Serialize};

use super::{Content, FileId, Kept, PutError, Requested, Section, Store, Stored, requested};

/// `Cache-Control` of a file: for ever, since a name never gets another content.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Seconds after which an upload that found all places taken may try again. Chosen: a short file takes
/// less.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// The peers whose uploads are taken.
#[derive(Clone, Debug, Default)]
pub enum Uploads {
    /// Nobody's. The default.
    #[default]
    Off,
    /// Those of peers with these verified identities, so over libp2p only.
    FromPeers(HashSet<Identity>),
    /// Everybody's.
    Anyone,
}

/// The answer to an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub(super) id: FileId,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug)]
struct Service {
    store: Store,
    uploads: Arc<Uploads>,
    /// Lines about a disk that fails: anybody may ask for the same file again and again.
    broken: Arc<Rarely>,
}

/// The routes of a file service over `store`.
///
/// Bodies of uploads are limited by the store; a limit around the router has to leave them through.
pub fn router(store: Store, uploads: Uploads) -> Router {
    Router::new()
        .route("/files", put(upload).post(upload))
        .route("/files/{id}", get(download).put(upload_as))
        .route("/files/{id}/outline", get(outline))
        .with_state(Service { store, uploads: Arc::new(uploads), broken: Arc::default() })
}

async fn upload(State(service): State<Service>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Err(refusal) = service.welcome(&mut parts).await {
        return refusal;
    }
    service.answer(service.store.put(body.into_data_stream()).await)
}

async fn upload_as(
    State(service): State<Service>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Err(refusal) = service.welcome(&mut parts).await {
        return refusal;
    }
    match id.parse() {
        Ok(id) => service.answer(service.store.put_as(id, body.into_data_stream()).await),
        Err(error) => refusal(StatusCode::BAD_REQUEST, &error),
    }
}

async fn download(
    State(service): State<Service>,
    Path(id): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let (id, content) = match service.find(&id).await {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    self::content(id, content, &method, &headers)
}

/// Answers a request for a file that is there.
pub(super) fn content(
    id: FileId,
    content: Content,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    let etag = format!("\"{id}\"");
    if names(headers, &header::IF_NONE_MATCH, &etag) {
        return with_tag(StatusCode::NOT_MODIFIED.into_response(), &etag);
    }
    // A range is a matter of GET alone, and of this very content if the client says so.
    let current = headers.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == etag.as_bytes());
    let mut ranges = headers.get_all(header::RANGE).iter();
    let asked = match (ranges.next(), ranges.next()) {
        (Some(range), None) if *method == Method::GET && current => {
            requested(range.as_bytes(), content.bytes)
        }
        _ => Requested::Whole,
    };
    with_tag(part(content, asked), &etag)
}

async fn outline(
    State(service): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let (id, content) = match service.find(&id).await {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let etag = format!("\"{id}-outline\"");
    if names(&headers, &header::IF_NONE_MATCH, &etag) {
        return with_tag(StatusCode::NOT_MODIFIED.into_response(), &etag);
    }
    if content.bytes <= super::GROUP_BYTES {
        return with_tag(content.bytes.to_le_bytes().into_response(), &etag);
    }
    match service.store.find_outline(id).await {
        Ok(Some(outline)) => with_tag(part(outline, Requested::Whole), &etag),
        Ok(None) => service.broken(&io::Error::from(io::ErrorKind::NotFound)),
        Err(error) => service.broken(&error),
    }
}

impl Service {
    fn answer(&self, put: Result<Stored, PutError>) -> Response {
        let error = match put {
            Ok(Stored { id, bytes, kept }) => {
                let status = match kept {
                    Kept::New => StatusCode::CREATED,
                    Kept::Already => StatusCode::OK,
                };
                let location = [(header::LOCATION, format!("/files/{id}"))];
                return (status, location, Json(Receipt { id, bytes })).into_response();
            }
            Err(error) => error,
        };
        match &error {
            PutError::Busy => {
                let retry = [(header::RETRY_AFTER, RETRY_AFTER)];
                (StatusCode::SERVICE_UNAVAILABLE, retry, error.to_string()).into_response()
            }
            PutError::TooLong { .. } => refusal(StatusCode::PAYLOAD_TOO_LARGE, &error),
            PutError::Full => refusal(StatusCode::INSUFFICIENT_STORAGE, &error),
            PutError::Slow { .. } => refusal(StatusCode::REQUEST_TIMEOUT, &error),
            PutError::Broken { .. } => refusal(StatusCode::BAD_REQUEST, &error),
            PutError::OtherContent { .. } => refusal(StatusCode::UNPROCESSABLE_ENTITY, &error),
            PutError::Disk { source } if source.kind() == io::ErrorKind::StorageFull => {
                refusal(StatusCode::INSUFFICIENT_STORAGE, &PutError::Full)
            }
            PutError::Disk { source } => self.broken(source),
        }
    }

    /// The disk failed. What it said is no business of the client's.
    fn broken(&self, error: &io::Error) -> Response {
        if let Some(left_out) = self.broken.due() {
            tracing::error!(%error, left_out, "the file store cannot read or write");
        }
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }

    /// The file that a path names.
    async fn find(&self, id: &str) -> Result<(FileId, Content), Response> {
        let id = id.parse::<FileId>().map_err(|error| refusal(StatusCode::BAD_REQUEST, &error))?;
        match self.store.find(id).await {
            Ok(Some(content)) => Ok((id, content)),
            Ok(None) => Err(StatusCode::NOT_FOUND.into_response()),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// Refuses whose uploads are not taken, and those that announce too much.
    async fn welcome(&self, parts: &mut Parts) -> Result<(), Response> {
        let limit = self.store.max_file_bytes();
        let announced = parts.headers.get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(self.answer(Err(PutError::TooLong { limit })));
        }
        let identities = match &*self.uploads {
            Uploads::Anyone => return Ok(()),
            Uploads::Off => {
                return Err((StatusCode::FORBIDDEN, "this node takes no uploads").into_response());
            }
            Uploads::FromPeers(identities) => identities,
        };
        let peer = <Peer as FromRequestParts<()>>::from_request_parts(parts, &()).await;
        let Peer(identity) = peer.map_err(IntoResponse::into_response)?;
        if identities.contains(&identity) {
            Ok(())
        } else {
            Err((StatusCode::FORBIDDEN, "this node takes no uploads of yours").into_response())
        }
    }
}

/// A part of a file, or what is said instead of it.
fn part(content: Content, asked: Requested) -> Response {
    let bytes = content.bytes;
    let (status, part) = match asked {
        Requested::Whole => (StatusCode::OK, 0..bytes),
        Requested::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Requested::Nothing => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{bytes}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, range).into_response();
        }
    };
    let range = format!("bytes {}-{}/{bytes}", part.start, part.end.saturating_sub(1));
    let length = part.end.saturating_sub(part.start);
    let body = Body::new(Section::new(content.file, part).map_err(axum::Error::new));
    let mut response = (status, [(header::CONTENT_LENGTH, length)], body).into_response();
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(range) = range.try_into()
    {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

/// Adds what is said of everything that never changes.
fn with_tag(mut response: Response, etag: &str) -> Response {
    let refused = response.status() == StatusCode::RANGE_NOT_SATISFIABLE;
    let headers = response.headers_mut();
    if let Ok(etag) = etag.try_into() {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A refused range is no property of the file.
    if !refused {
        headers.insert(header::CACHE_CONTROL, FOREVER);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    }
    response
}

/// `true` if a list of entity tags names `etag`, weakly compared.
fn names(headers: &HeaderMap, name: &HeaderName, etag: &str) -> bool {
    let lists = headers.get_all(name).iter().filter_map(|list| list.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn refusal(status: StatusCode, error: &impl ToString) -> Response {
    (status, error.to_string()).into_response()
}
