//! Runs the program as a user would, with a deadline on everything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Longest time for any step. Chosen: a machine that is busy with other tests is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

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

/// The exit code and the output of a command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Ended {
    finish_with_input(command, b"")
}

/// Runs a command to its end, with something to read.
pub(crate) fn finish_with_input(command: &mut Command, input: &[u8]) -> Ended {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut process = Process::spawn(command);
    if let Some(mut stdin) = process.child.stdin.take() {
        stdin.write_all(input).unwrap();
    }
    let status = process.wait(PATIENCE);
    let rest = |lines: &Receiver<String>| lines.iter().collect::<Vec<_>>().join("\n");
    let (stdout, stderr) = (rest(&process.stdout), rest(&process.stderr));
    Ended { code: status.code(), stdout, stderr }
}

/// A process whose lines are read as they come. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) stdout: Receiver<String>,
    pub(crate) stderr: Receiver<String>,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// A process whose output somebody else has.
    pub(crate) fn of(child: Child) -> Self {
        Self { child, stdout: mpsc::channel().1, stderr: mpsc::channel().1 }
    }

    /// The next line of standard output.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("no line in time"),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("the output ended: {:?}", self.stderr.iter().collect::<Vec<_>>())
            }
        }
    }

    /// The next line of standard output, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Waits for a line of standard error.
    #[track_caller]
    pub(crate) fn expect_on_stderr(&self, expected: &str) {
        let line = self.stderr.recv_timeout(PATIENCE).expect("a line on standard error");
        assert_eq!(line, expected);
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        eventually_within(patience, "the process ends", || self.child.try_wait().unwrap())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, ask)
}

#[track_caller]
fn eventually_within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
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
