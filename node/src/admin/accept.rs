//! The accept loop of the admin socket and of the port for collectors, and their connections.
//!
//! ```text
//!   accept loop ──a place free?──▶ connection task ─▶ hyper ─▶ routes
//! ```
//!
//! # Invariants
//!
//! * At most [`Port::places`] connections are served; one more is closed at once, and a line says so, rarely.
//! * A connection has one request, and an idle one ends.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use runtime::{AcceptPause, Rarely, TaskSet};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use super::deadline::Deadline;

/// Longest time for the head of a request. Chosen: a local process needs no time at all, and a collector little.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request that are read ahead.
const BUFFER_BYTES: usize = 16 * 1024;

/// A listener of streams that carry HTTP.
pub(crate) trait Listens: Send + Sync + 'static {
    /// Its connections.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection.
    ///
    /// # Cancel safety
    ///
    /// Safe: no connection is lost.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listens for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listens for runtime::Listener {
    type Stream = runtime::Stream;

    async fn next(&self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// A port at which requests are served.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// The name of its connections in the log.
    pub(crate) name: &'static str,
    /// The name of a task that serves one of its connections.
    pub(crate) task: &'static str,
    /// Connections at one time.
    pub(crate) places: usize,
    pub(crate) router: Router,
    /// Owns the connections.
    pub(crate) tasks: TaskSet,
}

impl Port {
    /// Serves the connections of `listener` until cancelled.
    pub(crate) async fn serve(self, listener: impl Listens, cancel: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.places));
        let (mut pause, full) = (AcceptPause::new(self.name), Rarely::new());
        loop {
            let accepted = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                accepted = listener.next() => accepted,
            };
            match (accepted, Arc::clone(&places).try_acquire_owned()) {
                (Ok(stream), Ok(place)) => {
                    pause.accepted();
                    let router = self.router.clone();
                    self.tasks.spawn(self.task, |cancel| serve(stream, router, place, cancel));
                }
                (Ok(_), Err(_)) => {
                    if let Some(left_out) = full.due() {
                        tracing::warn!(left_out, "too many at one time to serve {}", self.name);
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
                tracing::debug!(%error, "a connection broke");
            }
        }
    }
}
