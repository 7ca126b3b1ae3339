//! Commands about peers, addresses and the DHT.

use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use gossip::NodeAddress;
use mesh::Role;
use tandem::{BanSubject, Capability, ValueKey};

use super::{ConfigSource, GlobalTarget, Target, whole_number};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
