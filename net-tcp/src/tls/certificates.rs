//! Certificates in PEM files: those of this node, and those it trusts.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

/// The reason why certificates could not be read from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("cannot read the certificates in {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file contains no certificate.
    #[error("{} holds no certificates in PEM", path.display())]
    NoCertificates {
        /// Path of the file.
        path: PathBuf,
    },
}

/// Reads every certificate of a PEM file, in the order of the file. Blocks on the file system.
///
/// # Errors
///
/// [`CertificateError`] when the file cannot be read or contains no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let failed = |source| CertificateError::Read { path: path.to_owned(), source };
    certificates_in(&std::fs::read(path).map_err(failed)?, path)
}

/// The certificates in the content of the file at `path`.
pub(super) fn certificates_in(
    content: &[u8],
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let none = || CertificateError::NoCertificates { path: path.to_owned() };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    certificates.ok().filter(|all| !all.is_empty()).ok_or_else(none)
}
