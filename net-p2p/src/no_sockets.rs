//! In place of `sockets` in a browser, which has none: every address is refused.

use std::{
    future::{Pending, Ready},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent, dummy::DummyStream},
};
use runtime::Environment;

use crate::{admission::PassSlot, config::P2pConfig, dial_hosts::DialHosts, metrics::P2pMetrics};

/// No sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    passes: PassSlot,
}

impl Sockets {
    /// Takes what sockets would need.
    pub(crate) fn new(_: (Environment, DialHosts), _: &P2pConfig, _: &P2pMetrics) -> Self {
        Self::default()
    }

    /// The slot for places that sockets got at another port of the node.
    pub(crate) fn passes(&self) -> PassSlot {
        self.passes.clone()
    }
}

impl Transport for Sockets {
    type Output = DummyStream;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<DummyStream>>;
    type Dial = Pending<io::Result<DummyStream>>;

    fn listen_on(
        &mut self,
        _: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Poll::Pending
    }
}
