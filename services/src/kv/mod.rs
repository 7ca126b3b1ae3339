//! A small key-value service, to show how one is made: values in memory, compare-and-set by entity tag.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /kv` | 200: the keys in order, as JSON |
//! | `GET /kv/{key}` | 200: the value, with `ETag`; 404 |
//! | `PUT /kv/{key}` | 201 if the key is new, else 204, with `ETag`; 412, 413, 507 |
//! | `DELETE /kv/{key}` | 204; 404, 412 |
//!
//! `If-Match: "3"` asks for that version, `If-Match: *` for any, `If-None-Match: *` for none.
//!
//! # Invariants
//!
//! * Keys, values, their number and their sum are bounded.
//! * A version is used once, also for a key that was deleted and put again.
//! * The lock is held for a look into the map, never while a body is read.

mod client;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use gossip::http::{BodyError, read_all};

pub use client::{Client, KvError, Value};

/// Longest key in bytes. Chosen: long enough for a path.
pub const MAX_KEY_BYTES: usize = 256;

/// Longest value in bytes: 64 KiB. Chosen: small things to try with; files have a service of their own.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Keys at most. Chosen: their list is a megabyte.
pub const MAX_KEYS: usize = 4096;

/// Bytes of all keys and values at most. Chosen: harmless in any node.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<String, Entry>,
    bytes: usize,
    /// The version given last.
    version: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    value: Bytes,
    version: u64,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Table>>);

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes of an empty key-value service.
pub fn router() -> Router {
    Router::new()
        .route("/kv", get(keys))
        .route("/kv/{key}", get(read).put(write).delete(delete))
        .with_state(Shared::default())
}

async fn keys(State(shared): State<Shared>) -> Json<Vec<String>> {
    Json(shared.table().entries.keys().cloned().collect())
}

async fn read(State(shared): State<Shared>, Path(key): Path<String>) -> Response {
    let entry = shared.table().entries.get(&key).cloned();
    match entry {
        Some(entry) => (etag(entry.version), entry.value).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn write(
    State(shared): State<Shared>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, StatusCode> {
    if key.len() > MAX_KEY_BYTES {
        return Err(StatusCode::URI_TOO_LONG);
    }
    let value = read_all(body, MAX_VALUE_BYTES).await.map_err(|error| match error {
        BodyError::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    })?;
    // Of its own, so that no larger buffer is kept with it.
    let value = Bytes::copy_from_slice(&value);
    let mut table = shared.table();
    let before = table.entries.get(&key);
    allowed(&headers, before)?;
    let freed = before.map(|entry| key.len() + entry.value.len());
    let bytes = table.bytes - freed.unwrap_or(0) + key.len() + value.len();
    if bytes > MAX_BYTES || freed.is_none() && table.entries.len() >= MAX_KEYS {
        return Err(StatusCode::INSUFFICIENT_STORAGE);
    }
    table.bytes = bytes;
    table.version += 1;
    let version = table.version;
    table.entries.insert(key, Entry { value, version });
    let status = if freed.is_none() { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok((status, etag(version)).into_response())
}

async fn delete(
    State(shared): State<Shared>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, StatusCode> {
    let mut table = shared.table();
    allowed(&headers, table.entries.get(&key))?;
    let entry = table.entries.remove(&key).ok_or(StatusCode::NOT_FOUND)?;
    table.bytes -= key.len() + entry.value.len();
    Ok(StatusCode::NO_CONTENT)
}

fn etag(version: u64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

/// `true` if the present value is the one that the request asks for.
fn allowed(headers: &HeaderMap, entry: Option<&Entry>) -> Result<(), StatusCode> {
    let tag = entry.map(|entry| format!("\"{}\"", entry.version));
    let is_tag = |asked: &HeaderValue| match &tag {
        Some(tag) => asked == "*" || asked == tag.as_str(),
        None => false,
    };
    let matches = headers.get(header::IF_MATCH).is_none_or(is_tag);
    let differs = !headers.get(header::IF_NONE_MATCH).is_some_and(is_tag);
    if matches && differs { Ok(()) } else { Err(StatusCode::PRECONDITION_FAILED) }
}
