//! One exchange: from the call of the client to the head of the response.
//!
//! # Invariants
//!
//! * A request that was handed to hyper is sent again in two cases only: hyper returned it, because nothing of
//!   it was written; or its kept connection ended, and the request is idempotent and has no body. A server may
//!   close a kept connection at any time, and the close may cross the request (RFC 9112, 9.3.1).
//! * An error that says the request did not reach the peer is returned only if the request was never handed
//!   over, or always returned by hyper.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use gossip::{
    StreamUse,
    http::{HttpBody, HttpClient, HttpError, HttpRequest, HttpResponse, Timeout},
};
use http::{Response, StatusCode};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use runtime::time::{self, Instant, Sleep};
use tracing::{Instrument, Span};

use super::{
    Shared,
    body::ResponseBody,
    conn::{Conn, Exchange},
    driver::Driver,
    pool::{Lease, Live, Patience, Slot},
    readiness::Readiness,
    request::{declared_length, only_request},
    target::TargetConfig,
    wire::{Counted, HalfClose, Outgoing, Wire},
};
use crate::span;

/// Largest number of times that a request is sent again. Chosen: the first connection was an idle one that had
/// closed; a peer that closes the second one at once does not want the request.
const RESENDS: usize = 2;

/// Longest head of a response, in bytes. Chosen: four times the longest that common servers send.
const HEAD_BYTES: usize = 64 << 10;

/// A failed exchange whose connection did not fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The transport took too long to open a connection.
    #[error("no connection within {after:?}")]
    ConnectTimeout {
        /// The time that the transport had.
        after: Duration,
    },
    /// The peer answered with a switch of protocols, which no request asks for.
    #[error("the peer switched to another protocol")]
    Switching,
}

/// Creates a client of a target.
pub(super) fn client(config: TargetConfig) -> HttpClient {
    let config = Arc::new(config);
    HttpClient::new(tower::service_fn(move |request| call(Arc::clone(&config), request)))
}

/// Starts one exchange. It is not an `async fn`, and the request is not moved until it is sent: moving a large
/// future costs more than the rest of a small request.
fn call(
    config: Arc<TargetConfig>,
    mut request: HttpRequest,
) -> impl Future<Output = Result<HttpResponse, HttpError>> + Send {
    let timeout = request.extensions_mut().remove();
    async move {
        let span = span::called(&mut request, &config.name);
        if !span.is_disabled() {
            return Box::pin(watched(config, request, timeout, span)).await;
        }
        match timeout {
            Some(Timeout(timeout)) => Box::pin(hurry(config, request, timeout)).await,
            None => unhurried(&config, &mut request).await,
        }
    }
}

/// Runs an exchange in its span, which somebody collects.
async fn watched(
    config: Arc<TargetConfig>,
    mut request: HttpRequest,
    timeout: Option<Timeout>,
    span: Span,
) -> Result<HttpResponse, HttpError> {
    let exchange = async {
        match timeout {
            Some(Timeout(timeout)) => hurry(config, request, timeout).await,
            None => unhurried(&config, &mut request).await,
        }
    };
    let outcome = exchange.instrument(span.clone()).await;
    span::returned(&span, &outcome);
    outcome
}

/// Runs an exchange without a deadline for all of it.
async fn unhurried(
    config: &Arc<TargetConfig>,
    request: &mut HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let handed = AtomicBool::new(false);
    let (response, lease) = config.exchange(request, None, &handed).await?;
    Ok(respond(Arc::clone(config), response, lease, None))
}

/// Runs an exchange under a deadline for all of it.
async fn hurry(
    config: Arc<TargetConfig>,
    mut request: HttpRequest,
    timeout: Duration,
) -> Result<HttpResponse, HttpError> {
    let mut deadline = Box::pin(time::sleep(timeout));
    let until = deadline.deadline();
    let handed = AtomicBool::new(false);
    let outcome = tokio::select! {
        biased;
        outcome = config.exchange(&mut request, Some(until), &handed) => Some(outcome),
        () = &mut deadline => None,
    };
    match outcome {
        Some(outcome) => {
            let (response, lease) = outcome?;
            Ok(respond(config, response, lease, Some(deadline)))
        }
        None if handed.load(Relaxed) => Err(HttpError::Deadline),
        None => Err(HttpError::DeadlineUnsent),
    }
}

fn respond(
    config: Arc<TargetConfig>,
    response: Response<Incoming>,
    lease: Lease,
    deadline: Option<Pin<Box<Sleep>>>,
) -> HttpResponse {
    response.map(|incoming| {
        if incoming.is_end_stream() {
            lease.finish(config.keeps());
            return HttpBody::empty();
        }
        let mut body = ResponseBody::new(incoming, lease, deadline, config);
        match body.take_whole() {
            // Without a box, and without the layers above one.
            Some(bytes) => HttpBody::full(bytes),
            None => HttpBody::new(body.streamed()),
        }
    })
}

