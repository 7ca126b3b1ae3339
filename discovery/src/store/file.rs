//! The file of the peer store, an embedded redb database.
//!
//! ```text
//!   about: "format" → 1, "network" → name        peers: address → record        bans: subject → ban
//! ```
//!
//! # Invariants
//!
//! * A save is whole or not there: it is one transaction, on the disk when the call returns. Source: redb, immediate
//!   durability.
//! * A file that cannot be read, of another network or another format, is put aside under another name, and a new one is
//!   begun. Only the last one put aside is kept. Nothing of this keeps a node from starting.
//! * The file and what is read of it are bounded. A row that cannot be read is left out, and gone after the next save.
//! * A panic of the database on damaged pages ends no more than the call.

use std::{
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use gossip::NetworkId;
use mesh::{Ban, Record, bans::MAX_BANS, phonebook::MAX_ADDRESSES};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};

use super::codec::{decode_ban, decode_record, encode_ban, encode_record};

/// Name of the file in a data directory.
pub const PEER_FILE: &str = "peers.redb";

/// Endings that are added to the name of a file that is put aside.
const ASIDE: [&str; 2] = [".aside", ".aside-2"];

/// Ending that is added to the name of a file while it is made.
const UNFINISHED: &str = ".new";

/// Format of the file: raised when a reader of the old one could not read it.
const FORMAT: &str = "1";

/// Memory for pages of the file, in bytes. Chosen: the file is read once, and written to rarely.
const CACHE_BYTES: usize = 1024 * 1024;

/// Largest file that is opened. Chosen: ten times what a store of the largest records takes.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Size from which on a file is rewritten without its gaps when it is opened. Chosen: larger than that of a usual
/// store, which is rewritten never.
const COMPACT_BYTES: u64 = 8 * 1024 * 1024;

/// Rows read of one table, at most. Chosen: twice what a node keeps, so that an older one can have had more.
const MAX_ROWS: usize = 2 * (MAX_ADDRESSES + MAX_BANS);

const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");
const PEERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("peers");
const BANS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bans");

/// The content of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Records of addresses.
    pub records: Vec<Record>,
    /// Bans, also those that have ended.
    pub bans: Vec<Ban>,
    /// Rows that could not be read.
    pub unreadable: usize,
}

/// A file that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The file as it is called now.
    pub path: PathBuf,
    /// The reason, in one line.
    pub reason: String,
}

/// Why there is no store, or why it was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFileError {
    /// A process has it open.
    #[error("the peer store {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The disk refuses, or the path cannot be had.
    #[error("the peer store {} cannot be used", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system or the database.
        source: Box<redb::Error>,
    },
    /// The database gave up on what it found in the file.
    #[error("the peer store is broken: {reason}")]
    Broken {
        /// One line.
        reason: String,
    },
}

/// An open file. Calls block.
pub struct PeerFile {
    file: Database,
    path: PathBuf,
}

