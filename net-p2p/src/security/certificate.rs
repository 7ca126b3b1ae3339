//! Certificates of libp2p's TLS: made once for a node, and checked for every peer.
//!
//! The certificate has a key of its own. An extension of it carries the key of the node, with which the key of the
//! certificate is signed. Source: libp2p specifications, `tls/tls.md`.
//!
//! # Invariants
//!
//! * A peer is known by the key in the extension, and only if that key signed the key of the certificate.
//! * The certificate is valid now, signs itself, and has no critical extension but this one.
//! * The key of a node may be of any kind that libp2p has: Ed25519, secp256k1, ECDSA, RSA.

use libp2p::identity::{Keypair, PublicKey, SigningError};
use rcgen::PublicKeyData as _;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime,
};
use x509_parser::{
    certificate::X509Certificate, der_parser::Oid, prelude::FromDer as _, time::ASN1Time,
};

/// The extension of libp2p. Source: libp2p specifications, `tls/tls.md`.
const EXTENSION: &[u64] = &[1, 3, 6, 1, 4, 1, 53_594, 1, 1];

/// The text in front of the key that is signed. Source: libp2p specifications, `tls/tls.md`.
const SIGNED_PREFIX: &[u8] = b"libp2p-tls-handshake:";

/// Tags of DER. Source: X.690, 8.1.2.
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;

/// A certificate, and the private key that it certifies.
pub(crate) struct Own {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// The reason why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error("the certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    #[error("the key of the node cannot sign")]
    Signature(#[from] SigningError),
}

/// The reason why a certificate of a peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("the certificate of the peer cannot be read")]
    Unreadable,
    #[error("the peer sent no certificate, or several")]
    NotOne,
    #[error("the certificate of the peer has expired, or is not valid yet")]
    NotNow,
    #[error("the certificate of the peer does not sign itself")]
    NotSelfSigned,
    #[error("the certificate of the peer has a critical extension that is not known here")]
    UnknownExtension,
    #[error("the certificate of the peer carries no key of libp2p, or several")]
    NoKey,
    #[error("the key in the certificate of the peer is of no kind that is known here")]
    UnknownKey,
    #[error("the certificate of the peer was not made by the owner of the key in it")]
    Forged,
}

/// A checked certificate of a peer.
#[derive(Debug)]
pub(crate) struct Proven {
    /// The key of the peer.
    pub(crate) key: PublicKey,
    /// The key of the certificate, as DER.
    pub(crate) certified: Vec<u8>,
}

fn signed(certified: &[u8]) -> Vec<u8> {
    [SIGNED_PREFIX, certified].concat()
}

/// Encodes a value of DER. Two bytes of length suffice for every key and signature.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let mut bytes = match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    bytes.extend_from_slice(content);
    bytes
}

