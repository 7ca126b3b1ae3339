//! The handshake of a connection: the way, DTLS, SCTP, and Noise on the channel that both ends know.

use std::{net::SocketAddr, sync::Arc};

use dimpl::{Config, DtlsCertificate};
use libp2p::{PeerId, identity::Keypair, noise};
use rand::Rng;
use tokio::{net::UdpSocket, sync::mpsc, time::Instant};

use super::{
    WebRtcError,
    association::Sctp,
    certificate::WebRtcCertificate,
    credentials::{Credentials, WebRtcVersion},
    path::Path,
    pump::Pump,
    secured::Secured,
    session::Session,
};
use crate::{
    backlog::Backlog,
    channels::{
        Certificates, Channels, Ended, Fingerprint, Made, Pump as _, Shared, Side, authenticate,
    },
    connections::ConnectionTasks,
    metrics::{P2pEvent, P2pMetrics},
    muxer::Muxer,
    udp::Datagram,
};

/// Largest datagram of the DTLS handshake, in bytes. Source: 1,280 for IPv6, without its header and that of UDP.
const DTLS_BYTES: usize = 1_280 - 48;

/// The reason why WebRTC cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebRtcSetupError {
    #[error(transparent)]
    Dtls(#[from] dimpl::Error),
    #[error(transparent)]
    Noise(#[from] noise::Error),
    #[error(transparent)]
    Certificate(#[from] super::WebRtcCertificateError),
}

/// The channels of a connection whose DTLS handshake is under way.
fn channels(side: Side) -> Channels<Sctp> {
    Channels::new(side, Sctp::new(side))
}

/// The way to a peer, before anything was said over it.
pub(super) struct Way {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) remote: SocketAddr,
    pub(super) credentials: Credentials,
    pub(super) datagrams: mpsc::Receiver<Datagram>,
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Handshakes {
    pub(super) tasks: ConnectionTasks,
    backlog: Backlog,
    noise: noise::Config,
    dtls: Arc<Config>,
    certificate: DtlsCertificate,
    fingerprint: Fingerprint,
    /// The version that this node dials with.
    version: WebRtcVersion,
}

impl Handshakes {
    /// Makes connections of a node with this key and certificate, in tasks of `tasks`.
    ///
    /// # Errors
    ///
    /// [`WebRtcSetupError`]; never with an Ed25519 key.
    pub(crate) fn new(
        (key, certificate): (&Keypair, &WebRtcCertificate),
        (tasks, backlog): (ConnectionTasks, Backlog),
        version: WebRtcVersion,
    ) -> Result<Self, WebRtcSetupError> {
        let dtls = Config::builder().mtu(DTLS_BYTES).build()?;
        Ok(Self {
            tasks,
            backlog,
            noise: noise::Config::new(key)?,
            dtls: Arc::new(dtls),
            certificate: certificate.for_dtls(),
            fingerprint: certificate.fingerprint(),
            version,
        })
    }

    /// The hash of the certificate.
    pub(super) const fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    pub(super) fn metrics(&self) -> &P2pMetrics {
        self.backlog.metrics()
    }

    /// Draws the names of a dial.
    pub(super) fn draw(&self, random: &mut impl Rng) -> Credentials {
        Credentials::draw(self.version, random)
    }

    /// Makes the connection of a peer that has come.
    ///
    /// # Cancel safety
    ///
    /// A dropped future drops the connection.
    pub(super) async fn accept(self, way: Way) -> Result<(PeerId, Muxer), WebRtcError> {
        let now = Instant::now().into_std();
        let path = Path::listener(way.credentials, way.remote, now);
        let dtls = (Arc::clone(&self.dtls), self.certificate.clone());
        let session = Session::new(Secured::listener(path, dtls, now), channels(Side::Listener));
        let shared = Arc::new(Shared::new(session));
        self.establish(Pump::new(shared, way.socket, way.datagrams), Side::Listener).await
    }

    /// Makes a connection to a peer with the certificate `expected`.
    ///
    /// # Cancel safety
    ///
    /// A dropped future drops the connection.
    pub(super) async fn dial(
        self,
        way: Way,
        expected: Fingerprint,
    ) -> Result<(PeerId, Muxer), WebRtcError> {
        let now = Instant::now().into_std();
        let path = Path::dialer(way.credentials, way.remote, now);
        let dtls = (Arc::clone(&self.dtls), self.certificate.clone());
        let secured = Secured::dialer(path, dtls, expected, now);
        let session = Session::new(secured, channels(Side::Dialer));
        let shared = Arc::new(Shared::new(session));
        self.establish(Pump::new(shared, way.socket, way.datagrams), Side::Dialer).await
    }

    async fn establish(self, mut pump: Pump, side: Side) -> Result<(PeerId, Muxer), WebRtcError> {
        let made = self.establish_over(&mut pump, side).await;
        if matches!(made, Err(WebRtcError::Ended(Ended::Panicked))) {
            self.metrics().note(P2pEvent::WebRtcPanicked);
        }
        let peer = made?;
        let made = Made { pump, name: "webrtc muxer" };
        Ok((peer, made.drive(&self.tasks, &self.backlog)))
    }

    /// Opens the way, and has the peer prove its identity.
    async fn establish_over(&self, pump: &mut Pump, side: Side) -> Result<PeerId, WebRtcError> {
        let peer = loop {
            let peer = pump.shared().with(|session| session.peer()).ok_or(Ended::Panicked)?;
            if let Some(peer) = peer {
                break peer;
            }
            pump.turn().await?;
        };
        let certificates = Certificates { own: self.fingerprint, peer };
        authenticate((self.noise.clone(), side), pump, certificates).await
    }
}
