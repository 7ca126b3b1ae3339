//! A program with the service under test and with clients for it, for tests that kill or measure a process, and
//! as the peer of other implementations.
//!
//! ```text
//!   interop_peer serve [CERT KEY]                 prints the multiaddr and the URL; ends with its input
//!   interop_peer serve-at MULTIADDR...            the same at other multiaddrs, on one line
//!   interop_peer cells PEER...                    tries everything over each address; a line of JSON for each
//!   interop_peer half-open PEER                   pings among 2,000 streams that are left half open, over /ip4/…/tcp and Noise
//!   interop_peer forward PEER                     prints host:port; ends with its input
//!   interop_peer ping PEER                        pings five times on one stream; prints nothing
//!   interop_peer get PEER PATH [ROOTS]            prints what was received as JSON
//!   interop_peer put PEER PATH BYTES [ROOTS]      prints what was sent as JSON
//! ```
//!
//! PEER is `host:port`, a URL or a multiaddr with `/p2p/ID`. `serve-at`, `cells` and `get` are in the private network of the key file that
//! INTEROP_PSK names.

use std::{error::Error, path::PathBuf, time::Duration};

use futures::StreamExt;
use gossip::http::{HttpClient, read_all};
use http::Request;
use http_body_util::BodyExt;
use tandem::{Environment, Forward, Mode, NodeBuilder, PageOrigins, TlsFiles, WebRtcVersion};
use testkit::{
    http::{
        pattern::{self, Pattern, Reader},
        peer::{Memory, Told},
        route::{caller, client_of, describe_caller},
        server::{described, serving},
        service::{Seen, Swallowed},
    },
    interop::{Among, cells, offering, ping_among_half_open},
    libp2p::five_pings,
    wait::PATIENCE,
};
use tokio::{io::AsyncReadExt, time::timeout};
use tokio_util::sync::CancellationToken;

/// Longest time for a node to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Longest answer about a body, in bytes.
const MAX_ANSWER: usize = 4096;

type Failed = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve"] => serve(None).await,
        ["serve-at", addresses @ ..] => serve_at(addresses).await,
        ["cells", addresses @ ..] => try_cells(addresses).await,
        ["serve", cert, key] => {
            serve(Some(TlsFiles { cert: PathBuf::from(cert), key: PathBuf::from(key) })).await
        }
        ["half-open", peer] => half_open(peer).await,
        ["forward", peer] => forward(peer).await,
        ["ping", peer] => Ok(timeout(PATIENCE, five_pings(peer)).await??),
        ["get", peer, path] => get(peer, path, None).await,
        ["get", peer, path, roots] => get(peer, path, Some(roots.into())).await,
        ["put", peer, path, len] => put(peer, path, len.parse()?, None).await,
        ["put", peer, path, len, roots] => put(peer, path, len.parse()?, Some(roots.into())).await,
        _ => Err("interop_peer serve | serve-at | cells | half-open | forward | ping | get | put: see its source".into()),
    }
}