/// Splits a value of DER with the tag `tag` off `bytes`.
fn split_der(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match *bytes {
        [found, length @ 0..=0x7f, ref rest @ ..] if found == tag => (usize::from(length), rest),
        [found, 0x81, length, ref rest @ ..] if found == tag => (usize::from(length), rest),
        [found, 0x82, high, low, ref rest @ ..] if found == tag => {
            (usize::from(u16::from_be_bytes([high, low])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The key and the signature in the extension.
fn key_and_signature(extension: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, []) = split_der(SEQUENCE, extension)? else { return None };
    let (key, rest) = split_der(OCTET_STRING, content)?;
    let (signature, []) = split_der(OCTET_STRING, rest)? else { return None };
    Some((key, signature))
}

/// Makes the certificate of a node, for as long as it runs.
///
/// # Errors
///
/// [`MakeError`]; never with an Ed25519 key.
pub(crate) fn make(key: &Keypair) -> Result<Own, MakeError> {
    make_with(key, |_| {})
}

/// The same, with parameters changed by `change`.
fn make_with(
    key: &Keypair,
    change: impl FnOnce(&mut rcgen::CertificateParams),
) -> Result<Own, MakeError> {
    let certified = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let signature = key.sign(&signed(&certified.subject_public_key_info()))?;
    let content =
        [der(OCTET_STRING, &key.public().encode_protobuf()), der(OCTET_STRING, &signature)]
            .concat();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .custom_extensions
        .push(rcgen::CustomExtension::from_oid_content(EXTENSION, der(SEQUENCE, &content)));
    change(&mut params);
    let certificate = params.self_signed(&certified)?.der().clone();
    let key = PrivatePkcs8KeyDer::from(certified.serialize_der()).into();
    Ok(Own { certificate, key })
}

/// Checks the certificates that a peer sent, at the time `now`.
///
/// # Errors
///
/// [`CertificateError`].
pub(crate) fn check(
    certificates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<Proven, CertificateError> {
    use CertificateError as Refused;
    let [certificate] = certificates else { return Err(Refused::NotOne) };
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| Refused::Unreadable)?;
    if !rest.is_empty() {
        return Err(Refused::Unreadable);
    }
    let seconds = i64::try_from(now.as_secs()).map_err(|_| Refused::NotNow)?;
    let now = ASN1Time::from_timestamp(seconds).map_err(|_| Refused::NotNow)?;
    if !parsed.validity().is_valid_at(now) {
        return Err(Refused::NotNow);
    }
    let known = Oid::from(EXTENSION).map_err(|_| Refused::Unreadable)?;
    let mut found = None;
    for extension in parsed.extensions() {
        if extension.oid == known {
            if found.replace(extension.value).is_some() {
                return Err(Refused::NoKey);
            }
        } else if extension.critical {
            return Err(Refused::UnknownExtension);
        }
    }
    let (key, signature) = found.and_then(key_and_signature).ok_or(Refused::NoKey)?;
    let key = PublicKey::try_decode_protobuf(key).map_err(|_| Refused::UnknownKey)?;
    parsed.verify_signature(None).map_err(|_| Refused::NotSelfSigned)?;
    let certified = parsed.public_key().raw.to_vec();
    if !key.verify(&signed(&certified), signature) {
        return Err(Refused::Forged);
    }
    Ok(Proven { key, certified })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// 2026-07-01.
    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_782_864_000));

    /// A certificate that expired in 2001.
    pub(crate) fn expired(key: &Keypair) -> Own {
        make_with(key, |params| {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        })
        .unwrap()
    }

    /// A certificate in the name of `key`, by somebody who does not have it.
    pub(crate) fn forged(key: &PublicKey) -> Own {
        let other = Keypair::generate_ed25519();
        let content =
            [der(OCTET_STRING, &key.encode_protobuf()), der(OCTET_STRING, &[7; 64])].concat();
        make_with(&other, |params| {
            params.custom_extensions =
                vec![rcgen::CustomExtension::from_oid_content(EXTENSION, der(SEQUENCE, &content))];
        })
        .unwrap()
    }

    fn refusal(own: &Own) -> CertificateError {
        check(std::slice::from_ref(&own.certificate), NOW).unwrap_err()
    }

    #[test]
    fn a_certificate_proves_a_key_of_every_kind() {
        let kinds =
            [Keypair::generate_ed25519(), Keypair::generate_ecdsa(), Keypair::generate_secp256k1()];
        for key in kinds {
            let own = make(&key).unwrap();
            let proven = check(&[own.certificate], NOW).unwrap();
            assert_eq!(proven.key, key.public());
        }
    }

    #[test]
    fn every_fault_of_a_certificate_is_refused_by_its_name() {
        let key = Keypair::generate_ed25519();
        assert_eq!(refusal(&expired(&key)), CertificateError::NotNow);
        assert_eq!(refusal(&forged(&key.public())), CertificateError::Forged);
        let bare = make_with(&key, |params| params.custom_extensions.clear()).unwrap();
        assert_eq!(refusal(&bare), CertificateError::NoKey);
        let twice = make_with(&key, |params| {
            let again = params.custom_extensions.clone();
            params.custom_extensions.extend(again);
        });
        // The library refuses to read one with an extension twice.
        assert!(matches!(
            refusal(&twice.unwrap()),
            CertificateError::NoKey | CertificateError::Unreadable
        ));
        let critical = make_with(&key, |params| {
            let mut unknown = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            unknown.set_criticality(true);
            params.custom_extensions.push(unknown);
        });
        assert_eq!(refusal(&critical.unwrap()), CertificateError::UnknownExtension);
        let garbled = make_with(&key, |params| {
            let content = [der(OCTET_STRING, &[9; 40]), der(OCTET_STRING, &[7; 64])].concat();
            params.custom_extensions =
                vec![rcgen::CustomExtension::from_oid_content(EXTENSION, der(SEQUENCE, &content))];
        });
        assert_eq!(refusal(&garbled.unwrap()), CertificateError::UnknownKey);

        let own = make(&key).unwrap();
        let mut broken = own.certificate.to_vec();
        *broken.last_mut().unwrap() ^= 1;
        let broken = Own { certificate: broken.into(), key: own.key.clone_key() };
        assert!(matches!(
            refusal(&broken),
            CertificateError::NotSelfSigned | CertificateError::Unreadable
        ));
        let two = [own.certificate.clone(), own.certificate.clone()];
        assert_eq!(check(&two, NOW).unwrap_err(), CertificateError::NotOne);
        assert_eq!(check(&[], NOW).unwrap_err(), CertificateError::NotOne);
    }

    #[test]
    fn a_certificate_of_garbage_is_refused_however_it_is_cut_or_changed() {
        let own = make(&Keypair::generate_ed25519()).unwrap().certificate;
        for at in 0..own.len() {
            let cut = CertificateDer::from(own[..at].to_vec());
            check(&[cut], NOW).unwrap_err();
            let mut changed = own.to_vec();
            changed[at] ^= 0x55;
            // A change that is not noticed is one of the signature's encoding at most: the key stays the peer's.
            let _ = check(&[changed.into()], NOW);
        }
    }

    #[test]
    fn lengths_of_der_are_read_as_they_are_written() {
        for length in [0, 1, 127, 128, 255, 256, 4_000] {
            let bytes = der(OCTET_STRING, &vec![3; length]);
            let (content, rest) = split_der(OCTET_STRING, &bytes).unwrap();
            assert_eq!((content.len(), rest.len()), (length, 0));
            assert_eq!(split_der(SEQUENCE, &bytes), None);
        }
    }
}