impl TargetConfig {
    /// Sends the request and waits for the head of the response. `handed` is set while the peer may have
    /// received the request.
    async fn exchange(
        &self,
        request: &mut HttpRequest,
        until: Option<Instant>,
        handed: &AtomicBool,
    ) -> Result<(Response<Incoming>, Lease), HttpError> {
        self.defaults.apply(request)?;
        if self.streams == StreamUse::OneRequest {
            *request.headers_mut() = only_request(request.headers());
        }
        // Only calls that wait or open a connection check whether the node has stopped. A stop closes the idle
        // connections, so every call gets here.
        let stopped = self.shared.tasks.token();
        let mut patience = Patience::new(&self.shared.limits, stopped);
        self.pool.admit(&mut patience).await?;
        let mut slot = self.pool.slot(&mut patience).await?;
        let mut resent = 0;
        // The error of an attempt that may have reached the peer.
        let mut crossed = None;
        loop {
            // Only the first attempt uses an idle connection: a request sent again needs a fresh one.
            let idle = if resent == 0 { slot.idle().await } else { None };
            let live = match idle {
                Some(mut live) => {
                    live.replay.keep(request);
                    live
                }
                None => match Box::pin(self.open(&slot)).await {
                    Ok(live) => live,
                    Err(error) => return Err(crossed.unwrap_or(error)),
                },
            };
            let mut lease = Lease::new(live, slot);
            handed.store(true, Relaxed);
            let error = match lease.send(mem::take(request), until).await {
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Err(HttpError::Protocol { source: AnswerError::Switching.into() });
                }
                Ok(response) => {
                    lease.answered();
                    return Ok((response, lease));
                }
                Err(error) => take_back(error, &mut lease, request)?,
            };
            let error = crossed.take().unwrap_or(error);
            handed.store(error.may_have_reached(), Relaxed);
            if resent == RESENDS {
                return Err(error);
            }
            if error.may_have_reached() {
                crossed = Some(error);
            }
            if stopped.is_cancelled() {
                return Err(crossed.unwrap_or(HttpError::Stopped));
            }
            resent += 1;
            slot = lease.give_up();
        }
    }

    /// Opens a connection.
    async fn open(&self, slot: &Slot) -> Result<Live, HttpError> {
        let Shared { limits, tasks, .. } = &*self.shared;
        let io = tokio::select! {
            biased;
            () = tasks.token().cancelled() => return Err(HttpError::Stopped),
            io = time::timeout(limits.connect, self.connect.connect()) => io,
        };
        let io = io
            .map_err(|_elapsed| AnswerError::ConnectTimeout { after: limits.connect }.into())
            .and_then(|io| io)
            .map_err(|source| HttpError::Unreachable { source })?;
        let wire = Wire::new();
        let mut builder = http1::Builder::new();
        builder.max_header_size(HEAD_BYTES);
        let half_close = match self.streams {
            StreamUse::KeptAlive => HalfClose::Never,
            StreamUse::OneRequest => {
                // Existing nodes write header names in title case.
                builder.title_case_headers(true);
                HalfClose::AfterRequest
            }
        };
        let readiness = Readiness::new();
        let io = Counted::new(io, Arc::clone(&wire), readiness.clone(), half_close);
        let (sender, connection) = builder
            .handshake(TokioIo::new(io))
            .await
            .map_err(|source| HttpError::Unreachable { source: source.into() })?;
        let conn = Conn::new(connection, readiness);
        let driver = Driver::new(Arc::clone(&conn), slot.entry(&wire), *limits, self.idle);
        tasks.spawn("http connection", |_cancel| driver);
        Ok(Live { sender, conn, wire, replay: Box::default() })
    }
}

impl Lease {
    /// Hands a request to the connection, and waits for the head of the response, which is then to be noted by
    /// [`Lease::answered`].
    fn send(
        &mut self,
        request: HttpRequest,
        until: Option<Instant>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<http::Request<Outgoing>>>> + use<>
    {
        let Live { sender, conn, wire, .. } = self.live();
        wire.begin(until);
        conn.lend();
        let declared = match request.body().is_end_stream() {
            true => None,
            false => declared_length(request.headers()),
        };
        let request = request.map(|body| Outgoing::new(body, declared, wire));
        // No `async` block, which would store this future twice.
        Exchange { response: sender.try_send_request(request), conn: Arc::clone(conn) }
    }

    /// Notes that the head of the response has arrived.
    fn answered(&mut self) {
        let Live { wire, replay, .. } = self.live();
        wire.head();
        replay.forget();
    }
}

/// Puts a request that was not answered back where it may be sent again, and returns the error of the attempt.
///
/// # Errors
///
/// The same error for a request that may not be sent again.
fn take_back(
    mut error: TrySendError<http::Request<Outgoing>>,
    lease: &mut Lease,
    request: &mut HttpRequest,
) -> Result<HttpError, HttpError> {
    if let Some(given_back) = error.take_message() {
        *request = given_back.map(Outgoing::into_body);
        return Ok(HttpError::Unreachable { source: error.into_error().into() });
    }
    let error = lost(lease, error.into_error());
    if !matches!(error, HttpError::Broken { .. }) {
        return Err(error);
    }
    match lease.live().replay.take() {
        Some(replay) => {
            *request = replay;
            Ok(error)
        }
        None => Err(error),
    }
}

/// The error for a request that was handed over and got no response.
fn lost(lease: &Lease, error: hyper::Error) -> HttpError {
    let wire = lease.wire();
    if wire.cut().is_some() {
        return HttpError::Deadline;
    }
    if let Some(source) = wire.take_failure() {
        return HttpError::RequestBody { source };
    }
    if error.is_body_write_aborted() {
        return HttpError::RequestBody { source: error.into() };
    }
    if error.is_parse() {
        return HttpError::Protocol { source: error.into() };
    }
    HttpError::Broken { source: error.into() }
}
