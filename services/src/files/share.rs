//! One file, served from where it lies.

use std::{io, path::Path, sync::Arc};

use axum::{
    Router,
    extract::{Path as Named, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{Content, FileId, Outline, client::named, routes, store::blocking};

/// A file that is served without a copy of it in a [`Store`](super::Store).
///
/// Its name is taken when it is opened. Who gets it notices if it has changed since.
#[derive(Clone, Debug)]
pub struct SharedFile {
    content: Content,
    outline: Arc<Outline>,
}

impl SharedFile {
    /// Opens a file, and reads all of it for its name.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is no plain file.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped call may still read to the end on a thread of its own.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let path = path.to_owned();
        let (file, outline) = blocking(move || named(&path)).await?;
        let content = Content { bytes: outline.bytes(), file: Arc::new(file) };
        Ok(Self { content, outline: Arc::new(outline) })
    }

    /// The name of the file.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.outline.id()
    }

    /// The length of the file.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.content.bytes
    }

    /// The routes of it: those of [`router`](super::router) by which a file is got.
    pub fn router(self) -> Router {
        Router::new()
            .route("/files/{id}", get(download))
            .route("/files/{id}/outline", get(outline))
            .with_state(self)
    }

    /// The answer to every name but its own.
    fn refusal(&self, id: &str) -> Option<Response> {
        match id.parse::<FileId>() {
            Ok(id) if id == self.id() => None,
            Ok(_) => Some(StatusCode::NOT_FOUND.into_response()),
            Err(error) => Some((StatusCode::BAD_REQUEST, error.to_string()).into_response()),
        }
    }
}

async fn download(
    State(shared): State<SharedFile>,
    Named(id): Named<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    match shared.refusal(&id) {
        None => routes::content(shared.id(), shared.content, &method, &headers),
        Some(refusal) => refusal,
    }
}

async fn outline(State(shared): State<SharedFile>, Named(id): Named<String>) -> Response {
    shared.refusal(&id).unwrap_or_else(|| shared.outline.to_wire().into_response())
}
