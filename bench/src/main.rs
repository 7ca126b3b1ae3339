//! Side-by-side measurements: Tandem beside a raw upper bound and a naive baseline, in one process and one run.
//! Figures of one run can be compared with each other; figures of two runs cannot.

mod child;
mod error;
mod fanout;
mod hostile;
mod http;
mod idle;
mod meter;
mod node;
mod observed;
mod priority;
mod receiver;
mod row;
mod stats;
mod transport;
mod votes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::row::Output;

/// Measures Tandem beside a raw upper bound and a naive baseline, in the same run.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object per row on stdout.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure deliveries per second from one node to many peers over loopback.
    Fanout(fanout::Args),
    /// Measure the latency of priority messages while bulk saturates a link of 200 Mbit/s.
    Priority(priority::Args),
    /// Measure HTTP requests per second over TCP, TLS and one libp2p connection, beside bare hyper.
    Http(http::Args),
    /// Measure the processor time of a relay per vote, packed in each form beside plain.
    Votes(votes::Args),
    /// Measure a relay with metrics, traces and a dashboard beside one without.
    Observed(observed::Args),
    /// Measure the memory of a node per idle connection.
    Idle(idle::Args),
    /// The node whose connections are idle: what `idle` starts.
    #[command(hide = true)]
    IdleHub(idle::HubArgs),
    /// The other ends of idle connections.
    #[command(hide = true)]
    IdlePeers(idle::PeersArgs),
    /// Votes of honest peers beside floods, bombs, silent sockets and crowds.
    Hostile(hostile::Args),
    /// The node that is attacked: what `hostile` starts.
    #[command(hide = true)]
    Hub,
    /// The attack on it.
    #[command(hide = true)]
    Attacker(hostile::AttackerArgs),
    /// Use as much processor time as an attack, without a target; started by the bench.
    #[command(hide = true)]
    Load(hostile::LoadArgs),
    /// Attack a node; started by `http --hostile`.
    #[command(hide = true)]
    Attack(http::Attack),
}

fn main() -> ExitCode {
    let Cli { command, json } = Cli::parse();
    let mut output = if json { Output::json() } else { Output::table() };
    let outcome = match command {
        Command::Fanout(args) => fanout::run(&args, &mut output),
        Command::Priority(args) => priority::run(&args, &mut output),
        Command::Http(args) => http::run(&args, &mut output),
        Command::Votes(args) => votes::run(&args, &mut output),
        Command::Observed(args) => observed::run(&args, &mut output),
        Command::Idle(args) => idle::run(&args, &mut output),
        Command::IdleHub(args) => idle::hub(&args),
        Command::IdlePeers(args) => idle::peers(&args),
        Command::Hostile(args) => hostile::run(&args, &mut output),
        Command::Hub => hostile::hub(),
        Command::Attacker(args) => hostile::attack(&args),
        Command::Load(args) => hostile::load(&args),
        Command::Attack(args) => http::attack(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
