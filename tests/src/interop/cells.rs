//! The exchanges of a node with a peer of another implementation, once over each of its addresses with each security, and
//! the protocols that a node offers such a peer.

use std::{io, time::Duration};

use gossip::NodeAddress;
use serde::Serialize;
use services::perf::{self, Exchange, PerfLimits};
use tandem::{Mode, NodeBuilder, PeerStream, Running, Security};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{sleep, timeout},
};
use tokio_util::{compat::TokioAsyncReadCompatExt, sync::CancellationToken};

use crate::{
    http::route::{client_of, describe_caller},
    libp2p::{PING, ping},
};

/// Sends back what comes.
const ECHO: &str = "/tandem-interop/echo/1";

/// Bytes that are sent there and back.
const ECHO_BYTES: usize = 1 << 20;

/// Bytes of a measurement, each way.
const PERF_BYTES: u64 = 1_000_000;

/// Longest time for one exchange. Chosen: each takes well under a second.
const LIMIT: Duration = Duration::from_secs(30);

/// Longest time for a node to stop.
const GRACE: Duration = Duration::from_secs(2);

/// The results over one address with one security.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Address without the peer, and security.
    pub way: String,
    /// `true` if every exchange held.
    pub ok: bool,
    /// Those that did not, with the reason.
    pub failed: Vec<String>,
    /// The words of those that had any.
    pub notes: Vec<String>,
}

/// Adds the protocols that peers of other implementations try.
pub fn offering(builder: NodeBuilder) -> NodeBuilder {
    let measures = |mut stream: PeerStream| async move {
        // The caller has its own count.
        let _ = perf::serve(&mut stream, PerfLimits::default()).await;
    };
    let echoes = |stream: PeerStream| async move {
        let (mut from, mut to) = tokio::io::split(stream);
        if tokio::io::copy(&mut from, &mut to).await.is_ok() {
            // A failure means that the peer has gone.
            let _ = to.shutdown().await;
        }
    };
    builder.accept(perf::PROTOCOL, measures).accept(ECHO, echoes)
}

/// Tries every exchange over an address with each security that it has, each by a node of its own. `describe` may add to the node.
pub async fn cells(address: &str, describe: impl Fn(NodeBuilder) -> NodeBuilder) -> Vec<Cell> {
    let mut held = Vec::new();
    let securities: &[Security] = if address.contains("/udp/") {
        // It has one of its own.
        &[Security::Tls]
    } else {
        &[Security::Noise, Security::Tls]
    };
    for security in securities {
        let builder = describe(describe_caller(Mode::Libp2p, None)).security([*security]);
        held.push(cell(address, *security, builder).await);
    }
    held
}

async fn cell(address: &str, security: Security, builder: NodeBuilder) -> Cell {
    let (at, _) = address.rsplit_once("/p2p/").unwrap_or((address, ""));
    let way = format!("{at} {security:?}");
    let mut cell = Cell { way, ok: false, failed: Vec::new(), notes: Vec::new() };
    let node = match Box::pin(builder.start(&CancellationToken::new())).await {
        Ok(node) => node,
        Err(error) => {
            cell.failed.push(format!("start: {error}"));
            return cell;
        }
    };
    cell.note("pings", pings_on_one(&node, address)).await;
    cell.note("five", pings_on_five(&node, address)).await;
    cell.note("identify", identified(&node, address)).await;
    cell.note("hello", hello(&node, address)).await;
    // A circuit carries 128 KiB.
    if !address.contains("/p2p-circuit") {
        cell.note("stream", echoed(&node, address)).await;
        cell.note("perf", measured(&node, address)).await;
    }
    // Nothing waits for its end.
    let _ = node.stop(GRACE).await;
    cell.ok = cell.failed.is_empty();
    cell
}

