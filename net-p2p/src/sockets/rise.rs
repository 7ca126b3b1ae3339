//! The steps between a TCP connection and the handshake of libp2p, in their order.
//!
//! ```text
//!   TCP ─▶ TLS, if the address asks for it ─▶ WebSocket, if it does ─▶ private network, if there is one
//! ```

use std::io;
#[cfg(feature = "websocket")]
use std::sync::Arc;

#[cfg(feature = "websocket")]
use gossip::Transport;
use libp2p::core::Endpoint;
use runtime::{Environment, Stream};

#[cfg(feature = "websocket")]
use super::web::Web;
use super::{socket::Socket, tune::tune};
use crate::{
    config::P2pConfig,
    metrics::P2pMetrics,
    route::{Route, Via},
};

/// The means by which sockets get what stands above TCP. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Rise {
    #[cfg(feature = "websocket")]
    pub(crate) web: Web,
    /// The key of the private network, if the node is in one.
    #[cfg(feature = "private-network")]
    pub(crate) private: Option<super::private::Membership>,
}

impl Rise {
    /// The means of a node of this configuration.
    #[cfg_attr(
        not(any(feature = "websocket", feature = "private-network")),
        expect(unused_variables, reason = "nothing stands above TCP without the features")
    )]
    pub(super) fn new(environment: &Environment, config: &P2pConfig, metrics: &P2pMetrics) -> Self {
        Self {
            #[cfg(feature = "websocket")]
            web: Web {
                identity: config.web.identity.clone(),
                trust: Arc::clone(&config.web.trust),
                pages: Arc::new(config.web.page_origins.clone()),
                door: config.door.over(Transport::Libp2p),
                random: environment.random(),
                metrics: metrics.clone(),
            },
            #[cfg(feature = "private-network")]
            private: config.private_network.clone().map(|key| super::private::Membership {
                key,
                random: environment.random(),
                metrics: metrics.clone(),
            }),
        }
    }

    /// Checks that sockets of a listener could rise.
    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "other sets of features check more"
    )]
    pub(super) fn check_listener(&self, via: &Via) -> io::Result<()> {
        match via {
            #[cfg(feature = "websocket")]
            Via::SecureWebSocket { .. } if self.web.identity.is_none() => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no certificate"))
            }
            _ => Ok(()),
        }
    }

    /// Does what stands above an accepted socket.
    pub(super) async fn accepted(self, stream: Stream, via: Via) -> io::Result<Socket> {
        tune(&stream);
        let socket = match via {
            Via::Tcp => Socket::Plain(stream),
            #[cfg(feature = "websocket")]
            Via::WebSocket => Socket::Web(Box::new(self.web.clone().accepted(stream).await?)),
            #[cfg(feature = "websocket")]
            Via::SecureWebSocket { .. } => {
                Socket::Web(Box::new(self.web.clone().accepted_secure(stream).await?))
            }
        };
        self.entered(socket, Endpoint::Listener).await
    }

    /// Does what stands above a socket that was dialled.
    pub(super) async fn dialled(self, stream: Stream, route: &Route) -> io::Result<Socket> {
        tune(&stream);
        let socket = match &route.via {
            Via::Tcp => Socket::Plain(stream),
            #[cfg(feature = "websocket")]
            Via::WebSocket => Socket::Web(Box::new(self.web.clone().dialled(stream, route).await?)),
            #[cfg(feature = "websocket")]
            Via::SecureWebSocket { sni } => {
                let rising = self.web.clone().dialled_secure(stream, route, sni.as_deref());
                Socket::Web(Box::new(rising.await?))
            }
        };
        self.entered(socket, Endpoint::Dialer).await
    }

    /// Enters the private network, if the node is in one.
    #[cfg(feature = "private-network")]
    pub(super) async fn entered(self, socket: Socket, end: Endpoint) -> io::Result<Socket> {
        match self.private {
            Some(membership) => Ok(Socket::Private(Box::new(membership.enter(socket, end).await?))),
            None => Ok(socket),
        }
    }

    #[cfg(not(feature = "private-network"))]
    #[allow(clippy::unused_async, reason = "the feature `private-network` has a handshake here")]
    pub(super) async fn entered(self, socket: Socket, _end: Endpoint) -> io::Result<Socket> {
        Ok(socket)
    }
}
