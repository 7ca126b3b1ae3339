//! The Noise handshake of a connection, on the channel that both ends know.
//! Source: libp2p specifications, `webrtc/webrtc-direct.md`, Connection Security.
//!
//! # Invariants
//!
//! * The end that listens begins the Noise handshake.
//! * No stream is passed on before the peer has proven its identity.

use std::sync::Arc;

use futures::AsyncWriteExt as _;
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _},
    noise,
};

use super::{ChannelStream, Ended, Fingerprint, Pump, Side, streams::HANDSHAKE_KEY};

/// The text in front of the certificates in Noise's prologue. Source: libp2p specifications, `webrtc/webrtc-direct.md`.
const PROLOGUE: &[u8] = b"libp2p-webrtc-noise:";

/// The protocol that the library is told to upgrade to; nobody negotiates it here.
const NOISE: &str = "/noise";

/// The certificates of both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Certificates {
    pub(crate) own: Fingerprint,
    pub(crate) peer: Fingerprint,
}

/// The prologue of the Noise handshake between two certificates.
fn prologue(dialer: &Fingerprint, listener: &Fingerprint) -> Vec<u8> {
    [PROLOGUE, dialer, listener].concat()
}

/// Has the peer prove its identity.
///
/// # Errors
///
/// The connection has ended, or the peer has proven nothing.
///
/// # Cancel safety
///
/// None: the connection is of no use after a dropped future.
pub(crate) async fn authenticate<P: Pump, E: From<Ended> + From<noise::Error>>(
    (noise, side): (noise::Config, Side),
    pump: &mut P,
    Certificates { own, peer }: Certificates,
) -> Result<PeerId, E> {
    let stream = ChannelStream::new(Arc::clone(pump.shared()) as _, HANDSHAKE_KEY);
    let upgrade = async {
        let (peer, mut stream) = match side {
            Side::Listener => {
                let noise = noise.with_prologue(prologue(&peer, &own));
                noise.upgrade_outbound(stream, NOISE).await?
            }
            Side::Dialer => {
                let noise = noise.with_prologue(prologue(&own, &peer));
                noise.upgrade_inbound(stream, NOISE).await?
            }
        };
        // The connection's task sends the last message.
        let _ = stream.close().await;
        Ok::<_, E>(peer)
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
