//! A process whose output is read as it comes, with a deadline on everything.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest time for any step. Chosen: a machine that is busy with other tests is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

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
