//! The file store: keeping, refusing and cleaning up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, num::NonZeroUsize, os::unix::fs::symlink, time::Duration};

use crate::files_support::{self, content, pieces, put, store};
use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream};
use gossip::http::{BoxError, read_all};
use tandem_services::files::{
    FileId, GROUP_BYTES, Kept, OpenStoreError, Outline, PutError, Section, Store, StoreLimits,
};
use tempfile::tempdir;

const GROUP: usize = GROUP_BYTES as usize;

async fn read(store: &Store, id: FileId) -> Option<Bytes> {
    let content = store.find(id).await.unwrap()?;
    Some(read_all(Section::new(content.file, 0..content.bytes), usize::MAX).await.unwrap())
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name != "lock");
    names.sort();
    names
}

#[tokio::test]
async fn a_file_is_kept_under_its_name_with_its_outline() {
    let dir = tempdir().unwrap();
    let store = store(dir.path()).await;
    for bytes in [0, 1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 7] {
        let content = content(bytes);
        let stored = store.put(stream::iter(pieces(&content, 70_001))).await.unwrap();
        assert_eq!((stored.id, stored.bytes), (FileId::of(&content), bytes as u64));
        assert_eq!(stored.kept, Kept::New);
        assert_eq!(read(&store, stored.id).await.unwrap(), content);
        let outline = store.find_outline(stored.id).await.unwrap();
        assert_eq!(outline.is_some(), bytes > GROUP);
        if let Some(outline) = outline {
            let wire = read_all(Section::new(outline.file, 0..outline.bytes), 1000).await.unwrap();
            assert_eq!(Outline::parse(stored.id, &wire).unwrap().bytes(), bytes as u64);
        }
        assert_eq!(put(&store, &content).await, stored.id, "twice is once");
    }
    assert_eq!(names(dir.path()).len(), 6 + 2);
}

#[tokio::test]
async fn a_file_under_another_name_is_not_kept() {
    let dir = tempdir().unwrap();
    let store = store(dir.path()).await;
    let wanted = FileId::of(b"wanted");
    let error = store.put_as(wanted, stream::iter(pieces(&content(9), 4))).await.unwrap_err();
    assert!(matches!(error, PutError::OtherContent { expected, .. } if expected == wanted));
    assert!(names(dir.path()).is_empty());
    assert_eq!(store.used_bytes(), 0);
}

#[tokio::test]
async fn the_same_content_put_many_times_at_once_is_one_file() {
    let dir = tempdir().unwrap();
    let store = store(dir.path()).await;
    let content = content(2 * GROUP + 1);
    let puts = (0..8).map(|at| store.put(stream::iter(pieces(&content, 10_000 + at))));
    let stored = join_all(puts).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(stored.iter().filter(|stored| stored.kept == Kept::New).count(), 1);
    assert_eq!(names(dir.path()).len(), 2);
    assert_eq!(store.used_bytes(), (2 * GROUP_BYTES + 4096) + 4096);
}

#[tokio::test]
async fn limits_hold_and_room_that_was_not_used_is_given_back() {
    let dir = tempdir().unwrap();
    let limits = StoreLimits::default().with_max_file_bytes(5000).with_quota_bytes(3 * 4096);
    let store = Store::open(dir.path(), limits).await.unwrap();
    let error = store.put(stream::iter(pieces(&content(5001), 1000))).await.unwrap_err();
    assert!(matches!(error, PutError::TooLong { limit: 5000 }));
    let broken = [Ok(content(4000)), Err(BoxError::from("cut"))];
    let error = store.put(stream::iter(broken)).await.unwrap_err();
    assert!(matches!(error, PutError::Broken { .. }));
    assert_eq!(put(&store, &content(5000)).await, FileId::of(&content(5000)));
    assert_eq!(store.used_bytes(), 2 * 4096);
    let error = store.put(stream::iter(pieces(&content(4097), 1000))).await.unwrap_err();
    assert!(matches!(error, PutError::Full));
    put(&store, &content(4096)).await;
    let error = store.put(stream::iter(pieces(&content(0), 1))).await.unwrap_err();
    assert!(matches!(error, PutError::Full), "an empty file is not free");
    assert_eq!(names(dir.path()).len(), 2);

    assert!(store.remove(FileId::of(&content(5000))).await.unwrap());
    assert!(!store.remove(FileId::of(&content(5000))).await.unwrap());
    assert_eq!(store.used_bytes(), 4096);
    put(&store, &content(4097)).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_loses_its_place_at_the_deadline() {
    let dir = tempdir().unwrap();
    let limits = StoreLimits::default().with_uploads(NonZeroUsize::MIN);
    let store = Store::open(dir.path(), limits).await.unwrap();
    let trickle = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, BoxError>(content(1)), ()))
    });
    let slow = store.put(trickle);
    let other = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        store.put(stream::iter(pieces(&content(1), 1))).await
    };
    let began = tokio::time::Instant::now();
    let (slow, other) = futures::future::join(slow, other).await;
    assert!(matches!(slow, Err(PutError::Slow { .. })), "{slow:?}");
    assert_eq!(began.elapsed().as_secs(), limits.batch_within.as_secs());
    assert!(matches!(other, Err(PutError::Busy)), "{other:?}");
    put(&store, &content(1)).await;
    assert_eq!(names(dir.path()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_upload_may_take_its_time_as_long_as_it_gets_on() {
    let dir = tempdir().unwrap();
    let store = store(dir.path()).await;
    let began = tokio::time::Instant::now();
    let batches = stream::iter(0..4).then(|_| async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok::<_, BoxError>(content(256 * 1024))
    });
    store.put(batches).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 40);
}

