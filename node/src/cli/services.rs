//! The services that a node offers, as its settings want them.
//!
//! # Invariants
//!
//! * Every service keeps its files in the data directory, under a name of its own.
//! * Block requests are answered in any case, by message and over HTTP: from the store, by other peers, or that
//!   there is nothing.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::Path,
    sync::{Arc, OnceLock},
    time::Instant,
};

use gossip::{LateNode, NetworkProfile, PeerClass, Tag, Transport};
use services::{
    blocks::{
        self, BlockProxy, BlockProxyLimits, Blocks, Capacity, MAX_BYTES_IN_FLIGHT, RedbStore,
        Responder,
    },
    files::{self, StoreLimits},
    kv,
    metrics::{Service as Measured, ServiceMetrics},
    perf::{self, PerfLimits},
    status::{self, Health, Peers, State},
};
use tandem::{
    AcceptLimits, Acceptor, Forward, Mode, NodeBuilder, PeerStream, Protection, Relaying,
    RequestRate, Trouble, View,
};
use tokio::sync::Semaphore;

use super::{
    drain::Drain,
    watch::{Disk, DiskTrouble},
};
use crate::{
    config::{Service, Settings},
    spans::SpanCounts,
};

/// Why a service cannot use its place in the data directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServiceError {
    /// The blocks.
    #[error(transparent)]
    Blocks(#[from] blocks::OpenError),
    /// The files.
    #[error(transparent)]
    Files(#[from] files::OpenStoreError),
}

/// Adds to a node what it is to offer.
pub(crate) async fn offer(
    mut builder: NodeBuilder,
    settings: &Settings,
    dir: &Path,
    (condition, metrics): (&Condition, &ServiceMetrics),
) -> Result<NodeBuilder, ServiceError> {
    let per_second = settings.http_rate.unwrap_or(NonZeroU32::MAX);
    let rate = RequestRate::new(per_second, per_second);
    let protection = Protection::default().with_rate(rate);
    let node = LateNode::new();
    for service in &settings.services {
        builder = match service {
            Service::Status => {
                let router = status::router(health(settings, &node, condition));
                builder.http_with(metrics.measure(Measured::Status, router), &protection)
            }
            Service::Blocks => builder,
            Service::Files => {
                let store = files::Store::open(&dir.join("files"), StoreLimits::default()).await;
                let router = files::router(store?, settings.uploads.clone());
                // The length of uploads is the store's to bound.
                let long = protection.clone().with_body_bytes(usize::MAX);
                builder.http_with(metrics.measure(Measured::Files, router), &long)
            }
            Service::Kv => {
                builder.http_with(metrics.measure(Measured::Kv, kv::router()), &protection)
            }
            Service::Bridge => builder.http_with(Forward::bridge(node.clone()), &protection),
            Service::Perf => {
                let limits = AcceptLimits::default().with_per_peer(MEASUREMENTS_OF_PEER);
                builder.accept_with(perf::PROTOCOL, limits, measurements())
            }
        };
    }
    let mut responder = Responder::new(Capacity::new(MAX_BYTES_IN_FLIGHT));
    if settings.services.contains(&Service::Blocks) {
        let store = RedbStore::open(dir.join("blocks.redb"), &settings.network);
        responder = responder.store(Blocks::new(Arc::new(store?)));
    } else if settings.pass_on_blocks && settings.relaying != Relaying::Off {
        let limits = BlockProxyLimits::default().with_relays(relays(settings.profile));
        responder = responder.proxy(BlockProxy::new(node.clone(), limits));
    }
    let router = blocks::router(responder.clone(), settings.network.clone(), Vec::new());
    let router = metrics.measure(Measured::Blocks, router);
    let handler = metrics.measure_handler(Measured::BlockMessages, responder);
    let builder = builder.http_with(router, &protection).handler(Tag::UE, handler);
    Ok(builder.late_node(&node))
}

/// Measurements of throughput at a time. Chosen: each takes all there is of a link, and one that stands still leaves another.
const MEASUREMENTS: usize = 2;

/// Measurements of one peer that may wait for a place, or be in progress. Chosen: the next one may come before the task of the
/// last one has ended.
const MEASUREMENTS_OF_PEER: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Serves measurements of throughput, so many at a time.
fn measurements() -> impl Acceptor {
    let places = Arc::new(Semaphore::new(MEASUREMENTS));
    move |mut stream: PeerStream| {
        let places = Arc::clone(&places);
        async move {
            // The places are never closed.
            let _place = places.acquire().await;
            let peer = stream.identity();
            match perf::serve(&mut stream, PerfLimits::default()).await {
                Ok(moved) => tracing::debug!(%peer, ?moved, "throughput was measured"),
                // The stream ends early, and the caller has its own count.
                Err(error) => {
                    tracing::debug!(%peer, %error, "a measurement of throughput broke off")
                }
            }
        }
    }
}

/// Longest payload of a request of existing nodes, in bytes. Source: wire facts 4.3.
const EXISTING_REQUEST_BYTES: usize = 67;

/// Relays that a block request may go through: two where it can be longer than one of existing nodes, which has no room
/// to count them.
fn relays(profile: &NetworkProfile) -> u8 {
    let longest = profile.tags.rule(Tag::UE).map_or(0, |rule| rule.max_payload);
    if longest > EXISTING_REQUEST_BYTES { 2 } else { 1 }
}

/// The condition of a node as far as it is known. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition {
    /// Set once the node runs.
    pub(crate) view: Arc<OnceLock<View>>,
    pub(crate) disk: Disk,
    pub(crate) drain: Drain,
    pub(crate) spans: SpanCounts,
}

