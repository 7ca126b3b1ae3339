//! The service under test and its clients in processes of their own, which a test can kill, and whose memory it
//! can measure.
//!
//! ```text
//!   test ─starts─▶ interop_peer serve ◀─HTTP─ interop_peer get | put
//!                                     ◀─libp2p─ interop_peer forward ◀─HTTP─┘
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    certificate::Certificate,
    route::{Addresses, Reach, Route},
};
use crate::wait::soon;

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Memory {
    /// Resident memory now.
    pub resident: u64,
    /// Highest resident memory since the process started.
    pub peak: u64,
}

impl Memory {
    /// That of this process.
    ///
    /// # Panics
    ///
    /// If the system does not report it.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::read("self").expect("the system tells how much memory a process has")
    }

    fn read(process: &str) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).ok_or(io::ErrorKind::InvalidData)
        };
        Ok(Self { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }

    /// The growth to the highest value since an earlier measurement.
    #[must_use]
    pub const fn growth_since(self, earlier: Self) -> u64 {
        self.peak.saturating_sub(earlier.resident)
    }
}

/// The report of a client process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Told {
    /// Status of the response.
    pub status: u16,
    /// Length of the long body, up or down, as its receiver counted it, in bytes.
    pub bytes: u64,
    /// Hash of that body, as its receiver computed it, in hexadecimal.
    pub blake3: String,
    /// Growth of the client's memory at its highest, in bytes.
    pub growth: u64,
}

/// An `interop_peer` process that runs until it is dropped, killed or asked to end.
#[derive(Debug)]
pub struct PeerProcess {
    child: Child,
    /// The process ends when this is closed.
    _input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl PeerProcess {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let output = child.stdout.take().expect("its output is piped");
        let lines = BufReader::new(output).lines();
        Self { _input: child.stdin.take(), child, lines }
    }

    async fn line(&mut self) -> String {
        let line = soon("the program prints a line", self.lines.next_line()).await;
        line.ok().flatten().expect("it prints a line before it ends")
    }

    /// Returns the memory of the process.
    ///
    /// # Panics
    ///
    /// If the process does not run any more.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let id = self.child.id().expect("it runs");
        Memory::read(&id.to_string()).expect("the system tells how much memory a process has")
    }

    /// Kills the process.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn kill(&mut self) {
        soon("the process dies", self.child.kill()).await.expect("a process can be killed");
    }
}

/// A serving process, and the data for the routes to it.
#[derive(Debug)]
pub struct FarServer {
    program: PathBuf,
    server: PeerProcess,
    addresses: Addresses,
    certificate: Arc<Certificate>,
}

impl FarServer {
    /// Starts a server with the program `interop_peer`.
    ///
    /// # Panics
    ///
    /// If it does not start in time.
    pub async fn start(program: &Path) -> Self {
        let certificate = Certificate::generate();
        let files = certificate.files();
        let (cert, key) = (files.cert.to_string_lossy(), files.key.to_string_lossy());
        let mut server = PeerProcess::start(program, &["serve", &cert, &key]);
        let multiaddr = server.line().await;
        let url = server.line().await;
        let socket = url.split_once("://").map_or(&*url, |(_, host)| host).to_owned();
        Self {
            program: program.to_owned(),
            server,
            addresses: Addresses { socket, multiaddr },
            certificate: Arc::new(certificate),
        }
    }

    /// Sets up a route to it from this process.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn reach(&self, way: Route) -> Reach {
        Reach::to(way, &self.addresses, &self.certificate).await
    }

    /// The process that serves.
    pub const fn process(&mut self) -> &mut PeerProcess {
        &mut self.server
    }

    /// Starts a `tandem forward` to it in a process of its own. Returns the process and its address.
    ///
    /// # Panics
    ///
    /// If it does not start in time.
    pub async fn forward(&self) -> (PeerProcess, String) {
        let mut forward =
            PeerProcess::start(&self.program, &["forward", &self.addresses.multiaddr]);
        let address = forward.line().await;
        (forward, address)
    }

    /// Sets up a route through a `tandem forward` in a process of its own.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn through_forward(&self) -> (PeerProcess, Reach) {
        let (forward, address) = self.forward().await;
        (forward, Reach::through(&address, &self.certificate).await)
    }

    /// The address of a route, for a client in a process of its own.
    #[must_use]
    pub fn address(&self, way: Route) -> String {
        match way {
            Route::Tls => format!("https://{}", self.addresses.socket),
            Route::Libp2p => self.addresses.multiaddr.clone(),
            Route::Tcp | Route::Forward => format!("http://{}", self.addresses.socket),
        }
    }

    /// Runs a client: `get ADDRESS PATH` or `put ADDRESS PATH BYTES`.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn client(&self, arguments: &[&str]) -> Told {
        let root = self.certificate.root();
        let output = Command::new(&self.program)
            .args(arguments)
            .arg(root)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await
            .expect("the program starts");
        assert!(output.status.success(), "the client failed: {arguments:?}");
        serde_json::from_slice(&output.stdout).expect("the client tells what it found")
    }
}
