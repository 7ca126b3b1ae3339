//! The `tandem` program.

mod admin;
mod cli;
mod config;
mod demo;
mod log;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use cli::{Cli, Failure};

/// How long threads that are still reading standard input are waited for.
const THREADS_TIME: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(cli).unwrap_or_else(|failure| fail(&failure)),
        // Asked for help or the version, or nothing was asked for.
        Err(error) if !error.use_stderr() || is_help(&error) => error.exit(),
        Err(error) => fail(&Failure::from(&error)),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System { what: "the threads of the program", source })?;
    let outcome = runtime.block_on(cli::dispatch(cli));
    runtime.shutdown_timeout(THREADS_TIME);
    outcome
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("error: {}", failure.line());
    failure.exit_code()
}

fn is_help(error: &clap::Error) -> bool {
    error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}
