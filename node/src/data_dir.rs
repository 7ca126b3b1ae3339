//! The directory in which a node keeps its key, its lock and its admin socket.
//!
//! # Invariants
//!
//! * The process that has a [`DataDir`] is the only one that uses the directory. The lock is the system's, so it
//!   ends with the process, however that ends.
//! * A directory that is made here is its owner's alone.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use gossip::{Keypair, NetworkProfile};

use crate::keys::{self, KeyError};

/// Name of the file that is locked.
const LOCK_FILE: &str = "lock";

/// Name of the socket of the admin API.
const ADMIN_SOCKET: &str = "admin.sock";

/// A data directory in use by this process alone. Dropping it gives the directory free.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// The reason for which a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// It is not there and could not be made.
    #[error("cannot create the data directory {}: choose another with --data-dir", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "the data directory {} is in use by another node: stop that one, or choose another with --data-dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Its lock could not be taken.
    #[error("cannot lock the data directory {}: choose another with --data-dir", path.display())]
    Lock {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl DataDir {
    /// Makes the directory if it is missing, with mode 0700, and locks it for this process.
    ///
    /// # Errors
    ///
    /// [`DataDirError`] when the directory cannot be made, or another process uses it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataDirError> {
        let path = path.into();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| DataDirError::Create { path: path.clone(), source })?;
        let failed = |source| DataDirError::Lock { path: path.clone(), source };
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = options.open(path.join(LOCK_FILE)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(DataDirError::Lock { path, source }),
        }
    }

    /// The path of the directory, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key that a node in this directory has, which is made if there is none: for programs that sign messages of
    /// their own with it. The name of its file is up to `profile`, the one of the node.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when the file cannot be read, or written.
    pub fn key(&self, profile: &NetworkProfile) -> Result<Keypair, KeyError> {
        keys::load_or_create(&self.path.join(profile.key_file))
    }

    /// The path of the socket on which the admin API of the node listens that uses the directory `path`.
    #[must_use]
    pub fn admin_socket(path: &Path) -> PathBuf {
        path.join(ADMIN_SOCKET)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_is_made_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a").join("b");
        let _dir = DataDir::open(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(LOCK_FILE)), 0o600);
    }

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::open(parent.path()).unwrap();
        assert!(matches!(DataDir::open(parent.path()), Err(DataDirError::InUse { .. })));
        drop(dir);
        assert!(DataDir::open(parent.path()).is_ok());
    }

    #[test]
    fn a_directory_has_one_key() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::open(parent.path()).unwrap();
        let key = dir.key(&NetworkProfile::TANDEM).unwrap();
        assert_eq!(dir.key(&NetworkProfile::TANDEM).unwrap().seed(), key.seed());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().join("below");
        let told = DataDir::open(&path).unwrap_err().to_string();
        assert!(told.contains(&path.display().to_string()), "{told}");
    }
}
