//! `tandem listen`: the messages that a running node hears.

use std::process::ExitCode;

use super::{args::ListenArgs, failure::Failure, output};
use crate::admin::{
    Client,
    wire::{Heard, Line},
};

/// Prints messages until there were as many as asked for, or the node stops.
pub(crate) async fn listen(args: ListenArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.target.data_dir()?);
    let mut lines = client.listen(&args.tags).await?;
    let mut left = args.count;
    while left != Some(0) {
        match lines.next().await? {
            None => {
                eprintln!("the node stopped");
                break;
            }
            Some(Line::Listening) => eprintln!("listening"),
            Some(Line::Missed { messages }) => {
                eprintln!("{messages} messages were missed: this program did not keep up");
            }
            Some(Line::Message(heard)) => {
                if !output::print_if_read(&line(&args, &heard)) {
                    break;
                }
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
