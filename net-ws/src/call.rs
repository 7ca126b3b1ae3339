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

use std::{sync::Arc, time::Duration};

use gossip::{
    BoxFuture, NodeAddress, Security, StreamUse,
    http::{BoxError, HttpAddressError, HttpClient},
};
use http::HeaderValue;
use net_http::client::{Clients, Connect, Io, TCP_IDLE, Target};
use runtime::Environment;
use tokio::time::Instant;

use crate::{
    socket,
    tls::{self, Trust},
};

/// Deadline handed to the TCP dial. It never fires: [`Connect::connect`] is called under a shorter deadline
/// of the client. Chosen: an hour is longer than any caller waits.
const CONNECT_LIMIT: Duration = Duration::from_secs(3_600);

/// Returns a client of whoever serves HTTP at `address`, which may ask for TLS. Returns at once; the first request connects.
///
/// # Errors
///
/// [`HttpAddressError`] for a multiaddr, and for an address that asks for TLS with a host that no certificate can be for.
pub fn client(
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
        Security::Tls => {
            let nameless = || unusable("no certificate can be for this host".to_owned());
            Some((Arc::clone(trust), tls::server_name(socket).ok_or_else(nameless)?))
        }
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

/// Opens connections to one host and port.
struct SocketConnect {
    environment: Environment,
    host_port: String,
    /// For TLS: the trusted certificates, and the name that the peer's certificate must be valid for. `None`
    /// for plain TCP.
    security: Option<(Arc<Trust>, String)>,
}

impl Connect for SocketConnect {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, BoxError>> {
        Box::pin(async {
            let deadline = Instant::now() + CONNECT_LIMIT;
            let stream = self.environment.dial(&self.host_port, deadline).await?;
            socket::tune(&stream);
            Ok(match &self.security {
                None => Box::new(stream) as Box<dyn Io>,
                Some((trust, name)) => Box::new(tls::connect(trust, name, stream).await?),
            })
        })
    }
}
