//! Commands that call peers over HTTP and streams.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use gossip::NodeAddress;
use http::{HeaderName, HeaderValue, Method};
use services::files::FileLink;

use crate::cli::{
    Failure,
    http::{Target as HttpTarget, TargetError, parse_header},
};

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
