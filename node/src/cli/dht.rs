//! `tandem dht`: the distributed hash table, through a node that runs.

use std::process::ExitCode;

use tandem::{InvalidValue, MAX_VALUE_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    args::{DhtArgs, DhtCommand},
    failure::Failure,
    output,
};
use crate::{
    admin::{
        Client,
        wire::{FoundContent, FoundProvider, TableNode, ValueToPut},
    },
    config::Settings,
};

/// Does what the subcommand says.
pub(crate) async fn dht(args: DhtArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(&Settings::data_dir(&args.target.layers()?)?);
    let text = match args.what {
        DhtCommand::Find { capability, count, json } => {
            let found = client.providers(&capability, count).await?;
            if json { output::json(&found) } else { lines(&found) }
        }
        DhtCommand::Provide { capability } => {
            client.provide(&capability).await?;
            String::new()
        }
        DhtCommand::Put { value, name, json } => {
            let content = match &*value {
                "-" => standard_input().await?,
                _ => value.into_bytes(),
            };
            if !(1..=MAX_VALUE_BYTES).contains(&content.len()) {
                return Err(Failure::Usage { text: InvalidValue::Size.to_string() });
            }
            let order = ValueToPut { name, content_hex: hex::encode(content) };
            let stored = client.put_value(&order).await?;
            if stored.nodes == 0 {
                return Err(Failure::NobodyStored { key: stored.key });
            }
            if json { output::json(&stored) } else { stored.key }
        }
        DhtCommand::Get { key } => {
            let found = client.value(&key).await?.ok_or(Failure::NoValue)?;
            return print_raw(&found).await;
        }
        DhtCommand::Peers { json } => {
            let peers = client.dht_peers().await?;
            if json { output::json(&peers) } else { table(&peers) }
        }
    };
    if !text.is_empty() {
        output::print(&text).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a little more than can be put, so that it shows.
async fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let most = MAX_VALUE_BYTES as u64 + 1;
    let read = tokio::io::stdin().take(most).read_to_end(&mut value).await;
    let failed = |source| Failure::Read { path: "standard input".into(), source };
    read.map(|_| value).map_err(failed)
}

/// Prints a value as it was put, without a line end of its own.
async fn print_raw(found: &FoundContent) -> Result<ExitCode, Failure> {
    let failed = |source| Failure::Write { path: "standard output".into(), source };
    let content =
        hex::decode(&found.content_hex).map_err(|error| failed(std::io::Error::other(error)))?;
    let mut out = tokio::io::stdout();
    out.write_all(&content).await.map_err(failed)?;
    out.flush().await.map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// An address on each line, as `tandem phonebook add` takes them, or the peer ID of a node without one.
fn lines(found: &[FoundProvider]) -> String {
    let each = found.iter().flat_map(|provider| match &*provider.addresses {
        [] => vec![provider.peer_id.clone()],
        addresses => addresses.to_vec(),
    });
    each.collect::<Vec<_>>().join("\n")
}

/// A node on each line: an address of it, and `connected` if it is.
fn table(peers: &[TableNode]) -> String {
    let line = |peer: &TableNode| {
        let address = peer.addresses.first().unwrap_or(&peer.peer_id);
        if peer.connected { format!("{address}  connected") } else { address.clone() }
    };
    peers.iter().map(line).collect::<Vec<_>>().join("\n")
}
