//! The libp2p side of the receivers: TCP, Noise, Yamux, and one gossip stream.

use std::time::Duration;

use futures::StreamExt;
use gossip::{
    NetworkProfile,
    wire::{hello::Hello, metainfo},
};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    identity::Keypair,
    noise,
    swarm::SwarmEvent,
    tcp, yamux,
};
use libp2p_stream::Control;
use runtime::TaskSet;

use crate::error::Failure;

/// Time for which a connection without a stream is kept: longer than any measurement.
const IDLE: Duration = Duration::from_secs(600);

/// The gossip protocol of the measured profile.
pub(crate) const PROTOCOL: StreamProtocol =
    StreamProtocol::new(NetworkProfile::TANDEM.stream_protocol);

/// The start of a stream, before its first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening<'a> {
    /// Both ends send headers; the receiver's name this network.
    Headers {
        /// The network.
        genesis: &'a str,
    },
    /// None: the first byte belongs to a message.
    None,
}

/// A swarm that only opens and accepts streams.
pub(crate) fn swarm(key: Keypair) -> Result<Swarm<libp2p_stream::Behaviour>, Failure> {
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
        .build();
    Ok(swarm)
}

/// Connects a receiver to `hub` and opens its gossip stream.
pub(crate) async fn connect(
    hub: PeerId,
    address: &Multiaddr,
    opening: Opening<'_>,
    tasks: &TaskSet,
) -> Result<Stream, Failure> {
    let mut control = dial(key_below(hub), address, tasks).await?;
    let mut stream = control.open_stream(hub, PROTOCOL).await?;
    if let Opening::Headers { genesis } = opening {
        exchange(&mut stream, genesis).await?;
    }
    Ok(stream)
}

/// Connects a swarm to `address`, and returns the control that opens streams there.
pub(crate) async fn dial(
    key: Keypair,
    address: &Multiaddr,
    tasks: &TaskSet,
) -> Result<Control, Failure> {
    let mut swarm = swarm(key)?;
    let control = swarm.behaviour().new_control();
    swarm.dial(address.clone())?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => break,
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
    tasks.spawn("dialling swarm", |cancel| async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = async { loop { swarm.select_next_some().await; } } => {}
        }
    });
    Ok(control)
}

/// Exchanges headers; the dialer writes first.
pub(super) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    genesis: &str,
) -> Result<(), Failure> {
    let profile = &NetworkProfile::TANDEM;
    let version = profile.version.to_owned();
    let hello = Hello { genesis: genesis.to_owned(), version, ..Hello::default() };
    stream.write_all(&metainfo::encode(&metainfo::from_hello(&hello, profile))?).await?;
    stream.flush().await?;
    let mut header = [0; metainfo::HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let mut body = vec![0; metainfo::body_len(header)?];
    stream.read_exact(&mut body).await?;
    metainfo::check_version(&metainfo::decode_body(&body)?, profile)?;
    Ok(())
}

/// Draws a key whose peer ID is smaller than the hub's, because that end opens the gossip stream.
pub(crate) fn key_below(hub: PeerId) -> Keypair {
    loop {
        let key = Keypair::generate_ed25519();
        if key.public().to_peer_id().to_bytes() < hub.to_bytes() {
            return key;
        }
    }
}
