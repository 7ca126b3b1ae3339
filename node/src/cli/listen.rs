//! `tandem listen`: the messages that a running node hears.

use std::process::ExitCode;

use super::{args::ListenArgs, failure::Failure, output, signals::StopSignals};
use crate::{
    admin::{
        Client, Lines,
        wire::{Heard, HeardOnTopic, Line, TopicLine},
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
    if let Some(topic) = &args.topic {
        return print_topic(args, client.listen_on(topic).await?).await;
    }
    let mut lines = client.listen(&args.tags).await?;
    let mut left = args.count;
    while left != Some(0) {
        match lines.next().await? {
            None => {
                log::note("the node stopped");
                break;
            }
            Some(Line::Listening) => log::note("listening"),
            Some(Line::Missed { messages }) => missed(messages),
            Some(Line::Message(heard)) => {
                output::print(&line(args, &heard)).await?;
                left = left.map(|left| left - 1);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn print_topic(args: &ListenArgs, mut lines: Lines<TopicLine>) -> Result<ExitCode, Failure> {
    let mut left = args.count;
    while left != Some(0) {
        match lines.next().await? {
            None => {
                log::note("the node stopped");
                break;
            }
            Some(TopicLine::Listening) => log::note("listening"),
            Some(TopicLine::Missed { messages }) => missed(messages),
            Some(TopicLine::Message(heard)) => {
                output::print(&topic_line(args, &heard)).await?;
                left = left.map(|left| left - 1);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn missed(messages: u64) {
    log::note(&format!("{messages} messages were missed: this program did not keep up"));
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
