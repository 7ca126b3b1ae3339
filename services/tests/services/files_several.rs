//! A client that gets one file from several peers at once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, num::NonZeroUsize, time::Duration};

use crate::files_support::{
    Asked, End, content, cut, flip, limits, nobody, peer, peer_that, put, store,
};
use bytes::Bytes;
use gossip::http::HttpResponse;
use tandem_services::files::{
    Client, Fetch, FetchError, FetchLimits, Fetched, FileId, GROUP_BYTES, PeerError, Store,
};
use tempfile::{TempDir, tempdir};
use tokio::time::timeout;

const GROUP: usize = GROUP_BYTES as usize;

async fn served(content: &Bytes) -> (Store, FileId, TempDir) {
    let dir = tempdir().unwrap();
    let store = store(&dir.path().join("store")).await;
    let id = put(&store, content).await;
    (store, id, dir)
}

fn at_once(count: usize) -> FetchLimits {
    limits().with_at_once(NonZeroUsize::new(count).unwrap())
}

fn fetch(id: FileId, limits: FetchLimits, peers: Vec<Client>) -> Fetch {
    let mut peers = peers.into_iter();
    let first = peers.next().unwrap();
    peers.fold(Fetch::new(id, first, limits), Fetch::or_from)
}

/// The parts of a file that a peer was asked for.
fn parts(asked: &Asked) -> Vec<String> {
    let asked = asked.lock().unwrap();
    let content = asked.iter().filter(|(path, _)| !path.ends_with("/outline"));
    content.map(|(_, range)| range.clone().unwrap_or_default()).collect()
}

fn is_content(path: &str) -> bool {
    !path.ends_with("/outline")
}

/// A peer whose answers are spoilt once the first group of the file is there.
fn later(
    store: &Store,
    spoil: impl Fn(HttpResponse) -> HttpResponse + Clone + Send + Sync + 'static,
) -> Client {
    let (client, _) = peer_that(store.clone(), move |path, response| {
        let is_later = response.headers().contains_key("content-range");
        if is_content(path) && is_later { spoil(response) } else { response }
    });
    client
}

// Issue 12, 7.
#[tokio::test]
async fn peers_share_the_groups_of_a_file() {
    let content = content(30 * GROUP + 5);
    let (store, id, dir) = served(&content).await;
    let to = dir.path().join("to");
    let peers: Vec<_> = (0..3).map(|_| peer(store.clone())).collect();
    let clients = peers.iter().map(|(client, _)| client.clone()).collect();
    let fetch = fetch(id, at_once(3), clients);
    let progress = fetch.progress();
    let fetched = fetch.into_file(&to).await.unwrap();
    assert_eq!(fetched, Fetched { bytes: content.len() as u64, resumed: 0 });
    assert_eq!(fs::read(&to).unwrap(), content);
    assert_eq!(progress.borrow().bytes, content.len() as u64);
    let parts: Vec<_> = peers.iter().map(|(_, asked)| parts(asked)).collect();
    assert!(parts.iter().all(|parts| parts.len() >= 2), "{parts:?}");
    let mut all: Vec<_> = parts.concat();
    all.sort();
    all.dedup();
    // Eight spans of four groups, the whole file for its first group, and help at the end.
    assert!(all.len() <= 8 + 1 + 8, "{all:?}");
}

// Issue 12, 7.
#[tokio::test]
async fn a_fetch_gets_on_beside_peers_that_lie_stall_and_break() {
    let content = content(20 * GROUP + 5);
    let (store, id, dir) = served(&content).await;
    let to = dir.path().join("to");
    let (honest, _) = peer(store.clone());
    let clients = vec![
        nobody(),
        later(&store, |response| flip(response, 2 * GROUP + 7)),
        later(&store, |response| cut(response, GROUP + 7, End::Hang)),
        later(&store, |response| cut(response, GROUP + 7, End::Break)),
        later(&store, |response| cut(response, 3, End::Early)),
        honest,
    ];
    // A group of the one that stalls is asked of another peer long before its deadline.
    let soon = timeout(Duration::from_secs(20), fetch(id, at_once(3), clients).into_file(&to));
    assert_eq!(soon.await.unwrap().unwrap().bytes, content.len() as u64);
    assert_eq!(fs::read(&to).unwrap(), content);
}

// Issue 12, 7.
#[tokio::test]
async fn groups_on_both_sides_of_a_gap_are_not_got_again() {
    let content = content(12 * GROUP + 5);
    let (store, id, dir) = served(&content).await;
    let to = dir.path().join("to");
    let mut part = content[..9 * GROUP + 7].to_vec();
    part[4 * GROUP..6 * GROUP].fill(0);
    fs::write(dir.path().join("to.part"), part).unwrap();
    let (one, two) = (peer(store.clone()), peer(store));
    let fetched = fetch(id, at_once(2), vec![one.0, two.0]).into_file(&to).await.unwrap();
    assert_eq!(fetched, Fetched { bytes: content.len() as u64, resumed: 7 * GROUP_BYTES });
    assert_eq!(fs::read(&to).unwrap(), content);
    let mut all = [parts(&one.1), parts(&two.1)].concat();
    all.sort();
    all.dedup();
    let gap = format!("bytes={}-{}", 4 * GROUP, 6 * GROUP - 1);
    assert!(all.contains(&gap), "{all:?}");
    let starts: Vec<usize> = all
        .iter()
        .map(|part| part["bytes=".len()..].split('-').next().unwrap().parse().unwrap())
        .collect();
    assert!(
        starts.iter().all(|start| (4..6).contains(&(start / GROUP)) || *start >= 9 * GROUP),
        "{all:?}"
    );
}

// Issue 12, 7.
#[tokio::test]
async fn a_fetch_that_no_peer_finishes_goes_on_later() {
    let content = content(16 * GROUP);
    let (store, id, dir) = served(&content).await;
    let to = dir.path().join("to");
    let lie = |response| flip(response, GROUP + 7);
    let clients = vec![later(&store, lie), later(&store, lie)];
    let error = fetch(id, at_once(2), clients).into_file(&to).await.unwrap_err();
    assert!(
        matches!(error, FetchError::NoPeerLeft { source: PeerError::WrongContent { .. } }),
        "{error:?}"
    );
    assert!(!to.exists());
    let peers = vec![peer(store.clone()).0, peer(store).0];
    let fetched = fetch(id, at_once(2), peers).into_file(&to).await.unwrap();
    assert_eq!((fetched.bytes, fetched.resumed), (content.len() as u64, 3 * GROUP_BYTES));
    assert_eq!(fs::read(&to).unwrap(), content);
}
