//! The certificate of a node for DTLS, which browsers know by its hash in the node's addresses.
//!
//! # Invariants
//!
//! * It proves nothing by itself: who a peer is follows from the Noise handshake, which covers the hashes of both
//!   certificates.
//! * A node keeps it over restarts, because its addresses change with it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use sha2::{Digest, Sha256};

use crate::channels::{Fingerprint, SHA_256};

/// The multihash of a certificate in DER.
pub(super) fn fingerprint_of(certificate: &[u8]) -> Fingerprint {
    let mut hash = [0; 34];
    let (code, value) = hash.split_at_mut(SHA_256.len());
    code.copy_from_slice(&SHA_256);
    value.copy_from_slice(&Sha256::digest(certificate));
    hash
}

/// A certificate for WebRTC, and its private key.
#[derive(Clone)]
pub struct WebRtcCertificate {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for WebRtcCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebRtcCertificate").finish_non_exhaustive()
    }
}

/// The reason why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebRtcCertificateError {
    /// It cannot be made.
    #[error("a certificate cannot be made")]
    Make(#[from] rcgen::Error),
    /// The text has no certificate, or no key of it.
    #[error("there is no certificate with its key, as PEM")]
    Unreadable,
}

/// The names of the two parts in PEM.
const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";

impl WebRtcCertificate {
    /// Makes a new one, with a new key (ECDSA over P-256).
    ///
    /// # Errors
    ///
    /// [`WebRtcCertificateError::Make`]; the system has no random numbers.
    pub fn generate() -> Result<Self, WebRtcCertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.der().to_vec(), key: key.serialize_der() })
    }

    /// Reads what [`Self::to_pem`] has written.
    ///
    /// # Errors
    ///
    /// [`WebRtcCertificateError::Unreadable`].
    pub fn from_pem(text: &str) -> Result<Self, WebRtcCertificateError> {
        let parts = pem::parse_many(text).map_err(|_| WebRtcCertificateError::Unreadable)?;
        let part = |name| parts.iter().find(|part| part.tag() == name);
        let (Some(certificate), Some(key)) = (part(CERTIFICATE), part(PRIVATE_KEY)) else {
            return Err(WebRtcCertificateError::Unreadable);
        };
        KeyPair::try_from(key.contents()).map_err(|_| WebRtcCertificateError::Unreadable)?;
        Ok(Self { certificate: certificate.contents().to_vec(), key: key.contents().to_vec() })
    }

    /// The certificate and its private key, as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let parts = [(CERTIFICATE, &self.certificate), (PRIVATE_KEY, &self.key)];
        pem::encode_many(&parts.map(|(name, bytes)| pem::Pem::new(name, bytes.clone())))
    }

    /// Its hash, as the addresses of the node have it.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        fingerprint_of(&self.certificate)
    }

    /// Both parts, as the library for DTLS has them.
    pub(super) fn for_dtls(&self) -> dimpl::DtlsCertificate {
        dimpl::DtlsCertificate {
            certificate: self.certificate.clone(),
            private_key: self.key.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_read_as_it_was_written() {
        let made = WebRtcCertificate::generate().unwrap();
        let read = WebRtcCertificate::from_pem(&made.to_pem()).unwrap();
        assert_eq!(read.fingerprint(), made.fingerprint());
        assert_eq!(read.to_pem(), made.to_pem());
    }

    #[test]
    fn half_of_one_is_refused() {
        let text = WebRtcCertificate::generate().unwrap().to_pem();
        let key_alone = &text[text.find("-----BEGIN PRIVATE").unwrap()..];
        for text in ["", "hello", key_alone, &text[..40], &text[..text.len() / 2]] {
            assert!(matches!(
                WebRtcCertificate::from_pem(text),
                Err(WebRtcCertificateError::Unreadable)
            ));
        }
    }
}
