//! A gossip connection of an attacker: bytes in, bytes out, and nothing that slows it down.

use std::{io, net::Ipv4Addr, time::Duration};

use futures::AsyncReadExt as _;
use gossip::{Tag, wire::frame::encode_header};
use runtime::TaskSet;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time,
};
use tokio_util::compat::{FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt};

use super::{Tally, Target};
use crate::{
    libp2p::RawLibp2p,
    websocket::{upgrade_from, upgrade_request},
};

/// Longest time until a connection of an attacker is up.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// After a connection ended or was refused, before the next one.
const BREATH: Duration = Duration::from_millis(200);

/// The transport of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A WebSocket.
    WebSocket,
    /// A libp2p stream.
    Libp2p,
}

impl Carrier {
    /// Adds a message to `bytes`, framed as this carrier does.
    pub(super) fn put(self, tag: Tag, payload: &[u8], bytes: &mut Vec<u8>) {
        self.begin(tag, payload.len(), bytes);
        bytes.extend_from_slice(payload);
    }

    /// Adds the beginning of a message whose payload has `len` bytes.
    pub(super) fn begin(self, tag: Tag, len: usize, bytes: &mut Vec<u8>) {
        let len = Tag::BYTES + len;
        match self {
            Self::Libp2p => bytes.extend_from_slice(&encode_header(len)),
            Self::WebSocket => {
                bytes.push(0x82);
                match (u8::try_from(len), u16::try_from(len)) {
                    (Ok(short @ ..126), _) => bytes.push(0x80 | short),
                    (_, Ok(len)) => {
                        bytes.push(0x80 | 126);
                        bytes.extend_from_slice(&len.to_be_bytes());
                    }
                    _ => {
                        bytes.push(0x80 | 127);
                        bytes.extend_from_slice(&(len as u64).to_be_bytes());
                    }
                }
                // A mask that changes nothing.
                bytes.extend_from_slice(&[0; 4]);
            }
        }
        bytes.extend_from_slice(&tag.0);
    }
}

/// The use that an attacker makes of what the node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ears {
    /// It is read and thrown away.
    Open,
    /// Nothing is ever read.
    Shut,
}

/// The writing half of a connection.
pub(super) type Pen = Box<dyn AsyncWrite + Send + Unpin>;

/// A gossip connection.
pub(super) struct Line {
    read: Box<dyn AsyncRead + Send + Unpin>,
    write: Pen,
    /// Keeps a libp2p connection going.
    _driver: Option<TaskSet>,
}

impl Line {
    /// Connects, or gives up after a while, as an attacker does.
    pub(super) async fn dial(
        target: &Target,
        carrier: Carrier,
        source: Ipv4Addr,
    ) -> io::Result<Self> {
        Self::dial_within(DIAL_TIMEOUT, target, carrier, source).await
    }

    /// Connects within `limit`.
    pub(super) async fn dial_within(
        limit: Duration,
        target: &Target,
        carrier: Carrier,
        source: Ipv4Addr,
    ) -> io::Result<Self> {
        let dial = async {
            match carrier {
                Carrier::WebSocket => {
                    let request = upgrade_request(target.profile, &target.network);
                    let (stream, head) = upgrade_from(source, target.ws, &request).await?;
                    if !head.starts_with("HTTP/1.1 101 ") {
                        return Err(io::Error::other(head));
                    }
                    let (read, write) = stream.into_split();
                    Ok(Self { read: Box::new(read), write: Box::new(write), _driver: None })
                }
                Carrier::Libp2p => {
                    let (profile, network) = (target.profile, &target.network);
                    let peer = RawLibp2p::connect_from(source, &target.p2p, profile, network);
                    let (stream, driver) = peer.await?.into_stream();
                    let (read, write) = stream.split();
                    let (read, write) = (Box::new(read.compat()), Box::new(write.compat_write()));
                    Ok(Self { read, write, _driver: Some(driver) })
                }
            }
        };
        time::timeout(limit, dial).await.map_err(io::Error::other)?
    }

    /// Writes until that fails or, if anything is read, the node ends the connection.
    pub(super) async fn run<F: Future<Output = io::Result<()>>>(
        self,
        ears: Ears,
        write: impl FnOnce(Pen) -> F,
    ) {
        let Self { mut read, write: pen, _driver } = self;
        let drain = async {
            if ears == Ears::Shut {
                return std::future::pending().await;
            }
            let mut heard = vec![0; 64 * 1024];
            while read.read(&mut heard).await? > 0 {}
            Ok(())
        };
        // Its end is of no interest: it begins anew.
        let _: io::Result<()> = tokio::select! {
            ended = write(pen) => ended,
            ended = drain => ended,
        };
    }
}

/// Keeps a connection up, and writes to it, for as long as it is polled.
pub(super) async fn again_and_again<D, W>(
    dial: impl Fn() -> D,
    (tally, ears): (&Tally, Ears),
    write: impl Fn(Pen) -> W,
) where
    D: Future<Output = io::Result<Line>>,
    W: Future<Output = io::Result<()>>,
{
    loop {
        match dial().await {
            Ok(line) => {
                tally.opened();
                line.run(ears, &write).await;
                tally.cut();
            }
            Err(_refused) => tally.refused(),
        }
        time::sleep(BREATH).await;
    }
}

/// Writes and flushes.
pub(super) async fn write(pen: &mut Pen, bytes: &[u8]) -> io::Result<()> {
    pen.write_all(bytes).await?;
    pen.flush().await
}
