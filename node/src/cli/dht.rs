//! `tandem dht`: searches in the distributed hash table, through a node that runs.

use std::process::ExitCode;

use super::{
    args::{DhtArgs, DhtCommand},
    failure::Failure,
    output,
};
use crate::{
    admin::{Client, wire::FoundProvider},
    config::Settings,
};

/// Does what the subcommand says.
pub(crate) async fn dht(args: DhtArgs) -> Result<ExitCode, Failure> {
    let dir = Settings::data_dir(&args.target.layers()?)?;
    match args.what {
        DhtCommand::Find { capability, count, json } => {
            let found = Client::new(&dir).providers(&capability, count).await?;
            let text = if json { output::json(&found) } else { lines(&found) };
            if !text.is_empty() {
                output::print(&text).await?;
            }
        }
    }
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
