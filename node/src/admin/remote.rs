//! The admin API over TCP, for those who name the token. There is none unless a setting names an address.
//!
//! ```text
//!   accept loop ──a place free?──▶ connection task ─▶ hyper ─▶ Gatekeeper ─▶ routes
//! ```
//!
//! # Invariants
//!
//! * No route is reached without the token, but for the files of the dashboard.
//! * At most [`MAX_CONNECTIONS`] are served; one more is closed at once.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, extract::Request, middleware};
use runtime::{AcceptPause, Environment, Fault, Listener, Rarely, Shutdown, TaskSet};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    accept::serve,
    api,
    context::Context,
    dashboard,
    token::{Gatekeeper, Refused, Token},
};

/// Connections at one time. Chosen: a few dashboards, each with a stream, and commands beside them.
const MAX_CONNECTIONS: usize = 64;

/// The admin API of a running node, over TCP.
#[derive(Debug)]
pub(crate) struct Remote {
    tasks: TaskSet,
    local: SocketAddr,
}

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for `admin_listen`: is it a free host:port of this machine?")]
pub(crate) struct RemoteError {
    /// The address as given.
    address: String,
    source: io::Error,
}

impl Remote {
    /// Listens on every address of `listen`, a `host:port`. Ends with `parent`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future listens nowhere.
    pub(crate) async fn start(
        listen: &str,
        (context, token): (Context, Token),
        environment: &Environment,
        parent: &CancellationToken,
    ) -> Result<Self, RemoteError> {
        let failed = |source| RemoteError { address: listen.to_owned(), source };
        let listener = environment.bind(listen).await.map_err(failed)?;
        let local = listener.local_addr();
        let doors = Doors {
            refused: Arc::clone(&context.refused),
            gatekeeper: Arc::new(Gatekeeper::new(token)),
            router: api::router(context),
        };
        let tasks = TaskSet::new(parent);
        let connections = tasks.clone();
        tasks
            .spawn_lasting("admin over tcp", |cancel| accept(listener, doors, connections, cancel));
        Ok(Self { tasks, local })
    }

    /// The URL of the API; with several addresses of a name, that of the first.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.local)
    }

    /// Waits until a task has ended unasked; for ever if none does.
    pub(crate) async fn faulted(&self) -> Fault {
        self.tasks.faulted().await
    }

    /// Ends every connection.
    pub(crate) async fn stop(self, grace: Duration) -> Shutdown {
        self.tasks.stop(grace).await
    }
}

/// The way from a connection to the routes.
struct Doors {
    gatekeeper: Arc<Gatekeeper>,
    refused: Arc<Refused>,
    router: Router,
}

impl Doors {
    /// The routes for a connection from there.
    fn for_host(&self, from: SocketAddr) -> Router {
        let (gatekeeper, refused) = (Arc::clone(&self.gatekeeper), Arc::clone(&self.refused));
        let guarded = middleware::from_fn(move |request: Request, next: middleware::Next| {
            let at = (from.ip(), Instant::now());
            let admitted = gatekeeper.admits(request.headers(), at, &refused);
            async move {
                match admitted {
                    Ok(()) => next.run(request).await,
                    Err(refusal) => refusal,
                }
            }
        });
        dashboard::router().fallback_service(self.router.clone().layer(guarded))
    }
}

async fn accept(listener: Listener, doors: Doors, tasks: TaskSet, cancel: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (mut pause, full) = (AcceptPause::new("a connection to the admin port"), Rarely::new());
    loop {
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&places).try_acquire_owned()) {
            (Ok((stream, from)), Ok(place)) => {
                pause.accepted();
                let router = doors.for_host(from);
                tasks.spawn("admin connection", |cancel| serve(stream, router, place, cancel));
            }
            (Ok(_), Err(_)) => {
                if let Some(left_out) = full.due() {
                    tracing::warn!(left_out, "too many connections to the admin port");
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
