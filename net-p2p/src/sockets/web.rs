//! WebSockets below libp2p: TLS and the upgrade, in both directions.
//!
//! # Invariants
//!
//! * A page has a place among those of its origin as long as its socket.
//! * The door has let a socket in before anything here reads from it; the deadline of the whole handshake holds here too.
//! * The certificate of a server is verified by the name in its address.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use mesh::{Door, PagePlace};
use net_tcp::{
    frame::Role,
    origins::PageOrigins,
    tls::{self, TlsIdentity, Trust},
    websocket::{
        Carrier, WsStream,
        upgrade::{self, PageRules},
    },
};
use runtime::{Random, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    metrics::{P2pEvent, P2pMetrics},
    route::{Host, Route},
};

/// A WebSocket that counts the mistakes of its peer.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: WsStream<Box<dyn Carrier>>,
    metrics: P2pMetrics,
    /// The place of a page among those of its origin.
    _page: Option<PagePlace>,
}

/// The means by which sockets become WebSockets.
#[derive(Clone, Debug)]
pub(crate) struct Web {
    /// The certificate for those who dial this node over TLS.
    pub(crate) identity: Option<TlsIdentity>,
    /// Verifies the servers that this node dials over TLS.
    pub(crate) trust: Arc<Trust>,
    /// The pages that are let in.
    pub(crate) pages: Arc<PageOrigins>,
    /// Counts them.
    pub(crate) door: Door,
    pub(crate) random: Random,
    pub(crate) metrics: P2pMetrics,
}

impl Web {
    /// Upgrades a socket that was accepted.
    pub(super) async fn accepted(self, stream: Stream) -> io::Result<WebSocket> {
        self.upgraded(Box::new(stream)).await
    }

    /// Makes a TLS session over a socket that was accepted, and upgrades it.
    pub(super) async fn accepted_secure(self, stream: Stream) -> io::Result<WebSocket> {
        let Some(identity) = &self.identity else {
            return Err(io::Error::other("this node has no certificate"));
        };
        let session = identity.acceptor().accept(stream).await;
        let session = session.inspect_err(|_| self.metrics.note(P2pEvent::WebSocketRefused))?;
        self.upgraded(Box::new(session)).await
    }

    async fn upgraded(self, io: Box<dyn Carrier>) -> io::Result<WebSocket> {
        let Self { random, metrics, pages, door, .. } = self;
        let pages = PageRules { origins: &pages, door: &door };
        let (stream, _page) = upgrade::accept(io, pages, random).await.map_err(|error| {
            metrics.note(P2pEvent::WebSocketRefused);
            io::Error::other(error)
        })?;
        Ok(WebSocket { stream, metrics, _page })
    }

    /// Upgrades a socket that was dialled.
    pub(super) async fn dialled(self, stream: Stream, route: &Route) -> io::Result<WebSocket> {
        self.asked(Box::new(stream), &host(route, 80)).await
    }

    /// Makes a TLS session over a socket that was dialled, and upgrades it.
    pub(super) async fn dialled_secure(
        self,
        stream: Stream,
        route: &Route,
        sni: Option<&str>,
    ) -> io::Result<WebSocket> {
        let name = sni.map_or_else(|| bare_host(route), str::to_owned);
        let session = tls::connect(&self.trust, &name, stream).await.map_err(io::Error::other)?;
        self.asked(Box::new(session), &host(route, 443)).await
    }

    async fn asked(self, io: Box<dyn Carrier>, host: &str) -> io::Result<WebSocket> {
        let upgraded = upgrade::connect(io, host, self.random).await;
        let stream = upgraded.map_err(io::Error::other)?;
        Ok(WebSocket { stream, metrics: self.metrics, _page: None })
    }

    /// Takes over a WebSocket that was accepted on the port of another network.
    pub(super) fn handed(
        self,
        (io, early): (Box<dyn Carrier>, bytes::BytesMut),
        page: Option<PagePlace>,
    ) -> WebSocket {
        let stream = WsStream::new(io, Role::Server, self.random, early);
        WebSocket { stream, metrics: self.metrics, _page: page }
    }
}

fn bare_host(route: &Route) -> String {
    match &route.host {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name, _) => name.clone(),
    }
}

/// The value of the `Host` header.
fn host(route: &Route, usual: u16) -> String {
    match (&route.host, route.port == usual) {
        (Host::Name(name, _), true) => name.clone(),
        _ => route.host_port(),
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(context, into);
        if matches!(&read, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData) {
            this.metrics.note(P2pEvent::WebSocketFault);
        }
        read
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
