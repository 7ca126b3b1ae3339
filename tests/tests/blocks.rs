//! A node catches up from others: over every transport, with one of them killed on the way, and through a
//! relay that keeps no blocks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{path::Path, sync::Arc, time::Duration};

use gossip::{NetworkId, NodeAddress, PeerClass};
use runtime::TaskSet;
use tandem::{
    ClientLimits, Mode, NodeBuilder, Running,
    services::blocks::{Blocks, Fetched, Fetcher, MemoryStore, RedbStore, Source, sample},
};
use tempfile::TempDir;
use testkit::{
    process::Node,
    wait::{soon, until},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What is fetched.
const ROUNDS: u64 = 10_000;

/// How a newcomer asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// By HTTP requests, to this kind of address.
    Http(Mode),
    /// By messages, over this kind of link.
    Gossip(Mode),
}

impl Route {
    const fn mode(self) -> Mode {
        match self {
            Self::Http(mode) | Self::Gossip(mode) => mode,
        }
    }
}

fn network() -> NetworkId {
    NetworkId::new("tandem").unwrap()
}

fn store(path: &Path) -> Blocks {
    Blocks::new(Arc::new(RedbStore::open(path, &network()).unwrap()))
}

/// Keeps the first rounds in a file.
async fn keep(path: &Path, rounds: u64) {
    let blocks = store(path);
    let samples = (0..rounds).map(|round| (round, sample::block(round))).collect();
    blocks.put_all(samples).await.unwrap();
}

/// A node that serves what was kept.
async fn archive(blocks: &Path, mode: Mode) -> (TempDir, Node) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(blocks, dir.path().join("blocks.redb")).unwrap();
    let arguments = ["--mode", mode.name(), "--service", "blocks", "--http-rate", "0"];
    let node = Node::run(dir.path(), &arguments).await;
    (dir, node)
}

fn address(node: &Node, mode: Mode) -> NodeAddress {
    let text = match mode {
        Mode::Libp2p => node.p2p.first().cloned().unwrap(),
        Mode::WebSocket | Mode::Hybrid => node.ws_address().to_owned(),
    };
    text.parse().unwrap()
}

/// A node without blocks, which gossips with others if it is told to.
async fn newcomer(mode: Mode, peers: &[NodeAddress]) -> Running {
    let limits = ClientLimits { window: None, ..ClientLimits::default() };
    let mut builder = NodeBuilder::new(network()).mode(mode).client_limits(limits);
    for peer in peers {
        builder = builder.peer(peer.clone());
    }
    builder.start(&CancellationToken::new()).await.unwrap()
}

/// Everybody a newcomer may ask.
async fn sources(newcomer: &Running, way: Route, servers: &[NodeAddress]) -> Vec<Source> {
    let node = newcomer.node();
    match way {
        Route::Http(_) => servers
            .iter()
            .map(|server| {
                Source::http(server.to_string(), node.http_client(server).unwrap(), network())
            })
            .collect(),
        Route::Gossip(_) => {
            let connected = || node.peers(PeerClass::Connected);
            until("all are connected", || connected().len() == servers.len()).await;
            let peers = connected().into_iter();
            peers.map(|peer| Source::gossip(peer.address, Arc::clone(&node), peer.id)).collect()
        }
    }
}

async fn catches_up(way: Route) {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept.redb");
    keep(&kept, ROUNDS).await;
    let mode = way.mode();
    let (_first_dir, first) = archive(&kept, mode).await;
    let (_second_dir, second) = archive(&kept, mode).await;
    let servers = [address(&first, mode), address(&second, mode)];
    let dialled = if let Route::Gossip(_) = way { &servers[..] } else { &[] };
    let newcomer = newcomer(mode, dialled).await;
    // In memory, so that what is stored tells what was fetched: a disk is slower than these transports.
    let blocks = Blocks::new(Arc::new(MemoryStore::new(256 * 1024 * 1024)));
    let mut fetcher = Fetcher::new(blocks.clone());
    for source in sources(&newcomer, way, &servers).await {
        fetcher = fetcher.source(source);
    }
    let (mut progress, (sender, killed)) = (fetcher.progress(), oneshot::channel());
    let tasks = TaskSet::new(&CancellationToken::new());
    // A task of its own: the fetch may get far before it lets others have their turn.
    tasks.spawn("kill", |_cancel| async move {
        let half = progress.wait_for(|progress| progress.stored >= ROUNDS / 2).await;
        let stored = half.map_or(ROUNDS, |progress| progress.stored);
        first.kill().await;
        // The test may have failed by then.
        let _ = sender.send(stored);
    });
    let fetching = fetcher.fetch(0..=ROUNDS - 1);
    let fetched = tokio::time::timeout(Duration::from_secs(120), fetching).await.unwrap();
    assert!(soon("one was killed", killed).await.unwrap() < ROUNDS, "killed on the way");
    let Ok(Fetched::All(tally)) = fetched else { panic!("not all was got: {fetched:?}") };
    assert_eq!(tally.progress.stored, ROUNDS);
    assert!(tally.sources.iter().all(|source| source.blocks > 0), "{:?}", tally.sources);
    assert!(tally.sources.iter().any(|source| source.last.is_some()), "one died");
    for round in 0..ROUNDS {
        assert_eq!(blocks.get(round).await.unwrap(), Some(sample::block(round)), "{round}");
    }
    let _ = newcomer.stop(Duration::from_secs(5)).await;
    assert_eq!(second.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_blocks_come_over_http_on_tcp() {
    catches_up(Route::Http(Mode::WebSocket)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_blocks_come_over_http_on_libp2p() {
    catches_up(Route::Http(Mode::Libp2p)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_blocks_come_by_messages_over_websocket() {
    catches_up(Route::Gossip(Mode::WebSocket)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_blocks_come_by_messages_over_libp2p() {
    catches_up(Route::Gossip(Mode::Libp2p)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_catches_up_through_a_relay_that_keeps_no_blocks() {
    const FEW: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept.redb");
    keep(&kept, FEW).await;
    let (_archive_dir, archive) = archive(&kept, Mode::WebSocket).await;
    let relay_dir = tempfile::tempdir().unwrap();
    let relay = Node::run(relay_dir.path(), &["--peer", archive.ws_address()]).await;
    soon("the relay has its peer", relay.has_peers(1)).await;
    let relays = [address(&relay, Mode::Libp2p)];
    let newcomer = newcomer(Mode::Libp2p, &relays).await;
    let blocks = store(&dir.path().join("fetched.redb"));
    let way = Route::Gossip(Mode::Libp2p);
    let source = sources(&newcomer, way, &relays).await.pop().unwrap();
    let fetcher = Fetcher::new(blocks.clone()).source(source);
    let fetched = soon("it catches up", fetcher.fetch(0..=FEW - 1)).await.unwrap();
    assert!(matches!(fetched, Fetched::All(_)), "{fetched:?}");
    assert_eq!(blocks.get(FEW - 1).await.unwrap(), Some(sample::block(FEW - 1)));
    let _ = newcomer.stop(Duration::from_secs(5)).await;
    assert_eq!(relay.terminate().await, Some(0));
    assert_eq!(archive.terminate().await, Some(0));
}
