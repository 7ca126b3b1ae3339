//! Key-value: values that nodes keep for each other in the DHT, under the hash of what they are or signed by their owner.
//!
//! Every node checks a value before it stores or returns it, so nobody has to be trusted to keep one: a value under its
//! hash cannot be changed, and one under an owner only by that owner.

use std::{
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use clap::Parser;
use examples::Failure;
use tandem::{
    DhtConfig, DhtMode, DhtValues, Mode, NodeBuilder, ValueKey,
    gossip::{NetworkId, NodeAddress},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Longest time for a search, and for finding other nodes first.
const WITHIN: Duration = Duration::from_secs(10);

/// Values that a network keeps, for 36 hours unless they are put again.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// A node of the network: a multiaddr with /p2p/ID.
    #[arg(long, global = true)]
    peer: Vec<NodeAddress>,
    /// Directory of the key that signs; without one the owner is another one each time.
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
    #[arg(long, global = true, default_values = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"])]
    listen_p2p: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Keeps values of others, until Ctrl-C.
    Keep,
    /// Puts a value, and prints its key.
    Put {
        value: String,
        /// Signs the value, which takes the place of an earlier one of this name.
        #[arg(long)]
        name: Option<String>,
    },
    /// Prints the value of a key.
    Get { key: ValueKey },
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let mode = match arguments.command {
        Command::Keep => DhtMode::Server,
        _ => DhtMode::Client,
    };
    let dht = DhtConfig::default().with_mode(mode).with_values(DhtValues::On);
    let mut builder = NodeBuilder::new(NetworkId::new("key-value")?)
        .mode(Mode::Libp2p)
        .dht(dht)
        .listen_p2p(arguments.listen_p2p)
        .peers(arguments.peer);
    if let Some(dir) = arguments.data_dir {
        builder = builder.data_dir(dir);
    }
    let node = builder.start(&CancellationToken::new()).await?;
    let (view, deadline) = (node.view(), Instant::now() + WITHIN);
    match arguments.command {
        Command::Keep => {
            for address in node.p2p_addresses() {
                println!("listening {address}");
            }
            println!("ready");
            tokio::signal::ctrl_c().await?;
        }
        Command::Put { value, name } => {
            let since = UNIX_EPOCH.elapsed()?.as_millis();
            let signed = name.map(|name| {
                view.sign_value(&name, since.try_into()?, value.as_bytes()).map_err(Failure::from)
            });
            let (key, record) = match signed.transpose()?.flatten() {
                Some(signed) => signed,
                None => (ValueKey::of_content(value.as_bytes()), value.into_bytes()),
            };
            // Before the first peers are connected, no node is there to keep it.
            while view.put_value(key.clone(), record.clone(), WITHIN).await? == 0 {
                if Instant::now() > deadline {
                    return Err("no other node takes the value".into());
                }
                sleep(Duration::from_millis(50)).await;
            }
            println!("{key}");
        }
        Command::Get { key } => {
            let found = loop {
                match view.get_value(key.clone(), WITHIN).await? {
                    Some(found) => break found,
                    None if Instant::now() > deadline => {
                        return Err("nobody has a value of this key".into());
                    }
                    None => sleep(Duration::from_millis(50)).await,
                }
            };
            println!("{}", String::from_utf8_lossy(&found.content).escape_debug());
        }
    }
    let _ = node.stop(Duration::from_secs(5)).await;
    Ok(())
}
