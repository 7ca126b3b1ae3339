//! The transports of an embedder as one transport of libp2p.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt;
use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError},
};
use runtime::time;

use super::{
    SharedTransport,
    listener::Listener,
    stream::{Event, GivenStream, Opening},
};
use crate::dial_hosts::{DialHosts, NotPublic};

/// Longest time from the order to a byte stream. Chosen: as that of a socket; it leaves 2 s for the handshake.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(8);

/// Asks the transports of an embedder, the first one that carries an address.
pub(crate) struct Given {
    transports: Vec<SharedTransport>,
    hosts: DialHosts,
    listeners: Vec<Listener>,
    /// The listener that is asked first, so that each has its turn.
    first: usize,
}

impl Given {
    /// Dials with `transports` to `hosts`.
    pub(crate) const fn new(transports: Vec<SharedTransport>, hosts: DialHosts) -> Self {
        Self { transports, hosts, listeners: Vec::new(), first: 0 }
    }

    fn of(&self, address: &Multiaddr) -> Option<&SharedTransport> {
        self.transports.iter().find(|transport| transport.carries(address))
    }
}

impl Transport for Given {
    type Output = GivenStream;
    type Error = io::Error;
    type ListenerUpgrade = Opening;
    type Dial = Opening;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        let Some(transport) = self.of(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let listener = Listener::new(id, transport, address);
        self.listeners.push(listener);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let before = self.listeners.len();
        self.listeners.retain(|listener| listener.id != id);
        self.listeners.len() < before
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _options: DialOpts,
    ) -> Result<Opening, TransportError<io::Error>> {
        let Some(transport) = self.of(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if !self.hosts.may_lead_to(&address) {
            return Err(TransportError::Other(io::Error::other(NotPublic)));
        }
        let dial = time::timeout(DIAL_TIMEOUT, transport.dial(address));
        Ok(async move {
            match dial.await {
                Ok(Ok(stream)) => Ok(GivenStream(stream)),
                Ok(Err(error)) => Err(io::Error::other(NotReached(error))),
                Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
            }
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Event> {
        let Self { listeners, first, .. } = &mut *self;
        listeners.retain(|listener| !listener.is_over());
        for at in 0..listeners.len() {
            let turn = (*first + at) % listeners.len();
            if let Some(listener) = listeners.get_mut(turn)
                && let Poll::Ready(event) = listener.poll(context)
            {
                *first = turn + 1;
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    }
}

/// A failed dial. The library keeps the text of an error and of its source, and drops the error itself, so the cause is
/// the source of this type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotReached(#[source] pub(in crate::given) io::Error);
