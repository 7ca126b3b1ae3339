//! A node that watches the others of a demo, for somebody who looks at its dashboard.
//!
//! # Invariants
//!
//! * It is in no account: nobody counts what it hears.
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

/// The process of the watching node.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Ends when this is dropped.
    _child: Child,
    /// Kept, so that what it tells does not fail.
    _told: Lines<BufReader<ChildStdout>>,
    dir: PathBuf,
}

impl Watcher {
    /// Starts a node that dials all `peers`, and waits until it listens.
    pub(super) async fn start(
        (network, files): (&str, &Path),
        peers: impl Iterator<Item = &String>,
    ) -> Result<Self, DemoError> {
        let (name, dir) = ("watcher".to_owned(), files.join("watcher"));
        let failed = |source| DemoError::Spawn { name: name.clone(), source };
        let log = files.join("watcher.log");
        let log_file = File::create(&log).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command
            .args(["demo-watch", "--json", "--network", network])
            .args(["--listen-ws", "127.0.0.1:0", "--listen-p2p", "/ip4/127.0.0.1/tcp/0"])
            .args(["--admin-listen", "127.0.0.1:0", "--trace-one-in", "100", "--data-dir"])
            .arg(&dir)
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
                    return true;
                }
            }
            false
        };
        match time::timeout(READY_TIME, ready).await {
            Ok(true) => Ok(Self { _child: child, _told: told, dir }),
            Ok(false) | Err(_) => Err(not_ready()),
        }
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
                log::note(&format!("the dashboard misses {address}: {}", log::in_one_line(&error)));
            }
        }
    }
}
