//! Settings of the WebSockets of a libp2p network.

use std::{sync::Arc, time::Duration};

use libp2p::{Multiaddr, multiaddr::Protocol};
use net_tcp::{
    CertificateDer,
    hand_over::HandOver,
    origins::PageOrigins,
    tls::{TlsIdentity, Trust},
};

/// Settings of WebSockets, in both directions.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WebConfig {
    /// Certificate and key for those who dial this node over TLS. Default: none; addresses with `/tls/ws` cannot be
    /// listened on.
    pub identity: Option<TlsIdentity>,
    /// Interval at which the files of `identity` are read again. Default: none; whoever shares them does it.
    pub reread: Option<Duration>,
    /// The WebSocket port of another network of the node, whose clients are served too. Default: none.
    pub port: Option<HandOver>,
    /// The origins of the pages that may dial this node's own WebSockets; the port of another network goes by that network's.
    /// Default: none but those of this host itself.
    pub page_origins: PageOrigins,
    /// Verifies the servers that this node dials over TLS.
    pub(crate) trust: Arc<Trust>,
}

impl WebConfig {
    /// Trusts the authorities in `roots` as well as the system's, and presents `client` to servers that ask for a
    /// certificate. Default: the system's alone, and none.
    #[must_use]
    pub fn with_roots(
        self,
        roots: Vec<CertificateDer<'static>>,
        client: Option<TlsIdentity>,
    ) -> Self {
        Self { trust: Arc::new(Trust::new(roots, client)), ..self }
    }
}

/// Returns `true` if a node needs a certificate to listen on `address`.
#[must_use]
pub fn needs_certificate(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Tls | Protocol::Wss(_)))
}
