//! The `tandem` program.

mod admin;
mod cli;
mod config;
mod demo;
mod lines;
mod live;
mod log;
mod printable;
mod spans;
mod web_page;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use cli::{Cli, Failure};

/// Longest wait for threads that still read standard input or write standard output.
const THREADS_TIME: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    log::catch_panics();
    let code = match Cli::try_parse() {
        Ok(cli) => run(cli::dispatch(cli)),
        // Asked for the help or the version, or for nothing.
        Err(error) if !error.use_stderr() || is_help(&error) => run(cli::help(error)),
        Err(error) => Err(Failure::from(&error)),
    };
    let code = match code {
        Err(failure) if failure.is_reader_gone() => ExitCode::SUCCESS,
        code => code.unwrap_or_else(|failure| fail(&failure)),
    };
    log::flush();
    code
}

fn run(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System { what: "the threads of the program", source })?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_timeout(THREADS_TIME);
    outcome
}

fn fail(failure: &Failure) -> ExitCode {
    log::note(&format!("error: {}", failure.line()));
    failure.exit_code()
}

fn is_help(error: &clap::Error) -> bool {
    error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}
