//! Commands that send messages, listen and look at their ways.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use gossip::{Tag, wire::digest::Digest};

use super::{Target, whole_number};
use crate::{admin, cli::words::OfferedTags};

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Tag of the message: AV (vote), PP (proposal), SP (state proof signature), TX (transactions) or VB (vote bundle).
    #[arg(long, value_parser = OfferedTags, hide_possible_values = true, required_unless_present = "topic")]
    pub(crate) tag: Option<Tag>,
    /// Topic of the node's own to publish the message on, over libp2p, in place of a tag.
    #[arg(long, value_name = "NAME", conflicts_with = "tag", value_hint = ValueHint::Other)]
    pub(crate) topic: Option<String>,
    /// File to send.
    #[arg(long, conflicts_with = "text", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Text to send, or - for standard input. Write -- before a text that begins with a hyphen.
    #[arg(required_unless_present = "file", value_hint = ValueHint::Other)]
    pub(crate) text: Option<String>,
    /// Print the digest of the message, for tandem trace --watch, and send nothing.
    #[arg(long, conflicts_with_all = ["topic", "json"])]
    pub(crate) dry_run: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// Tags to show, such as AV,TX, separated by commas; all if left out.
    #[arg(long, value_delimiter = ',', value_parser = OfferedTags, hide_possible_values = true)]
    pub(crate) tags: Vec<Tag>,
    /// Topic of the node's own to show the messages of, in place of tags.
    #[arg(long, value_name = "NAME", conflicts_with = "tags", value_hint = ValueHint::Other)]
    pub(crate) topic: Option<String>,
    /// Stop after so many messages.
    #[arg(long, value_parser = whole_number, value_hint = ValueHint::Other)]
    pub(crate) count: Option<u64>,
    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Nodes keep the way of one message in a thousand (trace_one_in), and of those that --watch names. \
                        The digest of a message is what tandem send and tandem listen --json show."
)]
pub(crate) struct TraceArgs {
    /// Digest of the message; the messages whose way is kept if left out.
    #[arg(value_parser = digest, value_hint = ValueHint::Other)]
    pub(crate) digest: Option<Digest>,
    /// Node to ask, for each one: a data directory, or an address as tandem dashboard prints it (others can read it in the list
    /// of processes).
    #[arg(long = "node", value_name = "NODE", conflicts_with_all = ["data_dir", "config"])]
    pub(crate) nodes: Vec<String>,
    /// File with such nodes, one a line.
    #[arg(long = "nodes", value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["data_dir", "config"])]
    pub(crate) list: Option<PathBuf>,
    /// Have the nodes keep the way of this message, should it come within ten minutes, and show nothing yet.
    #[arg(long, requires = "digest")]
    pub(crate) watch: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "watch")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

fn digest(text: &str) -> Result<Digest, &'static str> {
    admin::digest(text)
}
