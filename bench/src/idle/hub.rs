//! The node whose connections are idle, in a process of its own.

use std::{io::Write, time::Duration};

use broadcaster::{Relaying, Setup};
use gossip::{NetworkProfile, PeerClass};
use mesh::InboundLimits;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, runtime::Builder, time};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Failure,
    node::{Http, Node},
    transport::Transport,
};

/// Interval of the reports of the number of peers.
const REPORT: Duration = Duration::from_secs(1);

/// Room for every connection of the bench.
const ROOM: usize = 100_000;

/// The transport of the hub.
#[derive(Debug, clap::Args)]
pub(crate) struct HubArgs {
    #[arg(value_enum)]
    transport: Transport,
}

/// The address on which the hub listens.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Ready {
    pub(super) address: String,
}

/// The number of peers of the hub.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Connected {
    pub(super) peers: usize,
}

/// Runs the hub until standard input ends.
pub(crate) fn hub(args: &HubArgs) -> Result<(), Failure> {
    Builder::new_multi_thread().enable_all().build()?.block_on(run(args.transport))
}

async fn run(transport: Transport) -> Result<(), Failure> {
    let root = CancellationToken::new();
    let inbound = InboundLimits::default()
        .with_total(ROOM)
        .with_per_ip(ROOM)
        .with_per_subnet(ROOM)
        .with_half_open_total(ROOM)
        .with_half_open_per_ip(ROOM);
    let setup = Setup::new(&NetworkProfile::TANDEM).relaying(Relaying::Accepted);
    let http = Http { inbound, ..Http::default() };
    let node = Box::pin(Node::start(transport, setup, None, http, &root)).await?;
    let say = |what: String| writeln!(std::io::stdout(), "{what}");
    let address = node.address()?.to_string();
    say(serde_json::to_string(&Ready { address })?)?;
    let report = async {
        loop {
            let peers = node.network.peers(PeerClass::Connected).len();
            say(serde_json::to_string(&Connected { peers })?)?;
            time::sleep(REPORT).await;
        }
    };
    let (mut stdin, mut nothing) = (tokio::io::stdin(), [0; 1]);
    tokio::select! {
        told = report => told,
        read = stdin.read(&mut nothing) => { read?; Ok(()) }
    }
}
