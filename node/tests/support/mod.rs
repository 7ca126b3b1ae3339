//! Runs the program as a user would, with a deadline on everything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod process;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use self::process::{Ended, PATIENCE, Process, eventually, finish, finish_with_input};

/// The program, without anything of the environment that could configure it.
pub(crate) fn tandem() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TANDEM_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A node that runs in a directory of its own, on free ports.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) ready: Value,
    pub(crate) dir: PathBuf,
}

impl Node {
    /// Starts a node with `--json` and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(dir: &Path, more: &[&str]) -> Self {
        let process = Process::spawn(run(dir).arg("--json").args(more));
        let ready = process.json();
        assert_eq!(ready["event"], "ready", "{ready}");
        Self { process, ready, dir: dir.to_owned() }
    }

    /// A command that speaks to this node.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = tandem();
        command.arg(name).arg("--data-dir").arg(&self.dir);
        command
    }

    /// Waits for the next event of a kind.
    #[track_caller]
    pub(crate) fn event(&self, kind: &str) -> Value {
        loop {
            let event = self.process.json();
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// Its peer ID.
    pub(crate) fn peer_id(&self) -> &str {
        self.ready["peer_id"].as_str().expect("every node has one")
    }

    /// Stops the node in order, and returns its log.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.process.signal("TERM");
        assert!(self.process.wait(PATIENCE).success());
        self.process.stderr.iter().collect()
    }

    /// Ends the node with SIGKILL.
    #[track_caller]
    pub(crate) fn kill(mut self) {
        self.process.signal("KILL");
        assert!(!self.process.wait(PATIENCE).success());
    }

    /// The address of its WebSocket side.
    pub(crate) fn ws(&self) -> &str {
        self.ready["ws"].as_str().unwrap()
    }

    /// The first address of its libp2p side.
    pub(crate) fn p2p(&self) -> &str {
        self.ready["p2p"][0].as_str().unwrap()
    }
}

/// A command that runs a node in a directory, on free ports.
pub(crate) fn run(dir: &Path) -> Command {
    let mut command = tandem();
    command.arg("run").arg("--data-dir").arg(dir);
    command.args(["--listen-ws", "127.0.0.1:0", "--listen-p2p", "/ip4/127.0.0.1/tcp/0"]);
    command
}

/// A directory that goes away with the test.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}
