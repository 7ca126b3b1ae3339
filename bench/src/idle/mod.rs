//! The memory of a node per connection on which nothing happens.
//!
//! ```text
//!   peers (processes of 2,500 connections each) ══▶ hub (a process of its own)
//! ```
//!
//! # Invariants
//!
//! * A connection is a peer of the hub: it has completed the handshake, and on libp2p it has its gossip streams.
//! * The base is the hub with [`FIRST`] peers, so that what a node sets up once is not counted.
//! * Limits are as shipped, but that the door has room for all.

mod hub;
mod peers;

use std::time::Duration;

use tokio::{runtime::Builder, time};

use self::{
    hub::{Connected, Ready},
    peers::Standing,
};
pub(crate) use self::{
    hub::{HubArgs, hub},
    peers::{PeersArgs, peers},
};
use crate::{
    child::{Child, Priority},
    error::Failure,
    row::{Output, Row},
    transport::Transport,
};

/// Connections of the hub when its base is measured. Chosen: enough for every table and cache to exist.
const FIRST: usize = 100;
/// Connections of one process of peers. Chosen: a libp2p peer takes two descriptors and a swarm.
const OF_A_PROCESS: usize = 2_500;
/// Time without any work before memory is read. Chosen: longer than handshakes take to be cleaned up.
const SETTLE: Duration = Duration::from_secs(5);
/// Longest time for all connections to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(300);

/// Settings of `bench idle`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Transport; may be given more than once. Default: ws and p2p.
    #[arg(long, value_enum)]
    transport: Vec<Transport>,
    /// Connections.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
}

impl Transport {
    /// Most memory for one idle connection, in KiB. Source: issue 10, "Shown by".
    const fn most_kib(self) -> f64 {
        match self {
            Self::Ws => 16.0,
            Self::P2p | Self::Quic => 64.0,
        }
    }
}

/// Measures each transport, and fails if a connection takes more than it may.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let mut failures = Vec::new();
    let transports = match &args.transport[..] {
        [] => vec![Transport::Ws, Transport::P2p],
        asked => asked.to_vec(),
    };
    for transport in transports {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (base_mib, kib) = runtime.block_on(measure(transport, args.connections))?;
        if kib > transport.most_kib() {
            let most = transport.most_kib();
            failures.push(format!(
                "{}: {kib:.1} KiB for a connection, more than {most}",
                transport.name()
            ));
        }
        output.add(Row {
            bench: "idle",
            transport: transport.name(),
            peers: Some(args.connections),
            base_mib: Some(base_mib),
            kib_per_connection: Some(kib),
            ..Row::default()
        })?;
    }
    output.finish()?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n       ").into()) }
}

/// The memory of the hub at first in MiB, and for each further connection in KiB.
async fn measure(transport: Transport, connections: usize) -> Result<(f64, f64), Failure> {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut hub = Child::start(Priority::Same, &words(&["idle-hub", transport.name()]))?;
    let ready: Ready = hub.first().await?;
    let mut processes = Vec::new();
    let (mut standing, mut base) = (0, 0.0);
    while standing < FIRST + connections {
        let count = match standing {
            0 => FIRST,
            _ => OF_A_PROCESS.min(FIRST + connections - standing),
        };
        let (first, number) = (standing.to_string(), count.to_string());
        let list = ["idle-peers", transport.name(), &ready.address, &first, &number];
        let mut process = Child::start(Priority::Same, &words(&list))?;
        time::timeout(CONNECT_TIMEOUT, async {
            loop {
                if process.said::<Standing>().pop().is_some() {
                    return Ok::<_, Failure>(());
                }
                process.check()?;
                time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .map_err(|_| "connections were not made in time")??;
        standing += count;
        time::sleep(SETTLE).await;
        let peers = hub.said::<Connected>().pop().map_or(0, |said| said.peers);
        if peers != standing {
            return Err(format!("the hub has {peers} of {standing} peers").into());
        }
        if standing == FIRST {
            base = hub.resident_mib()?;
        }
        processes.push(process);
    }
    let grown = hub.resident_mib()? - base;
    Ok((base, grown * 1024.0 / connections as f64))
}
