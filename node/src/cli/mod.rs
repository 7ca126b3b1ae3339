//! The commands of the program.
//!
//! # Invariants
//!
//! * Standard output holds what a command is asked for; everything else goes to standard error.
//! * What goes wrong is one line on standard error, with what to do about it. The exit code is 2 when
//!   the command or the configuration has to be changed, and 1 when it may work another time.

mod args;
mod failure;
mod file;
mod forward;
mod http;
mod keygen;
mod listen;
mod output;
mod peers;
mod progress;
mod reach;
mod run;
mod send;
mod services;
mod signals;

pub(crate) use args::Cli;
pub(crate) use failure::Failure;
pub(crate) use output::{json, print};
pub(crate) use signals::StopSignals;

use std::process::ExitCode;

use args::{Command, ConfigSource};
use clap::CommandFactory;

use crate::{
    config::{Layers, Settings},
    demo,
};

/// Does what the command line says.
pub(crate) async fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Run(args) => run::run(args).await,
        Command::Send(args) => send::send(args).await,
        Command::Listen(args) => listen::listen(args).await,
        Command::Peers(args) => peers::peers(args).await,
        Command::Status(args) => peers::status(args).await,
        Command::Http(args) => http::http(args).await,
        Command::Forward(args) => forward::forward(args).await,
        Command::File(args) => file::file(args).await,
        Command::Keygen(args) => keygen::keygen(&args),
        Command::Config(source) => config(&source),
        Command::Demo(args) => demo::demo(args).await,
        Command::DemoNode(args) => demo::demo_node(args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tandem", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints the configuration that a node would run with.
fn config(source: &ConfigSource) -> Result<ExitCode, Failure> {
    let layers = Layers::gather(source.config.as_deref(), &source.flags)?;
    Settings::check(&layers)?;
    output::print(layers.to_string().trim_end());
    Ok(ExitCode::SUCCESS)
}
