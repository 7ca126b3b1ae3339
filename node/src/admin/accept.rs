//! The accept loop of the admin socket and of the port for collectors, and their connections.
//!
//! ```text
//!   accept loop ──a place free?──▶ connection task ─▶ hyper ─▶ routes
//! ```
//!
//! # Invariants
//!
//! * At most as many connections are served as there are [`Places`]; one that found none, or had to give up its own, is counted, and a
//!   line says so, rarely.
//! * A connection has one request, and an idle one ends.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use runtime::{AcceptPause, Rarely, TaskSet};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
};
use tokio_util::sync::CancellationToken;

use super::{
    deadline::Deadline,
    places::{Newcomer, Place, Places},
};

/// Longest time for the head of a request. Chosen: a local process needs no time at all, and a collector little.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request that are read ahead.
const BUFFER_BYTES: usize = 16 * 1024;

/// A listener of streams that carry HTTP.
pub(crate) trait Listens: Send + Sync + 'static {
    /// Its connections.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection, and says where it came from over a network.
    ///
    /// # Cancel safety
    ///
    /// Safe: no connection is lost.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<IpAddr>)>> + Send;
}

impl Listens for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<(Self::Stream, Option<IpAddr>)> {
        self.accept().await.map(|(stream, _)| (stream, None))
    }
}

impl Listens for runtime::Listener {
    type Stream = runtime::Stream;

    async fn next(&self) -> io::Result<(Self::Stream, Option<IpAddr>)> {
        self.accept().await.map(|(stream, from)| (stream, Some(from.ip())))
    }
}

/// The routes for connections to a port.
pub(crate) trait Doors: Send + Sync + 'static {
    /// The routes for one of them, from there. They keep its place when they let a request in.
    fn open(&self, from: Option<IpAddr>, place: Arc<Place>) -> Router;
}

/// Lets every request in.
#[derive(Clone, Debug)]
pub(crate) struct Open(pub(crate) Router);

impl Doors for Open {
    fn open(&self, _from: Option<IpAddr>, place: Arc<Place>) -> Router {
        self.0.clone().layer(middleware::from_fn(move |request: Request, next: Next| {
            place.keep();
            next.run(request)
        }))
    }
}

/// Connections that were closed for want of a place, for a metric. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowded {
    evicted: Arc<AtomicU64>,
    full: Arc<AtomicU64>,
}

impl Crowded {
    /// Those that had said nothing, or nothing right, and made room for a newcomer.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Those that came while all others were served.
    pub(crate) fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }
}

/// A port at which requests are served.
#[derive(Clone, Debug)]
pub(crate) struct Port<D> {
    /// The name of its connections in the log.
    pub(crate) name: &'static str,
    /// The name of a task that serves one of its connections.
    pub(crate) task: &'static str,
    pub(crate) places: Places,
    pub(crate) doors: D,
    pub(crate) crowded: Crowded,
    /// Owns the connections.
    pub(crate) tasks: TaskSet,
}

impl<D: Doors> Port<D> {
    /// Serves the connections of `listener` until cancelled.
    pub(crate) async fn serve(self, listener: impl Listens, cancel: CancellationToken) {
        let (mut pause, crowd) = (AcceptPause::new(self.name), Rarely::new());
        loop {
            let accepted = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                accepted = listener.next() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if cancel.run_until_cancelled(pause.refused(&error)).await.is_none() {
                        return;
                    }
                    continue;
                }
            };
            pause.accepted();
            let (place, counter) = match self.places.take(from) {
                Newcomer::Placed(place) => (Some(place), None),
                Newcomer::Replaced(place) => (Some(place), Some(&self.crowded.evicted)),
                Newcomer::Full => (None, Some(&self.crowded.full)),
            };
            if let Some(counter) = counter {
                counter.fetch_add(1, Ordering::Relaxed);
                if let Some(left_out) = crowd.due() {
                    tracing::warn!(left_out, "too many at one time to serve {}", self.name);
                }
            }
            if let Some(place) = place {
                let place = Arc::new(place);
                let router = self.doors.open(from, Arc::clone(&place));
                self.tasks.spawn(self.task, |cancel| serve(stream, router, place, cancel));
            }
        }
    }
}

/// Serves one request of a connection, which holds its place meanwhile.
async fn serve<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: Io,
    router: Router,
    place: Arc<Place>,
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
        () = place.evicted().cancelled() => {}
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        }
    }
}
