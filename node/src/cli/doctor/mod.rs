//! `tandem doctor`: looks for what keeps a node from running well, and says what to do about it.
//!
//! # Invariants
//!
//! * Nothing is changed: what is tried, such as a port or a file, is given back.
//! * Every check has a deadline, and none keeps another from being made.

mod certificate;
mod network;
mod place;
mod reachability;

use std::{fmt, process::ExitCode};

use runtime::Environment;
use serde::Serialize;

use crate::printable::printable;

use super::{args::DoctorArgs, failure::Failure, output, run};
use crate::{
    admin::Client,
    config::{Layers, Settings},
};

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// The node runs, and not as well as it could.
    Warning,
    /// The node does not run, or not as configured.
    Failure,
}

/// The finding of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    /// The fact that was found, in one line.
    says: String,
    /// The way to mend it, in one line.
    #[serde(rename = "do")]
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self { check, state: State::Ok, says: says.into(), advice: None }
    }

    fn warning(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Warning, advice: Some(advice.into()), ..Self::ok(check, says) }
    }

    fn failure(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Failure, advice: Some(advice.into()), ..Self::ok(check, says) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok      ",
            State::Warning => "WARNING ",
            State::Failure => "FAILURE ",
        };
        write!(f, "{state}{:<14} {}", self.check, printable(&self.says))?;
        match &self.advice {
            Some(advice) => write!(f, "\n{:23}-> {}", "", printable(advice)),
            None => Ok(()),
        }
    }
}

/// Makes every check, and prints what it found.
pub(crate) async fn doctor(args: DoctorArgs) -> Result<ExitCode, Failure> {
    let findings = examine(&args).await;
    for finding in &findings {
        let line = if args.json { output::json(finding) } else { finding.to_string() };
        output::print(&line).await?;
    }
    let has_failed = findings.iter().any(|finding| finding.state == State::Failure);
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(args: &DoctorArgs) -> Vec<Finding> {
    const CONFIGURATION: &str = "configuration";
    let read = Layers::gather(args.source.config.as_deref(), &args.source.flags);
    let checked = read.and_then(|layers| Ok((Settings::check(&layers)?, layers)));
    let (settings, layers) = match checked {
        Ok(read) => read,
        Err(error) => {
            let says = Failure::from(error).line();
            let advice = "mend it: tandem config init prints a file with every setting";
            return vec![Finding::failure(CONFIGURATION, says, advice)];
        }
    };
    let mut findings = vec![match run::describe(&settings).check() {
        Ok(()) => Finding::ok(CONFIGURATION, "it can be used"),
        Err(error) => {
            Finding::failure(CONFIGURATION, Failure::from(error).line(), "change the setting")
        }
    }];
    findings.extend(layers.unknown().iter().map(|variable| {
        let says = format!("the variable {variable} looks like a setting and is none");
        Finding::warning(CONFIGURATION, says, "take it away if it was meant as one")
    }));
    let environment = Environment::system();
    let client = Client::new(&settings.data_dir);
    let peers = client.peers().await.ok();
    findings.extend(place::data_dir(&settings.data_dir));
    findings.push(place::descriptors(&settings));
    findings.push(place::clock());
    if peers.is_some() {
        findings.push(Finding::ok("ports", "a node runs on this data directory and has them"));
    } else {
        findings.extend(network::ports(&environment, &settings).await);
    }
    findings.extend(network::names(&environment, &settings).await);
    findings.extend(certificate::files(&settings));
    findings.extend(network::peers(&environment, &settings).await);
    findings.push(reachability::reachability(&settings, peers.as_deref()));
    if let Ok(status) = client.status().await {
        findings.extend(reachability::router(&settings, &status.mapped_ports));
    }
    findings
}
