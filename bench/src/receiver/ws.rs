//! The WebSocket side of the receivers: an upgrade that every node accepts, and the frames of a server.

use std::net::{Ipv4Addr, SocketAddr};

use gossip::{
    NetworkProfile,
    wire::{
        features::Features,
        hello::{self, Hello},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::Piece;
use crate::error::Failure;

/// Longest head of an answer that is read, in bytes. Source: wire facts 1.3.
const MAX_HEAD_BYTES: usize = 4_096;

/// Sixteen bytes in base64. The answer to it is not checked, because the other end is in this process.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

/// Connects and upgrades receiver number `receiver`, from a loopback address of its own, so that no limit per
/// address applies.
pub(crate) async fn connect(
    to: SocketAddr,
    genesis: &str,
    receiver: usize,
) -> Result<TcpStream, Failure> {
    connect_with(to, genesis, receiver, Features::NONE).await
}

/// [`connect`] with features.
pub(crate) async fn connect_with(
    to: SocketAddr,
    genesis: &str,
    receiver: usize,
    features: Features,
) -> Result<TcpStream, Failure> {
    let number = u8::try_from(receiver + 1)?;
    connect_as(Ipv4Addr::new(127, 0, 1, number), to, (genesis, features)).await
}

/// [`connect`] from this loopback address.
pub(crate) async fn connect_from(
    from: Ipv4Addr,
    to: SocketAddr,
    genesis: &str,
) -> Result<TcpStream, Failure> {
    connect_as(from, to, (genesis, Features::NONE)).await
}

async fn connect_as(
    from: Ipv4Addr,
    to: SocketAddr,
    (genesis, features): (&str, Features),
) -> Result<TcpStream, Failure> {
    let mut stream = {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        socket.connect(to).await?
    };
    let [.., number] = from.octets();
    stream.set_nodelay(true)?;
    stream.write_all(request(to, genesis, number, features).as_bytes()).await?;
    // Byte by byte, so that the frames after the head stay in the socket.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_BYTES {
            return Err("the head of the upgrade's answer is too long".into());
        }
        head.push(stream.read_u8().await?);
    }
    if !head.starts_with(b"HTTP/1.1 101 ") {
        let head = String::from_utf8_lossy(&head);
        return Err(
            format!("the upgrade was refused: {}", head.lines().next().unwrap_or("")).into()
        );
    }
    Ok(stream)
}

fn request(to: SocketAddr, genesis: &str, number: u8, features: Features) -> String {
    let profile = &NetworkProfile::TANDEM;
    let hello = Hello {
        genesis: genesis.to_owned(),
        version: profile.version.to_owned(),
        features: features.to_header(),
        node_random: Some(hello::node_random([number; 10])),
        ..Hello::default()
    };
    let mut request = format!(
        "GET /v1/{genesis}/gossip HTTP/1.1\r\nHost: {to}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
    );
    for (name, value) in hello.headers(profile) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request
}

/// Parses one frame of a server: unmasked and unfragmented.
pub(super) fn cut(buffer: &[u8]) -> Result<Option<(Piece<'_>, usize)>, Failure> {
    let Some(([first, second], rest)) = buffer.split_first_chunk() else { return Ok(None) };
    let (len, rest) = match second {
        126 => match rest.split_first_chunk() {
            Some((len, rest)) => (usize::from(u16::from_be_bytes(*len)), rest),
            None => return Ok(None),
        },
        127.. => return Err("a frame is masked, or longer than any message here".into()),
        short => (usize::from(*short), rest),
    };
    let Some(payload) = rest.get(..len) else { return Ok(None) };
    let whole = buffer.len() - rest.len() + len;
    let piece = match first {
        0x82 => Piece::Message(payload),
        0x89 => Piece::Ping(payload),
        0x8a => Piece::Other,
        0x88 => return Err("the node closed the connection".into()),
        other => return Err(format!("a frame begins with {other:#x}").into()),
    };
    Ok(Some((piece, whole)))
}

/// The pong for a ping, masked with zeros, because a client has to mask.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    // The payload of a control frame has at most 125 bytes, so the conversion never fails.
    let len = u8::try_from(payload.len()).unwrap_or(0) & 0x7f;
    [&[0x8a, 0x80 | len, 0, 0, 0, 0], payload].concat()
}