/// The network of which a file may be.
#[derive(Clone, Copy)]
enum Network<'a> {
    /// This one.
    Only(&'a NetworkId),
    /// Any; a new file is of this one.
    Any(&'a NetworkId),
}

/// Why a file is not used.
enum Unfit {
    /// There is nothing to be read in it, or it is not ours.
    Aside(String),
    /// It may be fine, and cannot be had now.
    Refused(PeerFileError),
}

impl PeerFile {
    /// Opens the file, and makes it if there is none. One that cannot be read, or is of another network, is put aside
    /// and told. A file that was not closed in order is repaired. Blocks.
    ///
    /// # Errors
    ///
    /// [`PeerFileError`] when another process has it open, or the disk refuses.
    pub fn open(
        path: &Path,
        network: &NetworkId,
    ) -> Result<(Self, Loaded, Option<Aside>), PeerFileError> {
        let reason = match Self::try_open(path, Network::Only(network)) {
            Ok((file, loaded)) => return Ok((file, loaded, None)),
            Err(Unfit::Refused(error)) => return Err(error),
            Err(Unfit::Aside(reason)) => reason,
        };
        let aside = put_aside(path).map_err(|error| io_error(path, redb::Error::Io(error)))?;
        match Self::try_open(path, Network::Only(network)) {
            Ok((file, loaded)) => Ok((file, loaded, Some(Aside { path: aside, reason }))),
            Err(Unfit::Refused(error)) => Err(error),
            Err(Unfit::Aside(reason)) => Err(PeerFileError::Broken { reason }),
        }
    }

    /// Opens the file of whatever network it is of, for a command on the store of a node that does not run; `network`
    /// is that of a file that has to be made. Nothing is put aside. Blocks.
    ///
    /// # Errors
    ///
    /// [`PeerFileError`] when the file cannot be read, or another process has it open.
    pub fn open_any(path: &Path, network: &NetworkId) -> Result<(Self, Loaded), PeerFileError> {
        Self::try_open(path, Network::Any(network)).map_err(|unfit| match unfit {
            Unfit::Refused(error) => error,
            Unfit::Aside(reason) => PeerFileError::Broken { reason },
        })
    }

    fn try_open(path: &Path, network: Network<'_>) -> Result<(Self, Loaded), Unfit> {
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                return Err(Unfit::Aside("it is no file".to_owned()));
            }
            Ok(found) if found.len() > MAX_FILE_BYTES => {
                return Err(Unfit::Aside(format!("it has {} bytes", found.len())));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Unfit::Refused(io_error(path, redb::Error::Io(error))));
            }
            _ => {}
        }
        let open = || -> Result<(Self, Loaded), Unfit> {
            make(path, network)?;
            let mut file = open(path)?;
            let loaded = load(&mut file, path, network)?;
            Ok((Self { file, path: path.to_owned() }, loaded))
        };
        contained(open).unwrap_or_else(|reason| Err(Unfit::Aside(reason)))
    }

    /// Makes the file hold these records and bans, and no others; those beyond the bounds of a node are left out.
    /// Returns `false` if it did already, and then nothing is written. Blocks until the disk has it.
    ///
    /// # Errors
    ///
    /// [`PeerFileError`] when the disk refuses; the file is as it was.
    pub fn save(&mut self, records: &[Record], bans: &[Ban]) -> Result<bool, PeerFileError> {
        let rows = records.iter().take(MAX_ROWS);
        let peers: BTreeMap<String, Vec<u8>> =
            rows.map(|record| (record.address.to_string(), encode_record(record))).collect();
        let rows = bans.iter().take(MAX_ROWS);
        let bans: BTreeMap<String, Vec<u8>> =
            rows.map(|ban| (ban.subject.to_string(), encode_ban(ban))).collect();
        let file = &self.file;
        let write = || -> Result<bool, Box<redb::Error>> {
            let transaction = file.begin_write().map_err(boxed)?;
            let is_new =
                replace(&transaction, PEERS, &peers)? | replace(&transaction, BANS, &bans)?;
            if is_new {
                transaction.commit().map_err(boxed)?;
            } else {
                transaction.abort().map_err(boxed)?;
            }
            Ok(is_new)
        };
        match contained(write) {
            Ok(Ok(is_new)) => Ok(is_new),
            Ok(Err(source)) => Err(PeerFileError::Io { path: self.path.clone(), source }),
            Err(reason) => Err(PeerFileError::Broken { reason }),
        }
    }
}

/// The path with something added to its last name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Gives the file another name, in place of what was put aside before. A directory stays where it is, and the file gets
/// the second name then.
fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let first = beside(path, ASIDE[0]);
    match fs::rename(path, &first) {
        Ok(()) => Ok(first),
        Err(_) => {
            let second = beside(path, ASIDE[1]);
            fs::rename(path, &second).map(|()| second)
        }
    }
}

/// Makes a file with its labels if there is none. It gets its name once it is whole, so that a process which is killed
/// meanwhile leaves nothing that would have to be put aside.
fn make(path: &Path, network: Network<'_>) -> Result<(), Unfit> {
    let refused = |error| Unfit::Refused(io_error(path, redb::Error::Io(error)));
    if fs::exists(path).map_err(refused)? {
        return Ok(());
    }
    let (Network::Only(own) | Network::Any(own)) = network;
    let unfinished = beside(path, UNFINISHED);
    // Of a process that was killed. A directory stays, and is refused below.
    let _ = fs::remove_file(&unfinished);
    let file = open(&unfinished)?;
    label(&file, own).map_err(|error| judged(path, *error))?;
    drop(file);
    fs::rename(&unfinished, path).map_err(refused)
}

/// Opens the database.
fn open(path: &Path) -> Result<Database, Unfit> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    match builder.create(path) {
        Ok(file) => Ok(file),
        Err(DatabaseError::DatabaseAlreadyOpen) => {
            Err(Unfit::Refused(PeerFileError::InUse { path: path.to_owned() }))
        }
        Err(error) => Err(judged(path, error.into())),
    }
}

