//! The node's key, in a file.
//!
//! # Invariants
//!
//! * A key file is written once, whole or not at all, readable for its owner only, and never rewritten.
//! * A key that others can read is not used, and none is written where others could read it.
//! * No advice here costs an identity: a file that cannot be used is to be mended, never to be replaced.

mod pem;

use std::{
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use gossip::Keypair;
use rand::{Rng, RngCore};
use runtime::Random;

/// Longest key file that is read, in bytes. Chosen: thirty times what such a key takes.
const MAX_FILE_BYTES: u64 = 4_096;

/// The reason for which a key cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Others than the owner can read the file.
    #[error(
        "the key file {} can be read by others, run: chmod 600 {} (where the file system keeps no rights, as FAT does, \
         move the file to another one)",
        path.display(),
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The file that was asked for is missing.
    #[error("there is no key file {}: name the right one, or make one with tandem keygen --out {}", path.display(), path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The path is that of a directory, or of something else that is no file.
    #[error("{} is no file: name the file of the key itself, such as {}", path.display(), path.join("identity.pem").display())]
    NotAFile {
        /// The path as it was named.
        path: PathBuf,
    },
    /// A new key would be readable by others, whatever rights are asked for.
    #[error(
        "the file system of {} keeps no rights, so that others could read the key: keep it on another one",
        path.display()
    )]
    NoRights {
        /// The file that was to be made.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the key file {}, make it readable for the user that runs the node", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The content of the file is no key.
    #[error("the key file {} {what}; it is who the node is, so restore it from a copy", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The fault of the content, as the end of the sentence.
        what: &'static str,
    },
    /// The content of the file is no key of a private network.
    #[cfg(feature = "private-network")]
    #[error("the key of the private network in {} cannot be used", path.display())]
    NetworkKey {
        /// The file.
        path: PathBuf,
        /// The fault of the content.
        source: net_p2p::NetworkKeyError,
    },
    /// The content of the file is no certificate for WebRTC.
    #[cfg(feature = "webrtc")]
    #[error("the certificate for WebRTC in {} cannot be used; without the file a new one is made, and the addresses change", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The fault of the content.
        source: net_p2p::WebRtcCertificateError,
    },
    /// The file cannot be written.
    #[error("cannot write the key file {}, make its directory writable for the user that runs the node", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Reads a key file: PKCS#8 in PEM, whatever else is around the key.
///
/// # Errors
///
/// [`KeyError`]; [`KeyError::Missing`] if there is no file.
pub(crate) fn load(path: &Path) -> Result<Keypair, KeyError> {
    let bytes = read(path)?;
    pem::key(&bytes).map_err(|pem::NoKey(what)| KeyError::Malformed { path: path.to_owned(), what })
}

/// Reads the key of a private network, in the format of go-libp2p's `swarm.key`.
///
/// # Errors
///
/// [`KeyError`], as for the node's own key.
#[cfg(feature = "private-network")]
pub(crate) fn load_network_key(path: &Path) -> Result<net_p2p::NetworkKey, KeyError> {
    let text = String::from_utf8(read(path)?).unwrap_or_default();
    text.parse().map_err(|source| KeyError::NetworkKey { path: path.to_owned(), source })
}