impl Cell {
    /// Notes the result of an exchange.
    async fn note(&mut self, name: &str, exchange: impl Future<Output = io::Result<String>>) {
        match timeout(LIMIT, exchange).await {
            Ok(Ok(note)) if note.is_empty() => {}
            Ok(Ok(note)) => self.notes.push(format!("{name}: {note}")),
            Ok(Err(error)) => self.failed.push(format!("{name}: {error}")),
            Err(_elapsed) => self.failed.push(format!("{name}: not done after {LIMIT:?}")),
        }
    }
}

async fn open(node: &Running, address: &str, protocol: &str) -> io::Result<PeerStream> {
    let at: NodeAddress = address.parse().map_err(io::Error::other)?;
    let streams = node.streams().ok_or_else(|| io::Error::other("the node has no libp2p"))?;
    streams.open_at(&at, protocol, LIMIT).await.map_err(io::Error::other)
}

async fn pings_on_one(node: &Running, address: &str) -> io::Result<String> {
    let mut stream = open(node, address, PING).await?.compat();
    for number in 0..5 {
        ping(&mut stream, number).await?;
    }
    end(stream.into_inner()).await.map(|()| String::new())
}

/// Opens a stream for each ping. Peers of the field allow themselves and others one or two at a time.
async fn pings_on_five(node: &Running, address: &str) -> io::Result<String> {
    for number in 0..5 {
        let mut stream = open(node, address, PING).await?.compat();
        ping(&mut stream, number).await?;
        end(stream.into_inner()).await?;
    }
    Ok(String::new())
}

/// Ends a stream, and waits until the peer, which counts it, has ended it too.
async fn end(mut stream: PeerStream) -> io::Result<()> {
    stream.shutdown().await?;
    // A reset ends it as well.
    let _ = stream.read(&mut [0]).await;
    Ok(())
}

async fn identified(node: &Running, address: &str) -> io::Result<String> {
    let peer = open(node, address, ECHO).await?.identity();
    let view = node.view();
    let about = loop {
        match view.about(&peer) {
            Some(about) => break about,
            None => sleep(Duration::from_millis(5)).await,
        }
    };
    match [PING, ECHO].iter().find(|name| !about.protocols.iter().any(|told| told == *name)) {
        Some(name) => Err(io::Error::other(format!("{name} is not among {:?}", about.protocols))),
        None => Ok(about.agent),
    }
}

async fn echoed(node: &Running, address: &str) -> io::Result<String> {
    let stream = open(node, address, ECHO).await?;
    let sent: Vec<u8> = (0..=250).cycle().take(ECHO_BYTES).collect();
    let (mut from, mut to) = tokio::io::split(stream);
    let mut heard = Vec::new();
    let (written, read) = tokio::join!(send(&mut to, &sent), read_to_end(&mut from, &mut heard));
    written?;
    read?;
    if heard == sent {
        Ok(String::new())
    } else {
        Err(io::Error::other(format!("{} other bytes came back", heard.len())))
    }
}

async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.shutdown().await
}

async fn read_to_end(from: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>) -> io::Result<()> {
    from.take(2 * ECHO_BYTES as u64).read_to_end(into).await.map(drop)
}

async fn hello(node: &Running, address: &str) -> io::Result<String> {
    let response = client_of(node, address).get("/hello").await.map_err(io::Error::other)?;
    let status = response.status();
    let body = gossip::http::read_all(response.into_body(), 16).await.map_err(io::Error::other)?;
    if status == 200 && &body[..] == b"hi" {
        Ok(String::new())
    } else {
        Err(io::Error::other(format!("{status} with {body:?}")))
    }
}

async fn measured(node: &Running, address: &str) -> io::Result<String> {
    let mut stream = open(node, address, perf::PROTOCOL).await?;
    let exchange = Exchange { upload: PERF_BYTES, download: PERF_BYTES };
    perf::measure(&mut stream, exchange, |_| {}).await.map_err(io::Error::other)?;
    Ok(String::new())
}
