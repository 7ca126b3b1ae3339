//! Placeholder.
use crate::{error::Failure, row::Output};
/// a
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_args: &Args, _output: &mut Output) -> Result<(), Failure> {
    Ok(())
}
