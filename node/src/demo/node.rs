//! One node of a demo, in a process of its own.
//!
//! # Invariants
//!
//! * It ends when its standard input does, so it never outlives the director.
//! * Its handlers do nothing but note what they get.

use std::{
    io,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use broadcaster::DropReason;
use clap::Args;
use gossip::{
    Inbound, LateNode, NetworkId, NetworkProfile, NodeAddress, PeerClass, Tag, Transport, Verdict,
};
use runtime::TaskSet;
use services::status::{self, Health, Peers, State};
use tandem::{InboundLimits, Mode, NodeBuilder, Relaying, Running};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio_util::sync::CancellationToken;

use super::{
    body::Stamp,
    control::{Order, Ready, now_ns},
    error::DemoError,
    journal::{Deed, Journal, Record},
    load::Sender,
    topology::MAX_NODES,
};
use crate::{
    cli::{Failure, json, print},
    log,
};

/// The log filter of a node, whose file is read only if something went wrong. Chosen: GossipSub
/// logs every message that it has no room for, body and all.
const DEFAULT_LOG: &str = "info,libp2p_gossipsub=error";

/// Why a message may be lost under too much load.
const LOSSES: [DropReason; 7] = [
    DropReason::IntakeFull,
    DropReason::PeerFull,
    DropReason::BudgetFull,
    DropReason::Aged,
    DropReason::PeerGone,
    DropReason::WorkerFull,
    DropReason::TopicFull,
];

/// Longest time for the tasks of a node to end.
const GRACE: Duration = Duration::from_secs(2);

/// The arguments with which the director starts a node.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoNodeArgs {
    /// Its place among the nodes.
    #[arg(long)]
    pub(crate) place: u8,
    /// Number of earlier starts.
    #[arg(long)]
    pub(crate) life: u8,
    /// hybrid, ws or p2p.
    #[arg(long, value_parser = mode)]
    pub(crate) mode: Mode,
    /// Name of the network, of this demo alone.
    #[arg(long)]
    pub(crate) network: String,
    /// Its data directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Where to write its journal.
    #[arg(long)]
    pub(crate) journal: PathBuf,
    /// The nodes that it dials.
    #[arg(long)]
    pub(crate) peer: Vec<NodeAddress>,
}

fn mode(text: &str) -> Result<Mode, String> {
    let modes = [Mode::Hybrid, Mode::WebSocket, Mode::Libp2p];
    modes.into_iter().find(|mode| mode.name() == text).ok_or_else(|| "no such mode".to_owned())
}

/// Runs a node until it is told to stop, or nobody is there to tell it.
pub(crate) async fn demo_node(args: DemoNodeArgs) -> Result<ExitCode, Failure> {
    let filter = std::env::var("TANDEM_LOG").unwrap_or_else(|_| DEFAULT_LOG.to_owned());
    log::to_stderr(&filter, log::LogFormat::Text, None);
    let failed = |source| DemoError::Files { path: args.journal.clone(), source };
    let journal = Arc::new(Journal::create(&args.journal).map_err(failed)?);
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let root = CancellationToken::new();
    let running = builder(&args, &journal)?.start(&root).await?;
    let addresses = running.node().addresses().iter().map(ToString::to_string).collect();
    print(&json(&Ready { addresses })).await?;
    let sender = Sender { node: running.node(), journal, place: args.place, life: args.life };
    let tasks = TaskSet::new(&root);
    obey(&mut orders, &sender, &running, &tasks).await;
    for reason in LOSSES {
        let messages = running.metrics().drops(reason);
        if messages > 0 {
            tracing::warn!(messages, reason = reason.label(), "messages were dropped");
        }
    }
    // A node that has to be stopped by force has been killed by its deadline; the account shows it.
    let _ = tasks.stop(GRACE).await.and(running.stop(GRACE).await);
    Ok(ExitCode::SUCCESS)
}

fn builder(args: &DemoNodeArgs, journal: &Arc<Journal>) -> Result<NodeBuilder, Failure> {
    let network = NetworkId::new(args.network.as_str())
        .map_err(|error| Failure::Usage { text: error.to_string() })?;
    let inbound = InboundLimits::default().with_per_ip(MAX_NODES);
    let node = LateNode::new();
    let mut builder = NodeBuilder::new(network.clone())
        .mode(args.mode)
        .http(status::router(health(network, args.mode, &node)))
        .late_node(&node)
        .data_dir(args.dir.clone())
        .inbound_limits(inbound)
        .relaying(Relaying::Accepted);
    for peer in &args.peer {
        builder = builder.peer(peer.clone());
    }
    for tag in [Tag::AV, Tag::TX, Tag::PP] {
        let journal = Arc::clone(journal);
        builder = builder.handler(tag, move |message: Inbound| {
            note(&journal, &message);
            std::future::ready(Verdict::Ignore)
        });
    }
    Ok(builder)
}

/// The function that tells the state of the node over HTTP.
fn health(
    network: NetworkId,
    mode: Mode,
    node: &LateNode,
) -> impl Fn() -> Health + Send + Sync + 'static {
    let (node, started) = (node.clone(), Instant::now());
    move || {
        let peers = node.node().map(|node| node.peers(PeerClass::Connected)).unwrap_or_default();
        let over = |transport| peers.iter().filter(|peer| peer.transport == transport).count();
        Health {
            state: State::Serving,
            reasons: Vec::new(),
            network: network.to_string(),
            profile: NetworkProfile::TANDEM.name.to_owned(),
            mode: mode.name().to_owned(),
            peers: Peers { ws: over(Transport::WebSocket), p2p: over(Transport::Libp2p) },
            uptime: started.elapsed(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

fn note(journal: &Journal, message: &Inbound) {
    if let Some(stamp) = Stamp::of(&message.body) {
        journal.note(Record { deed: Deed::Heard(message.transport), stamp, at_ns: now_ns() });
    }
}

/// Does what the director says until it says stop, or nothing any more.
async fn obey(
    orders: &mut Lines<BufReader<Stdin>>,
    sender: &Sender,
    running: &Running,
    tasks: &TaskSet,
) {
    loop {
        let line: io::Result<Option<String>> = tokio::select! {
            biased;
            fault = running.faulted() => {
                tracing::error!(%fault, "the node stopped by itself");
                return;
            }
            line = orders.next_line() => line,
        };
        let Ok(Some(line)) = line else { return };
        match serde_json::from_str(&line) {
            Ok(Order::Probe { round }) => sender.probe(round),
            Ok(Order::Load(schedule)) => {
                let sender = sender.clone();
                tasks.spawn("load", |cancel| async move { sender.run(schedule, cancel).await });
            }
            Ok(Order::Stop) => return,
            Err(error) => tracing::error!(%error, "an order cannot be read"),
        }
    }
}
