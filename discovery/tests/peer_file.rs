//! The file of the peer store: what was saved is there again, whatever became of the process or of the file.
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use gossip::{Identity, NetworkId};
use mesh::{Ban, BanCause, Record, Role, SourceId, SourceKind};
use proptest::{prelude::*, test_runner::Config};
use tandem_discovery::{Aside, Loaded, PEER_FILE, PeerFile, PeerFileError, PeerStore};

/// Environment variable with the file that the writing process of a test writes to.
const WRITER: &str = "TANDEM_TEST_PEER_FILE";

fn network() -> NetworkId {
    NetworkId::new("test-v1").unwrap()
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Some peers, all of which say in which generation they were saved.
fn generation(number: u32) -> (Vec<Record>, Vec<Ban>) {
    let record = |index: u32| {
        let mut record = Record::new(format!("r{index}.example:{}", 1 + index).parse().unwrap());
        let source = SourceId::named(SourceKind::Dns, "a.example");
        record.listings = vec![(source, [Role::relay()].into_iter().collect())];
        record.identity = Some(Identity::from_ed25519([7; 32]));
        record.failures = number;
        (record.worked, record.anchor) = (index.is_multiple_of(2), index.is_multiple_of(3));
        (record.last_seen, record.retry_at) = (Some(at(number.into())), None);
        record.rtt = Some(Duration::from_micros(1_500));
        record
    };
    let ban = Ban {
        subject: "192.0.2.1".parse().unwrap(),
        until: at(number.into()),
        cause: BanCause::Operator,
        reason: "a test".to_owned(),
    };
    let mut records: Vec<Record> = (0..200 + number % 50).map(record).collect();
    records.sort_by_key(|record| record.address.to_string());
    (records, vec![ban])
}

fn open(path: &Path) -> (PeerFile, Loaded, Option<Aside>) {
    PeerFile::open(path, &network()).unwrap()
}

#[test]
fn a_saved_peer_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PEER_FILE);
    let (records, bans) = generation(1);
    {
        let (mut file, loaded, aside) = open(&path);
        assert_eq!((loaded, aside), (Loaded::default(), None));
        assert!(file.save(&records, &bans).unwrap());
        assert!(!file.save(&records, &bans).unwrap(), "nothing is new");
        let in_use = PeerFile::open(&path, &network()).unwrap_err();
        assert!(matches!(in_use, PeerFileError::InUse { .. }), "{in_use}");
    }
    let (mut file, loaded, aside) = open(&path);
    assert_eq!((&loaded.records, &loaded.bans, loaded.unreadable), (&records, &bans, 0));
    assert_eq!(aside, None);
    assert!(file.save(&records[1..], &[]).unwrap());
    drop(file);
    let (_file, loaded, _) = open(&path);
    assert_eq!(loaded.records, records[1..]);
    assert_eq!(loaded.bans, []);
}

#[test]
fn a_file_that_is_not_ours_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PEER_FILE);
    let aside_path = folder.path().join("peers.redb.aside");
    let other_path = folder.path().join("peers.redb.aside-2");
    type Make = fn(&Path);
    let cases: [(Make, &str); 7] = [
        (|path| fs::write(path, "a few notes of somebody").unwrap(), ""),
        (|path| fs::write(path, vec![0; 70_000]).unwrap(), ""),
        (|path| fs::create_dir(path).unwrap(), "it is no file"),
        (
            |path| {
                let (mut file, ..) = PeerFile::open(path, &NetworkId::new("b").unwrap()).unwrap();
                file.save(&generation(1).0, &[]).unwrap();
            },
            "it is of the network b",
        ),
        (
            |path| {
                // Torn in the middle.
                let (mut file, ..) = open(path);
                file.save(&generation(1).0, &[]).unwrap();
                drop(file);
                let bytes = fs::read(path).unwrap();
                fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
            },
            "",
        ),
        (
            |path| {
                let file = fs::File::create(path).unwrap();
                file.set_len(65 * 1024 * 1024).unwrap();
            },
            "it has 68157440 bytes",
        ),
        (
            |path| {
                const ABOUT: redb::TableDefinition<'_, &str, &str> =
                    redb::TableDefinition::new("about");
                let file = redb::Database::create(path).unwrap();
                let write = file.begin_write().unwrap();
                let mut about = write.open_table(ABOUT).unwrap();
                about.insert("format", "9").unwrap();
                drop(about);
                write.commit().unwrap();
            },
            "it has the format 9, 1 is read",
        ),
    ];
    for (number, (make, told)) in cases.into_iter().enumerate() {
        make(&path);
        let (mut file, loaded, aside) = open(&path);
        let aside = aside.unwrap_or_else(|| panic!("{number} is not put aside"));
        assert_eq!(loaded, Loaded::default(), "{number}");
        assert!(aside.reason.starts_with(told) && !aside.reason.contains('\n'), "{}", aside.reason);
        // The directory does not replace the file that was put aside before, nor does a file replace it.
        let expected = if number == 2 { &other_path } else { &aside_path };
        assert_eq!(&aside.path, expected, "{number}");
        assert!(aside.path.exists(), "{number}");
        assert!(file.save(&generation(1).0, &[]).unwrap());
        drop(file);
        assert_eq!(open(&path).1.records.len(), 201);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_command_reads_the_file_of_any_network_and_puts_nothing_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PEER_FILE);
    let (mut file, ..) = PeerFile::open(&path, &NetworkId::new("b").unwrap()).unwrap();
    file.save(&generation(1).0, &[]).unwrap();
    drop(file);
    let (file, loaded) = PeerFile::open_any(&path, &network()).unwrap();
    assert_eq!(loaded.records.len(), 201);
    drop(file);
    fs::write(&path, "notes").unwrap();
    let error = PeerFile::open_any(&path, &network()).unwrap_err();
    assert!(matches!(error, PeerFileError::Broken { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"notes");
    let new = folder.path().join("new");
    drop(PeerFile::open_any(&new, &network()).unwrap());
    assert_eq!(open(&new).2, None);
}

#[test]
fn a_row_that_cannot_be_read_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PEER_FILE);
    let (records, bans) = generation(3);
    let (mut file, ..) = open(&path);
    file.save(&records, &bans).unwrap();
    drop(file);
    {
        const PEERS: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("peers");
        let file = redb::Database::create(&path).unwrap();
        let write = file.begin_write().unwrap();
        let mut peers = write.open_table(PEERS).unwrap();
        peers.insert("r0.example:1", &[0xff_u8, 1, 2][..]).unwrap();
        peers.insert("no address", &[0_u8, 0, 0][..]).unwrap();
        drop(peers);
        write.commit().unwrap();
    }
    let (mut file, loaded, aside) = open(&path);
    assert_eq!((loaded.records.len(), loaded.unreadable, aside), (records.len() - 1, 2, None));
    file.save(&loaded.records, &loaded.bans).unwrap();
    drop(file);
    assert_eq!(open(&path).1.unreadable, 0);
}

