//! A client that gets files from peers that break, lie, stall and forget.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::files_support::{End, content, cut, flip, limits, nobody, peer, peer_that, put, store};
use bytes::Bytes;
use futures::TryStreamExt;
use gossip::http::{HttpBody, HttpResponse};
use http::StatusCode;
use proptest::prelude::*;
use tandem_services::files::{
    Client, Fetch, FetchError, FetchLimits, Fetched, FileId, GROUP_BYTES, Kept, PeerError,
    PutFileError, Store, Transferred, Uploads, router,
};
use tempfile::{TempDir, tempdir};
use tokio::sync::watch;

const GROUP: usize = GROUP_BYTES as usize;

/// A store with one file, its name, and a place for what is fetched.
async fn served(content: &Bytes) -> (Store, FileId, TempDir) {
    let dir = tempdir().unwrap();
    let store = store(&dir.path().join("store")).await;
    let id = put(&store, content).await;
    (store, id, dir)
}

fn is_content(path: &str) -> bool {
    !path.ends_with("/outline")
}

fn cause(error: FetchError) -> PeerError {
    match error {
        FetchError::NoPeerLeft { source } => source,
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn files_go_up_and_come_back_whatever_their_length() {
    let dir = tempdir().unwrap();
    let (client, _) = peer(store(&dir.path().join("store")).await);
    for bytes in [0, 1, GROUP, GROUP + 1, 5 * GROUP + 12_345] {
        let content = content(bytes);
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, &content).unwrap();
        let whole = Transferred { bytes: bytes as u64, of: Some(bytes as u64) };
        for kept in [Kept::New, Kept::Already] {
            let (progress, watched) = watch::channel(Transferred::default());
            let stored = client.put(&from, progress).await.unwrap();
            assert_eq!((stored.id, stored.kept), (FileId::of(&content), kept));
            assert_eq!(*watched.borrow(), whole);
        }
        let fetch = Fetch::new(FileId::of(&content), client.clone(), limits());
        let progress = fetch.progress();
        let fetched = fetch.into_file(&to).await.unwrap();
        assert_eq!(fetched, Fetched { bytes: bytes as u64, resumed: 0 });
        assert_eq!(*progress.borrow(), whole);
        assert_eq!(fs::read(&to).unwrap(), content);
        assert!(!dir.path().join("to.part").exists());
    }
}

#[tokio::test]
async fn an_upload_that_is_refused_says_why() {
    let dir = tempdir().unwrap();
    let service = gossip::http::HttpService::new(router(store(dir.path()).await, Uploads::Off));
    let service =
        tower::ServiceExt::map_err(service, |source| gossip::http::HttpError::Broken { source });
    let client = Client::new(gossip::http::HttpClient::new(service));
    let error = client.put_bytes("content").await.unwrap_err();
    assert!(
        matches!(&error, PutFileError::Refused { status: StatusCode::FORBIDDEN, reason }
            if reason == "this node takes no uploads"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_file_changed_while_it_is_sent_is_not_kept_under_the_old_name() {
    let dir = tempdir().unwrap();
    let files = store(&dir.path().join("store")).await;
    let from = dir.path().join("from");
    fs::write(&from, content(GROUP)).unwrap();
    let path = from.clone();
    let (client, _) = peer_that(files.clone(), move |_, response| {
        // Between the question whether the peer has it and the upload.
        fs::write(&path, content(GROUP + 1).slice(..GROUP)).unwrap();
        response
    });
    let error = client.put(&from, watch::Sender::default()).await.unwrap_err();
    assert!(
        matches!(error, PutFileError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, .. }),
        "{error:?}"
    );
    assert_eq!(files.used_bytes(), 0);
}

#[tokio::test]
async fn a_fetch_that_broke_goes_on_where_it_was() {
    let content = content(4 * GROUP + 5);
    let (store, id, dir) = served(&content).await;
    let to = dir.path().join("to");
    let (breaking, _) = peer_that(store.clone(), |path, response| {
        if is_content(path) { cut(response, 2 * GROUP + 7, End::Break) } else { response }
    });
    let once = limits().with_tries(1);
    let error = Fetch::new(id, breaking, once).into_file(&to).await.unwrap_err();
    assert!(matches!(cause(error), PeerError::Broken { .. }));
    assert!(!to.exists());
    assert_eq!(fs::read(dir.path().join("to.part")).unwrap(), content[..2 * GROUP]);

    let (honest, asked) = peer(store);
    let fetched = Fetch::new(id, honest, limits()).into_file(&to).await.unwrap();
    assert_eq!(fetched, Fetched { bytes: content.len() as u64, resumed: 2 * GROUP_BYTES });
    assert_eq!(fs::read(&to).unwrap(), content);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.last().unwrap().1.as_deref(), Some(&*format!("bytes={}-", 2 * GROUP)));
    assert_eq!(asked.len(), 2, "the outline and the rest");
}

#[tokio::test]
async fn another_peer_goes_on_when_one_ends_halfway_and_nothing_is_asked_twice() {
    for end in [End::Break, End::Early] {
        let content = content(5 * GROUP + 5);
        let (store, id, dir) = served(&content).await;
        let (dying, _) = peer_that(store.clone(), move |path, response| {
            if is_content(path) { cut(response, 3 * GROUP, end) } else { response }
        });
        let (other, asked) = peer(store);
        let fetch = Fetch::new(id, nobody(), limits()).or_from(dying).or_from(other);
        let progress = fetch.progress();
        fetch.into_file(&dir.path().join("to")).await.unwrap();
        assert_eq!(fs::read(dir.path().join("to")).unwrap(), content);
        assert_eq!(progress.borrow().bytes, content.len() as u64);
        let ranges: Vec<_> = asked.lock().unwrap().iter().map(|asked| asked.1.clone()).collect();
        assert_eq!(ranges, [None, Some(format!("bytes={}-", 3 * GROUP))], "{end:?}");
    }
}

#[tokio::test]
async fn one_peer_that_breaks_every_time_is_asked_as_long_as_it_gets_on() {
    let content = content(6 * GROUP);
    let (store, id, dir) = served(&content).await;
    let (breaking, asked) = peer_that(store, |path, response| {
        if is_content(path) { cut(response, GROUP + 1, End::Break) } else { response }
    });
    Fetch::new(id, breaking, limits()).into_file(&dir.path().join("to")).await.unwrap();
    assert_eq!(fs::read(dir.path().join("to")).unwrap(), content);
    assert_eq!(asked.lock().unwrap().len(), 12, "six times an outline and a part");
}

#[tokio::test]
async fn a_wrong_byte_is_noticed_within_its_group_and_never_written() {
    let content = content(3 * GROUP + 100);
    let (store, id, dir) = served(&content).await;
    for at in [0, GROUP - 1, GROUP, 3 * GROUP - 1, 3 * GROUP + 99] {
        let to = dir.path().join(format!("to-{at}"));
        let (lying, asked) =
            peer_that(
                store.clone(),
                move |path, response| {
                    if is_content(path) { flip(response, at) } else { response }
                },
            );
        let error = Fetch::new(id, lying.clone(), limits()).into_file(&to).await.unwrap_err();
        let bad = at / GROUP;
        assert!(matches!(cause(error), PeerError::WrongContent { group } if group == bad as u64));
        assert_eq!(asked.lock().unwrap().len(), 2, "a liar is not asked again");
        let part = fs::read(dir.path().join(format!("to-{at}.part"))).unwrap();
        assert_eq!(part, content[..bad * GROUP]);

        fs::remove_file(dir.path().join(format!("to-{at}.part"))).unwrap();
        let (honest, _) = peer(store.clone());
        Fetch::new(id, lying, limits()).or_from(honest).into_file(&to).await.unwrap();
        assert_eq!(fs::read(&to).unwrap(), content);
    }
}

#[tokio::test]
async fn a_false_outline_costs_the_liar_and_nobody_else() {
    let content = content(3 * GROUP);
    let (store, id, dir) = served(&content).await;
    let [a, b, c] = [0, 1, 2].map(|group| {
        use blake3::hazmat::HasherExt;
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset((group * GROUP) as u64);
        hasher.update(&content[group * GROUP..][..GROUP]).finalize_non_root()
    });
    let parent = blake3::hazmat::merge_subtrees_non_root(&a, &b, blake3::hazmat::Mode::Hash);
    let wire = |bytes: usize, groups: &[[u8; 32]]| {
        Bytes::from([&(bytes as u64).to_le_bytes()[..], groups.as_flattened()].concat())
    };
    let lies = [
        Bytes::new(),
        wire(0, &[]),
        wire(5, &[]),
        wire(GROUP, &[]),
        wire(2 * GROUP, &[parent, c]),
        wire(2 * GROUP - 1, &[parent, c]),
        wire(2 * GROUP + 1, &[a, b, c]),
        wire(3 * GROUP, &[a, b, b]),
        wire(3 * GROUP, &[a, b]),
        wire(3 * GROUP, &[a, b, c, c]),
        wire(usize::MAX, &[a, b, c]),
    ];
    for (case, lie) in lies.into_iter().enumerate() {
        // The liar's outline comes first, or after two groups of an honest peer that breaks.
        for first in [true, false] {
            let lie = lie.clone();
            let (liar, _) = peer_that(store.clone(), move |path, response| {
                if is_content(path) {
                    response
                } else {
                    response.map(|_| HttpBody::full(lie.clone()))
                }
            });
            let asked = Arc::new(AtomicUsize::new(0));
            let (honest, _) = peer_that(store.clone(), move |path, response| {
                if is_content(path) && !first && asked.fetch_add(1, Ordering::Relaxed) == 0 {
                    cut(response, 2 * GROUP, End::Break)
                } else {
                    response
                }
            });
            let to = dir.path().join(format!("to-{case}-{first}"));
            let fetch = if first {
                Fetch::new(id, liar, limits()).or_from(honest)
            } else {
                Fetch::new(id, honest, limits()).or_from(liar)
            };
            fetch.into_file(&to).await.unwrap();
            assert_eq!(fs::read(&to).unwrap(), content, "{case} {first}");
        }
    }
}

#[tokio::test]
async fn an_outline_that_contradicts_what_was_verified_is_refused_before_any_content() {
    let content = content(3 * GROUP);
    let (store, id, dir) = served(&content).await;
    let (breaking, _) = peer_that(store.clone(), |path, response| {
        if is_content(path) { cut(response, GROUP, End::Break) } else { response }
    });
    let (liar, asked) = peer_that(store, |path, response| {
        let small = GROUP_BYTES.to_le_bytes().to_vec();
        if is_content(path) { response } else { response.map(|_| HttpBody::full(small.clone())) }
    });
    let fetch = Fetch::new(id, breaking, limits().with_tries(1)).or_from(liar);
    let error = fetch.into_file(&dir.path().join("to")).await.unwrap_err();
    assert!(matches!(cause(error), PeerError::Contradiction));
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert_eq!(fs::read(dir.path().join("to.part")).unwrap(), content[..GROUP]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stalls_loses_its_turn_at_the_deadline() {
    let content = content(2 * GROUP);
    let (store, id, dir) = served(&content).await;
    let (stalling, _) = peer_that(store.clone(), |path, response| {
        if is_content(path) { cut(response, GROUP + 9, End::Hang) } else { response }
    });
    let (honest, _) = peer(store);
    let began = tokio::time::Instant::now();
    let fetch = Fetch::new(id, stalling, FetchLimits::default()).or_from(honest);
    fetch.into_file(&dir.path().join("to")).await.unwrap();
    assert_eq!(fs::read(dir.path().join("to")).unwrap(), content);
    assert_eq!(began.elapsed().as_secs(), FetchLimits::default().group_within.as_secs());
}

#[tokio::test]
async fn a_peer_is_given_up_after_so_many_failures_in_a_row() {
    let (store, id, dir) = served(&content(5)).await;
    let answer = |status| {
        move |_: &str, mut response: HttpResponse| {
            *response.status_mut() = status;
            response
        }
    };
    let cases = [
        (StatusCode::SERVICE_UNAVAILABLE, 3),
        (StatusCode::INTERNAL_SERVER_ERROR, 3),
        (StatusCode::NOT_FOUND, 1),
    ];
    for (status, times) in cases {
        let (client, asked) = peer_that(store.clone(), answer(status));
        let fetch = Fetch::new(id, client, limits());
        let error = fetch.into_file(&dir.path().join("to")).await.unwrap_err();
        match cause(error) {
            PeerError::Status { status: said } => assert_eq!(said, status),
            PeerError::Missing => assert_eq!(status, StatusCode::NOT_FOUND),
            error => panic!("{error:?}"),
        }
        assert_eq!(asked.lock().unwrap().len(), times, "{status}");
    }
}

#[tokio::test]
async fn a_peer_without_ranges_is_no_help_after_the_start() {
    let content = content(2 * GROUP);
    let (store, id, dir) = served(&content).await;
    fs::write(dir.path().join("to.part"), &content[..GROUP]).unwrap();
    let (client, _) = peer_that(store.clone(), |_, mut response| {
        *response.status_mut() = StatusCode::OK;
        response
    });
    let (honest, _) = peer(store);
    let to = dir.path().join("to");
    let error = Fetch::new(id, client.clone(), limits()).into_file(&to).await.unwrap_err();
    assert!(matches!(cause(error), PeerError::OtherPart));
    Fetch::new(id, client, limits()).or_from(honest).into_file(&to).await.unwrap();
    assert_eq!(fs::read(&to).unwrap(), content);
}

#[tokio::test]
async fn a_damaged_part_file_is_used_up_to_the_damage() {
    let content = content(3 * GROUP + 9);
    let (store, id, dir) = served(&content).await;
    let to = dir.path().join("to");
    for (damage, resumed) in [(GROUP + 1, 1), (0, 0), (3 * GROUP + 8, 3)] {
        let mut part = content.to_vec();
        part[damage] ^= 1;
        part.extend_from_slice(b"more than there should be");
        fs::write(dir.path().join("to.part"), part).unwrap();
        let (client, _) = peer(store.clone());
        let fetched = Fetch::new(id, client, limits()).into_file(&to).await.unwrap();
        assert_eq!(fetched.resumed, resumed * GROUP_BYTES);
        assert_eq!(fs::read(&to).unwrap(), content);
    }
    fs::write(dir.path().join("to.part"), &content).unwrap();
    let (client, asked) = peer(store);
    let fetched = Fetch::new(id, client, limits()).into_file(&to).await.unwrap();
    assert_eq!(fetched.resumed, content.len() as u64);
    assert_eq!(asked.lock().unwrap().len(), 1, "the outline only");
}

#[tokio::test]
async fn two_fetches_do_not_write_the_same_file() {
    let content = content(2 * GROUP);
    let (store, id, dir) = served(&content).await;
    let to = dir.path().join("to");
    let (stalling, asked) = peer_that(store.clone(), |path, response| {
        if is_content(path) { cut(response, GROUP, End::Hang) } else { response }
    });
    let first = Fetch::new(id, stalling, limits());
    let (client, _) = peer(store);
    let second = async {
        while asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        Fetch::new(id, client.clone(), limits()).into_file(&to).await
    };
    tokio::select! {
        first = first.into_file(&to) => panic!("{first:?}"),
        second = second => assert!(matches!(second, Err(FetchError::InUse { .. })), "{second:?}"),
    }
    // The first one was dropped; its lock goes with the last read that it had under way.
    let whole = async {
        loop {
            match Fetch::new(id, client.clone(), limits()).into_file(&to).await {
                Err(FetchError::InUse { .. }) => tokio::task::yield_now().await,
                other => break other,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), whole).await.unwrap().unwrap();
    assert_eq!(fs::read(&to).unwrap(), content);
}

#[tokio::test]
async fn a_part_file_that_is_a_link_is_not_followed() {
    let (store, id, dir) = served(&content(5)).await;
    let victim = dir.path().join("victim");
    fs::write(&victim, b"untouched").unwrap();
    std::os::unix::fs::symlink(&victim, dir.path().join("to.part")).unwrap();
    let (client, _) = peer(store);
    let error = Fetch::new(id, client, limits()).into_file(&dir.path().join("to")).await;
    assert!(matches!(error, Err(FetchError::Disk { .. })), "{error:?}");
    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
}

#[tokio::test]
async fn a_file_longer_than_the_caller_takes_is_not_begun() {
    let (store, id, dir) = served(&content(2 * GROUP)).await;
    let (client, asked) = peer(store);
    let few = limits().with_max_bytes(2 * GROUP_BYTES - 1);
    let error = Fetch::new(id, client, few).into_file(&dir.path().join("to")).await.unwrap_err();
    assert!(matches!(cause(error), PeerError::TooLong { .. }));
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_stream_hands_out_verified_groups_and_ends_with_an_error_if_it_ends_early() {
    let content = content(2 * GROUP + 1);
    let (store, id, _dir) = served(&content).await;
    let (client, _) = peer(store.clone());
    let groups: Vec<Bytes> =
        Fetch::new(id, client, limits()).into_stream().try_collect().await.unwrap();
    assert_eq!(groups.concat(), content);
    let (lying, _) =
        peer_that(
            store,
            |path, response| {
                if is_content(path) { flip(response, 2 * GROUP) } else { response }
            },
        );
    let mut stream = Box::pin(Fetch::new(id, lying, limits()).into_stream());
    assert_eq!(stream.try_next().await.unwrap().unwrap(), content[..GROUP]);
    assert_eq!(stream.try_next().await.unwrap().unwrap(), content[GROUP..2 * GROUP]);
    assert!(matches!(cause(stream.try_next().await.unwrap_err()), PeerError::WrongContent { .. }));
}

/// A change that a peer makes to an answer.
#[derive(Clone, Copy, Debug)]
enum Mischief {
    Flip(usize),
    Break(usize),
    Early(usize),
    Status(u16),
}

fn mischief() -> impl Strategy<Value = Mischief> {
    prop_oneof![
        (0..3 * GROUP).prop_map(Mischief::Flip),
        (0..200_usize).prop_map(Mischief::Flip),
        (0..3 * GROUP).prop_map(Mischief::Break),
        (0..3 * GROUP).prop_map(Mischief::Early),
        (200..600_u16).prop_map(Mischief::Status),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_fetch_ends_with_the_file_or_an_error_whatever_peers_do(
        bytes in prop_oneof![0..10_usize, 0..3 * GROUP],
        mischiefs in proptest::collection::vec((mischief(), 0..6_usize), 1..4),
        help: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let content = content(bytes);
            let (store, id, dir) = served(&content).await;
            let peers = mischiefs.into_iter().map(|(mischief, when)| {
                let answers = Arc::new(AtomicUsize::new(0));
                peer_that(store.clone(), move |_, mut response| {
                    if answers.fetch_add(1, Ordering::Relaxed) < when {
                        return response;
                    }
                    match mischief {
                        Mischief::Flip(at) => flip(response, at),
                        Mischief::Break(after) => cut(response, after, End::Break),
                        Mischief::Early(after) => cut(response, after, End::Early),
                        Mischief::Status(status) => {
                            *response.status_mut() = StatusCode::from_u16(status).unwrap();
                            response
                        }
                    }
                }).0
            });
            let mut fetch = Fetch::new(id, nobody(), limits());
            for peer in peers {
                fetch = fetch.or_from(peer);
            }
            if help {
                fetch = fetch.or_from(peer(store.clone()).0);
            }
            let to = dir.path().join("to");
            let fetched = fetch.into_file(&to).await;
            assert!(fetched.is_ok() || !help, "{fetched:?}");
            match fetched {
                Ok(_) => assert_eq!(fs::read(&to).unwrap(), content),
                Err(_) => assert!(!to.exists()),
            }
        });
    }
}
