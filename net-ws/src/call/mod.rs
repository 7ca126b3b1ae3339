//! The HTTP client over TCP and TLS.
//!
//! ```text
//!   HttpClient ─▶ Clients ─▶ SocketConnect ─▶ TCP ─┬─▶ plain
//!                                                  └─▶ TLS, the server's name checked
//! ```
//!
//! # Invariants
//!
//! * An address that asks for TLS is never called over plain TCP.
//! * Clients of one host and port share connections and limits, whatever path the address has.

mod trust;

use std::{io, sync::Arc, time::Duration};

use gossip::{
    BoxFuture, NodeAddress, Security, StreamUse, WebSocketAddress,
    http::{BoxError, HttpAddressError, HttpClient},
};
use http::HeaderValue;
use net_http::client::{Clients, Connect, Io, TCP_IDLE, Target};
use runtime::Environment;
use tokio::time::Instant;
use tokio_rustls::{
    TlsConnector,
    rustls::{self, CertificateError, pki_types::ServerName},
};

pub(crate) use trust::Trust;

use crate::socket;

/// Deadline handed to the TCP dial. It never fires: [`Connect::connect`] is called under a shorter deadline
/// of the client. Chosen: an hour is longer than any caller waits.
const CONNECT_LIMIT: Duration = Duration::from_secs(3_600);

/// Text with which the verifier reports a server's certificate that may sign others. Its own type is not public
/// here. Source: rustls-webpki, `Error::CaUsedAsEndEntity`.
const CA_USED_AS_END_ENTITY: &str = "CaUsedAsEndEntity";

/// A client of the node at `address`.
pub(crate) fn client(
    address: &NodeAddress,
    clients: &Clients,
    trust: &Arc<Trust>,
    environment: &Environment,
) -> Result<HttpClient, HttpAddressError> {
    let (NodeAddress::WebSocket(socket), Some(host_port)) = (address, address.host_port()) else {
        return Err(HttpAddressError::OtherTransport { address: address.to_string() });
    };
    let unusable =
        |reason: String| HttpAddressError::Unusable { address: address.to_string(), reason };
    let security = match socket.security() {
        Security::Plain => None,
        Security::Tls => Some((Arc::clone(trust), server_name(socket).map_err(&unusable)?)),
    };
    let scheme = if security.is_some() { "https" } else { "http" };
    let authority = address.phonebook_entry();
    let host = HeaderValue::from_str(&authority).map_err(|error| unusable(error.to_string()))?;
    Ok(clients.client(Target {
        name: format!("{scheme}://{host_port}"),
        host,
        prefix: socket.path().to_owned(),
        streams: StreamUse::KeptAlive,
        idle: TCP_IDLE,
        connect: Arc::new(SocketConnect { environment: environment.clone(), host_port, security }),
    }))
}

/// The name that the server's certificate must be valid for.
fn server_name(address: &WebSocketAddress) -> Result<ServerName<'static>, String> {
    let host = address.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    ServerName::try_from(host).map_err(|error| error.to_string())
}

/// Opens connections to one host and port.
struct SocketConnect {
    environment: Environment,
    host_port: String,
    /// For TLS: the trusted certificates, and the name that the peer's certificate must be valid for. `None`
    /// for plain TCP.
    security: Option<(Arc<Trust>, ServerName<'static>)>,
}

impl Connect for SocketConnect {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, BoxError>> {
        Box::pin(async {
            let deadline = Instant::now() + CONNECT_LIMIT;
            let stream = self.environment.dial(&self.host_port, deadline).await?;
            socket::tune(&stream);
            Ok(match &self.security {
                None => Box::new(stream) as Box<dyn Io>,
                Some((trust, name)) => {
                    let tls = TlsConnector::from(trust.config().await?);
                    Box::new(tls.connect(name.clone(), stream).await.map_err(TlsFailed::of)?)
                }
            })
        })
    }
}

/// The reason why a TLS connection was not made.
#[derive(Debug, thiserror::Error)]
enum TlsFailed {
    #[error("the peer's certificate is not trusted: {reason}")]
    NotTrusted { reason: String },
    #[error("the TLS handshake with the peer failed")]
    Handshake { source: io::Error },
}

impl TlsFailed {
    fn of(error: io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let Some(rustls::Error::InvalidCertificate(wrong)) = cause else {
            return Self::Handshake { source: error };
        };
        let reason = match wrong {
            CertificateError::UnknownIssuer => {
                "nobody whom this node believes has signed it".into()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "it has expired".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "it is not valid yet".into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "it is for another name".into()
            }
            CertificateError::Other(other) if other.to_string() == CA_USED_AS_END_ENTITY => {
                "it is the certificate of an authority (CaUsedAsEndEntity), as a plain openssl req -x509 makes it: \
                 make one with -addext basicConstraints=critical,CA:FALSE"
                    .into()
            }
            other => other.to_string(),
        };
        Self::NotTrusted { reason }
    }
}
