//! Certificates in PEM files: those of this node, and those it trusts.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio_rustls::rustls::pki_types::{
    CertificateDer,
    pem::{self, PemObject},
};

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
    let none = || CertificateError::NoCertificates { path: path.to_owned() };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error| match error {
        pem::Error::Io(source) => CertificateError::Read { path: path.to_owned(), source },
        _ => none(),
    })?;
    if certificates.is_empty() { Err(none()) } else { Ok(certificates) }
}
