//! The socket of the admin API.
//!
//! # Invariants
//!
//! * The socket has its final rights before it has its final name.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use runtime::{Fault, Shutdown, TaskSet};
use tandem::DataDir;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{
    accept::{Open, Port},
    api,
    context::Context,
    places::Places,
};

/// Connections at one time. Chosen: each is a command that somebody runs.
const MAX_CONNECTIONS: usize = 64;

/// The admin API of a running node.
#[derive(Debug)]
pub(crate) struct Server {
    tasks: TaskSet,
    socket: PathBuf,
}

/// Why the admin API did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AdminError {
    /// The socket could not be made.
    #[error("cannot listen on the admin socket {}: choose another directory with --data-dir", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl Server {
    /// Listens in a data directory, which is this process's own.
    pub(crate) fn start(
        dir: &DataDir,
        context: Context,
        parent: &CancellationToken,
    ) -> Result<Self, AdminError> {
        let socket = DataDir::admin_socket(dir.path());
        let listener = bind(dir.path(), &socket)
            .map_err(|source| AdminError::Listen { path: socket.clone(), source })?;
        let tasks = TaskSet::new(parent);
        let (rates, broadcaster) = (Arc::clone(&context.rates), context.broadcaster.clone());
        tasks.spawn_lasting("admin rates", |cancel| rates.watch(broadcaster, cancel));
        let crowded = context.crowded.clone();
        let router = api::router(context);
        let port = Port {
            name: "a connection on the admin socket",
            task: "admin connection",
            places: Places::new(MAX_CONNECTIONS),
            crowded,
            doors: Open(router),
            tasks: tasks.clone(),
        };
        tasks.spawn_lasting("admin", |cancel| port.serve(listener, cancel));
        Ok(Self { tasks, socket })
    }

    /// Waits until a task of the admin API has ended unasked; for ever if none does.
    pub(crate) async fn faulted(&self) -> Fault {
        self.tasks.faulted().await
    }

    /// Ends every connection and takes the socket away.
    pub(crate) async fn stop(self, grace: Duration) -> Shutdown {
        self.tasks.stop(grace).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.token().cancel();
        // A leftover is replaced by the next node that uses the directory.
        let _ = fs::remove_file(&self.socket);
    }
}

/// Makes the socket where nobody else can reach it, and moves it to its place.
fn bind(dir: &Path, socket: &Path) -> io::Result<UnixListener> {
    let private = dir.join(".s");
    // A node that was killed may have left these.
    let _ = fs::remove_dir_all(&private);
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let beside = private.join("s");
    let listener = UnixListener::bind(&beside);
    let moved = listener.and_then(|listener| {
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&beside, socket)?;
        Ok(listener)
    });
    // Empty after the move; and on an error there is something else to tell.
    let _ = fs::remove_dir_all(&private);
    moved
}
