//! The program `tandem` in a process of its own.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use runtime::TaskSet;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    group::ControlGroup,
    wait::{PATIENCE, eventually, soon},
};

/// Environment variable with the path of the program to test; without it the test uses the one beside it.
pub const PROGRAM_VARIABLE: &str = "TANDEM_TEST_PROGRAM";

/// A `tandem run` process, killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    data_dir: PathBuf,
    output: Lines,
    log: Lines,
    /// URL of its WebSocket listener, if it has one.
    pub ws: Option<String>,
    /// Multiaddrs of its libp2p listener.
    pub p2p: Vec<String>,
    /// The peer ID of the node.
    pub peer_id: String,
    _readers: TaskSet,
}

/// The lines that a process has printed so far.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Collects lines until the stream ends.
    fn follow(&self, stream: Option<impl AsyncRead + Unpin + Send + 'static>, tasks: &TaskSet) {
        let (Some(stream), into) = (stream, self.clone()) else { return };
        tasks.spawn("lines", |_cancel| async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                into.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
    }
}

/// The path of the program: beside the test program, and built if it is missing.
///
/// # Panics
///
/// If it cannot be built.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os(PROGRAM_VARIABLE) {
            return path.into();
        }
        // The test program is in `target/<profile>/deps`.
        let test = std::env::current_exe().expect("a test program has a path");
        let folder = test.parent().and_then(Path::parent).expect("it lies in the target folder");
        let path = folder.join(format!("tandem{}", std::env::consts::EXE_SUFFIX));
        if !path.exists() {
            let mut build = std::process::Command::new(env!("CARGO"));
            build.args(["build", "--package", "tandem", "--bin", "tandem"]);
            if folder.ends_with("release") {
                build.arg("--release");
            }
            let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
            assert!(built.is_ok_and(|status| status.success()), "the program cannot be built");
        }
        path
    })
}

/// A command of the program, without the environment variables that could configure it.
#[must_use]
pub fn tandem(command: &str) -> Command {
    let mut process = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TANDEM_") {
            process.env_remove(name);
        }
    }
    process.arg(command).stdin(Stdio::null()).kill_on_drop(true);
    process
}

impl Node {
    /// Runs a node, on free loopback ports unless the arguments say otherwise, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it is not ready in time.
    pub async fn run(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::run_by(tandem("run"), data_dir, arguments).await
    }

    /// The same for a process that may open `soft` files, and `hard` files if it raises its limit.
    ///
    /// # Panics
    ///
    /// If it is not ready in time.
    pub async fn run_with_files(
        (soft, hard): (u32, u32),
        data_dir: &Path,
        arguments: &[&str],
    ) -> Self {
        let mut shell = Command::new("sh");
        let script =
            format!("ulimit -S -n {soft} && ulimit -H -n {hard} && exec \"$0\" run \"$@\"");
        shell.arg("-c").arg(script).arg(program()).stdin(Stdio::null()).kill_on_drop(true);
        Self::run_by(shell, data_dir, arguments).await
    }

    /// The same for a process in a control group.
    ///
    /// # Panics
    ///
    /// If it is not ready in time.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future kills the process.
    pub async fn run_in(group: &ControlGroup, data_dir: &Path, arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("echo $$ > \"$0\" && exec \"$@\"").arg(group.processes());
        shell.arg(program()).arg("run").stdin(Stdio::null()).kill_on_drop(true);
        Self::run_by(shell, data_dir, arguments).await
    }

