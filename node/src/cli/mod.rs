//! The commands of the program.
//!
//! # Invariants
//!
//! * Standard output holds what a command is asked for; everything else goes to standard error.
//! * A failure is one line on standard error, with what to do about it. The exit code is 2 when
//!   the command or the configuration has to be changed, 22 when a peer answered a request with an error, and 1 when
//!   the command may work another time.

mod admin_ports;
mod args;
mod config;
mod dashboard;
mod demo_watch;
mod descriptors;
mod dht;
mod doctor;
mod drain;
mod failure;
mod file;
mod forward;
mod health;
mod http;
mod keygen;
mod listen;
mod man;
mod memory;
mod mistake;
mod notify;
mod output;
mod page;
mod peer;
mod peers;
mod perf;
mod perf_plot;
mod phonebook;
mod progress;
mod reach;
#[cfg(test)]
mod reference;
mod run;
mod send;
mod services;
mod share;
mod signals;
mod store;
mod top;
mod trace;
mod watch;
mod words;

pub(crate) use args::Cli;
pub(crate) use failure::Failure;
pub(crate) use output::{json, print};
pub(crate) use page::{open_page, page_of};
pub(crate) use services::Condition;
pub(crate) use signals::StopSignals;
pub(crate) use words::Offered;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use args::Command;
use clap::CommandFactory;
use clap_complete::Shell;
use gossip::BoxFuture;

use crate::{demo, log};

/// Does what the command line says.
pub(crate) async fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let mut signals = StopSignals::catch()?;
    // A command that may be ended anywhere; the others hear signals themselves.
    let short: BoxFuture<'_, _> = match cli.command {
        Command::Run(args) => return run::run(args, signals).await,
        Command::Listen(args) => return listen::listen(args, signals).await,
        Command::Forward(args) => return forward::forward(args, signals).await,
        Command::File(args) => return file::file(args, signals).await,
        Command::DemoWatch(args) => return demo_watch::watch(args, signals).await,
        Command::Demo(args) => return demo::demo(args, signals).await,
        Command::Top(args) => return top::top(args, signals).await,
        Command::Trace(args) => Box::pin(trace::trace(args)),
        Command::Send(args) => Box::pin(send::send(args)),
        Command::Peers(args) => Box::pin(peers::peers(args)),
        Command::Status(args) => Box::pin(peers::status(args)),
        Command::Peer(args) => Box::pin(peer::peer(args)),
        Command::Ban(args) => Box::pin(peer::ban_peers(args)),
        Command::Phonebook(args) => Box::pin(phonebook::phonebook(args)),
        Command::Dht(args) => Box::pin(dht::dht(args)),
        Command::Metrics(args) => Box::pin(peers::metrics(args)),
        Command::Reload(args) => Box::pin(peers::reload(args)),
        Command::Http(args) => Box::pin(http::http(args)),
        Command::Perf(args) => Box::pin(perf::perf(args)),
        Command::Keygen(args) => Box::pin(keygen::keygen(args)),
        Command::Dashboard(args) => Box::pin(dashboard::dashboard(args)),
        Command::Doctor(args) => Box::pin(doctor::doctor(args)),
        Command::Config(args) => Box::pin(config::config(args)),
        Command::DemoNode(args) => Box::pin(demo::demo_node(args)),
        Command::Completions { shell } => Box::pin(completions(shell)),
        Command::Man { out } => Box::pin(man::man(out)),
    };
    tokio::select! {
        biased;
        caught = signals.next() => Ok(caught.exit_code()),
        outcome = short => outcome,
    }
}

/// Prints the help or the version.
pub(crate) async fn help(asked: clap::Error) -> Result<ExitCode, Failure> {
    let text = asked.render();
    if asked.use_stderr() {
        // Nothing was asked for, which is a mistake in a script.
        log::note(text.to_string().trim_end());
        return Ok(ExitCode::from(2));
    }
    let text = if io::stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() };
    output::print(text.trim_end()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a script that completes commands in a shell.
async fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tandem", &mut script);
    output::print(String::from_utf8_lossy(&script).trim_end()).await?;
    Ok(ExitCode::SUCCESS)
}
