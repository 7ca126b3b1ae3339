//! A scripted peer over a WebSocket, based on tungstenite as a client.

use std::{
    fmt::Write as _,
    io,
    net::{Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use gossip::{
    Identity, NetworkId, NetworkProfile, Tag,
    wire::{
        features::{Features, VoteCompression},
        frame::split,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::harness::RawPeer;

/// Longest head of an answer that is read, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A peer that sends WebSocket messages, and reads only when told to.
#[derive(Debug)]
pub struct RawWebSocket {
    stream: WebSocketStream<TcpStream>,
}

/// The upgrade request of this peer, as a node with this profile would send it that does not pack votes.
#[must_use]
pub fn upgrade_request(profile: &NetworkProfile, network: &NetworkId) -> String {
    upgrade_request_with(profile, network, Features::announcing(VoteCompression::Off))
}

/// The upgrade request of a peer with these features.
#[must_use]
pub fn upgrade_request_with(
    profile: &NetworkProfile,
    network: &NetworkId,
    features: Features,
) -> String {
    let features = features.to_header();
    let mut request = format!(
        "GET /v1/{network}/gossip HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: scripted\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: 8W1U3v5GPREZ3quvF/jCTA==\r\n\
         Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n"
    );
    let random: [u8; 10] = rand::random();
    let random = hex::encode(random);
    for (name, value) in [
        ("Accept-Version", profile.version),
        ("Genesis", network.as_str()),
        ("Noderandom", random.as_str()),
        ("Peer-Features", features.as_str()),
        ("Version", profile.version),
    ] {
        // Writing to a string cannot fail.
        let _ = write!(request, "{}{name}: {value}\r\n", profile.header_prefix);
    }
    request.push_str("\r\n");
    request
}

fn closed(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

/// Sends an upgrade request byte for byte. Returns the socket, from which only the head of the answer was read,
/// and that head.
///
/// # Errors
///
/// When the connection fails, or the answer is longer than its bound.
pub async fn upgrade(address: SocketAddr, request: &str) -> io::Result<(TcpStream, String)> {
    upgrade_from(Ipv4Addr::UNSPECIFIED, address, request).await
}

/// A connection to a node from an address of this machine.
///
/// # Errors
///
/// When it fails.
#[allow(clippy::disallowed_methods, reason = "a scripted peer is its own surroundings")]
pub(crate) async fn connect_from(source: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// [`upgrade`] from an address of this machine.
///
/// # Errors
///
/// When the connection fails, or the answer has no end.
pub async fn upgrade_from(
    source: Ipv4Addr,
    address: SocketAddr,
    request: &str,
) -> io::Result<(TcpStream, String)> {
    let mut stream = connect_from(source, address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte, so that nothing after the head is taken from the socket.
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await?;
        head.push(byte);
        if head.len() > MAX_HEAD_BYTES {
            return Err(closed("the answer has no end"));
        }
    }
    let head = String::from_utf8(head).map_err(|_| closed("the answer is not text"))?;
    Ok((stream, head))
}

impl RawWebSocket {
    /// Connects to a node with the given upgrade request.
    ///
    /// # Errors
    ///
    /// When the connection fails or is refused.
    pub async fn connect(address: SocketAddr, request: &str) -> io::Result<Self> {
        let (stream, head) = upgrade(address, request).await?;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(closed(&head));
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(gossip::MAX_MESSAGE_BYTES))
            .max_frame_size(Some(gossip::MAX_MESSAGE_BYTES));
        let stream = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        Ok(Self { stream })
    }

    /// The socket below the frames.
    pub fn socket(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }
}

impl RawPeer for RawWebSocket {
    async fn send(&mut self, tag: Tag, payload: &[u8]) -> io::Result<()> {
        let message = Message::Binary(Bytes::from([&tag.0[..], payload].concat()));
        self.stream.send(message).await.map_err(|error| match error {
            tungstenite::Error::Io(error) => error,
            other => io::Error::other(other),
        })
    }

    async fn recv(&mut self) -> Option<(Tag, Bytes)> {
        loop {
            match self.stream.next().await? {
                Ok(Message::Binary(message)) => return split(&message),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn begin(&mut self, tag: Tag, len: usize) -> io::Result<()> {
        let mut frame = vec![0x82, 0x80 | 127];
        frame.extend_from_slice(&((Tag::BYTES + len) as u64).to_be_bytes());
        frame.extend_from_slice(&[0; 4]); // a mask that changes nothing
        frame.extend_from_slice(&tag.0);
        self.go_on(&frame).await
    }

    async fn go_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket().write_all(bytes).await?;
        self.socket().flush().await
    }

    async fn break_within(mut self, tag: Tag, payload: &[u8]) {
        // A failed write means that the connection is broken, as the test wants.
        let _ = self.begin(tag, payload.len()).await;
        let _ = self.go_on(payload.get(..payload.len() / 2).unwrap_or(&[])).await;
    }

    fn identity(&self) -> Option<Identity> {
        None
    }
}
