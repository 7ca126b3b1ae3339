//! TLS in both directions: the certificate of this node, the authorities it trusts, and sessions with servers.
//!
//! ```text
//!   listener ◀── TlsIdentity ◀── watch: the files, again and again
//!                    └── clients: the authorities of client certificates, if they are demanded
//!   dial, HTTP client ─▶ session ─▶ Trust: authorities, perhaps a client certificate
//!                           └─ failure: the reason in plain words
//! ```

mod certificates;
mod clients;
mod failure;
mod identity;
mod session;
mod trust;
mod watch;

pub use self::{
    certificates::{CertificateError, read_certificates},
    identity::{TlsError, TlsIdentity},
};
pub use self::{
    failure::TlsFailed,
    session::{TlsSession, connect, server_name},
    trust::{Trust, TrustError},
    watch::watch,
};

/// The only protocol offered by ALPN, in both directions: HTTP/1.1.
const HTTP: &[u8] = b"http/1.1";