/// Reads a file that only its owner can read.
fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
        _ => KeyError::Read { path: path.to_owned(), source },
    };
    // Asked by name first: opening a pipe would wait for whoever writes to it.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(KeyError::NotAFile { path: path.to_owned() });
    }
    let file = fs::File::open(path).map_err(failed)?;
    if is_exposed(&file.metadata().map_err(failed)?) {
        return Err(KeyError::Exposed { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Reads a key file, or makes a new key and writes it if there is none.
///
/// # Errors
///
/// [`KeyError`]. A file that is there is never replaced.
pub(crate) fn load_or_create(path: &Path) -> Result<Keypair, KeyError> {
    match load(path) {
        Err(KeyError::Missing { .. }) => {}
        loaded => return loaded,
    }
    let key = generate();
    match write(&key, path, |from, to| fs::hard_link(from, to)) {
        Ok(()) => {
            tracing::info!(file = %path.display(), identity = %key.identity(), "a new key was made");
            Ok(key)
        }
        // Another process was faster.
        Err(WriteError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => load(path),
        Err(error) => Err(error.of(path)),
    }
}

/// Reads the certificate for WebRTC, which is made and written if there is none.
///
/// # Errors
///
/// [`KeyError`], as for the node's own key.
#[cfg(feature = "webrtc")]
pub(crate) fn load_or_create_certificate(
    path: &Path,
) -> Result<net_p2p::WebRtcCertificate, KeyError> {
    use net_p2p::WebRtcCertificate;
    let unusable = |source| KeyError::Certificate { path: path.to_owned(), source };
    let load = || {
        let text = String::from_utf8(read(path)?).unwrap_or_default();
        WebRtcCertificate::from_pem(&text).map_err(unusable)
    };
    match load() {
        Err(KeyError::Missing { .. }) => {}
        loaded => return loaded,
    }
    let made = WebRtcCertificate::generate().map_err(unusable)?;
    match write_text(&made.to_pem(), path, |from, to| fs::hard_link(from, to)) {
        Ok(()) => Ok(made),
        // Another process was faster.
        Err(WriteError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => load(),
        Err(error) => Err(error.of(path)),
    }
}

/// A new key. It outlives the process, so it never comes from a seeded environment.
fn generate() -> Keypair {
    Keypair::from_seed(Random::system().random())
}

/// Writes a new file beside, makes it durable, and gives it its name, unless that is taken. `link` gives
/// a file one more name, and never replaces one.
fn write(
    key: &Keypair,
    path: &Path,
    link: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> Result<(), WriteError> {
    write_text(&key.to_pem().map_err(io::Error::other)?, path, link)
}

/// The same with the text of the file.
fn write_text(
    text: &str,
    path: &Path,
    link: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> Result<(), WriteError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let beside = directory.join(format!(".key-{:016x}", Random::system().next_u64()));
    let named = write_private(&beside, text.as_bytes()).and_then(|()| {
        match link(&beside, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                // File systems without links refuse one in many words: EPERM on FAT, ENOSYS or EACCES
                // through FUSE. A rename would replace a file, so it is only tried where there is none.
                if path.try_exists()? {
                    return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
                }
                Ok(fs::rename(&beside, path)?)
            }
            linked => Ok(linked?),
        }
    });
    // It may have been renamed; and a file left over is a copy that only its owner can read.
    let _ = fs::remove_file(&beside);
    named?;
    // Not every file system can make a directory durable, and the file is whole in any case.
    let _ = fs::File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// Why a key was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// Others can read what is written there.
    #[error("others can read what is written there")]
    NoRights,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl WriteError {
    /// The error for the file at `path`.
    fn of(self, path: &Path) -> KeyError {
        let path = path.to_owned();
        match self {
            Self::NoRights => KeyError::NoRights { path },
            Self::Io(source) => KeyError::Write { path, source },
        }
    }
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut file = create_private(path)?;
    if is_exposed(&file.metadata()?) {
        return Err(WriteError::NoRights);
    }
    file.write_all(bytes)?;
    Ok(file.sync_all()?)
}

#[cfg(unix)]
fn is_exposed(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_exposed(_metadata: &fs::Metadata) -> bool {
    false
}

fn create_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.pem");
        (directory, path)
    }

    fn put(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_recorded_key_files_are_read_and_written_as_they_are() {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../testdata/peerid_cid.json")).unwrap();
        let cases = recorded["peer_ids"].as_array().unwrap();
        assert_eq!(cases.len(), 5);
        for case in cases {
            let (_directory, path) = place();
            let pem = case["key_file_pem"].as_str().unwrap();
            put(&path, pem, 0o600);
            let key = load(&path).unwrap();
            assert_eq!(hex::encode(key.seed()), case["seed"]);
            assert_eq!(hex::encode(key.public()), case["public_key"]);
            assert_eq!(key.identity().to_string(), case["peer_id"]);
            let copy = path.with_extension("copy");
            write(&key, &copy, |from, to| fs::hard_link(from, to)).unwrap();
            assert_eq!(fs::read_to_string(copy).unwrap(), pem);
        }
    }

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let (directory, path) = place();
        let key = load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_create(&path).unwrap().identity(), key.identity());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside");
        for refuses in [false, true] {
            let link = |from: &Path, to: &Path| match refuses {
                true => Err(io::ErrorKind::PermissionDenied.into()),
                false => fs::hard_link(from, to),
            };
            let error = write(&generate(), &path, link).unwrap_err();
            let WriteError::Io(error) = error else { panic!("{error}") };
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "a key is never replaced");
        }
        assert_eq!(load(&path).unwrap().identity(), key.identity());
    }

    // Issue 8, 7. FAT, exFAT and FUSE have no links.
    #[test]
    fn a_file_system_without_links_keeps_a_key_too() {
        for errno in [1, 13, 38, 95, 31] {
            let (directory, path) = place();
            let key = generate();
            write(&key, &path, |_, _| Err(io::Error::from_raw_os_error(errno))).unwrap();
            assert_eq!(load(&path).unwrap().identity(), key.identity(), "errno {errno}");
            assert_eq!(
                fs::read_dir(directory.path()).unwrap().count(),
                1,
                "nothing is left beside"
            );
        }
    }

    // Issue 8, 7 and 19.
    #[test]
    fn a_missing_key_file_and_a_directory_are_told() {
        let (directory, path) = place();
        let said = load_or_create(directory.path()).unwrap_err().to_string();
        assert!(said.contains("is no file: name the file of the key itself"), "{said}");
        let said = load(&path).unwrap_err().to_string();
        assert!(said.contains("there is no key file") && said.contains("keygen --out"), "{said}");
        assert!(!path.exists());
    }

    #[test]
    fn a_fault_of_a_key_file_is_told_in_one_line() {
        let (_directory, path) = place();
        let said = |path: &Path| load_or_create(path).unwrap_err().to_string();
        let key = generate();
        write(&key, &path, |from, to| fs::hard_link(from, to)).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(said(&path).contains(&format!("run: chmod 600 {}", path.display())));
        }
        let other_kind = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        for text in ["", "hello", other_kind] {
            put(&path, text, 0o600);
            let text = said(&path);
            assert!(text.contains("restore it from a copy") && !text.contains('\n'), "{text}");
            assert!(!text.contains("new identity"), "{text}");
        }
        let nowhere = path.join("below").join("a file");
        assert!(!said(&nowhere).is_empty());
    }
}
