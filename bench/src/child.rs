//! This program again, or another one, as a process that tells what it does in lines of JSON.

use std::{
    env, fs,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runtime::TaskSet;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child as Process, Command},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{error::Failure, stats::cpu_of};

/// Longest time until a child prints its first line.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The priority of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Like this program.
    Same,
    /// It gets what all others leave.
    Lowest,
}

/// A process, killed when it is dropped.
pub(crate) struct Child {
    process: Process,
    lines: Arc<Mutex<Vec<String>>>,
    _reader: TaskSet,
}

impl Child {
    /// Starts this program with other arguments.
    pub(crate) fn start(priority: Priority, arguments: &[String]) -> Result<Self, Failure> {
        Self::of(&env::current_exe()?, priority, arguments)
    }

    /// Starts a program, with as many open files as the system allows.
    pub(crate) fn of(
        program: &Path,
        priority: Priority,
        arguments: &[String],
    ) -> Result<Self, Failure> {
        let mut command = Command::new("sh");
        let nice = match priority {
            Priority::Same => "",
            Priority::Lowest => "nice -n 19 ",
        };
        let script = format!("ulimit -S -n $(ulimit -H -n); exec {nice}\"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(program).args(arguments);
        // A child ends with its parent: its standard input does.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let output = process.stdout.take().ok_or("the child has no output")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (reader, into) = (TaskSet::new(&CancellationToken::new()), Arc::clone(&lines));
        reader.spawn("lines", |_cancel| async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Self { process, lines, _reader: reader })
    }

    /// The lines of this kind that the child has printed so far.
    pub(crate) fn said<T: DeserializeOwned>(&self) -> Vec<T> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the first thing of this kind that it says.
    pub(crate) async fn first<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(said) = self.said().into_iter().next() {
                return Ok(said);
            }
            self.check()?;
            if Instant::now() > deadline {
                return Err("a child says nothing".into());
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        match self.process.try_wait()? {
            Some(status) => Err(format!("a child has ended: {status}").into()),
            None => Ok(()),
        }
    }

    fn proc(&self, file: &str) -> Result<String, Failure> {
        let id = self.process.id().ok_or("a child has ended")?;
        Ok(fs::read_to_string(format!("/proc/{id}/{file}"))?)
    }

    /// Processor time that it has used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        Ok(cpu_of(&self.proc("stat")?).ok_or("the system does not tell processor times")?)
    }

    /// The most memory that it has occupied, in MiB.
    pub(crate) fn peak_mib(&self) -> Result<f64, Failure> {
        self.mib("VmHWM:")
    }

    /// The memory that it occupies now, in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64, Failure> {
        self.mib("VmRSS:")
    }

    fn mib(&self, of: &str) -> Result<f64, Failure> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(of));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.ok_or("the system does not tell the memory of a process")? / 1024.0)
    }

    /// Ends it.
    pub(crate) async fn kill(mut self) -> Result<(), Failure> {
        Ok(self.process.kill().await?)
    }
}
