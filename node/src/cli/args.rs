//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use gossip::Tag;

use crate::{
    config::{ConfigError, Flags, Layers, Settings},
    demo::{DemoArgs, DemoNodeArgs},
};

/// A gossip node over two transports: WebSocket and libp2p.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node until it is stopped.
    Run(RunArgs),
    /// Send a message to the peers of a running node.
    Send(SendArgs),
    /// Show the messages that a running node hears.
    Listen(ListenArgs),
    /// Show the peers of a running node.
    Peers(PeersArgs),
    /// Show how a running node is doing.
    Status(PeersArgs),
    /// Make a key for a node.
    Keygen(KeygenArgs),
    /// Print the configuration that a node would run with, and where each value comes from.
    Config(ConfigSource),
    /// Run a small network on this machine and show that it loses nothing.
    Demo(DemoArgs),
    /// Run one node of a demo.
    #[command(hide = true)]
    DemoNode(DemoNodeArgs),
    /// Print a script that completes commands in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Where the configuration of a node comes from.
#[derive(Debug, Args)]
pub(crate) struct ConfigSource {
    /// File to read settings from, in TOML [env: TANDEM_CONFIG].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) source: ConfigSource,
}

/// Which running node a command speaks to.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Data directory of the node [env: TANDEM_DATA_DIR].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Configuration file of the node [env: TANDEM_CONFIG].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Target {
    /// The data directory of the node.
    pub(crate) fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        let flags = Flags::data_dir(self.data_dir.as_ref());
        Settings::data_dir(&Layers::gather(self.config.as_deref(), &flags)?)
    }
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Tag of the message: AV, PP, SP, TX or VB.
    #[arg(long)]
    pub(crate) tag: Tag,
    /// File to send.
    #[arg(long, conflicts_with = "text")]
    pub(crate) file: Option<PathBuf>,
    /// Text to send, or - for standard input.
    #[arg(required_unless_present = "file", allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// Tags to show, separated by commas; all if left out.
    #[arg(long, value_delimiter = ',')]
    pub(crate) tags: Vec<Tag>,
    /// Stop after so many messages.
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// File to write the key to. Standard output if left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn a_node_can_be_run_with_every_flag_of_the_manual() {
        let line = "tandem run --config f --profile tandem --network n --mode hybrid \
                    --listen-ws h:1 --listen-p2p /ip4/1.2.3.4/tcp/1 --listen-p2p /ip4/1.2.3.5/tcp/1 \
                    --peer a:1 --peer b:2 --data-dir d --relay off --json";
        let Command::Run(args) = parse(line).unwrap() else { panic!("another command") };
        assert!(args.json);
        assert_eq!(args.source.flags.given.len(), 8);
        let many = args.source.flags.given.iter().filter(|(_, texts)| texts.len() == 2).count();
        assert_eq!(many, 2);
    }

    #[test]
    fn a_message_is_a_text_or_a_file_and_never_both() {
        assert!(parse("tandem send --tag TX hello").is_ok());
        assert!(parse("tandem send --tag TX -").is_ok());
        assert!(parse("tandem send --tag TX --file f").is_ok());
        assert!(parse("tandem send --tag TX --file f hello").is_err());
        assert!(parse("tandem send --tag TX").is_err());
        assert!(parse("tandem send --tag TXX hello").is_err());
    }

    #[test]
    fn tags_stand_between_commas() {
        let Command::Listen(args) = parse("tandem listen --tags AV,PP").unwrap() else {
            panic!("another command")
        };
        assert_eq!(args.tags, [Tag::AV, Tag::PP]);
    }
}
