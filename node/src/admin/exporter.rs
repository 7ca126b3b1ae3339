//! The port from which collectors such as Prometheus read what the node counts. There is none unless a setting names it.
//!
//! ```text
//!   collector ─▶ GET /metrics ─▶ Exporter ─▶ registry
//! ```
//!
//! # Invariants
//!
//! * It has one path, which changes nothing and tells no secret: anybody who reaches the port may read it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use prometheus_client::registry::Registry;
use runtime::{Environment, Fault, Shutdown, TaskSet};
use tokio_util::sync::CancellationToken;

use super::{
    accept::{Crowded, Open, Port},
    places::Places,
    problem::refuse,
    state::encode_metrics,
};

/// Connections at one time. Chosen: a handful of collectors, each with one.
const MAX_CONNECTIONS: usize = 16;

/// The port of a running node.
#[derive(Debug)]
pub(crate) struct Exporter {
    tasks: TaskSet,
    local: SocketAddr,
}

/// The port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for `metrics`: is it a free host:port of this machine?")]
pub(crate) struct ExporterError {
    /// The address as given.
    address: String,
    source: io::Error,
}

impl Exporter {
    /// Listens on every address of `listen`, a `host:port`. Ends with `parent`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future listens nowhere.
    pub(crate) async fn start(
        listen: &str,
        (registry, crowded): (Arc<Registry>, Crowded),
        environment: &Environment,
        parent: &CancellationToken,
    ) -> Result<Self, ExporterError> {
        let failed = |source| ExporterError { address: listen.to_owned(), source };
        let listener = environment.bind(listen).await.map_err(failed)?;
        let local = listener.local_addr();
        let router = Router::new()
            .route("/metrics", get(|| async move { encode_metrics(&registry) }))
            .fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is only /metrics here") });
        let tasks = TaskSet::new(parent);
        let port = Port {
            name: "a connection to the metrics",
            task: "metrics connection",
            places: Places::new(MAX_CONNECTIONS),
            crowded,
            doors: Open(router),
            tasks: tasks.clone(),
        };
        tasks.spawn_lasting("metrics", |cancel| port.serve(listener, cancel));
        Ok(Self { tasks, local })
    }

    /// The URL to read; with several addresses of a name, that of the first.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/metrics", self.local)
    }

    /// Waits until a task of the port has ended unasked; for ever if none does.
    pub(crate) async fn faulted(&self) -> Fault {
        self.tasks.faulted().await
    }

    /// Ends every connection.
    pub(crate) async fn stop(self, grace: Duration) -> Shutdown {
        self.tasks.stop(grace).await
    }
}
