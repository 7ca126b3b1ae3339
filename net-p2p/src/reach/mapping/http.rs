//! HTTP requests to a router.
//!
//! # Invariants
//!
//! * An answer has at most [`MAX_ANSWER`] bytes, and takes at most [`LIMIT`] with all that comes before it.

use std::{net::SocketAddrV4, sync::Arc, time::Duration};

use gossip::{
    BoxFuture, StreamUse,
    http::{BoxError, HttpClient},
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use net_http::client::{ClientLimits, Clients, Connect, Io, TCP_IDLE, Target};
use runtime::Environment;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::MappingError;

/// Bytes of an answer, at most. Chosen: descriptions have a few thousand.
const MAX_ANSWER: usize = 64 * 1_024;

/// Longest time of a request. Chosen: routers compute slowly.
const LIMIT: Duration = Duration::from_secs(5);

/// Opens connections to a router.
#[derive(Debug)]
struct ToRouter {
    by: Environment,
    at: SocketAddrV4,
}

impl Connect for ToRouter {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, BoxError>> {
        Box::pin(async {
            let opened = self.by.dial(&self.at.to_string(), Instant::now() + LIMIT).await?;
            Ok(Box::new(opened) as Box<dyn Io>)
        })
    }
}

/// The client of one router. Its connections end with it.
#[derive(Debug)]
pub(super) struct RouterClient(HttpClient);

impl RouterClient {
    /// Of the router at `at`.
    pub(super) fn new(at: SocketAddrV4, by: &Environment) -> Result<Self, MappingError> {
        let clients =
            Clients::new(ClientLimits::default(), String::new(), &CancellationToken::new());
        let target = Target {
            name: at.to_string(),
            host: at.to_string().parse().map_err(|_| MappingError::Malformed)?,
            prefix: String::new(),
            streams: StreamUse::OneRequest,
            idle: TCP_IDLE,
            connect: Arc::new(ToRouter { by: by.clone(), at }),
        };
        Ok(Self(clients.client(target)))
    }

    /// Sends a request, and returns the answer.
    pub(super) async fn send(
        &self,
        request: Request<String>,
    ) -> Result<(StatusCode, String), MappingError> {
        let answer = async {
            let response = self.0.send(request).await.map_err(|_| MappingError::Silent)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|_too_long| MappingError::Malformed)?.to_bytes();
            let text = String::from_utf8(body.into()).map_err(|_| MappingError::Malformed)?;
            Ok((status, text))
        };
        time::timeout(LIMIT, answer).await.unwrap_or(Err(MappingError::Silent))
    }
}
