//! The other ends of idle connections, many in one process.

use std::{io::Write, net::Ipv4Addr};

use futures::{StreamExt, TryStreamExt, stream};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use runtime::TaskSet;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, runtime::Builder};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Failure,
    node::NETWORK,
    receiver::{
        p2p::{self, Opening},
        quic, ws,
    },
    transport::Transport,
};

/// Handshakes at the same time.
const AT_ONCE: usize = 16;

/// The connections of one process.
#[derive(Debug, clap::Args)]
pub(crate) struct PeersArgs {
    #[arg(value_enum)]
    transport: Transport,
    /// Address of the hub.
    hub: String,
    /// Number of the first connection, which decides its own address.
    first: usize,
    /// Number of connections.
    count: usize,
}

/// The report that all connections stand.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Standing {
    pub(super) standing: usize,
}

/// Connects, and keeps the connections until standard input ends.
pub(crate) fn peers(args: &PeersArgs) -> Result<(), Failure> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(run(args))
}

async fn run(args: &PeersArgs) -> Result<(), Failure> {
    let tasks = TaskSet::new(&CancellationToken::new());
    let numbers = stream::iter(args.first..args.first + args.count);
    match args.transport {
        Transport::Ws => {
            let to = args.hub.trim_start_matches("http://").parse()?;
            let connected = numbers.map(|number| ws::connect_from(source(number), to, NETWORK));
            keep(connected.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?).await
        }
        Transport::P2p => {
            let address: Multiaddr = args.hub.parse()?;
            let id = address.iter().find_map(|part| match part {
                Protocol::P2p(id) => Some(id),
                _ => None,
            });
            let hub: PeerId = id.ok_or("the hub has no peer ID")?;
            let opening = Opening::Headers { genesis: NETWORK };
            let connected = numbers.map(|_| p2p::connect(hub, &address, opening, &tasks));
            keep(connected.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?).await
        }
        Transport::Quic => {
            let (id, to) = quic::place(&args.hub)?;
            let opening = Opening::Headers { genesis: NETWORK };
            let connected = numbers.map(|_| {
                let tasks = &tasks;
                async move { quic::connect(&p2p::key_below(id), to, opening, tasks).await }
            });
            keep(connected.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?).await
        }
    }
}

/// The loopback address of a connection: at most 250 connections have one address.
fn source(number: usize) -> Ipv4Addr {
    let host = u8::try_from(number / 250 % 250 + 1).unwrap_or(1);
    Ipv4Addr::new(127, 0, 2, host)
}

/// Reports the connections, and keeps them.
async fn keep<T>(connections: Vec<T>) -> Result<(), Failure> {
    let standing = Standing { standing: connections.len() };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&standing)?)?;
    // The input says nothing, and ends with the parent.
    let _nothing = tokio::io::stdin().read(&mut [0; 1]).await?;
    drop(connections);
    Ok(())
}
