//! A node beside those of a demo: one that watches them, for somebody who looks at its dashboard, or a relay for pages.
//!
//! # Invariants
//!
//! * It is in no account: nobody counts what it hears or passes on.
//! * It ends with the demo, as all nodes do.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time,
};

use super::error::DemoError;
use crate::{
    admin::Client,
    cli::{Failure, page_of},
    log,
};

/// Longest time until it listens. Chosen: as for the other nodes.
const READY_TIME: Duration = Duration::from_secs(30);

/// The arguments of a node beside the others.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    pub(super) name: String,
    pub(super) network: &'a str,
    /// Holds its files.
    pub(super) files: &'a Path,
    /// Further arguments.
    pub(super) more: &'a [String],
}

/// Its process.
#[derive(Debug)]
pub(super) struct Watcher {
    name: String,
    /// Ends when this is dropped.
    child: Child,
    ws: String,
    /// Kept, so that what it tells does not fail.
    _told: Lines<BufReader<ChildStdout>>,
    dir: PathBuf,
}

impl Watcher {
    /// Starts a node that dials all `peers`, and waits until it listens.
    pub(super) async fn start(
        Watch { name, network, files, more }: Watch<'_>,
        peers: impl Iterator<Item = &String>,
    ) -> Result<Self, DemoError> {
        let dir = files.join(&name);
        let failed = |source| DemoError::Spawn { name: name.clone(), source };
        let log = files.join(format!("{name}.log"));
        let log_file = File::create(&log).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command
            .args(["demo-watch", "--json", "--network", network])
            .args(["--listen-ws", "127.0.0.1:0", "--listen-p2p", "/ip4/127.0.0.1/tcp/0"])
            .args(["--admin-listen", "127.0.0.1:0", "--trace-one-in", "100", "--data-dir"])
            .arg(&dir)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true);
        for peer in peers {
            command.args(["--peer", peer]);
        }
        // The settings of this shell are for nodes of its user, not for this one.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("TANDEM_") {
                command.env_remove(variable);
            }
        }
        let mut child = command.spawn().map_err(failed)?;
        let not_ready =
            || DemoError::NotReady { name: name.clone(), seconds: READY_TIME.as_secs(), log };
        let Some(told) = child.stdout.take() else { return Err(not_ready()) };
        let mut told = BufReader::new(told).lines();
        let ready = async {
            while let Ok(Some(line)) = told.next_line().await {
                let event = serde_json::from_str::<Value>(&line).unwrap_or_default();
                if event["event"] == "ready" {
                    return event["ws"].as_str().map(str::to_owned);
                }
            }
            None
        };
        match time::timeout(READY_TIME, ready).await {
            Ok(Some(ws)) => Ok(Self { name, child, ws, _told: told, dir }),
            Ok(None) | Err(_) => Err(not_ready()),
        }
    }

    /// Its name among the nodes of the demo.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The URL of its WebSocket port.
    pub(super) fn ws(&self) -> &str {
        &self.ws
    }

    /// The number of its process, as long as it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The address of its dashboard, with the token.
    pub(super) async fn page(&self) -> Result<String, Failure> {
        page_of(&self.dir).await
    }

    /// Has it dial a node that was started again.
    pub(super) async fn dial(&self, addresses: &[String]) {
        let client = Client::new(&self.dir);
        for address in addresses {
            if let Err(error) = client.connect(address).await {
                let (name, error) = (&self.name, log::in_one_line(&error));
                log::note(&format!("{name} misses {address}: {error}"));
            }
        }
    }
}