#[tokio::test]
async fn a_dropped_upload_leaves_nothing() {
    let dir = tempdir().unwrap();
    let store = store(dir.path()).await;
    let never_ends = stream::iter(pieces(&content(GROUP), 9999)).chain(stream::pending());
    let upload = tokio::time::timeout(Duration::from_millis(50), store.put(never_ends));
    upload.await.unwrap_err();
    let gone = async {
        while !names(dir.path()).is_empty() || store.used_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}

#[tokio::test]
async fn leftovers_of_a_crash_are_gone_after_opening_and_files_are_charged_again() {
    let dir = tempdir().unwrap();
    let (kept, charged) = {
        let store = store(dir.path()).await;
        let kept = put(&store, &content(2 * GROUP)).await;
        (kept, store.used_bytes())
    };
    let orphan = FileId::of(b"never renamed");
    fs::write(dir.path().join("put-Ab12.part"), b"half").unwrap();
    fs::write(dir.path().join(format!("{orphan}.outline")), b"alone").unwrap();
    fs::write(dir.path().join("README"), b"of the operator").unwrap();
    let store = store(dir.path()).await;
    assert_eq!(names(dir.path()), {
        let mut names = vec!["README".to_owned(), kept.to_string(), format!("{kept}.outline")];
        names.sort();
        names
    });
    assert_eq!(store.used_bytes(), charged);
}

#[tokio::test]
async fn a_store_is_open_once() {
    let dir = tempdir().unwrap();
    let first = store(dir.path()).await;
    let second = Store::open(dir.path(), StoreLimits::default()).await;
    assert!(matches!(second, Err(OpenStoreError::InUse { .. })), "{second:?}");
    drop(first);
    store(dir.path()).await;
}

#[tokio::test]
async fn links_and_other_things_planted_under_a_name_are_not_served_and_give_way() {
    let (dir, outside) = (tempdir().unwrap(), tempdir().unwrap());
    let secret = outside.path().join("secret");
    fs::write(&secret, b"secret").unwrap();
    let linked_secret = outside.path().join("linked secret");
    fs::write(&linked_secret, b"secret").unwrap();
    let store = store(dir.path()).await;
    let at = |content: &Bytes| dir.path().join(FileId::of(content).to_string());
    let (linked, hard, pipe, dangling) = (content(1), content(2), content(3), content(GROUP + 4));
    symlink(&secret, at(&linked)).unwrap();
    fs::hard_link(&linked_secret, at(&hard)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at(&pipe),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    symlink(outside.path().join("not there"), at(&dangling)).unwrap();
    symlink(&secret, dir.path().join(format!("{}.outline", FileId::of(&dangling)))).unwrap();
    for content in [&linked, &hard, &pipe, &dangling] {
        assert_eq!(read(&store, FileId::of(content)).await, None);
        assert!(!store.remove(FileId::of(content)).await.unwrap());
        assert_eq!(put(&store, content).await, FileId::of(content));
        assert_eq!(read(&store, FileId::of(content)).await.unwrap(), *content);
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        assert_eq!(fs::read(&linked_secret).unwrap(), b"secret");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2, "nothing was written outside");
    let part = dir.path().join("put-evil.part");
    drop(store);
    symlink(&secret, &part).unwrap();
    let _reopened = files_support::store(dir.path()).await;
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
}

#[tokio::test]
async fn a_file_that_lost_its_end_is_replaced_by_the_next_upload() {
    let dir = tempdir().unwrap();
    let store = store(dir.path()).await;
    let content = content(9000);
    let id = put(&store, &content).await;
    let charged = store.used_bytes();
    let file = fs::File::options().write(true).open(dir.path().join(id.to_string())).unwrap();
    file.set_len(8999).unwrap();
    assert_eq!(put(&store, &content).await, id);
    assert_eq!(read(&store, id).await.unwrap(), content);
    assert_eq!(store.used_bytes(), charged);
}
