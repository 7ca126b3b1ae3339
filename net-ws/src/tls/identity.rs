//! A certificate of this node and its key, which can be read again while connections are made with them.
//!
//! # Invariants
//!
//! * An unusable file is an error when it is loaded, before anything listens.
//! * A certificate is replaced only by one that can be used; connections that are open keep the one they began with.
//! * A certificate and its key are files of their own, so changed files that do not fit together are looked at twice
//!   before they are refused.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig, SignatureScheme,
        client::ResolvesClientCert,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use super::{
    HTTP,
    certificates::{CertificateError, certificates_in},
};

/// Longest file that is read, in bytes. Chosen: hundreds of certificates.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The reason why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificates could not be read.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The file of the key could not be read.
    #[error("cannot read the private key in {}", path.display())]
    UnreadableKey {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file of the key contains no private key.
    #[error("{} holds no private key in PEM", path.display())]
    NoKey {
        /// Path of the file.
        path: PathBuf,
    },
    /// Certificate and key do not match, or their kind is not supported.
    #[error("{} and {} cannot be used together", cert.display(), key.display())]
    Unusable {
        /// Path of the file with the certificates.
        cert: PathBuf,
        /// Path of the file with the key.
        key: PathBuf,
        /// The error of the TLS library.
        source: rustls::Error,
    },
}

/// A certificate chain and private key that this node presents. Clones share them.
///
/// A network that listens with one reads its files again every [`WsConfig::tls_reread`](crate::WsConfig::tls_reread).
#[derive(Clone)]
pub struct TlsIdentity {
    shared: Arc<Shared>,
    /// The settings of inbound connections, which ask `shared` for the certificate.
    server: Arc<ServerConfig>,
}

struct Shared {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Arc<CertifiedKey>>,
    seen: Mutex<Seen>,
    is_stale: AtomicBool,
    taken: AtomicU64,
    refused: AtomicU64,
}

/// The files as they were at the last look.
struct Seen {
    /// `None` if one of them could not be read.
    content: Option<Content>,
    verdict: Verdict,
}

/// The use of the content that was seen last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Usable, and in use.
    Taken,
    /// Unusable, seen once.
    Doubted,
    /// Unusable, seen twice, and told.
    Refused,
}

/// The content of the two files.
#[derive(PartialEq, Eq)]
struct Content {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// The outcome of one look at the files.
#[derive(Debug)]
pub(crate) enum Reread {
    /// Nothing has to be done, or not yet.
    Unchanged,
    /// New connections get another certificate from now on.
    Taken,
    /// The files have changed, and what is in them cannot be used. The old certificate stays.
    Refused(TlsError),
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.shared, f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Loads a certificate chain, the node's own certificate first, and its private key, both in PEM form. Blocks on
    /// the file system.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; it names the file.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let content = Content::read(cert, key)?;
        let certified = content.certified(cert, key)?;
        let seen = Seen { content: Some(content), verdict: Verdict::Taken };
        let shared = Shared {
            cert: cert.to_owned(),
            key: key.to_owned(),
            current: Mutex::new(Arc::new(certified)),
            seen: Mutex::new(seen),
            is_stale: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        let shared = Arc::new(shared);
        let server = server(Arc::clone(&shared)).map_err(|source| {
            let (cert, key) = (cert.to_owned(), key.to_owned());
            TlsError::Unusable { cert, key, source }
        })?;
        Ok(Self { shared, server: Arc::new(server) })
    }

    /// Returns `true` while the files hold something that cannot be used, so that an older certificate is presented.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.shared.is_stale.load(Ordering::Relaxed)
    }

    /// The number of times that changed files were taken into use since the start.
    #[must_use]
    pub fn times_taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// The number of times that changed files could not be used since the start.
    #[must_use]
    pub fn times_refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Reads both files again. If they have changed and can be used, connections that begin from now on get the new
    /// certificate; those that are open go on with the old one. Blocks on the file system.
    ///
    /// Changed files are refused only when they are found unusable twice: nobody can write two files at once.
    pub(crate) fn reread(&self) -> Reread {
        let Shared { cert, key, .. } = &*self.shared;
        let read = Content::read(cert, key);
        let mut seen = lock(&self.shared.seen);
        let is_same = seen.content.as_ref() == read.as_ref().ok();
        if is_same && seen.verdict != Verdict::Doubted {
            return Reread::Unchanged;
        }
        let (content, usable) = match read {
            Ok(content) => {
                let certified = content.certified(cert, key);
                (Some(content), certified)
            }
            Err(error) => (None, Err(error)),
        };
        seen.content = content;
        match usable {
            Ok(certified) => {
                *lock(&self.shared.current) = Arc::new(certified);
                seen.verdict = Verdict::Taken;
                self.shared.is_stale.store(false, Ordering::Relaxed);
                self.shared.taken.fetch_add(1, Ordering::Relaxed);
                Reread::Taken
            }
            Err(error) if is_same => {
                seen.verdict = Verdict::Refused;
                self.shared.is_stale.store(true, Ordering::Relaxed);
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
                Reread::Refused(error)
            }
            Err(_perhaps_half_written) => {
                seen.verdict = Verdict::Doubted;
                Reread::Unchanged
            }
        }
    }

    /// The acceptor for inbound TLS connections.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }

    /// The certificate for servers that ask this node for one.
    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.shared) as Arc<dyn ResolvesClientCert>
    }
}

fn server(certificate: Arc<Shared>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(config)
}

impl Shared {
    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&lock(&self.current))
    }
}

impl ResolvesServerCert for Shared {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Shared {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let current = self.current();
        let is_usable = current.key.choose_scheme(schemes).is_some();
        is_usable.then_some(current)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Content {
    fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let cert = read(cert)
            .map_err(|source| CertificateError::Read { path: cert.to_owned(), source })?;
        let key =
            read(key).map_err(|source| TlsError::UnreadableKey { path: key.to_owned(), source })?;
        Ok(Self { cert, key })
    }

    fn certified(&self, cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
        let chain = certificates_in(&self.cert, cert)?;
        let private = PrivateKeyDer::from_pem_slice(&self.key);
        let private = private.map_err(|_| TlsError::NoKey { path: key.to_owned() })?;
        CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|source| {
            TlsError::Unusable { cert: cert.to_owned(), key: key.to_owned(), source }
        })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
