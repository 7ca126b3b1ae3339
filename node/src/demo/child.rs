//! The process of one node, as the director sees it.
//!
//! # Invariants
//!
//! * Dropping it kills the process.
//! * Every write to the process and every read from it has a deadline.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    time,
};

use super::{
    control::{Order, Ready},
    error::DemoError,
    journal::Tail,
    topology::Member,
};
use crate::cli::json;

/// Longest time until a node listens. Chosen: a machine that is busy with something else starts one
/// in a few seconds.
const READY_TIME: Duration = Duration::from_secs(30);

/// Longest time for a node to read an order. Chosen: one line always fits the pipe.
const ORDER_TIME: Duration = Duration::from_secs(5);

/// The arguments of a process.
#[derive(Clone, Debug)]
pub(crate) struct Start<'a> {
    pub(crate) member: &'a Member,
    pub(crate) place: usize,
    pub(crate) life: u8,
    pub(crate) network: &'a str,
    /// Holds the files of all nodes.
    pub(crate) dir: &'a Path,
    pub(crate) peers: Vec<String>,
}

/// A node's process.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    name: String,
    child: Child,
    orders: ChildStdin,
    log: PathBuf,
    /// The entries of its journal.
    pub(crate) journal: Tail,
    /// Where others dial it.
    pub(crate) addresses: Vec<String>,
}

impl NodeProcess {
    /// Starts a process and waits until its node listens.
    pub(crate) async fn start(start: Start<'_>) -> Result<Self, DemoError> {
        let Start { member, place, life, network, dir, peers } = start;
        let name = member.name.clone();
        let failed = |source| DemoError::Spawn { name: name.clone(), source };
        let (log, journal) =
            (dir.join(format!("{name}.log")), dir.join(format!("{name}.{life}.journal")));
        let log_file = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command
            .arg("demo-node")
            .args(["--place", &place.to_string(), "--life", &life.to_string()])
            .args(["--mode", member.mode.name(), "--network", network])
            .arg("--dir")
            .arg(dir.join(&name))
            .arg("--journal")
            .arg(&journal)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true);
        for peer in &peers {
            command.args(["--peer", peer]);
        }
        let mut child = command.spawn().map_err(failed)?;
        let broken = || failed(io::ErrorKind::BrokenPipe.into());
        let orders = child.stdin.take().ok_or_else(broken)?;
        let mut told = BufReader::new(child.stdout.take().ok_or_else(broken)?).lines();
        let not_ready = || DemoError::NotReady {
            name: name.clone(),
            seconds: READY_TIME.as_secs(),
            log: log.clone(),
        };
        let line = match time::timeout(READY_TIME, told.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(_) => return Err(Self::died(&name, &mut child, &log).await),
            Err(_elapsed) => return Err(not_ready()),
        };
        let Ready { addresses } = serde_json::from_str(&line).map_err(|_| not_ready())?;
        let journal = Tail::open(&journal)
            .map_err(|source| DemoError::Files { path: journal.clone(), source })?;
        Ok(Self { name, child, orders, log, journal, addresses })
    }

    /// The error of a process that has closed its output.
    async fn died(name: &str, child: &mut Child, log: &Path) -> DemoError {
        let status = time::timeout(ORDER_TIME, child.wait()).await;
        DemoError::Died {
            name: name.to_owned(),
            status: match status {
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(_)) | Err(_) => "it closed its output".to_owned(),
            },
            log: log.to_owned(),
        }
    }

    /// An error if the process has ended.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.died_with(status.to_string())),
            Err(error) => Err(self.died_with(error.to_string())),
        }
    }

    /// Tells the node what to do.
    pub(crate) async fn order(&mut self, order: Order) -> Result<(), DemoError> {
        let line = format!("{}\n", json(&order));
        let told = async {
            self.orders.write_all(line.as_bytes()).await?;
            self.orders.flush().await
        };
        match time::timeout(ORDER_TIME, told).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.died_with(error.to_string())),
            Err(_elapsed) => Err(self.died_with("it takes no orders".to_owned())),
        }
    }

    /// Ends the process without a warning (SIGKILL) and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<Tail, DemoError> {
        match self.child.kill().await {
            Ok(()) => Ok(self.journal),
            Err(error) => Err(self.died_with(error.to_string())),
        }
    }

    /// Asks the node to end, and kills it if it does not.
    pub(crate) async fn stop(mut self, grace: Duration) {
        // A node that is gone already needs no order.
        let _ = self.order(Order::Stop).await;
        if time::timeout(grace, self.child.wait()).await.is_err() {
            tracing::warn!(name = self.name, "the node had to be killed");
        }
    }

    fn died_with(&self, status: String) -> DemoError {
        DemoError::Died { name: self.name.clone(), status, log: self.log.clone() }
    }
}