impl Condition {
    /// The state of the node, and what is wrong.
    pub(crate) fn state(&self, mode: Mode) -> (State, Vec<String>) {
        let trouble = self.view.get().and_then(View::trouble);
        let disk = self.disk.trouble();
        let draining = self.drain.has_begun().then_some(Drain::LABEL);
        // The node does its work without anybody looking.
        let unseen = self.spans.is_failing().then_some(SpanCounts::LABEL);
        let names = [trouble.map(Trouble::label), disk.map(DiskTrouble::label), unseen, draining];
        let reasons: Vec<String> = names.into_iter().flatten().map(str::to_owned).collect();
        let state =
            match trouble {
                Some(Trouble::Stopping) => State::Stopping,
                _ if draining.is_some() => State::Stopping,
                // The WebSocket side of a hybrid goes on.
                Some(Trouble::SwarmDown) if mode == Mode::Hybrid => State::Degraded,
                // Votes go over links, and a muted peer may be so for good reason; of two nodes with one key one is served.
                Some(
                    Trouble::PeersMuted | Trouble::IdentityContested | Trouble::CertificateStale,
                ) if !disk.is_some_and(DiskTrouble::stops_work) => State::Degraded,
                Some(_) => State::Failing,
                None if disk.is_some_and(DiskTrouble::stops_work) => State::Failing,
                None if disk.is_some() || unseen.is_some() => State::Degraded,
                None => State::Serving,
            };
        (state, reasons)
    }
}

/// The function that tells the condition of the node.
fn health(
    settings: &Settings,
    node: &LateNode,
    condition: &Condition,
) -> impl Fn() -> Health + Send + Sync + 'static {
    let (network, profile, mode) = (settings.network.clone(), settings.profile, settings.mode);
    let (node, condition, started) = (node.clone(), condition.clone(), Instant::now());
    move || {
        let running = node.node();
        let peers =
            running.as_ref().map(|node| node.peers(PeerClass::Connected)).unwrap_or_default();
        let over = |transport| peers.iter().filter(|peer| peer.transport == transport).count();
        let (state, reasons) = condition.state(mode);
        Health {
            state: if running.is_some() { state } else { State::Stopping },
            reasons,
            network: network.to_string(),
            profile: profile.name.to_owned(),
            mode: mode.name().to_owned(),
            peers: Peers { ws: over(Transport::WebSocket), p2p: over(Transport::Libp2p) },
            uptime: started.elapsed(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
mod tests {
    use std::time::Duration;

    use axum::{extract, middleware};
    use runtime::Shutdown;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::Semaphore,
        time,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::{Flags, Layers};

    /// Longest time for any step. Only a fault takes this long.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn settings() -> Settings {
        let home = |name: &str| (name == "HOME").then(|| "/home/me".into());
        let layers = Layers::gather_from(None, &Flags::data_dir(None), std::iter::empty(), home);
        Settings::check(&layers.unwrap()).unwrap()
    }

    // Issue 8, 30. A stop refuses new connections at once, so the request is one that the stop waits for: it is
    // held from its arrival until the stop has begun.
    #[tokio::test]
    async fn a_node_that_is_stopping_says_so_with_503() {
        let (settings, node, condition) = (settings(), LateNode::new(), Condition::default());
        let (arrived, begun) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        let (arrives, opens) = (Arc::clone(&arrived), begun.clone());
        let held = move |request: extract::Request, next: middleware::Next| {
            let (arrives, opens) = (Arc::clone(&arrives), opens.clone());
            async move {
                arrives.add_permits(1);
                opens.cancelled().await;
                next.run(request).await
            }
        };
        let router = status::router(health(&settings, &node, &condition));
        let running = NodeBuilder::new(settings.network.clone())
            .mode(Mode::WebSocket)
            .listen_ws("127.0.0.1:0")
            .http(router.layer(middleware::from_fn(held)))
            .late_node(&node)
            .start(&CancellationToken::new())
            .await
            .unwrap();
        condition.view.set(running.view()).unwrap();
        assert_eq!(condition.state(settings.mode), (State::Serving, Vec::new()));

        let url = running.ws_url().unwrap();
        let mut asking = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        asking.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let _request = time::timeout(PATIENCE, arrived.acquire()).await.unwrap().unwrap();
        let (token, mut answer) = (running.token().clone(), String::new());
        let reading = async {
            token.cancelled().await;
            begun.cancel();
            time::timeout(PATIENCE, asking.read_to_string(&mut answer)).await.unwrap().unwrap();
        };
        let (stopped, ()) = tokio::join!(running.stop(PATIENCE), reading);

        assert_eq!(stopped, Shutdown::Clean);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let told: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(told["state"], "stopping", "{answer}");
        assert_eq!(told["reasons"], serde_json::json!(["stopping"]), "{answer}");
    }
}
