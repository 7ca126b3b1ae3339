//! The transports with data channels as one transport of libp2p, which dials.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    multiaddr::Protocol,
    noise,
};
use runtime::time;

use super::{ChannelEvents, DialledChannels, SharedChannelTransport, pump::Pump};
use crate::{
    backlog::Backlog,
    channels::{Certificates, Ended, Fingerprint, HANDSHAKE, Made, SHA_256, Side, authenticate},
    connections::ConnectionTasks,
    dial_hosts::{DialHosts, NotPublic},
    given::transport::{DIAL_TIMEOUT, NotReached},
    muxer::Muxer,
};

/// The reason why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelsError {
    #[error(transparent)]
    NotReached(#[from] NotReached),
    #[error("the transport did not connect in time")]
    Late,
    #[error(transparent)]
    NotPublic(#[from] NotPublic),
    #[error(transparent)]
    Ended(#[from] Ended),
    #[error(transparent)]
    Noise(#[from] noise::Error),
}

type Opening = BoxFuture<'static, Result<(PeerId, Muxer), ChannelsError>>;

/// The parts of the transport.
pub(crate) struct GivenChannelsParts {
    pub(crate) transports: Vec<SharedChannelTransport>,
    /// The hosts that dials may lead to.
    pub(crate) hosts: DialHosts,
    pub(crate) noise: noise::Config,
    pub(crate) tasks: ConnectionTasks,
    pub(crate) backlog: Backlog,
}

/// Asks the transports with data channels of an embedder, the first one that carries an address.
pub(crate) struct GivenChannels {
    transports: Vec<SharedChannelTransport>,
    hosts: DialHosts,
    handshake: Handshake,
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Handshake {
    pub(super) noise: noise::Config,
    pub(super) tasks: ConnectionTasks,
    pub(super) backlog: Backlog,
}

/// The certificate that an address names; `None` if it is none of WebRTC Direct, or names none by SHA-256.
fn certificate_of(address: &Multiaddr) -> Option<Fingerprint> {
    let mut parts = address.iter().skip_while(|part| !matches!(part, Protocol::WebRTCDirect));
    parts.next()?;
    let Protocol::Certhash(hash) = parts.next()? else { return None };
    let certificate = Fingerprint::try_from(hash.to_bytes()).ok()?;
    certificate.starts_with(&SHA_256).then_some(certificate)
}

impl GivenChannels {
    /// Dials with the transports of `parts`.
    pub(crate) fn new(parts: GivenChannelsParts) -> Self {
        let GivenChannelsParts { transports, hosts, noise, tasks, backlog } = parts;
        Self { transports, hosts, handshake: Handshake { noise, tasks, backlog } }
    }
}

impl Handshake {
    /// Has the peer prove its identity, on the first channel.
    pub(super) async fn establish(
        self,
        (events, side): (ChannelEvents, Side),
        dialled: DialledChannels,
        peer: Fingerprint,
    ) -> Result<(PeerId, Muxer), ChannelsError> {
        let mut own = [0; 34];
        let (code, hash) = own.split_at_mut(SHA_256.len());
        code.copy_from_slice(&SHA_256);
        hash.copy_from_slice(&dialled.certificate);
        events.opened(HANDSHAKE);
        let ChannelEvents(shared) = events;
        let mut pump = Pump::new(Arc::clone(&shared), dialled.channels);
        let certificates = Certificates { own, peer };
        let peer = authenticate::<_, ChannelsError>((self.noise, side), &mut pump, certificates);
        let peer = peer.await?;
        let made = Made { pump, name: "data channels" };
        Ok((peer, made.drive(&self.tasks, &self.backlog)))
    }
}

impl Transport for GivenChannels {
    type Output = (PeerId, Muxer);
    type Error = ChannelsError;
    type ListenerUpgrade = Opening;
    type Dial = Opening;

    fn listen_on(
        &mut self,
        _: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<ChannelsError>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: DialOpts,
    ) -> Result<Opening, TransportError<ChannelsError>> {
        let carrier = self.transports.iter().find(|transport| transport.carries(&address));
        let (Some(transport), Some(certificate)) = (carrier, certificate_of(&address)) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if !self.hosts.may_lead_to(&address) {
            return Err(TransportError::Other(NotPublic.into()));
        }
        let (side, handshake) = (Side::Dialer, self.handshake.clone());
        let events = ChannelEvents::new(side);
        let dial = time::timeout(DIAL_TIMEOUT, transport.dial(address, events.clone()));
        Ok(async move {
            let dialled = dial.await.map_err(|_elapsed| ChannelsError::Late)?;
            let dialled = dialled.map_err(|error: io::Error| NotReached(error))?;
            handshake.establish((events, side), dialled, certificate).await
        }
        .boxed())
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<TransportEvent<Opening, ChannelsError>> {
        Poll::Pending
    }
}
