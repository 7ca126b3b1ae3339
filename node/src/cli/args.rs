//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use gossip::{NodeAddress, Tag, wire::digest::Digest};
use http::{HeaderName, HeaderValue, Method};
use mesh::Role;
use services::files::FileLink;
use tandem::{BanSubject, Capability, ValueKey};

use super::{
    Failure,
    http::{Target as HttpTarget, TargetError, parse_header},
    words::OfferedTags,
};
use crate::{
    admin,
    config::{ConfigError, Flags, Layers, Settings},
    demo::{DemoArgs, DemoNodeArgs},
};

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

/// The configuration to print, or what else to do about it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) what: Option<ConfigCommand>,
    #[command(flatten)]
    pub(crate) source: ConfigSource,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a file with every setting in a comment, to begin with.
    Init {
        /// The file, which must not be there yet. Standard output if left out.
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Print the JSON schema of configuration files, for editors.
    Schema,
}

/// Where the configuration of a node comes from.
#[derive(Debug, Args)]
pub(crate) struct ConfigSource {
    /// File to read settings from, in TOML [env: TANDEM_CONFIG].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
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
    /// Data directory of the node [default: ~/.local/share/tandem] [env: TANDEM_DATA_DIR].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data_dir: Option<String>,
    /// Configuration file of the node [env: TANDEM_CONFIG].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
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
pub(crate) struct PeerTableArgs {
    /// Show what each peer says of itself: its program, its protocols, and the address at which it sees this node.
    #[arg(long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) form: PeersArgs,
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
pub(crate) struct TopArgs {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600), default_value_t = 1)]
    pub(crate) every: u64,
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

#[derive(Debug, Args)]
#[command(after_help = "The node needs an admin port: tandem run --admin-listen 127.0.0.1:0")]
pub(crate) struct DashboardArgs {
    /// Print the address, and start no browser.
    #[arg(long)]
    pub(crate) no_open: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if a node can run, also with warnings, 1 if something keeps it from it."
)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) source: ConfigSource,
}

