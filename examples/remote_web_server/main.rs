//! Remote web server: a web server that knows nothing of Tandem is offered by a node, and seen at a local port elsewhere.
//!
//! ```text
//!   browser ─▶ visit: a local port ─▶ libp2p stream or TCP ─▶ offer: a node ─▶ web server
//! ```

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use examples::Failure;
use tandem::{
    Environment, Forward, NodeBuilder, Running,
    gossip::{NetworkId, NodeAddress},
};
use tokio_util::sync::CancellationToken;

/// Longest time for a stop.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
enum Arguments {
    /// Offers a web server to everybody who reaches this node.
    Offer {
        /// The web server, as host:port or a URL without a path.
        site: NodeAddress,
        /// Directory of the node's key, which is a part of its libp2p addresses.
        #[arg(long)]
        data_dir: PathBuf,
        #[arg(long, default_value = "127.0.0.1:0")]
        listen_ws: String,
        /// Multiaddrs to listen on; that of a relay with /p2p-circuit at its end is one, too.
        #[arg(long, default_value = "/ip4/127.0.0.1/tcp/0")]
        listen_p2p: Vec<String>,
    },
    /// Shows it at a local port.
    Visit {
        /// Address that the offering node printed.
        node: NodeAddress,
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: String,
    },
}

fn builder() -> Result<NodeBuilder, Failure> {
    Ok(NodeBuilder::new(NetworkId::new("remote-web-server")?))
}

/// A node that only calls others.
async fn caller(root: &CancellationToken) -> Result<Running, Failure> {
    Ok(builder()?.outward().start(root).await?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let root = CancellationToken::new();
    let caller = caller(&root).await?;
    match Arguments::parse() {
        Arguments::Offer { site, data_dir, listen_ws, listen_p2p } => {
            let service = Forward::service(caller.node().http_client(&site)?);
            let builder = builder()?.data_dir(data_dir).http_service(service);
            let node = builder.listen_ws(listen_ws).listen_p2p(listen_p2p).start(&root).await?;
            for address in node.node().addresses() {
                println!("listening {address}");
            }
            println!("ready");
            tokio::signal::ctrl_c().await?;
            let _ = node.stop(GRACE).await;
        }
        Arguments::Visit { node, listen } => {
            let (client, system) = (caller.node().http_client(&node)?, Environment::system());
            let forward = Forward::start(&listen, client, &system, &root).await?;
            println!("forwarding http://{} to {node}", forward.local_address());
            tokio::signal::ctrl_c().await?;
            let _ = forward.stop(GRACE).await;
        }
    }
    let _ = caller.stop(GRACE).await;
    Ok(())
}
