//! The store of files.
//!
//! ```text
//!   <dir>/lock            held while the store is open
//!   <dir>/put-*.part      uploads under way; what a crash left is removed when the store opens
//!   <dir>/<id>.outline    of files longer than one group; in its place before the file is
//!   <dir>/<id>            the content, nothing else
//! ```
//!
//! # Invariants
//!
//! * Every name in the directory is made here, of a [`FileId`]. A final component that is a symbolic
//!   link, a pipe, a directory or has a second link is not opened for anybody.
//! * A file gets its name after it and its outline are on disk; the directory is written out before the
//!   upload is answered.
//! * `used + reserved <= quota` whenever bytes are taken: an upload reserves before it writes, and gives
//!   back what it did not keep, however it ends.
//! * One process at a time: the lock file says so.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    num::NonZeroUsize,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use gossip::{Durations, LimitError, http::BoxError};
use rustix::fs::OFlags;
use tempfile::NamedTempFile;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{FileId, Hashing, Outline};

/// Bytes gathered before they are hashed and written. Chosen: as in what is read at once.
const BATCH_BYTES: usize = 256 * 1024;

/// Bytes after which an upload is written out to disk. Chosen: the last one, for which the uploader
/// waits, is short then.
const SYNC_BYTES: u64 = 64 * 1024 * 1024;

/// Least charge of a file, and the step in which files are charged, in bytes. Chosen: a block of
/// usual file systems, so that a million empty files are not free.
const BLOCK_BYTES: u64 = 4096;

/// Bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreLimits {
    /// Longest file in bytes. Default 16 GiB. Chosen: an outline of half a MiB to hold in memory.
    pub max_file_bytes: u64,
    /// Bytes on disk, uploads under way included. Default 64 GiB. Chosen: four of the longest files.
    pub quota_bytes: u64,
    /// Uploads at a time. Default 8. Chosen: more do not make a disk faster.
    pub uploads: NonZeroUsize,
    /// Longest time of an upload for every 256 KiB. Default 16 s. Source: threats, row 30: 16 KiB/s.
    pub batch_within: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            max_file_bytes: 16 << 30,
            quota_bytes: 64 << 30,
            uploads: NonZeroUsize::MIN.saturating_add(7),
            batch_within: Duration::from_secs(16),
        }
    }
}

gossip::setters!(StoreLimits {
    with_max_file_bytes => max_file_bytes: u64,
    with_quota_bytes => quota_bytes: u64,
    with_uploads => uploads: NonZeroUsize,
    with_batch_within => batch_within: Duration,
});

impl Durations for StoreLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("StoreLimits::batch_within", &mut self.batch_within);
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// Another process has it open.
    #[error("the store in {} is open already", dir.display())]
    InUse {
        /// Its directory.
        dir: PathBuf,
    },
    /// A duration among its limits cannot be used.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The directory cannot be used.
    #[error("cannot use the directory {} as a store", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The reason for which a file was not kept. Nothing of it is left on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// As many uploads as are allowed are under way.
    #[error("too many uploads at a time")]
    Busy,
    /// The file is longer than the store takes.
    #[error("the file is longer than {limit} bytes")]
    TooLong {
        /// The bound of the store.
        limit: u64,
    },
    /// There is no room left.
    #[error("the store is full")]
    Full,
    /// The content came too slowly.
    #[error("no {BATCH_BYTES} bytes within {within:?}")]
    Slow {
        /// The time that was waited.
        within: Duration,
    },
    /// The content broke off.
    #[error("the content broke off")]
    Broken {
        /// The error that ended it.
        source: BoxError,
    },
    /// The content has another name than it was sent under.
    #[error("the content is {found}, not {expected}")]
    OtherContent {
        /// The name it was sent under.
        expected: FileId,
        /// Its name.
        found: FileId,
    },
    /// The disk did not take it.
    #[error("cannot write to the store")]
    Disk {
        /// The error of the operating system.
        source: io::Error,
    },
}

/// A file that the store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub id: FileId,
    /// Its length.
    pub bytes: u64,
    /// Its presence before it was put.
    pub kept: Kept,
}

