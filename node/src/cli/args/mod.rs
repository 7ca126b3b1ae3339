//! The command line.

mod calls;
mod messages;
mod peers;
mod target;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

pub(crate) use self::{
    calls::{FileArgs, FileCommand, ForwardArgs, HttpArgs, PerfArgs, ShareArgs},
    messages::{ListenArgs, SendArgs, TraceArgs},
    peers::{
        BanArgs, BanOptions, DashboardArgs, DhtArgs, DhtCommand, DoctorArgs, PeerArgs, PeerCommand,
        PeerTableArgs, PeersArgs, PhonebookArgs, PhonebookCommand, TopArgs,
    },
    target::{ConfigArgs, ConfigCommand, ConfigSource, GlobalTarget, RunArgs, Target, TargetArgs},
};
use crate::demo::{DemoArgs, DemoNodeArgs};

/// A gossip node over two transports: WebSocket and libp2p.
#[derive(Debug, Parser)]
#[command(
    name = "tandem",
    version,
    arg_required_else_help = true,
    after_help = "To see it work: tandem demo. A node of your own: tandem run, and in another terminal tandem peers.\n\n\
                  Exit code: 0 if all went well, 2 if the command or the configuration has to be changed, 1 for other failures."
)]
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
    /// Show the peers of a running node, and those it cannot reach.
    Peers(PeerTableArgs),
    /// Show how a running node is doing.
    Status(PeersArgs),
    /// Follow a running node and its peers in the terminal, until q.
    Top(TopArgs),
    /// Show the way of a message from node to node, as a tree.
    Trace(TraceArgs),
    /// Add, remove and ban peers, and show those that somebody decided about, whether the node runs or not.
    Peer(PeerArgs),
    /// End the links of peers, and neither dial them nor let them in for a while: as `tandem peer ban`.
    Ban(BanArgs),
    /// Show and change the addresses that a node knows, whether it runs or not.
    Phonebook(PhonebookArgs),
    /// Use the DHT through a running node: search, announce, put and get values.
    Dht(DhtArgs),
    /// Print what a running node counts, in the text format of OpenMetrics.
    Metrics(TargetArgs),
    /// Make a running node read the files of its certificates again; open connections go on.
    Reload(TargetArgs),
    /// Send one HTTP request to a peer, over TCP, TLS or libp2p.
    Http(HttpArgs),
    /// Make the HTTP services of a peer reachable on a local port.
    Forward(ForwardArgs),
    /// Put files on a peer, or get them by the hash of their content.
    File(FileArgs),
    /// Measure latency and throughput to a peer over libp2p (/perf/1.0.0).
    Perf(PerfArgs),
    /// Make a key for a node, and print its identity.
    Keygen(KeygenArgs),
    /// Show a running node in a browser.
    Dashboard(DashboardArgs),
    /// Look for what keeps a node from running well, and say what to do.
    Doctor(DoctorArgs),
    /// Print the configuration that a node would run with, and where each value comes from.
    Config(ConfigArgs),
    /// Run a small network on this machine and show that it loses nothing.
    Demo(DemoArgs),
    /// Run one node of a demo.
    #[command(hide = true)]
    DemoNode(DemoNodeArgs),
    /// Run the node that watches a demo.
    #[command(hide = true)]
    DemoWatch(RunArgs),
    /// Print a script that completes commands in a shell.
    #[command(after_help = "In bash: source <(tandem completions bash)")]
    Completions {
        /// The shell that is to run the script.
        shell: Shell,
    },
    /// Print the manual page, or write those of all commands into a folder.
    #[command(after_help = "To read it: tandem man | man -l -")]
    Man {
        /// Folder for the pages of all commands, which is made if it is not there.
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// File to write the key to. Standard output if left out.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,
}

/// Reads a whole number from 1.
fn whole_number(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "write a whole number from 1".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use gossip::Tag;
    use http::Method;

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
        assert!(parse("tandem send --topic chat hello").is_ok());
        assert!(parse("tandem send --topic chat --tag TX hello").is_err());
        assert!(parse("tandem send hello").is_err());
        assert!(parse("tandem listen --topic chat --tags TX").is_err());
    }

    #[test]
    fn a_request_is_written_as_for_other_tools() {
        let what = |line: &str| {
            let Command::Http(args) = parse(line).unwrap() else { panic!("another command") };
            args.what().map(|(method, target)| (method, target.path))
        };
        assert_eq!(what("tandem http h:1/a").unwrap(), (None, "/a".to_owned()));
        assert_eq!(what("tandem http PUT h:1/a").unwrap(), (Some(Method::PUT), "/a".to_owned()));
        let given = what("tandem http -X PUT -d @f -H A:b -o out -i h:1/a").unwrap();
        assert_eq!(given.0, Some(Method::PUT));
        for line in ["tandem http -X PUT PUT h:1", "tandem http G/T h:1", "tandem http nothing"] {
            assert!(what(line).is_err(), "{line}");
        }
        assert!(parse("tandem http").is_err());
        assert!(parse("tandem http -m 0 h:1").is_err());
    }

    #[test]
    fn tags_stand_between_commas() {
        let Command::Listen(args) = parse("tandem listen --tags AV,PP").unwrap() else {
            panic!("another command")
        };
        assert_eq!(args.tags, [Tag::AV, Tag::PP]);
    }
}
