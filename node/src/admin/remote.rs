//! The admin API over TCP, for those who name the token. There is none unless a setting names an address.
//!
//! ```text
//!   accept loop ──a place free?──▶ connection task ─▶ hyper ─▶ Gatekeeper ─▶ routes
//! ```
//!
//! # Invariants
//!
//! * No route is reached without the token, but for the files of the dashboard.
//! * At most [`MAX_CONNECTIONS`] are served, and those that have not named the token make room for others.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
};
use runtime::{Environment, Fault, Shutdown, TaskSet};
use tokio_util::sync::CancellationToken;

use super::{
    accept::{Doors, Port},
    api,
    context::Context,
    dashboard,
    places::{Place, Places},
    token::{Gatekeeper, Refused, Token},
};

/// Connections at one time. Chosen: a few dashboards, each with a stream, and commands beside them.
const MAX_CONNECTIONS: usize = 64;

/// The host of a connection that came over no network. The listener here has none of them.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

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
        let tasks = TaskSet::new(parent);
        let port = Port {
            name: "a connection to the admin port",
            task: "admin connection",
            places: Places::new(MAX_CONNECTIONS),
            crowded: context.crowded.clone(),
            doors: Guarded {
                refused: Arc::clone(&context.refused),
                gatekeeper: Arc::new(Gatekeeper::new(token)),
                router: api::router(context),
            },
            tasks: tasks.clone(),
        };
        tasks.spawn_lasting("admin over tcp", |cancel| port.serve(listener, cancel));
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

/// The way from a connection to the routes: past the token.
struct Guarded {
    gatekeeper: Arc<Gatekeeper>,
    refused: Arc<Refused>,
    router: Router,
}

impl Doors for Guarded {
    fn open(&self, from: Option<IpAddr>, place: Arc<Place>) -> Router {
        let (gatekeeper, refused) = (Arc::clone(&self.gatekeeper), Arc::clone(&self.refused));
        let guarded = middleware::from_fn(move |request: Request, next: Next| {
            let at = (from.unwrap_or(UNKNOWN), Instant::now());
            let admitted = gatekeeper.admits(request.headers(), at, &refused);
            let place = Arc::clone(&place);
            async move {
                match admitted {
                    Ok(()) => {
                        place.keep();
                        next.run(request).await
                    }
                    Err(refusal) => refusal,
                }
            }
        });
        dashboard::router().fallback_service(self.router.clone().layer(guarded))
    }
}
