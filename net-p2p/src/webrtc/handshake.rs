//! The handshake of a connection: the way, DTLS, SCTP, and Noise on the channel that both ends know.
//! Source: libp2p specifications, `webrtc/webrtc-direct.md`, Connection Security.
//!
//! # Invariants
//!
//! * The end that listens begins the Noise handshake.
//! * No stream is passed on before the peer has proven its identity.

use std::{net::SocketAddr, sync::Arc};

use dimpl::{Config, DtlsCertificate};
use futures::AsyncWriteExt as _;
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _},
    identity::Keypair,
    noise,
};
use rand::Rng;
use tokio::{net::UdpSocket, sync::mpsc, time::Instant};

use super::{
    Ended, Side, WebRtcError,
    certificate::{Fingerprint, WebRtcCertificate},
    channels::{Channels, HANDSHAKE_KEY},
    credentials::{Credentials, WebRtcVersion},
    driver::{Driver, Pump},
    path::Path,
    secured::Secured,
    session::{Session, Shared},
    stream::WebRtcStream,
};
use crate::{
    backlog::Backlog,
    connections::ConnectionTasks,
    metrics::{P2pEvent, P2pMetrics},
    muxer::Muxer,
    udp::Datagram,
};

/// The text in front of the certificates in Noise's prologue. Source: libp2p specifications, `webrtc/webrtc-direct.md`.
const PROLOGUE: &[u8] = b"libp2p-webrtc-noise:";

/// Largest datagram of the DTLS handshake, in bytes. Source: 1,280 for IPv6, without its header and that of UDP.
const DTLS_BYTES: usize = 1_280 - 48;

/// The protocol that the library is told to upgrade to; nobody negotiates it here.
const NOISE: &str = "/noise";

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

/// The prologue of the Noise handshake between two certificates.
fn prologue(dialer: &Fingerprint, listener: &Fingerprint) -> Vec<u8> {
    [PROLOGUE, dialer, listener].concat()
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
        let session =
            Session::new(Secured::listener(path, dtls, now), Channels::new(Side::Listener));
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
        let session = Session::new(secured, Channels::new(Side::Dialer));
        let shared = Arc::new(Shared::new(session));
        self.establish(Pump::new(shared, way.socket, way.datagrams), Side::Dialer).await
    }

    async fn establish(self, mut pump: Pump, side: Side) -> Result<(PeerId, Muxer), WebRtcError> {
        let made = self.establish_over(&mut pump, side).await;
        if matches!(made, Err(WebRtcError::Ended(Ended::Panicked))) {
            self.metrics().note(P2pEvent::WebRtcPanicked);
        }
        let peer = made?;
        let backlog = self.backlog.open();
        let metrics = self.backlog.metrics().clone();
        let (muxer, ends) = Muxer::new(backlog.end().clone(), metrics.clone());
        let (mut driver, over) = Driver::new(pump, backlog, metrics, ends);
        self.tasks.start("webrtc muxer", Box::pin(async move { driver.run(over).await }));
        Ok((peer, muxer))
    }

    /// Opens the way, and has the peer prove its identity.
    async fn establish_over(&self, pump: &mut Pump, side: Side) -> Result<PeerId, WebRtcError> {
        let theirs = loop {
            let peer = pump.shared.with(|session| session.peer()).ok_or(Ended::Panicked)?;
            if let Some(peer) = peer {
                break peer;
            }
            pump.turn().await?;
        };
        self.authenticate(pump, side, theirs).await
    }

    /// Has the peer prove its identity, on the channel that is there for it.
    async fn authenticate(
        &self,
        pump: &mut Pump,
        side: Side,
        theirs: Fingerprint,
    ) -> Result<PeerId, WebRtcError> {
        let stream = WebRtcStream::new(Arc::clone(&pump.shared), HANDSHAKE_KEY);
        let noise = self.noise.clone();
        let upgrade = async {
            let (peer, mut stream) = match side {
                Side::Listener => {
                    let noise = noise.with_prologue(prologue(&theirs, &self.fingerprint));
                    noise.upgrade_outbound(stream, NOISE).await?
                }
                Side::Dialer => {
                    let noise = noise.with_prologue(prologue(&self.fingerprint, &theirs));
                    noise.upgrade_inbound(stream, NOISE).await?
                }
            };
            // The connection's task sends the last message.
            let _ = stream.close().await;
            Ok::<_, WebRtcError>(peer)
        };
        tokio::pin!(upgrade);
        loop {
            tokio::select! {
                biased;
                done = &mut upgrade => return done,
                turned = pump.turn() => turned?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Source: libp2p specifications, `webrtc/webrtc-direct.md`, Test vectors.
    #[test]
    fn the_prologue_is_that_of_the_specification() {
        let multihash = |hash: &str| -> Fingerprint {
            hex::decode(format!("1220{hash}")).unwrap().try_into().unwrap()
        };
        let dialer = multihash("3e79af40d6059617a0d83b83a52ce73b0c1f37a72c6043ad2969e2351bdca870");
        let listener =
            multihash("30fc9f469c207419dfdd0aab5f27a86c973c94e40548db9375cca2e915973b99");
        let expected = "6c69627032702d7765627274632d6e6f6973653a12203e79af40d6059617a0d83b83a52ce73b0c1f37a72c6043ad2969e2351bdca870122030fc9f469c207419dfdd0aab5f27a86c973c94e40548db9375cca2e915973b99";
        assert_eq!(hex::encode(prologue(&dialer, &listener)), expected);
    }
}
