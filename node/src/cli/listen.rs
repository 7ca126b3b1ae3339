//! `tandem listen`: the messages that a running node hears.

use std::process::ExitCode;

use super::{args::ListenArgs, failure::Failure, output, signals::StopSignals};
use crate::{
    admin::{
        Client,
        wire::{Heard, Line},
    },
    log,
};

/// Prints messages until there were as many as asked for, the node stops, or a signal comes.
pub(crate) async fn listen(
    args: ListenArgs,
    mut signals: StopSignals,
) -> Result<ExitCode, Failure> {
    tokio::select! {
        biased;
        _ = signals.next() => Ok(ExitCode::SUCCESS),
        outcome = print_messages(&args) => outcome,
    }
}

async fn print_messages(args: &ListenArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.target.data_dir()?);
    let mut lines = client.listen(&args.tags).await?;
    let mut left = args.count;
    while left != Some(0) {
        match lines.next().await? {
            None => {
                log::note("the node stopped");
                break;
            }
            Some(Line::Listening) => log::note("listening"),
            Some(Line::Missed { messages }) => {
                log::note(&format!(
                    "{messages} messages were missed: this program did not keep up"
                ));
            }
            Some(Line::Message(heard)) => {
                output::print(&line(args, &heard)).await?;
                left = left.map(|left| left - 1);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(args: &ListenArgs, heard: &Heard) -> String {
    if args.json {
        return output::json(heard);
    }
    let Heard { tag, size, digest, peer, transport } = heard;
    let from = peer.map_or_else(|| "a topic".to_owned(), |peer| format!("#{peer}"));
    format!("{tag} {size} bytes, digest {digest}, from {from} over {transport}")
}
