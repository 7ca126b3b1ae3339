//! The socket of the admin API and its connections.
//!
//! ```text
//!   accept loop ──a place free?──▶ connection task ─▶ hyper ─▶ routes
//! ```
//!
//! # Invariants
//!
//! * At most [`MAX_CONNECTIONS`] are served; one more is closed at once.
//! * The socket has its final rights before it has its final name.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use runtime::{AcceptPause, Fault, Rarely, Shutdown, TaskSet};
use tandem::DataDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use super::{api, context::Context, deadline::Deadline};

/// Connections at one time. Chosen: each is a command that somebody runs.
const MAX_CONNECTIONS: usize = 64;

/// Longest time for the head of a request. Chosen: a local process needs no time at all.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request that are read ahead.
const BUFFER_BYTES: usize = 16 * 1024;

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
        let router = api::router(context);
        let connections = tasks.clone();
        tasks.spawn_lasting("admin", |cancel| accept(listener, router, connections, cancel));
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

async fn accept(listener: UnixListener, router: Router, tasks: TaskSet, cancel: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (mut pause, full) = (AcceptPause::new("a connection on the admin socket"), Rarely::new());
    loop {
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&places).try_acquire_owned()) {
            (Ok((stream, _)), Ok(place)) => {
                pause.accepted();
                let router = router.clone();
                tasks.spawn("admin connection", |cancel| serve(stream, router, place, cancel));
            }
            (Ok(_), Err(_)) => {
                if let Some(left_out) = full.due() {
                    tracing::warn!(left_out, "too many connections to the admin socket");
                }
            }
            (Err(error), _) => {
                if cancel.run_until_cancelled(pause.refused(&error)).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// Serves one request of a connection, which holds its place meanwhile.
pub(super) async fn serve<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: Io,
    router: Router,
    _place: OwnedSemaphorePermit,
    cancel: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        // One request each: an idle client holds no place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(Deadline::new(stream)), TowerToHyperService::new(router));
    tokio::select! {
        biased;
        () = cancel.cancelled() => {}
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection broke");
            }
        }
    }
}