/// Waits until the input is closed.
async fn input_closed() -> Result<(), Failed> {
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn serve(tls: Option<TlsFiles>) -> Result<(), Failed> {
    let running = serving(&Seen::default(), tls, &CancellationToken::new()).await;
    for address in running.p2p_addresses().first().into_iter().chain(&running.ws_url()) {
        println!("{address}");
    }
    input_closed().await?;
    // The process ends next, and its tasks with it.
    let _ = running.stop(GRACE).await;
    Ok(())
}

/// Puts a node into the private network of the environment, if there is one, and gives it the certificate of the folder
/// `INTEROP_TLS`, which it also trusts. With INTEROP_WEBRTC=2 it dials with the second version of WebRTC Direct's handshake.
fn as_asked(builder: NodeBuilder) -> NodeBuilder {
    let is_second = std::env::var("INTEROP_WEBRTC").is_ok_and(|version| version == "2");
    let version = if is_second { WebRtcVersion::V2 } else { WebRtcVersion::V1 };
    // Pages of the tests come from wherever they are served.
    let builder = builder.webrtc_version(version).page_origins(PageOrigins::any());
    let builder = match std::env::var_os("INTEROP_PSK") {
        Some(file) => builder.private_network(file),
        None => builder,
    };
    let Some(folder) = std::env::var_os("INTEROP_TLS").map(PathBuf::from) else { return builder };
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    builder.tls_roots(&cert).tls(TlsFiles { cert, key })
}

/// Serves over libp2p at `addresses`.
async fn serve_at(addresses: &[&str]) -> Result<(), Failed> {
    let wanted = addresses.len();
    let addresses = addresses.iter().copied();
    let builder = described(&Seen::default(), None).mode(Mode::Libp2p).listen_p2p(addresses);
    let builder = offering(builder);
    let running = Box::pin(as_asked(builder).start(&CancellationToken::new())).await?;
    // An address through a relay is there once the relay has given a place.
    let listens = async {
        loop {
            let addresses = running.p2p_addresses();
            if addresses.len() >= wanted {
                break println!("{}", addresses.join(" "));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, listens).await?;
    input_closed().await?;
    // The process ends next, and its tasks with it.
    let _ = running.stop(GRACE).await;
    Ok(())
}

/// Tries everything over each of the addresses.
async fn try_cells(addresses: &[&str]) -> Result<(), Failed> {
    let mut held = true;
    for address in addresses {
        for cell in cells(address, as_asked).await {
            held &= cell.ok;
            println!("{}", serde_json::to_string(&cell)?);
        }
    }
    if held { Ok(()) } else { Err("an exchange failed".into()) }
}

async fn half_open(peer: &str) -> Result<(), Failed> {
    let Among { opened, pings, after } = ping_among_half_open(peer).await?;
    println!("{opened} opened, ping {pings} answered after {} ms", after.as_millis());
    Ok(())
}

/// The transport for an address.
fn mode(peer: &str) -> Mode {
    if peer.starts_with('/') { Mode::Libp2p } else { Mode::WebSocket }
}

async fn forward(peer: &str) -> Result<(), Failed> {
    let root = CancellationToken::new();
    let node = caller(mode(peer), None, &root).await;
    let forward =
        Forward::start("127.0.0.1:0", client_of(&node, peer), &Environment::system(), &root)
            .await?;
    println!("{}", forward.local_address());
    input_closed().await?;
    // The process ends next, and its tasks with it.
    let _ = forward.stop(GRACE).await;
    Ok(())
}

/// Sends one small request before memory is measured, so that connections, tables and code are in memory.
async fn warmed(client: &HttpClient) -> Result<Memory, Failed> {
    let response = client.get("/hello").await?;
    read_all(response.into_body(), MAX_ANSWER).await?;
    Ok(Memory::of_this_process())
}

async fn get(peer: &str, path: &str, roots: Option<PathBuf>) -> Result<(), Failed> {
    let root = CancellationToken::new();
    let node = Box::pin(as_asked(describe_caller(mode(peer), roots)).start(&root)).await?;
    let client = client_of(&node, peer);
    let before = warmed(&client).await?;
    let response = client.get(path).await?;
    let status = response.status().as_u16();
    let mut reader = Reader::default();
    let mut body = response.into_body().into_data_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| -> Failed { error })?;
        reader.take(&piece).map_err(|place| format!("byte {place} is another one"))?;
    }
    let growth = Memory::of_this_process().growth_since(before);
    // Every byte was compared, so the hash of the pattern is the hash of the body.
    let blake3 = pattern::hash(reader.read());
    tell(&Told { status, bytes: reader.read(), blake3, growth })
}

async fn put(peer: &str, path: &str, len: u64, roots: Option<PathBuf>) -> Result<(), Failed> {
    let root = CancellationToken::new();
    let node = caller(mode(peer), roots, &root).await;
    let client = client_of(&node, peer);
    let before = warmed(&client).await?;
    let response = client.send(Request::post(path).body(Pattern::of(len))?).await?;
    let status = response.status().as_u16();
    let answer = read_all(response.into_body(), MAX_ANSWER).await?;
    let growth = Memory::of_this_process().growth_since(before);
    let swallowed: Swallowed = serde_json::from_slice(&answer)?;
    tell(&Told { status, bytes: swallowed.bytes, blake3: swallowed.blake3, growth })
}

fn tell(told: &Told) -> Result<(), Failed> {
    println!("{}", serde_json::to_string(told)?);
    Ok(())
}
