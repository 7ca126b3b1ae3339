//! Side-by-side measurements: Tandem beside a raw ceiling and a naive baseline, in one process and
//! one run. The figures of one run may be compared; those of two runs may not.

mod error;
mod fanout;
mod http;
mod meter;
mod node;
mod priority;
mod receiver;
mod row;
mod stats;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::row::Output;

/// Measures Tandem beside a raw ceiling and a naive baseline, in the same run.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object a row on stdout.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One node to many peers over loopback: deliveries a second.
    Fanout(fanout::Args),
    /// Latency of priority messages while bulk saturates a link of 200 Mbit/s.
    Priority(priority::Args),
    /// HTTP over TCP, TLS and one libp2p connection: requests a second beside bare hyper.
    Http(http::Args),
    /// The peer that does its worst: what `http --hostile` starts.
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
