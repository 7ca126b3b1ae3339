//! The reasons why a TLS session with a server was not made, in plain words.

use std::{
    io,
    time::{Duration, UNIX_EPOCH},
};

use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, PeerIncompatible, pki_types::UnixTime,
};

/// Text with which the verifier reports a server's certificate that may sign others. Its own type is not public
/// here. Source: rustls-webpki, `Error::CaUsedAsEndEntity`.
const CA_USED_AS_END_ENTITY: &str = "CaUsedAsEndEntity";

/// The reason why a TLS session was not made, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailed {
    /// The certificate of the server cannot be trusted.
    #[error("the certificate of {host} {reason}")]
    Certificate {
        /// The name that the certificate has to be valid for.
        host: String,
        /// The fault of the certificate, as the end of a sentence.
        reason: String,
    },
    /// The server ended the session, or speaks no TLS.
    #[error("{host} {reason}")]
    Refused {
        /// The name of the server.
        host: String,
        /// The act of the server, as the end of a sentence.
        reason: String,
    },
    /// The handshake failed for a reason that has no words here.
    #[error("the TLS handshake with {host} failed")]
    Handshake {
        /// The name of the server.
        host: String,
        /// The error of the TLS library or of the system.
        source: io::Error,
    },
}

impl TlsFailed {
    /// The failure of a handshake with `host`.
    pub(super) fn of(error: io::Error, host: &str) -> Self {
        match Self::told(&error, host) {
            Some(failed) => failed,
            None => Self::Handshake { host: host.to_owned(), source: error },
        }
    }

    /// The same error of an open session, in words if the TLS library caused it.
    pub(super) fn explain(error: io::Error, host: &str) -> io::Error {
        match Self::told(&error, host) {
            Some(failed) => io::Error::new(error.kind(), failed),
            None => error,
        }
    }

    fn told(error: &io::Error, host: &str) -> Option<Self> {
        let host = host.to_owned();
        let reason = match error.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(wrong) => {
                return Some(Self::Certificate { host, reason: about(wrong) });
            }
            rustls::Error::InvalidMessage(_) => {
                "does not speak TLS on this port: write http:// for a plain connection"
            }
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
                "wants a certificate of this node, and none is configured"
            }
            rustls::Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                // An authority of the same name as the right one has signed it.
                | AlertDescription::DecryptError
                | AlertDescription::AccessDenied,
            ) => "does not accept the certificate of this node, or wants one",
            rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
                "has no certificate for this name"
            }
            rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
            | rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
                "speaks only versions of TLS before 1.2"
            }
            rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            | rustls::Error::NoApplicationProtocol => "does not offer HTTP/1.1 over TLS",
            _ => return None,
        };
        Some(Self::Refused { host, reason: reason.to_owned() })
    }
}

/// The fault of a certificate, as the end of a sentence about it.
fn about(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::UnknownIssuer => {
            "is signed by nobody whom this node trusts; a certificate authority of your own is named with tls_ca".into()
        }
        CertificateError::Expired => "has expired".into(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("has expired on {}", date(*not_after))
        }
        CertificateError::NotValidYet => "is not valid yet".into(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}; is the clock right?", date(*not_before))
        }
        CertificateError::NotValidForName => "is for another name".into(),
        CertificateError::NotValidForNameContext { presented, .. } => match presented.first() {
            Some(first) if presented.len() == 1 => format!("is for another name: {}", shown(first)),
            Some(first) => {
                format!("is for other names: {} and {} more", shown(first), presented.len() - 1)
            }
            None => "is for no name".into(),
        },
        CertificateError::Revoked => "has been revoked".into(),
        CertificateError::Other(other) if other.to_string() == CA_USED_AS_END_ENTITY => {
            "is that of an authority (CaUsedAsEndEntity), as a plain openssl req -x509 makes it: \
             make one with -addext basicConstraints=critical,CA:FALSE"
                .into()
        }
        other => format!("cannot be used: {other}"),
    }
}

/// A name in a certificate as the verifier tells it, such as `DnsName("a.example")`, on one line of bounded length.
fn shown(name: &str) -> String {
    let inner = name.split('"').nth(1).unwrap_or(name);
    inner.chars().take(100).flat_map(char::escape_default).collect()
}

fn date(time: UnixTime) -> String {
    // Years that the format cannot express are told as the last one it can.
    let last = Duration::from_secs(253_402_300_799);
    let since = Duration::from_secs(time.as_secs()).min(last);
    httpdate::fmt_http_date(UNIX_EPOCH + since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(wrong: CertificateError) -> String {
        let error = io::Error::other(rustls::Error::InvalidCertificate(wrong));
        TlsFailed::of(error, "relay.example").to_string()
    }

    // Issue 10, 6.
    #[test]
    fn errors_of_certificates_are_plain_words() {
        let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        assert_eq!(
            told(CertificateError::ExpiredContext { time: at(2), not_after: at(0) }),
            "the certificate of relay.example has expired on Thu, 01 Jan 1970 00:00:00 GMT"
        );
        let late = told(CertificateError::ExpiredContext { time: at(2), not_after: at(u64::MAX) });
        assert!(late.ends_with("9999 23:59:59 GMT"), "{late}");
        assert_eq!(
            told(CertificateError::NotValidYetContext { time: at(0), not_before: at(86_400) }),
            "the certificate of relay.example is not valid before Fri, 02 Jan 1970 00:00:00 GMT; is the clock right?"
        );
        let ugly = CertificateError::NotValidForNameContext {
            expected: "relay.example".try_into().unwrap(),
            presented: vec![format!("DnsName(\"a\n{}\")", "x".repeat(5000))],
        };
        let ugly = told(ugly);
        assert!(!ugly.contains('\n') && ugly.len() < 200, "{ugly}");
    }

    #[test]
    fn other_errors_keep_their_cause() {
        let broken = io::Error::from(io::ErrorKind::ConnectionReset);
        let failed = TlsFailed::of(broken, "a");
        assert_eq!(failed.to_string(), "the TLS handshake with a failed");
        assert!(std::error::Error::source(&failed).is_some());
        let same = TlsFailed::explain(io::Error::from(io::ErrorKind::ConnectionReset), "a");
        assert_eq!(same.kind(), io::ErrorKind::ConnectionReset);
    }
}
