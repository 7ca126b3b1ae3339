//! A file much longer than the memory that it may take, up and down, in the memory of this process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod files_support;

use std::{convert::Infallible, fs};

use bytes::Bytes;
use files_support::{content, limits, peer, store};
use futures::stream;
use http::{Method, Request};
use tandem_services::files::{self, Fetch, FileId, GROUP_BYTES, Uploads};
use tempfile::tempdir;

/// The most memory that this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Groups of the file: a quarter of a GiB.
const GROUPS: u64 = 256;

#[tokio::test]
async fn a_quarter_of_a_gib_goes_up_and_down_in_32_mib_of_memory() {
    let dir = tempdir().unwrap();
    let store = store(&dir.path().join("store")).await;
    let group = content(GROUP_BYTES as usize);
    let groups: Vec<Result<Bytes, Infallible>> = (0..GROUPS).map(|_| Ok(group.clone())).collect();
    let router = files::router(store.clone(), Uploads::Anyone);
    let before = peak_kib();

    let body = axum::body::Body::from_stream(stream::iter(groups));
    let request = Request::builder().method(Method::POST).uri("/files").body(body).unwrap();
    let answer = files_support::body(files_support::ask(&router, request).await).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let id: FileId = answer["id"].as_str().unwrap().parse().unwrap();

    let (client, _) = peer(store);
    let to = dir.path().join("to");
    let fetched = Fetch::new(id, client, limits()).into_file(&to).await.unwrap();
    assert_eq!(fetched.bytes, GROUPS * GROUP_BYTES);
    let grown = peak_kib() - before;
    assert!(grown <= 32 * 1024, "{grown} KiB");
}
