//! `tandem listen`: the messages that a running node hears.

use std::process::ExitCode;

use serde::de::DeserializeOwned;

use super::{args::ListenArgs, failure::Failure, output, signals::StopSignals};
use crate::{
    admin::{
        Client, Lines,
        wire::{Heard, HeardOnTopic, Line},
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
    match &args.topic {
        Some(topic) => print_lines(args, client.listen_on(topic).await?, topic_line).await,
        None => print_lines(args, client.listen(&args.tags).await?, line).await,
    }
}

async fn print_lines<M: DeserializeOwned>(
    args: &ListenArgs,
    mut lines: Lines<Line<M>>,
    written: fn(&ListenArgs, &M) -> String,
) -> Result<ExitCode, Failure> {
    let mut left = args.count;
    while left != Some(0) {
        match lines.next().await? {
            None => {
                log::note("the node stopped");
                break;
            }
            Some(Line::Listening) => log::note("listening"),
            Some(Line::Missed { messages }) => {
                let text = "messages were missed: this program did not keep up";
                log::note(&format!("{messages} {text}"));
            }
            Some(Line::Message(heard)) => {
                output::print(&written(args, &heard)).await?;
                left = left.map(|left| left - 1);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn topic_line(args: &ListenArgs, heard: &HeardOnTopic) -> String {
    if args.json {
        return output::json(heard);
    }
    let HeardOnTopic { topic, size, author, text, .. } = heard;
    let author = author.as_deref().unwrap_or("nobody");
    // The text is a stranger's: control characters could write over the terminal.
    let text = text.as_ref().map(|text| format!(": {}", text.escape_debug())).unwrap_or_default();
    format!("{topic} {size} bytes, by {author}{text}")
}

fn line(args: &ListenArgs, heard: &Heard) -> String {
    if args.json {
        return output::json(heard);
    }
    let Heard { tag, size, digest, peer, transport } = heard;
    let from = peer.map_or_else(|| "a topic".to_owned(), |peer| format!("#{peer}"));
    format!("{tag} {size} bytes, digest {digest}, from {from} over {transport}")
}
