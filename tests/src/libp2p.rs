//! A scripted peer over libp2p: one connection, one gossip stream, and no swarm.
//!
//! ```text
//!   TCP ─▶ Noise ─▶ Yamux ─▶ stream ─▶ multistream-select ─▶ headers ─▶ frames
//! ```

mod meshsub;
mod sockets;

use std::{
    future::poll_fn,
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use gossip::{
    Identity, NetworkId, NetworkProfile, Tag,
    wire::{
        features::{Features, VoteCompression},
        frame::{FRAME_HEADER_BYTES, encode_header, split},
        hello::Hello,
        metainfo,
    },
};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint, StreamMuxer,
        muxing::{StreamMuxerBox, SubstreamBox},
        transport::{DialOpts, PortUse},
        upgrade::Version,
    },
    identity::Keypair,
    multiaddr::Protocol,
    noise, yamux,
};
use runtime::TaskSet;
use tokio_util::sync::CancellationToken;

pub use meshsub::{Ear, RawMeshsub};
pub(crate) use sockets::{Sockets, socket_address};

use crate::{harness::RawPeer, wait::until};

/// Streams that may be open on one connection. Chosen: more than any peer of ours allows.
const MAX_STREAMS: usize = 4_096;

/// A peer that sends frames over one stream, and reads only when told to. Its connection ends with it.
pub struct RawLibp2p {
    stream: SubstreamBox,
    buffer: BytesMut,
    identity: Identity,
    /// Bytes written to the socket.
    written: Arc<AtomicUsize>,
    /// Drives the connection.
    driver: TaskSet,
}

impl std::fmt::Debug for RawLibp2p {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawLibp2p").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Draws a key whose peer ID is smaller than `other`, so that its owner opens the stream.
fn key_below(other: PeerId) -> Keypair {
    loop {
        let key = Keypair::generate_ed25519();
        if key.public().to_peer_id().to_bytes() < other.to_bytes() {
            return key;
        }
    }
}

impl RawLibp2p {
    /// Connects to the node at `address`, a multiaddr with `/p2p/ID`, and starts gossip.
    ///
    /// # Errors
    ///
    /// When the connection fails, or the node does not speak the protocol.
    pub async fn connect(
        address: &str,
        profile: &NetworkProfile,
        network: &NetworkId,
    ) -> io::Result<Self> {
        Self::connect_from(Ipv4Addr::UNSPECIFIED, address, profile, network).await
    }

    /// The same from an address of this machine.
    ///
    /// # Errors
    ///
    /// When the connection fails, or the node does not speak the protocol.
    pub async fn connect_from(
        source: Ipv4Addr,
        address: &str,
        profile: &NetworkProfile,
        network: &NetworkId,
    ) -> io::Result<Self> {
        let votes = Features::announcing(VoteCompression::Off);
        Self::open(source, address, profile, (network, votes)).await
    }

    /// Connects with these features.
    ///
    /// # Errors
    ///
    /// When the connection fails, or the node does not speak the protocol.
    pub async fn connect_with(
        address: &str,
        profile: &NetworkProfile,
        network: &NetworkId,
        features: Features,
    ) -> io::Result<Self> {
        Self::open(Ipv4Addr::UNSPECIFIED, address, profile, (network, features)).await
    }

    async fn open(
        source: Ipv4Addr,
        address: &str,
        profile: &NetworkProfile,
        (network, features): (&NetworkId, Features),
    ) -> io::Result<Self> {
        let key = key_below(split_address(address)?.0);
        let written = Arc::new(AtomicUsize::new(0));
        let sockets = Sockets { source };
        let protocol = profile.stream_protocol;
        let opened = open(&key, address, protocol, (sockets, Arc::clone(&written))).await?;
        let (mut stream, driver) = opened;
        exchange_headers(&mut stream, profile, network, features).await?;
        let id = key.public().to_peer_id().to_bytes();
        let identity = Identity::from_peer_id_bytes(&id)
            .ok_or_else(|| io::Error::other("the key is of another kind"))?;
        Ok(Self { stream, buffer: BytesMut::new(), identity, written, driver })
    }

