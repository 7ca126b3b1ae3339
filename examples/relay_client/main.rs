//! Relay client: a node that nobody can dial serves HTTP through a relay, and is called like any other one.
//!
//! The server listens nowhere but at the relay: it asks it for a place, and has an address that leads through it. What
//! the two ends say to each other is encrypted between them, and each has proved its identity to the other.

use std::{path::PathBuf, time::Duration};

use axum::{Router, routing::get};
use clap::Parser;
use examples::Failure;
use tandem::{
    Mode, NodeBuilder, ReachConfig, ReachPart, Running,
    gossip::{
        NetworkId, NodeAddress,
        http::{Caller, Peer, read_all},
    },
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// A server without an address of its own, a relay for it, and a client.
#[derive(Debug, Parser)]
enum Arguments {
    /// Runs a relay, over TCP and WebSocket.
    Relay {
        /// Directory of its key, which is a part of its addresses.
        #[arg(long)]
        data_dir: PathBuf,
        #[arg(long, default_values = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"])]
        listen_p2p: Vec<String>,
    },
    /// Serves HTTP through a relay alone.
    Serve {
        /// Multiaddr of the relay, with /p2p/ID.
        relay: NodeAddress,
    },
    /// Calls a server, at the address that it printed.
    Call { server: NodeAddress },
}

fn builder() -> Result<NodeBuilder, Failure> {
    Ok(NodeBuilder::new(NetworkId::new("relay-client")?).mode(Mode::Libp2p))
}

async fn hello(Peer(caller): Peer, connection: Caller) -> String {
    format!("hello {caller}, you come over {}", connection.transport.label())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let root = CancellationToken::new();
    match Arguments::parse() {
        Arguments::Relay { data_dir, listen_p2p } => {
            // Within the default limits: two minutes and 128 KiB for a circuit.
            let reach = ReachConfig::default().with(ReachPart::Relay);
            let builder = builder()?.data_dir(data_dir).listen_p2p(listen_p2p).reachability(reach);
            until_stopped(builder.start(&root).await?).await
        }
        Arguments::Serve { relay } => {
            let router = Router::new().route("/hello", get(hello));
            let builder = builder()?.listen_p2p([format!("{relay}/p2p-circuit")]).http(router);
            until_stopped(builder.start(&root).await?).await
        }
        Arguments::Call { server } => {
            let node = builder()?.outward().start(&root).await?;
            let answer = node.node().http_client(&server)?.get("/hello").await?;
            let text = read_all(answer.into_body(), 1_024).await?;
            println!("{}", String::from_utf8_lossy(&text).escape_debug());
            let _ = node.stop(Duration::from_secs(1)).await;
            Ok(())
        }
    }
}

/// Prints the addresses of a node as they come and go, until Ctrl-C.
async fn until_stopped(node: Running) -> Result<(), Failure> {
    let mut told = Vec::new();
    loop {
        let addresses = node.p2p_addresses();
        for gone in told.iter().filter(|address| !addresses.contains(address)) {
            println!("no longer at {gone}");
        }
        for new in addresses.iter().filter(|address| !told.contains(address)) {
            println!("listening {new}");
        }
        if told.is_empty() && !addresses.is_empty() {
            println!("ready");
        }
        told = addresses;
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            () = sleep(Duration::from_millis(100)) => {}
        }
    }
    println!("stopped: {:?}", node.stop(Duration::from_secs(5)).await);
    Ok(())
}
