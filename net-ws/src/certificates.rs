//! Certificates in files: those of this node, and those it believes.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio_rustls::rustls::pki_types::{
    CertificateDer,
    pem::{self, PemObject},
};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("cannot read the certificates in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// It holds no certificates.
    #[error("{} holds no certificates in PEM", path.display())]
    NoCertificates {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the certificates of a PEM file, in their order.
///
/// # Errors
///
/// [`CertificateError`] when the file cannot be read or holds none.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let none = || CertificateError::NoCertificates { path: path.to_owned() };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error| match error {
        pem::Error::Io(source) => CertificateError::Read { path: path.to_owned(), source },
        _ => none(),
    })?;
    if certificates.is_empty() { Err(none()) } else { Ok(certificates) }
}