    async fn run_by(mut command: Command, data_dir: &Path, arguments: &[&str]) -> Self {
        let readers = TaskSet::new(&CancellationToken::new());
        command.args(["--json", "--data-dir"]).arg(data_dir).args(arguments);
        for (setting, free) in
            [("--listen-ws", "127.0.0.1:0"), ("--listen-p2p", "/ip4/127.0.0.1/tcp/0")]
        {
            if !arguments.contains(&setting) {
                command.args([setting, free]);
            }
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (output, log) = (Lines::default(), Lines::default());
        output.follow(child.stdout.take(), &readers);
        log.follow(child.stderr.take(), &readers);
        let mut node = Self {
            child,
            data_dir: data_dir.to_owned(),
            output,
            log,
            ws: None,
            p2p: Vec::new(),
            peer_id: String::new(),
            _readers: readers,
        };
        let ready = node.event("it is ready", |event| event["event"] == "ready").await;
        node.ws = ready["ws"].as_str().map(str::to_owned);
        let addresses = ready["p2p"].as_array().into_iter().flatten();
        node.p2p = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
        node.peer_id = ready["peer_id"].as_str().unwrap_or_default().to_owned();
        node
    }

    /// The events that the node has printed so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let lines = self.output.all();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for an event of the node.
    ///
    /// # Panics
    ///
    /// If it does not come in time.
    pub async fn event(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually(what, PATIENCE, || {
            let told = self.events().into_iter().find(&is_it);
            if told.is_none()
                && let Ok(Some(status)) = self.child.try_wait()
            {
                panic!(
                    "the node ended with {status} before: {what}\n{}",
                    self.log.all().join("\n")
                );
            }
            told
        })
        .await
    }

    /// The lines of its log so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// A handle on its log that outlives the process.
    pub fn kept_log(&self) -> impl Fn() -> Vec<String> + use<> {
        let log = self.log.clone();
        move || log.all()
    }

    /// `host:port` of its WebSocket listener.
    ///
    /// # Panics
    ///
    /// If it has none.
    #[must_use]
    pub fn ws_address(&self) -> &str {
        let url = self.ws.as_deref().expect("the node has a WebSocket side");
        url.strip_prefix("http://").unwrap_or(url)
    }

    /// Resident memory of the process, in bytes.
    ///
    /// # Errors
    ///
    /// When the system does not report it.
    pub fn resident_bytes(&self) -> io::Result<usize> {
        self.status_bytes("VmRSS:")
    }

    /// The most bytes of memory that the process ever occupied.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn peak_bytes(&self) -> io::Result<usize> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, key: &str) -> io::Result<usize> {
        let id = self.child.id().ok_or(io::ErrorKind::NotFound)?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Kills the process with SIGKILL.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn kill(mut self) {
        soon("the process dies", self.child.kill()).await.expect("a process can be killed");
    }

    /// Sends SIGTERM, and returns the exit code.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub async fn terminate(mut self) -> Option<i32> {
        self.signal("TERM").await;
        let status = soon("the process ends", self.child.wait()).await;
        status.expect("a process can be waited for").code()
    }

    /// Sends a signal to the process.
    ///
    /// # Panics
    ///
    /// If it cannot be sent.
    pub async fn signal(&self, name: &str) {
        let id = self.child.id().expect("the process runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "the signal cannot be sent");
    }

    /// The peers of the node, as printed by `tandem peers`.
    ///
    /// # Panics
    ///
    /// If the command fails.
    pub async fn peers(&self) -> Vec<Value> {
        let peers = tandem("peers").args(["--json", "--data-dir"]).arg(&self.data_dir).output();
        let output = soon("the peers are told", peers).await.expect("the program starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`tandem peers` ends with {}: {told}", output.status);
        serde_json::from_slice(&output.stdout).expect("the peers are an array")
    }

    /// Waits until `count` peers are connected.
    ///
    /// # Panics
    ///
    /// If they are not connected in time.
    pub async fn has_peers(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.peers().await.len() != count {
            assert!(Instant::now() < deadline, "there are never {count} peers");
        }
    }

    /// Starts a `tandem listen` on the node, and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn listen(&self, tags: &str) -> Listener {
        let readers = TaskSet::new(&CancellationToken::new());
        let mut child = tandem("listen")
            .args(["--json", "--tags", tags, "--data-dir"])
            .arg(&self.data_dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (heard, log) = (Lines::default(), Lines::default());
        heard.follow(child.stdout.take(), &readers);
        log.follow(child.stderr.take(), &readers);
        let listens = || log.all().iter().any(|line| line.contains("listening")).then_some(());
        eventually("it listens", PATIENCE, listens).await;
        Listener { heard, _child: child, _readers: readers }
    }

    /// A command that sends a message from the node.
    #[must_use]
    pub fn sending(&self, tag: &str) -> Command {
        let mut command = tandem("send");
        command.args(["--tag", tag, "--data-dir"]).arg(&self.data_dir);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Sends a message from the node. Returns `true` if at least one peer got it.
    ///
    /// # Panics
    ///
    /// If the program does not start.
    pub async fn send(&self, tag: &str, text: &str) -> bool {
        let sent = self.sending(tag).arg(text).status().await;
        sent.expect("the program starts").success()
    }
}

/// A `tandem listen` process.
#[derive(Debug)]
pub struct Listener {
    heard: Lines,
    _child: Child,
    _readers: TaskSet,
}

impl Listener {
    /// The messages received so far.
    #[must_use]
    pub fn heard(&self) -> Vec<Value> {
        let lines = self.heard.all();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The number of received messages with this digest.
    #[must_use]
    pub fn times(&self, digest: &str) -> usize {
        self.heard().iter().filter(|message| message["digest"] == digest).count()
    }
}
