//! `tandem demo`: a small network of processes on this machine that counts every message.
//!
//! ```text
//!   Director ──stdin──▶ node process ─┬─ sends ──▶ other nodes
//!      ▲                              └─ journal file: what it sent, what its handler got
//!      └──────────────tails────────────────┘
//!   journals ─▶ Ledger ─▶ Account ─▶ Report
//! ```
//!
//! # Invariants
//!
//! * A message counts as handled when a node's handler has written it to the node's journal, which
//!   outlives the process, however that ends. So the account of a node that was killed is exact.
//! * Every phase has a deadline, and no node outlives the demo: it is killed with it, and it ends by
//!   itself when its standard input does.

mod account;
mod body;
mod child;
mod client;
mod control;
mod director;
mod error;
mod journal;
mod ledger;
mod load;
mod node;
mod page;
mod progress;
mod report;
mod topology;
mod watcher;

pub(crate) use error::DemoError;

use std::{path::PathBuf, process::ExitCode};

use clap::{ArgGroup, Args};
use director::{Director, Opening, RunError, View};
use report::Report;
use topology::Topology;

use crate::{
    cli::{Failure, StopSignals, print},
    log,
};

/// Longest run, in seconds. Chosen: a day.
const MAX_SECONDS: u64 = 86_400;

#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("views").multiple(true)))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct DemoArgs {
    /// Time for which messages are sent, in seconds [default: 10, or 120 with --dashboard or --browser].
    #[arg(long, value_hint = clap::ValueHint::Other, value_parser = seconds)]
    seconds: Option<u64>,
    /// Multiplies what is sent per second.
    #[arg(long, value_hint = clap::ValueHint::Other, default_value_t = 1.0, value_parser = rate)]
    rate: f64,
    /// Number of nodes of each kind.
    #[arg(long, value_hint = clap::ValueHint::Other, default_value = "ws=2,p2p=2,hybrid=1")]
    nodes: Topology,
    /// Kill a node halfway, start it again, and account for what it missed. It is the first one that
    /// is not in the middle, or the one named, such as p2p-1.
    #[arg(long, value_name = "NODE", value_hint = clap::ValueHint::Other, num_args = 0..=1, require_equals = true)]
    chaos: Option<Option<String>>,
    /// Show the nodes in a browser meanwhile: a further one watches them, and prints the address of its dashboard.
    #[arg(long, group = "views")]
    dashboard: bool,
    /// Show a page that joins the network as a peer meanwhile, through two further nodes, and print its address.
    #[arg(long, group = "views")]
    browser: bool,
    /// The folder of the package that web/node/build makes: the page runs the node in it, as WebAssembly
    /// [default: web/node/pkg if there is one, and the plain client otherwise].
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath, requires = "browser")]
    web_node: Option<PathBuf>,
    /// Print the address, and start no browser.
    #[arg(long, requires = "views")]
    no_open: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Time for which messages are sent, in seconds. Chosen: long enough for a first look, and for one at a page.
const SECONDS: u64 = 10;
const WATCHED_SECONDS: u64 = 120;

/// Reads a number of seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
    seconds.ok_or_else(|| format!("write a whole number from 1 to {MAX_SECONDS}"))
}

pub(crate) use node::{DemoNodeArgs, demo_node};

/// Runs the demo and tells how it went.
pub(crate) async fn demo(args: DemoArgs, mut signals: StopSignals) -> Result<ExitCode, Failure> {
    let victim = match &args.chaos {
        None => None,
        Some(name) => Some(args.nodes.victim(name.as_deref())?),
    };
    let views = [(args.dashboard, View::Dashboard), (args.browser, View::Peer)];
    let views: Vec<View> = views.into_iter().filter_map(|(is, view)| is.then_some(view)).collect();
    let opening = if args.no_open { Opening::ByAddress } else { Opening::InABrowser };
    let usual = if views.is_empty() { SECONDS } else { WATCHED_SECONDS };
    let (topology, seconds) = (args.nodes, args.seconds.unwrap_or(usual));
    let (rate, web_node) = (args.rate, args.web_node);
    let plan = director::Plan { topology, seconds, rate, victim, views, opening, web_node };
    let mut director = Director::new(plan)?;
    let account = tokio::select! {
        biased;
        _ = signals.next() => Err(DemoError::Interrupted),
        account = director.run() => match account {
            Ok(account) => Ok(account),
            // The watching node is no part of what is shown, so its failure is told as it is.
            Err(RunError::Page(failure)) => return Err(failure),
            Err(RunError::Demo(error)) => Err(error),
        },
    };
    let verdict = match account {
        Ok(account) => {
            let report = Report::new(director.plan(), &account);
            let text = if args.json { report.json() } else { report.to_string() };
            tokio::select! {
                biased;
                _ = signals.next() => Err(DemoError::Interrupted),
                printed = print(&text) => { printed?; report.verdict() }
            }
        }
        Err(error) => Err(error),
    };
    match verdict {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(DemoError::Interrupted) => Err(DemoError::Interrupted.into()),
        Err(error) => {
            let kept = director.keep_files().display();
            log::note(&format!("the nodes' logs and journals are in {kept}"));
            Err(error.into())
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=1_000.0).contains(&rate) => Ok(rate),
        _ => Err("it must be a number from 0.01 to 1000".to_owned()),
    }
}