/// The presence of a file before it was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is new.
    New,
    /// It was there.
    Already,
}

/// An open file of the store.
#[derive(Clone, Debug)]
pub struct Content {
    /// The file.
    pub file: Arc<File>,
    /// Its length when it was opened.
    pub bytes: u64,
}

/// Files on disk, named by their content. Clones share it.
///
/// # Cancel safety
///
/// A call of [`Store::find`] or [`Store::remove`] that is dropped may still run to its end on a thread of its own.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    limits: StoreLimits,
    ledger: Mutex<Ledger>,
    /// Held, on threads that may block, while a file gets or loses its name.
    naming: Mutex<()>,
    uploads: Arc<Semaphore>,
    /// Keeps other processes out.
    _lock: File,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Charged for files.
    used: u64,
    /// Charged for uploads under way.
    reserved: u64,
}

impl Ledger {
    /// A file of so many bytes is gone.
    const fn release(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(charge(bytes));
    }
}

impl Store {
    /// Opens the store in `dir`, which is made if it is not there, and removes what a crash left.
    ///
    /// # Errors
    ///
    /// [`OpenStoreError`] when another process has the store open, or the directory cannot be used.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may finish opening in the background, and closes what it opened.
    pub async fn open(dir: &Path, limits: StoreLimits) -> Result<Self, OpenStoreError> {
        limits.check()?;
        let dir = dir.to_owned();
        let fails = {
            let dir = dir.clone();
            |source| OpenStoreError::Directory { dir, source }
        };
        let opened = blocking(move || {
            fs::create_dir_all(&dir)?;
            // The way to it may hold links, which are the operator's; what is in it may not.
            let dir = dir.canonicalize()?;
            let lock = options().write(true).create(true).truncate(false).open(dir.join("lock"))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Err(OpenStoreError::InUse { dir })),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let ledger = Mutex::new(Ledger { used: tidy(&dir)?, reserved: 0 });
            let uploads =
                Arc::new(Semaphore::new(limits.uploads.get().min(Semaphore::MAX_PERMITS)));
            let shared =
                Shared { dir, limits, ledger, naming: Mutex::default(), uploads, _lock: lock };
            Ok(Ok(Self { shared: Arc::new(shared) }))
        });
        opened.await.unwrap_or_else(|source| Err(fails(source)))
    }

    /// Bytes charged for the files that are there: their length and outline, in steps of 4 KiB.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.ledger().used
    }

    /// Bytes that the longest file may have.
    #[must_use]
    pub fn max_file_bytes(&self) -> u64 {
        self.shared.limits.max_file_bytes
    }

    /// Keeps content under its name.
    ///
    /// # Errors
    ///
    /// [`PutError`]; nothing is kept then.
    ///
    /// # Cancel safety
    ///
    /// A dropped call keeps nothing, unless all content had been read: then the file may be kept.
    pub async fn put<E: Into<BoxError>>(
        &self,
        content: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Stored, PutError> {
        let upload = self.receive(content).await?;
        blocking(move || upload.keep()).await.map_err(|source| PutError::Disk { source })
    }

    /// Keeps content if this is its name.
    ///
    /// # Errors
    ///
    /// [`PutError`]; nothing is kept then.
    ///
    /// # Cancel safety
    ///
    /// As [`Store::put`].
    pub async fn put_as<E: Into<BoxError>>(
        &self,
        expected: FileId,
        content: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Stored, PutError> {
        let upload = self.receive(content).await?;
        let found = upload.outline.id();
        if found != expected {
            return Err(PutError::OtherContent { expected, found });
        }
        blocking(move || upload.keep()).await.map_err(|source| PutError::Disk { source })
    }

    /// Opens a file. `None` if it is not there, or is no file of the store's.
    ///
    /// # Errors
    ///
    /// The error of the operating system, when a file that is there cannot be opened.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped read goes on for a moment on its thread, and its result is lost.
    pub async fn find(&self, id: FileId) -> io::Result<Option<Content>> {
        let shared = self.shared.clone();
        blocking(move || open(&shared.path(id))).await
    }

    /// Opens what [`Outline::parse`] reads, of a file that is there and has more than one group.
    ///
    /// # Errors
    ///
    /// As [`Store::find`].
    ///
    /// # Cancel safety
    ///
    /// As [`Store::find`].
    pub async fn find_outline(&self, id: FileId) -> io::Result<Option<Content>> {
        let shared = self.shared.clone();
        blocking(move || open(&shared.outline_path(id))).await
    }

    /// Removes a file; `false` if it was not there. Those that read it read on to its end.
    ///
    /// # Errors
    ///
    /// The error of the operating system, when it cannot be removed.
    ///
    /// # Cancel safety
    ///
    /// Not safe: the file may or may not be there after the future was dropped.
    pub async fn remove(&self, id: FileId) -> io::Result<bool> {
        let shared = self.shared.clone();
        blocking(move || {
            let _naming = shared.naming.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(content) = open(&shared.path(id))? else { return Ok(false) };
            fs::remove_file(shared.path(id))?;
            shared.ledger().release(content.bytes);
            match fs::remove_file(shared.outline_path(id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(true),
            }
        })
        .await
    }

    /// Writes content to the disk and hashes it, within all limits.
    async fn receive<E: Into<BoxError>>(
        &self,
        content: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Upload, PutError> {
        let limits = self.shared.limits;
        let slot = self.shared.uploads.clone().try_acquire_owned().map_err(|_| PutError::Busy)?;
        let mut reservation = Reservation { shared: self.shared.clone(), bytes: 0 };
        reservation.grow_to(charge(0))?;
        let disk = |source| PutError::Disk { source };
        let shared = self.shared.clone();
        let mut draft = blocking(move || Draft::new(&shared.dir)).await.map_err(disk)?;
        let mut batch = BytesMut::with_capacity(BATCH_BYTES);
        let mut bytes = 0_u64;
        let mut deadline = Instant::now() + limits.batch_within;
        let mut content = pin!(content);
        loop {
            let piece = timeout_at(deadline, content.next()).await;
            let piece = piece.map_err(|_| PutError::Slow { within: limits.batch_within })?;
            let Some(piece) = piece else { break };
            let mut piece = piece.map_err(|error| PutError::Broken { source: error.into() })?;
            bytes = bytes.saturating_add(piece.len() as u64);
            if bytes > limits.max_file_bytes {
                return Err(PutError::TooLong { limit: limits.max_file_bytes });
            }
            reservation.grow_to(charge(bytes))?;
            while !piece.is_empty() {
                batch
                    .extend_from_slice(&piece.split_to(piece.len().min(BATCH_BYTES - batch.len())));
                if batch.len() == BATCH_BYTES {
                    (draft, batch) = blocking(|| draft.write(batch)).await.map_err(disk)?;
                    deadline = Instant::now() + limits.batch_within;
                }
            }
        }
        (draft, _) = blocking(|| draft.write(batch)).await.map_err(disk)?;
        let outline = draft.hashing.finish();
        Ok(Upload { part: draft.part, outline, reservation, _slot: slot })
    }
}

impl Shared {
    fn path(&self, id: FileId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    fn outline_path(&self, id: FileId) -> PathBuf {
        self.dir.join(format!("{id}.outline"))
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that an upload may use; given back when it is dropped.
#[derive(Debug)]
struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reservation {
    fn grow_to(&mut self, bytes: u64) -> Result<(), PutError> {
        let mut ledger = self.shared.ledger();
        let more = bytes.saturating_sub(self.bytes);
        let all = ledger.used.saturating_add(ledger.reserved).saturating_add(more);
        if more > 0 && all > self.shared.limits.quota_bytes {
            return Err(PutError::Full);
        }
        ledger.reserved += more;
        self.bytes += more;
        Ok(())
    }

    /// The bytes are those of a file now.
    fn settle(mut self) {
        let mut ledger = self.shared.ledger();
        ledger.used += self.bytes;
        ledger.reserved -= self.bytes;
        drop(ledger);
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.ledger().reserved -= self.bytes;
    }
}

/// A file while it is written. Dropping it removes it.
struct Draft {
    part: NamedTempFile,
    hashing: Hashing,
    unsynced: u64,
}

impl Draft {
    fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { part: part(dir)?, hashing: Hashing::default(), unsynced: 0 })
    }

    /// Takes a batch, and gives it back empty.
    fn write(mut self, mut batch: BytesMut) -> io::Result<(Self, BytesMut)> {
        self.hashing.update(&batch);
        self.part.write_all(&batch)?;
        self.unsynced += batch.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.part.as_file().sync_data()?;
            self.unsynced = 0;
        }
        batch.clear();
        Ok((self, batch))
    }
}

/// A whole file that has no name yet. Dropping it removes it.
struct Upload {
    part: NamedTempFile,
    outline: Outline,
    reservation: Reservation,
    /// Its place among the uploads at a time, until it is on disk.
    _slot: OwnedSemaphorePermit,
}

impl Upload {
    /// Gives the file its name. What has the name already is replaced if it is not this file: it was
    /// damaged, or planted.
    fn keep(self) -> io::Result<Stored> {
        let shared = self.reservation.shared.clone();
        let (id, bytes) = (self.outline.id(), self.outline.bytes());
        self.part.as_file().sync_all()?;
        let _naming = shared.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let outlined = Outline::wire_bytes(bytes);
        let there = open(&shared.path(id))?;
        let is_whole = there.as_ref().is_some_and(|content| content.bytes == bytes)
            && (self.outline.groups() < 2
                || open(&shared.outline_path(id))?.is_some_and(|there| there.bytes == outlined));
        if is_whole {
            return Ok(Stored { id, bytes, kept: Kept::Already });
        }
        if self.outline.groups() > 1 {
            let mut part = part(&shared.dir)?;
            part.write_all(&self.outline.to_wire())?;
            part.as_file().sync_all()?;
            part.persist(shared.outline_path(id))?;
        }
        self.part.persist(shared.path(id))?;
        File::open(&shared.dir)?.sync_all()?;
        if let Some(replaced) = there {
            shared.ledger().release(replaced.bytes);
        }
        self.reservation.settle();
        Ok(Stored { id, bytes, kept: Kept::New })
    }
}

/// A new file without a name.
fn part(dir: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix("put-").suffix(".part").tempfile_in(dir)
}

/// The charge of a file of `bytes`, its outline included.
const fn charge(bytes: u64) -> u64 {
    let outline = if bytes <= super::GROUP_BYTES { 0 } else { Outline::wire_bytes(bytes) };
    let blocks = bytes.div_ceil(BLOCK_BYTES) + outline.div_ceil(BLOCK_BYTES);
    let blocks = if blocks == 0 { 1 } else { blocks };
    blocks.saturating_mul(BLOCK_BYTES)
}

/// The flags with which anything in the directory is opened: no link is followed, and no pipe waited for.
fn options() -> fs::OpenOptions {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut options = File::options();
    options.custom_flags(flags).mode(0o600);
    options
}

/// Opens a plain file with one name. Anything else is as good as not there.
fn open(path: &Path) -> io::Result<Option<Content>> {
    let refused = |what| {
        // Anybody may ask for it again and again; that it is not there is what they are told.
        tracing::debug!(path = %path.display(), what, "not a file of the store");
        Ok(None)
    };
    let file = match options().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return refused("a symbolic link");
        }
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            return refused("a socket");
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return refused("not a plain file");
    }
    if metadata.nlink() != 1 {
        return refused("a file with more than one name");
    }
    Ok(Some(Content { file: Arc::new(file), bytes: metadata.len() }))
}

/// Removes what a crash left and adds up what is there.
fn tidy(dir: &Path) -> io::Result<u64> {
    let mut used = 0_u64;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("put-") && name.ends_with(".part") {
            if entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        } else if let Some(id) = name.strip_suffix(".outline").and_then(|id| id.parse().ok()) {
            let id: FileId = id;
            if entry.file_type()?.is_file() && !dir.join(id.to_string()).try_exists()? {
                fs::remove_file(entry.path())?;
            }
        } else if name.parse::<FileId>().is_ok() && entry.file_type()?.is_file() {
            used = used.saturating_add(charge(entry.metadata()?.len()));
        }
    }
    Ok(used)
}

/// Does something where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