#[derive(Debug, Args)]
pub(crate) struct DhtArgs {
    #[command(subcommand)]
    pub(crate) what: DhtCommand,
    #[command(flatten)]
    pub(crate) target: GlobalTarget,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DhtCommand {
    /// Show nodes that offer something. Anybody can announce anything, so each is a proposal.
    Find {
        /// The capability that they offer, such as gossip or archival.
        #[arg(value_name = "CAPABILITY", value_hint = ValueHint::Other)]
        capability: Capability,
        /// Most nodes to find, up to 100.
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        count: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Announce that the node offers something, until it ends.
    Provide {
        /// The capability that it offers, such as archival.
        #[arg(value_name = "CAPABILITY", value_hint = ValueHint::Other)]
        capability: Capability,
    },
    /// Put a value, and print its key. It is kept for 36 hours.
    Put {
        /// The value, of at most 4096 bytes; `-` reads it from standard input.
        #[arg(value_name = "VALUE", value_hint = ValueHint::Other)]
        value: String,
        /// Sign it with the key of the node, under this name; a later value takes its place [default: its key is its hash].
        #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
        name: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the value of a key.
    Get {
        /// The key, as it was printed when the value was put.
        #[arg(value_name = "KEY", value_hint = ValueHint::Other)]
        key: ValueKey,
    },
    /// Show the nodes in the routing table.
    Peers {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BanOptions {
    /// Each a peer ID, an IP address, a network such as 192.0.2.0/24, or an address that is dialled.
    #[arg(required = true, value_name = "WHO", value_hint = ValueHint::Other)]
    pub(crate) subjects: Vec<BanSubject>,
    /// The length of the ban: a number with s, m, h or d, up to 365d.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, value_hint = ValueHint::Other, default_value = "24h")]
    pub(crate) duration: Duration,
    /// The reason, for operators to read.
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct BanArgs {
    #[command(flatten)]
    pub(crate) options: BanOptions,
    #[command(flatten)]
    pub(crate) target: GlobalTarget,
}

#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    #[command(subcommand)]
    pub(crate) what: PeerCommand,
    #[command(flatten)]
    pub(crate) target: GlobalTarget,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Show the peers that were added and banned, and the members that an application named.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stay connected to peers, from one run to the next, until they are removed.
    Add {
        /// Their addresses, each host:port, a URL, or a multiaddr with /p2p/ID.
        #[arg(required = true, value_name = "ADDRESS", value_hint = ValueHint::Url)]
        addresses: Vec<NodeAddress>,
    },
    /// Forget peers and end the links that were dialled to them. A source that lists one again brings it back.
    Remove {
        /// Their addresses.
        #[arg(required = true, value_name = "ADDRESS", value_hint = ValueHint::Url)]
        addresses: Vec<NodeAddress>,
    },
    /// End the links of peers, and neither dial them nor let them in for a while.
    Ban(BanOptions),
    /// Show the members of a running node, or tell it those of an epoch.
    Members {
        /// The epoch that the members are of. It has to be newer than the last one.
        #[arg(long, requires = "members", value_parser = whole_number, value_hint = ValueHint::Other)]
        epoch: Option<u64>,
        /// All members of the epoch, each a peer ID, with =ADDRESS,ADDRESS behind it where addresses are known.
        #[arg(requires = "epoch", value_name = "ID=ADDRESS", value_hint = ValueHint::Other)]
        members: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End bans.
    Unban {
        /// Those that are banned, as list prints them.
        #[arg(required = true, value_name = "WHO", value_hint = ValueHint::Other)]
        subjects: Vec<BanSubject>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PhonebookArgs {
    #[command(subcommand)]
    pub(crate) what: PhonebookCommand,
    #[command(flatten)]
    pub(crate) target: GlobalTarget,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PhonebookCommand {
    /// Show every address, the sources that list it, and its history.
    List {
        /// Show only addresses that are listed for this role, such as relay or archival.
        #[arg(long, value_name = "ROLE", value_hint = ValueHint::Other)]
        role: Option<Role>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Add addresses, which stay until they are removed.
    Add {
        /// The addresses, each host:port, a URL, or a multiaddr with /p2p/ID.
        #[arg(required = true, value_name = "ADDRESS", value_hint = ValueHint::Url)]
        addresses: Vec<NodeAddress>,
        /// A role of their nodes; may be given several times [default: relay].
        #[arg(long, value_name = "ROLE", value_hint = ValueHint::Other)]
        role: Vec<Role>,
    },
    /// Forget addresses and their history. A source that lists one again brings it back.
    Remove {
        /// The addresses.
        #[arg(required = true, value_name = "ADDRESS", value_hint = ValueHint::Url)]
        addresses: Vec<NodeAddress>,
    },
    /// Print addresses, one a line, as add takes them.
    Export {
        /// Print only addresses that are listed for this role.
        #[arg(long, value_name = "ROLE", value_hint = ValueHint::Other)]
        role: Option<Role>,
        /// Print JSON, with everything that is known of each.
        #[arg(long)]
        json: bool,
    },
}

/// The node that a command with subcommands speaks to, or whose files it changes.
#[derive(Debug, Args)]
pub(crate) struct GlobalTarget {
    /// Data directory of the node [default: ~/.local/share/tandem] [env: TANDEM_DATA_DIR].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, global = true)]
    data_dir: Option<String>,
    /// Configuration file of the node [env: TANDEM_CONFIG].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, global = true)]
    config: Option<PathBuf>,
}

impl GlobalTarget {
    /// The settings of the node, as far as a command knows them.
    pub(crate) fn layers(&self) -> Result<Layers, ConfigError> {
        Layers::gather(self.config.as_deref(), &Flags::data_dir(self.data_dir.as_ref()))
    }
}

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "tandem http [OPTIONS] [METHOD] PEER/PATH",
    after_help = "Exit code: 0 for an answer below 400, 22 for one of 400 or above, 1 for none, 2 for a wrong command.\n\n\
                  Example: tandem http 127.0.0.1:4160/status"
)]
pub(crate) struct HttpArgs {
    /// The request: a method, if it is not GET, and a peer with a path behind it. A peer is host:port, a URL, or a
    /// multiaddr with /p2p/ID.
    #[arg(required = true, num_args = 1..=2, value_name = "[METHOD] PEER/PATH", value_hint = ValueHint::Url)]
    words: Vec<String>,
    /// Method of the request.
    #[arg(short = 'X', long = "request", value_name = "METHOD", value_hint = ValueHint::Other)]
    method: Option<Method>,
    /// Body of the request, which makes it a POST; @FILE for a file, @- for standard input.
    #[arg(short = 'd', long, value_name = "DATA", value_hint = ValueHint::FilePath)]
    pub(crate) data: Option<String>,
    /// A header of the request, as "Name: value"; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_hint = ValueHint::Other)]
    headers: Vec<String>,
    /// File to write the body of the answer to. Standard output if left out.
    #[arg(short = 'o', long = "output", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,
    /// Print the head of the answer too.
    #[arg(short = 'i', long)]
    pub(crate) include: bool,
    /// Ask for the head alone.
    #[arg(short = 'I', long, conflicts_with = "data")]
    pub(crate) head: bool,
    /// Leave out the body of an answer that is an error. The exit code is 22 then, with or without this.
    #[arg(short = 'f', long)]
    pub(crate) fail: bool,
    /// Seconds that everything may take.
    #[arg(short = 'm', long, value_name = "SECONDS", value_parser = seconds, value_hint = ValueHint::Other)]
    pub(crate) max_time: Option<f64>,
    /// File of further certificates to trust, in PEM.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) cacert: Option<PathBuf>,
}

impl HttpArgs {
    /// The method, if one is named, and what is asked.
    pub(crate) fn what(&self) -> Result<(Option<Method>, HttpTarget), Failure> {
        let usage = |text: String| Failure::Usage { text };
        let (first, target) = match self.words.as_slice() {
            [method, target] => {
                let read = method.parse::<Method>();
                (Some(read.map_err(|_| usage(format!("{method:?} is no method")))?), target)
            }
            words => (None, words.last().ok_or_else(|| usage("no peer is named".to_owned()))?),
        };
        if first.is_some() && self.method.is_some() {
            return Err(usage("the method is given twice".to_owned()));
        }
        let target = target.parse().map_err(|error: TargetError| usage(error.to_string()))?;
        Ok((first.or_else(|| self.method.clone()), target))
    }

    /// The headers of the request.
    pub(crate) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
        let read = |text: &String| {
            let bad =
                || Failure::Usage { text: format!("{text:?} is no header: write \"Name: value\"") };
            parse_header(text).ok_or_else(bad)
        };
        self.headers.iter().map(read).collect()
    }
}

/// Reads a whole number from 1.
fn whole_number(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "write a whole number from 1".to_owned())
}

/// Reads a duration from a second to a year.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let found = units.iter().find_map(|(unit, seconds)| {
        let number = text.strip_suffix(unit)?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(*seconds)
    });
    let found = found.filter(|seconds| (1..=365 * 86_400).contains(seconds));
    let wrong =
        || "write a whole number with s, m, h or d, such as 90s or 12h, up to 365d".to_owned();
    found.map(Duration::from_secs).ok_or_else(wrong)
}

/// Reads a number of bytes.
fn size(text: &str) -> Result<u64, String> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("", 1),
    ];
    let found = units.iter().find_map(|(unit, bytes)| {
        let number = text.strip_suffix(unit)?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(*bytes)
    });
    let wrong = || "write a whole number of bytes, alone or with kB, MB, GB, KiB, MiB or GiB";
    found.ok_or_else(|| wrong().to_owned())
}

/// Reads a number of seconds, up to a day.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds from 0.001 to 86400".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct ForwardArgs {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "HOST:PORT", value_hint = ValueHint::Other, default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,
    /// Node to call: host:port, a URL, or a multiaddr with /p2p/ID.
    #[arg(value_hint = ValueHint::Url)]
    pub(crate) peer: NodeAddress,
    /// File of further certificates to trust, in PEM.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) cacert: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PerfArgs {
    /// Node to measure to: a multiaddr with /p2p/ID. A node of ours answers if it offers the service perf.
    #[arg(value_hint = ValueHint::Url)]
    pub(crate) peer: NodeAddress,
    /// Bytes to send to it, as 500000 or with kB, MB, GB, KiB, MiB or GiB.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64MiB", value_hint = ValueHint::Other)]
    pub(crate) upload: u64,
    /// Bytes to get from it.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64MiB", value_hint = ValueHint::Other)]
    pub(crate) download: u64,
    /// Measurements of each kind, one after the other.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_000), default_value_t = 5, value_hint = ValueHint::Other)]
    pub(crate) runs: u16,
    /// Longest time for one measurement, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60", value_hint = ValueHint::Other)]
    pub(crate) max_time: f64,
    /// File to plot every measurement into, as SVG.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) plot: Option<PathBuf>,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    #[command(subcommand)]
    pub(crate) what: FileCommand,
    /// File of further certificates to trust, in PEM.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, global = true)]
    pub(crate) cacert: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// Put a file on a peer, and print its ID.
    Put {
        /// The file.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The peer: host:port, a URL, or a multiaddr with /p2p/ID.
        #[arg(value_hint = ValueHint::Url)]
        peer: NodeAddress,
    },
    /// Serve a file from where it lies, and print a link by which others get it.
    Share(ShareArgs),
    /// Get a file, from up to four peers at once. What was got before is not got again.
    Get {
        /// ID of the file, the 64 digits that `put` printed, or the link that `share` printed.
        #[arg(value_name = "ID|LINK", value_hint = ValueHint::Other)]
        link: FileLink,
        /// The peers, each host:port, a URL, or a multiaddr with /p2p/ID. A link has some itself.
        #[arg(value_hint = ValueHint::Url)]
        peers: Vec<NodeAddress>,
        /// Where to write it. The ID if left out.
        #[arg(short = 'o', long = "output", value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ShareArgs {
    /// The file.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Where to listen for HTTP, as host:port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) listen_ws: String,
    /// Multiaddr on which to listen for libp2p; can be given more than once.
    #[arg(long, value_name = "MULTIADDR", default_value = "/ip4/127.0.0.1/tcp/0")]
    pub(crate) listen_p2p: Vec<String>,
    /// Address for the link, in place of those that are listened on; can be given more than once.
    #[arg(long, value_name = "ADDRESS", value_hint = ValueHint::Url)]
    pub(crate) address: Vec<NodeAddress>,
}

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// File to write the key to. Standard output if left out.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
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
    fn a_duration_has_a_unit_and_is_a_year_at_most() {
        for (text, seconds) in [("1s", 1), ("90m", 5_400), ("24h", 86_400), ("365d", 31_536_000)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "1",
            "0s",
            "366d",
            "1.5h",
            "-1s",
            "+1s",
            "1 h",
            "1w",
            "1hh",
            "99999999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
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