    /// The stream itself, and what keeps its connection going. What was read and not taken is lost.
    pub(crate) fn into_stream(self) -> (SubstreamBox, TaskSet) {
        (self.stream, self.driver)
    }

    fn decode(&mut self) -> Option<(Tag, Bytes)> {
        let header = *self.buffer.first_chunk::<FRAME_HEADER_BYTES>()?;
        let len = usize::try_from(u32::from_be_bytes(header)).ok()?;
        if self.buffer.len() < FRAME_HEADER_BYTES + len {
            return None;
        }
        self.buffer.advance(FRAME_HEADER_BYTES);
        split(&self.buffer.split_to(len).freeze())
    }
}

/// Opens a stream with a protocol to a node, over a connection of its own and with a new identity. The
/// connection is driven by `tasks` and ends with them.
///
/// # Errors
///
/// When the connection fails, or the node does not speak the protocol.
pub async fn open_stream(address: &str, protocol: &str) -> io::Result<(SubstreamBox, TaskSet)> {
    let sockets = Sockets { source: Ipv4Addr::UNSPECIFIED };
    open(&Keypair::generate_ed25519(), address, protocol, (sockets, Arc::default())).await
}

/// Pings a peer five times on one stream, with nothing else on the connection.
///
/// # Errors
///
/// When the connection or the stream fails, or another ping comes back than was sent.
pub async fn five_pings(address: &str) -> io::Result<()> {
    let (mut stream, _driver) = open_stream(address, PING).await?;
    for number in 0..5 {
        ping(&mut stream, number).await?;
    }
    stream.close().await
}

/// The protocol of pings. Source: libp2p/specs, ping/ping.md.
pub(crate) const PING: &str = "/ipfs/ping/1.0.0";

/// Sends a ping that consists of one byte again and again, and reads it back.
pub(crate) async fn ping(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    byte: u8,
) -> io::Result<()> {
    let (sent, mut heard) = ([byte; 32], [!byte; 32]);
    stream.write_all(&sent).await?;
    stream.flush().await?;
    stream.read_exact(&mut heard).await?;
    if sent == heard { Ok(()) } else { Err(io::Error::other("another ping came back")) }
}

async fn open(
    key: &Keypair,
    address: &str,
    protocol: &str,
    sockets: (Sockets, Arc<AtomicUsize>),
) -> io::Result<(SubstreamBox, TaskSet)> {
    let (node, address) = split_address(address)?;
    let (found, mut muxer) = dial(key, address, sockets).await?;
    if found != node {
        return Err(io::Error::other("somebody else answered"));
    }
    let mut stream = poll_fn(|cx| {
        if let Poll::Ready(Err(error)) = Pin::new(&mut muxer).poll(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut muxer).poll_outbound(cx)
    })
    .await?;
    let driver = TaskSet::new(&CancellationToken::new());
    driver.spawn("raw connection", |_cancel| drive(muxer));
    select(&mut stream, protocol).await?;
    Ok((stream, driver))
}

/// Splits a multiaddr into the peer ID and the address to dial.
pub(crate) fn split_address(address: &str) -> io::Result<(PeerId, Multiaddr)> {
    let mut address: Multiaddr = address.parse().map_err(io::Error::other)?;
    match address.pop() {
        Some(Protocol::P2p(node)) => Ok((node, address)),
        _ => Err(io::Error::other("the address names no peer")),
    }
}

/// A socket that counts the bytes written to it.
struct Counted<S> {
    socket: S,
    written: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.written.fetch_add(count, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

pub(crate) async fn dial(
    key: &Keypair,
    address: Multiaddr,
    (sockets, written): (Sockets, Arc<AtomicUsize>),
) -> io::Result<(PeerId, StreamMuxerBox)> {
    let noise = noise::Config::new(key).map_err(io::Error::other)?;
    let mut streams = yamux::Config::default();
    streams.set_max_num_streams(MAX_STREAMS);
    let mut transport = sockets
        .map(move |socket, _| Counted { socket, written: Arc::clone(&written) })
        .upgrade(Version::V1)
        .authenticate(noise)
        .multiplex(streams)
        .boxed();
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    transport.dial(address, options).map_err(io::Error::other)?.await
}

/// Drives a connection, and refuses every stream that the node opens.
async fn drive(mut muxer: StreamMuxerBox) {
    poll_fn(|cx| poll_drive(&mut muxer, cx)).await;
}

/// Drives a connection, and refuses every stream that the node opens. Ready once the connection has ended.
pub(crate) fn poll_drive(muxer: &mut StreamMuxerBox, cx: &mut Context<'_>) -> Poll<()> {
    while let Poll::Ready(inbound) = Pin::new(&mut *muxer).poll_inbound(cx) {
        if inbound.is_err() {
            return Poll::Ready(());
        }
    }
    match Pin::new(muxer).poll(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        // No event of the muxer needs an answer.
        Poll::Ready(Ok(_)) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Pending => Poll::Pending,
    }
}

/// Negotiates a protocol by multistream-select 1.0: lines with a length prefix.
pub(crate) async fn select(stream: &mut SubstreamBox, protocol: &str) -> io::Result<()> {
    for line in ["/multistream/1.0.0", protocol] {
        let len = u8::try_from(line.len() + 1).map_err(io::Error::other)?;
        stream.write_all(&[len]).await?;
        stream.write_all(line.as_bytes()).await?;
        stream.write_all(b"\n").await?;
        stream.flush().await?;
        let mut len = [0];
        stream.read_exact(&mut len).await?;
        let mut answer = vec![0; usize::from(len[0])];
        stream.read_exact(&mut answer).await?;
        if answer.strip_suffix(b"\n") != Some(line.as_bytes()) {
            return Err(io::Error::other(answer.escape_ascii().to_string()));
        }
    }
    Ok(())
}

/// Sends this end's headers as the dialer, and reads those of the node.
async fn exchange_headers(
    stream: &mut SubstreamBox,
    profile: &NetworkProfile,
    network: &NetworkId,
    features: Features,
) -> io::Result<()> {
    let hello = Hello {
        genesis: network.as_str().to_owned(),
        features: features.to_header(),
        version: profile.version.to_owned(),
        ..Hello::default()
    };
    let headers = metainfo::encode(&metainfo::from_hello(&hello, profile));
    stream.write_all(&headers.map_err(io::Error::other)?).await?;
    stream.flush().await?;
    let mut len = [0; metainfo::HEADER_BYTES];
    stream.read_exact(&mut len).await?;
    let mut body = vec![0; metainfo::body_len(len).map_err(io::Error::other)?];
    stream.read_exact(&mut body).await?;
    let headers = metainfo::decode_body(&body).map_err(io::Error::other)?;
    metainfo::check_version(&headers, profile).map_err(io::Error::other)
}

impl RawPeer for RawLibp2p {
    async fn send(&mut self, tag: Tag, payload: &[u8]) -> io::Result<()> {
        let message = [&encode_header(Tag::BYTES + payload.len()), &tag.0[..], payload].concat();
        self.stream.write_all(&message).await?;
        self.stream.flush().await
    }

    async fn recv(&mut self) -> Option<(Tag, Bytes)> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some(message) = self.decode() {
                return Some(message);
            }
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.buffer.extend_from_slice(chunk.get(..read).unwrap_or(&[])),
            }
        }
    }

    async fn begin(&mut self, tag: Tag, len: usize) -> io::Result<()> {
        self.go_on(&[&encode_header(Tag::BYTES + len), &tag.0[..]].concat()).await
    }

    async fn go_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    async fn break_within(mut self, tag: Tag, payload: &[u8]) {
        let half = payload.get(..payload.len() / 2).unwrap_or(&[]);
        let before = self.written.load(Ordering::Relaxed);
        // A failed write means that the connection is broken, as the test wants.
        let _ = self.begin(tag, payload.len()).await;
        let _ = self.go_on(half).await;
        // The connection's task takes the bytes from the stream asynchronously.
        let sent = || self.written.load(Ordering::Relaxed) >= before + half.len();
        until("half a message is sent", sent).await;
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity)
    }
}
