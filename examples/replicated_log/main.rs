//! A replicated log: members agree with Raft on one sequence of lines, and others follow it.
//!
//! Raft's messages are requests over Tandem's HTTP, which libp2p carries as well as TCP (`network.rs`, `api.rs`). News
//! of lines go to followers as gossip, in the priority lane; they ask for the lines themselves over HTTP (`watch.rs`).

#![allow(clippy::result_large_err, reason = "the errors are those of openraft")]

mod api;
mod group;
mod machine;
mod network;
mod store;
mod watch;

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use examples::Failure;
use openraft::Raft;
use tandem::{
    Protection,
    gossip::{LateNode, NodeAddress, Outbound},
};
use tokio_util::sync::CancellationToken;

use self::{
    api::Api,
    group::{NEWS, builder, config},
    machine::Machine,
    network::Network,
    store::Store,
};

/// A log of lines that is the same at every member.
#[derive(Debug, Parser)]
enum Arguments {
    /// Runs a member.
    Run(Member),
    /// Prints the lines that a majority has, as they come.
    Watch {
        /// Addresses of members: host:port, or a multiaddr with /p2p/ID.
        #[arg(required = true)]
        members: Vec<NodeAddress>,
    },
}

/// A member, on free ports unless told otherwise.
#[derive(Debug, clap::Args)]
struct Member {
    /// Number of the member in its group.
    #[arg(long)]
    id: u64,
    /// Directory of its log and its key.
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen_ws: String,
    #[arg(long, default_value = "/ip4/127.0.0.1/tcp/0")]
    listen_p2p: String,
    /// Lines after which the log is replaced by a snapshot.
    #[arg(long, default_value_t = 1_000)]
    compact_after: u64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match Arguments::parse() {
        Arguments::Run(member) => run(member).await,
        Arguments::Watch { members } => Ok(watch::watch(builder()?, members).await?),
    }
}

async fn run(member: Member) -> Result<(), Failure> {
    std::fs::create_dir_all(&member.data_dir)?;
    let store = Store::open(&member.data_dir.join("log.redb"))?;
    let machine = Machine::load(store.clone())?;
    let (lines, mut count) = (machine.lines(), machine.count());
    // Raft calls others through the node, which serves Raft and so starts after it.
    let late = LateNode::new();
    let network = Network(late.clone());
    let config = config(member.compact_after)?;
    let raft = Raft::new(member.id, config, network.clone(), store, machine).await?;
    let api = Api { id: member.id, raft: raft.clone(), network, lines };
    let node = builder()?
        .data_dir(member.data_dir.join("node"))
        .listen_ws(member.listen_ws)
        .listen_p2p([member.listen_p2p])
        .http_with(api.router(), &Protection::default().with_body_bytes(4 << 20))
        .late_node(&late)
        .start(&CancellationToken::new())
        .await?;
    for address in node.node().addresses() {
        println!("listening {address}");
    }
    println!("ready");
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            Ok(()) = count.changed() => {
                // All members say the same, so that a follower takes what it has heard from one for a duplicate.
                let count = count.borrow_and_update().to_string();
                // A note that is not sent is not missed for long: followers ask by themselves, too.
                let _ = node.node().broadcast(Outbound::new(NEWS, count))?;
            }
        }
    }
    raft.shutdown().await?;
    println!("stopped: {:?}", node.stop(Duration::from_secs(5)).await);
    Ok(())
}