#[test]
fn a_file_does_not_grow_with_the_number_of_saves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PEER_FILE);
    let (mut file, ..) = open(&path);
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    for number in 0..30 {
        let (records, bans) = generation(number);
        file.save(&records, &bans).unwrap();
    }
    let before = size(&path);
    for number in 30..90 {
        let (records, bans) = generation(number);
        file.save(&records, &bans).unwrap();
    }
    assert!(size(&path) <= before, "{} after {before}", size(&path));
    assert!(before < 4 * 1024 * 1024, "{before}");
}

/// Writes one generation after the other, in a process of its own; as a test it does nothing.
#[test]
fn writer() {
    let Ok(path) = std::env::var(WRITER) else { return };
    let (mut file, loaded, _) = open(Path::new(&path));
    let began = Instant::now();
    let mut number = loaded.records.first().map_or(0, |record| record.failures);
    while began.elapsed() < Duration::from_secs(20) {
        number += 1;
        let (records, bans) = generation(number);
        file.save(&records, &bans).unwrap();
    }
}

// Issue 10, 3.
#[test]
fn a_process_that_is_killed_while_it_writes_leaves_one_whole_generation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PEER_FILE);
    let mut last = 0;
    for round in 0..25_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer", "--exact", "--nocapture"])
            .env(WRITER, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Not before it writes, and then at a moment of its own in each round.
        let began = Instant::now();
        while !path.exists() && began.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(15_000 + round * 7_919 % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let (_file, loaded, aside) = open(&path);
        assert_eq!(aside, None, "round {round}");
        let Some(number) = loaded.records.first().map(|record| record.failures) else { continue };
        assert_eq!((loaded.records, loaded.bans), generation(number), "round {round}");
        assert!(last <= number, "round {round}: a newer generation was there before");
        last = number;
    }
    assert!(last > 0, "nothing was ever written");
}

proptest! {
    #![proptest_config(Config { cases: 60, ..Config::default() })]

    #[test]
    fn no_damage_of_a_file_keeps_it_from_being_opened(
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PEER_FILE);
        let (records, bans) = generation(2);
        let (mut file, ..) = open(&path);
        file.save(&records, &bans).unwrap();
        drop(file);
        let mut bytes = fs::read(&path).unwrap();
        for (place, byte) in places {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&path, &bytes).unwrap();
        let (mut file, loaded, aside) = open(&path);
        if aside.is_some() {
            prop_assert_eq!(loaded, Loaded::default());
        } else {
            prop_assert!(loaded.records.len() <= records.len());
        }
        file.save(&records, &bans).unwrap();
        drop(file);
        let (_file, loaded, aside) = open(&path);
        prop_assert_eq!((loaded.records, loaded.bans, aside), (records, bans, None));
    }
}

#[tokio::test]
async fn async_code_goes_through_a_handle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PEER_FILE);
    let (records, bans) = generation(1);
    let (store, loaded, _) = PeerStore::open(path.clone(), network()).await.unwrap();
    assert_eq!(loaded, Loaded::default());
    assert!(store.save(records.clone(), bans.clone()).await.unwrap());
    assert!(!store.save(records.clone(), bans.clone()).await.unwrap());
    drop(store);
    let (_store, loaded, _) = PeerStore::open(path, network()).await.unwrap();
    assert_eq!((loaded.records, loaded.bans), (records, bans));
    let nowhere = PeerStore::open(folder.path().join("no/such/place"), network()).await;
    assert!(matches!(nowhere, Err(PeerFileError::Io { .. })));
}
