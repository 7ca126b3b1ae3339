//! A certificate of this node and its key, which can be read again while connections are made with them.
//!
//! # Invariants
//!
//! * An unusable file is an error when it is loaded, before anything listens.
//! * The authorities of client certificates are read with them: all files are replaced together, or none.
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
        server::{
            ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert,
            danger::ClientCertVerifier,
        },
        sign::CertifiedKey,
    },
};

use super::{
    HTTP,
    certificates::{CertificateError, certificates_in},
    clients::{Authorities, CurrentAuthorities},
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
    /// No client certificate could be verified with the authorities in a file.
    #[error("the authorities in {} cannot verify client certificates", path.display())]
    UnusableAuthorities {
        /// Path of the file.
        path: PathBuf,
        /// The error of the TLS library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A certificate chain and private key that this node presents. Clones share them.
///
/// A network that listens with one reads its files again every few seconds.
#[derive(Clone)]
pub struct TlsIdentity {
    shared: Arc<Shared>,
    /// The settings of inbound connections, which ask `shared` for the certificate.
    server: Arc<ServerConfig>,
}

struct Shared {
    paths: Paths,
    current: Mutex<Arc<CertifiedKey>>,
    /// Verifies the certificates of clients; `None` if none are demanded.
    authorities: Option<Arc<CurrentAuthorities>>,
    seen: Mutex<Seen>,
    is_stale: AtomicBool,
    taken: AtomicU64,
    refused: AtomicU64,
}

/// The files that are read.
#[derive(Clone, Debug)]
struct Paths {
    cert: PathBuf,
    key: PathBuf,
    /// The authorities whose signature a client needs.
    authorities: Option<PathBuf>,
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

/// The content of the files.
#[derive(PartialEq, Eq)]
struct Content {
    cert: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

/// The content of the files as connections use it.
struct Usable {
    certified: CertifiedKey,
    authorities: Option<Authorities>,
}

/// The reason for a look at the files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Some time has passed: files that somebody may be writing are looked at again before they are refused.
    Again,
    /// An operator asked for it, so the files are complete.
    Asked,
}

/// The outcome of one look at the files.
#[derive(Debug)]
pub enum Reread {
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
        f.debug_struct("TlsIdentity").field("cert", &self.paths.cert).finish_non_exhaustive()
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
        Self::read(Paths { cert: cert.to_owned(), key: key.to_owned(), authorities: None })
    }

    /// Loads the same files, and the certificate authorities whose signature every client needs that connects to this
    /// node, in PEM form. A network that listens with the result takes no connection without TLS, except from the
    /// proxies in front of it. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; it names the file.
    pub fn load_demanding(cert: &Path, key: &Path, authorities: &Path) -> Result<Self, TlsError> {
        let authorities = Some(authorities.to_owned());
        Self::read(Paths { cert: cert.to_owned(), key: key.to_owned(), authorities })
    }

    fn read(paths: Paths) -> Result<Self, TlsError> {
        let content = Content::read(&paths)?;
        let Usable { certified, authorities } = content.usable(&paths)?;
        let seen = Seen { content: Some(content), verdict: Verdict::Taken };
        let (cert, key) = (paths.cert.clone(), paths.key.clone());
        let shared = Shared {
            paths,
            current: Mutex::new(Arc::new(certified)),
            authorities: authorities.map(CurrentAuthorities::new).map(Arc::new),
            seen: Mutex::new(seen),
            is_stale: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        let shared = Arc::new(shared);
        let server = server(Arc::clone(&shared)).map_err(|source| TlsError::Unusable {
            cert,
            key,
            source,
        })?;
        Ok(Self { shared, server: Arc::new(server) })
    }

    /// Returns `true` if clients need a certificate.
    #[must_use]
    pub fn demands_certificates(&self) -> bool {
        self.shared.authorities.is_some()
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

    /// Reads the files again. If they have changed and can be used, connections that begin from now on get the new
    /// certificate; those that are open go on with the old one. Blocks on the file system.
    ///
    /// Changed files are refused only when they are found unusable twice: nobody can write two files at once.
    #[must_use]
    pub fn reread(&self) -> Reread {
        self.look(Look::Again)
    }

    /// Reads the files again because somebody says that they have changed. Returns `true` if connections that begin from
    /// now on use something else than before. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the files cannot be used; the old certificate stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        match self.look(Look::Asked) {
            Reread::Unchanged => Ok(false),
            Reread::Taken => Ok(true),
            Reread::Refused(error) => Err(error),
        }
    }

    fn look(&self, look: Look) -> Reread {
        let Shared { paths, current, authorities, .. } = &*self.shared;
        let read = Content::read(paths);
        let mut seen = lock(&self.shared.seen);
        let is_same = seen.content.as_ref() == read.as_ref().ok();
        let is_settled = match look {
            Look::Again => seen.verdict != Verdict::Doubted,
            Look::Asked => seen.verdict == Verdict::Taken,
        };
        if is_same && is_settled {
            return Reread::Unchanged;
        }
        let (content, usable) = match read {
            Ok(content) => {
                let usable = content.usable(paths);
                (Some(content), usable)
            }
            Err(error) => (None, Err(error)),
        };
        seen.content = content;
        match usable {
            Ok(usable) => {
                *lock(current) = Arc::new(usable.certified);
                if let (Some(current), Some(new)) = (authorities, usable.authorities) {
                    current.replace(new);
                }
                seen.verdict = Verdict::Taken;
                self.shared.is_stale.store(false, Ordering::Relaxed);
                self.shared.taken.fetch_add(1, Ordering::Relaxed);
                Reread::Taken
            }
            Err(error) if is_same || look == Look::Asked => {
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
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }

    /// The certificate for servers that ask this node for one.
    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.shared) as Arc<dyn ResolvesClientCert>
    }
}

fn server(shared: Arc<Shared>) -> Result<ServerConfig, rustls::Error> {
    let demands = shared.authorities.is_some();
    let clients: Arc<dyn ClientCertVerifier> = match &shared.authorities {
        Some(authorities) => Arc::clone(authorities) as _,
        None => Arc::new(NoClientAuth),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(shared);
    config.alpn_protocols = vec![HTTP.to_vec()];
    if demands {
        // A session that is taken up again is not verified again: a certificate could outlive its authority.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
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
    fn read(paths: &Paths) -> Result<Self, TlsError> {
        let certificates = |path: &PathBuf| {
            read(path).map_err(|source| CertificateError::Read { path: path.clone(), source })
        };
        let unreadable = |source| TlsError::UnreadableKey { path: paths.key.clone(), source };
        Ok(Self {
            cert: certificates(&paths.cert)?,
            key: read(&paths.key).map_err(unreadable)?,
            authorities: paths.authorities.as_ref().map(certificates).transpose()?,
        })
    }

    fn usable(&self, paths: &Paths) -> Result<Usable, TlsError> {
        let Paths { cert, key, authorities } = paths;
        let chain = certificates_in(&self.cert, cert)?;
        let private = PrivateKeyDer::from_pem_slice(&self.key);
        let private = private.map_err(|_| TlsError::NoKey { path: key.clone() })?;
        let certified = CertifiedKey::from_der(chain, private, &ring::default_provider());
        let unusable = |source| TlsError::Unusable { cert: cert.clone(), key: key.clone(), source };
        let authorities = match (&self.authorities, authorities) {
            (Some(content), Some(path)) => {
                let unusable =
                    |source| TlsError::UnusableAuthorities { path: path.clone(), source };
                Some(Authorities::of(certificates_in(content, path)?).map_err(unusable)?)
            }
            _ => None,
        };
        Ok(Usable { certified: certified.map_err(unusable)?, authorities })
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
