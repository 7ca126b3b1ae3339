//! The ways by which other programs reach a running node: the socket, the port for collectors and the admin port.
//!
//! # Invariants
//!
//! * The socket is always there, the ports only if a setting names them.

use std::{sync::Arc, time::Duration};

use tandem::{Fault, Running, Shutdown};

use super::failure::Failure;
use crate::admin::{Context, Exporter, Remote, Server, Token};

/// Everything by which a node is asked and told what to do.
#[derive(Debug)]
pub(super) struct Admin {
    /// None in a node without a data directory.
    socket: Option<Server>,
    metrics: Option<Exporter>,
    remote: Option<Remote>,
}

impl Admin {
    /// Opens the socket, and the ports that are named: that of collectors, and that of the admin API.
    pub(super) async fn start(
        running: &Running,
        context: Context,
        (metrics, remote): (Option<String>, Option<String>),
    ) -> Result<Self, Failure> {
        let (environment, token) = (running.broadcaster().environment(), running.token());
        let registry = Arc::clone(&context.registry);
        let metrics = match metrics {
            Some(listen) => {
                let counted = (registry, context.crowded.clone());
                Some(Exporter::start(&listen, counted, environment, token).await?)
            }
            None => None,
        };
        let Some(dir) = running.data_dir() else {
            return Ok(Self { socket: None, metrics, remote: None });
        };
        let remote = match remote {
            Some(listen) => {
                let secret = Token::of(dir.path(), &mut environment.random())?;
                let api = (context.clone(), secret);
                let remote = Remote::start(&listen, api, environment, token).await?;
                // Never set before.
                let _ = context.admin_url.set(remote.url());
                Some(remote)
            }
            None => None,
        };
        Ok(Self { socket: Some(Server::start(dir, context, token)?), metrics, remote })
    }

    /// The URL that collectors read.
    pub(super) fn metrics_url(&self) -> Option<String> {
        self.metrics.as_ref().map(Exporter::url)
    }

    /// The URL of the admin API.
    pub(super) fn remote_url(&self) -> Option<String> {
        self.remote.as_ref().map(Remote::url)
    }

    /// Waits until a part of it has ended unasked; for ever if none does.
    pub(super) async fn faulted(&self) -> Fault {
        let (socket, metrics, remote) = (&self.socket, &self.metrics, &self.remote);
        tokio::select! {
            fault = async { match socket { Some(part) => part.faulted().await, None => std::future::pending().await } } => fault,
            fault = async { match metrics { Some(part) => part.faulted().await, None => std::future::pending().await } } => fault,
            fault = async { match remote { Some(part) => part.faulted().await, None => std::future::pending().await } } => fault,
        }
    }

    /// Ends every connection.
    pub(super) async fn stop(self, grace: Duration) -> Shutdown {
        let mut stopped = Shutdown::Clean;
        if let Some(socket) = self.socket {
            stopped = stopped.and(socket.stop(grace).await);
        }
        if let Some(metrics) = self.metrics {
            stopped = stopped.and(metrics.stop(grace).await);
        }
        if let Some(remote) = self.remote {
            stopped = stopped.and(remote.stop(grace).await);
        }
        stopped
    }
}