/// Reads everything, after the labels.
fn load(file: &mut Database, path: &Path, network: Network<'_>) -> Result<Loaded, Unfit> {
    let (Network::Only(own) | Network::Any(own)) = network;
    let unfit = |error: Box<redb::Error>| judged(path, *error);
    let labels = about(file).map_err(unfit)?;
    match labels.as_ref().map(|(format, network)| (&**format, &**network)) {
        None => label(file, own).map_err(unfit)?,
        Some((FORMAT, _)) if matches!(network, Network::Any(_)) => {}
        Some((FORMAT, found)) if found == own.as_str() => {}
        Some((FORMAT, found)) => {
            let found: String = found.chars().take(80).flat_map(char::escape_default).collect();
            return Err(Unfit::Aside(format!("it is of the network {found}")));
        }
        Some((format, _)) => {
            let format: String = format.chars().take(20).flat_map(char::escape_default).collect();
            return Err(Unfit::Aside(format!("it has the format {format}, {FORMAT} is read")));
        }
    }
    if fs::metadata(path).is_ok_and(|found| found.len() > COMPACT_BYTES) {
        // A file with gaps is as good as one without.
        let _ = file.compact();
    }
    let mut loaded = Loaded::default();
    let Loaded { records, bans, unreadable } = &mut loaded;
    let each = |key: &str, value: &[u8]| match key.parse() {
        Ok(address) => decode_record(address, value),
        Err(_) => None,
    };
    *unreadable += rows(file, PEERS, records, each).map_err(unfit)?;
    let each = |key: &str, value: &[u8]| match key.parse() {
        Ok(subject) => decode_ban(subject, value),
        Err(_) => None,
    };
    *unreadable += rows(file, BANS, bans, each).map_err(unfit)?;
    Ok(loaded)
}

/// Format and network of the file; `None` when it is new.
fn about(file: &Database) -> Result<Option<(String, String)>, Box<redb::Error>> {
    let transaction = file.begin_read().map_err(boxed)?;
    let table = match transaction.open_table(ABOUT) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(boxed(error)),
    };
    let read = |key| -> Result<String, Box<redb::Error>> {
        let value = table.get(key).map_err(boxed)?;
        Ok(value.map_or_else(String::new, |value| value.value().to_owned()))
    };
    Ok(Some((read("format")?, read("network")?)))
}

/// Makes the tables of a new file.
fn label(file: &Database, network: &NetworkId) -> Result<(), Box<redb::Error>> {
    let transaction = file.begin_write().map_err(boxed)?;
    {
        let mut about = transaction.open_table(ABOUT).map_err(boxed)?;
        about.insert("format", FORMAT).map_err(boxed)?;
        about.insert("network", network.as_str()).map_err(boxed)?;
        transaction.open_table(PEERS).map_err(boxed)?;
        transaction.open_table(BANS).map_err(boxed)?;
    }
    transaction.commit().map_err(boxed)
}

/// Reads the rows of a table, and returns the number of those that could not be read.
fn rows<T>(
    file: &Database,
    table: TableDefinition<'_, &str, &[u8]>,
    into: &mut Vec<T>,
    read: impl Fn(&str, &[u8]) -> Option<T>,
) -> Result<usize, Box<redb::Error>> {
    let table = file.begin_read().map_err(boxed)?.open_table(table).map_err(boxed)?;
    let mut unreadable = 0;
    for row in table.iter().map_err(boxed)?.take(MAX_ROWS) {
        let (key, value) = row.map_err(boxed)?;
        match read(key.value(), value.value()) {
            Some(row) => into.push(row),
            None => unreadable += 1,
        }
    }
    Ok(unreadable)
}

/// Makes a table hold these rows alone. Returns `true` if that changes it.
fn replace(
    transaction: &WriteTransaction,
    table: TableDefinition<'_, &str, &[u8]>,
    rows: &BTreeMap<String, Vec<u8>>,
) -> Result<bool, Box<redb::Error>> {
    let mut table = transaction.open_table(table).map_err(boxed)?;
    let mut is_new = false;
    table
        .retain(|key, _| {
            let stays = rows.contains_key(key);
            is_new |= !stays;
            stays
        })
        .map_err(boxed)?;
    for (key, value) in rows {
        let is_known =
            table.get(&**key).map_err(boxed)?.is_some_and(|known| known.value() == &**value);
        if !is_known {
            table.insert(&**key, &**value).map_err(boxed)?;
            is_new = true;
        }
    }
    Ok(is_new)
}

/// Returns what `call` returns, or a line about its panic.
fn contained<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| "it is damaged".to_owned())
}

/// Decides whether an error is the file's fault or the disk's.
fn judged(path: &Path, error: redb::Error) -> Unfit {
    match error {
        redb::Error::Io(error) if !is_content(&error) => {
            Unfit::Refused(io_error(path, redb::Error::Io(error)))
        }
        error => {
            let told: String = error.to_string().chars().take(200).collect();
            Unfit::Aside(told.replace(char::is_control, " "))
        }
    }
}

/// Returns `true` for errors that the content of a file causes.
fn is_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn io_error(path: &Path, source: redb::Error) -> PeerFileError {
    PeerFileError::Io { path: path.to_owned(), source: Box::new(source) }
}

fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

impl std::fmt::Debug for PeerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerFile").field("path", &self.path).finish_non_exhaustive()
    }
}
