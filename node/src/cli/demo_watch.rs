//! The node that watches a demo, which ends with it.

use std::process::ExitCode;

use tokio::io::AsyncReadExt;

use super::{args::RunArgs, failure::Failure, run::run, signals::StopSignals};

/// Runs a node until it is told to stop, or its standard input ends.
pub(super) async fn watch(args: RunArgs, signals: StopSignals) -> Result<ExitCode, Failure> {
    let mut byte = [0];
    let mut input = tokio::io::stdin();
    tokio::select! {
        biased;
        outcome = run(args, signals) => outcome,
        _ended = input.read(&mut byte) => Ok(ExitCode::SUCCESS),
    }
}
