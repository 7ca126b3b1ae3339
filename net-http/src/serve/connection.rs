//! The loop that serves one connection on any transport: permit, requests, and perhaps an upgrade.
//!
//! ```text
//!   permit ─▶ HeadGuard ─▶ HTTP library ─▶ hook ─┬─▶ answer
//!                                                ├─▶ node's service
//!                                                └─▶ upgrade ─▶ Upgraded
//! ```
//!
//! # Invariants
//!
//! * A head is checked once: its bytes by the guard, then its path, then the rest by the hook.
//! * A connection holds a permit from the time that [`Terms::permit`] names until it ends or is upgraded.
//! * When the network stops, the request in progress is answered, and then the connection closes.

use std::{
    convert::identity,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{TryFutureExt, future::Either};
use gossip::{
    HeaderCase, StreamUse,
    http::{BoxError, Caller, HttpResponse},
};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::{server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use runtime::CancelWatch;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::OnceCell,
};
use tokio_util::sync::CancellationToken;

use super::{
    conn_state::{Answer, ConnState},
    date::date,
    engine::Engine,
    guard::{HeadGuard, Refusal},
    hook::{Action, ConnectionHook, RequestHead},
    limits::{PermitRule, Terms},
    permits::{ConnectionPermit, Refused},
    plain::{self, Rest},
    portable, reply,
    server::HttpServer,
};

/// Largest buffer for reading or writing, in bytes. Chosen: 16 MB for all connections of one peer; the HTTP
/// library's default of 400 KiB is no faster.
const MAX_BUFFER_BYTES: usize = 256 * 1024;

/// `Retry-After` for a client that got no permit. Chosen: the shortest time that the header can express.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

/// A connection for [`HttpServer::serve`], on any transport.
#[derive(Debug)]
pub struct Connection<Io> {
    /// The byte stream, from the first byte of the first request.
    pub io: Io,
    /// The client; permits and rates are charged to it.
    pub caller: Caller,
    /// The limits that apply to it.
    pub terms: Terms,
}

/// A connection that was upgraded to another protocol.
#[derive(Debug)]
pub struct Upgraded<Io, U> {
    /// The byte stream, after the answer to the upgrade was written.
    pub io: Io,
    /// Bytes that were read after the request.
    pub early: BytesMut,
    /// The hook's data from [`Action::Upgrade`].
    pub upgrade: U,
}

/// The hook asked to close the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the client did not wait for the answer to its upgrade")]
struct CloseSilently;

impl HttpServer {
    /// Serves a connection until it ends or is upgraded. After `cancel`, the request in progress is answered,
    /// and then the connection closes.
    ///
    /// # Cancel safety
    ///
    /// Not safe: dropping the future drops the stream and the request in progress.
    pub async fn serve<Io, H>(
        &self,
        connection: Connection<Io>,
        hook: &H,
        cancel: &CancellationToken,
    ) -> Option<Upgraded<Io, H::Upgrade>>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        H: ConnectionHook,
    {
        let Connection { io, caller, terms } = connection;
        let conn = self.conn_state();
        let permit = match terms.permit {
            PermitRule::WithFirstRequest | PermitRule::WithFirstRequestOfProxy => None,
            PermitRule::BeforeReading => {
                let acquire = self.permit(Some(&caller), &conn);
                match cancel.run_until_cancelled(acquire).await? {
                    Ok(permit) => Some(permit),
                    Err(refused) => {
                        refuse(HeadGuard::new(io, conn, terms), refused).await;
                        return None;
                    }
                }
            }
        };
        let requests = Requests {
            server: self,
            hook,
            caller: &caller,
            charged: (terms.permit != PermitRule::WithFirstRequestOfProxy).then_some(&caller),
            conn: &conn,
            cancel,
            permit: OnceCell::new_with(permit),
            pending: Mutex::new(None),
        };
        requests.serve(HeadGuard::new(io, Arc::clone(&conn), terms), terms).await;
        // The permit is given back here, because an upgraded connection carries no more requests.
        let Pending { on_upgrade, upgrade } = requests.into_pending()?;
        let parts = on_upgrade.await.ok()?.downcast::<TokioIo<HeadGuard<Io>>>().ok()?;
        let (unread, io) = parts.io.into_inner().into_parts();
        let mut early = BytesMut::from(&parts.read_buf[..]);
        early.extend_from_slice(&unread);
        Some(Upgraded { io, early, upgrade })
    }
}

/// Ends a connection that got no permit.
async fn refuse<Io: AsyncRead + AsyncWrite + Unpin>(mut guard: HeadGuard<Io>, why: Refused) {
    match why {
        // When all permits are taken, writing an answer for each connection would cost too much.
        Refused::Full => {}
        Refused::PeerFull | Refused::WaitedInVain => {
            guard.refuse(Refusal::NoPermit);
            // Shutdown fails only if the client has closed already.
            let _ = guard.shutdown().await;
        }
    }
}

/// An upgrade that starts when the HTTP library returns the stream.
struct Pending<U> {
    on_upgrade: OnUpgrade,
    upgrade: U,
}

/// State shared by the requests of one connection.
struct Requests<'a, H: ConnectionHook> {
    server: &'a HttpServer,
    hook: &'a H,
    caller: &'a Caller,
    /// The peer whose share the connection permit is of; `None` if it counts in total only.
    charged: Option<&'a Caller>,
    conn: &'a Arc<ConnState>,
    /// Ends the wait for a permit.
    cancel: &'a CancellationToken,
    permit: OnceCell<ConnectionPermit>,
    pending: Mutex<Option<Pending<H::Upgrade>>>,
}

impl<H: ConnectionHook> Requests<'_, H> {
    /// Serves the requests of the connection. Each way of it is in a box, so that a connection that was upgraded does not keep its
    /// memory.
    async fn serve<Io>(&self, mut guard: HeadGuard<Io>, terms: Terms)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self.server.engine() {
            Engine::Hyper => self.serve_by_hyper(guard, terms).await,
            Engine::Direct => {
                if self.serve_plain(&mut guard, terms).await == Rest::Requests {
                    self.serve_by_hyper(guard, terms).await;
                }
            }
            Engine::Portable => {
                let answer = |request| self.answer(request);
                let served = Box::pin(portable::serve(guard, terms, self.cancel, answer));
                self.conn.run(served, &self.caller.address).await;
            }
        }
    }

    /// Serves requests as long as they are plain.
    async fn serve_plain<Io>(&self, guard: &mut HeadGuard<Io>, terms: Terms) -> Rest
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut rest = Rest::Nothing;
        let requests = plain::serve(guard, terms, self.cancel, |request| self.answer(request));
        let served = requests.map_ok(|left| rest = left);
        self.conn.run(Box::pin(served), &self.caller.address).await;
        rest
    }

    /// Serves all that is left of a connection.
    async fn serve_by_hyper<Io>(&self, guard: HeadGuard<Io>, terms: Terms)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connection = http1::Builder::new()
            .keep_alive(terms.streams == StreamUse::KeptAlive)
            .max_buf_size(MAX_BUFFER_BYTES)
            .title_case_headers(terms.header_case == HeaderCase::Canonical)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(guard), service_fn(|request| self.answer(request)))
            .with_upgrades();
        let served = async {
            let mut connection = pin!(connection);
            tokio::select! {
                biased;
                served = connection.as_mut() => served,
                () = CancelWatch::new(self.cancel) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        self.conn.run(Box::pin(served), &self.caller.address).await;
    }

    /// Answers one request. Not an `async fn`: nearly every request takes the first arm, which returns a small
    /// future.
    fn answer<B>(
        &self,
        mut request: Request<B>,
    ) -> impl Future<Output = Result<Response<Answer>, CloseSilently>> + Send
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let ready = |mut response| {
            date(&mut response, self.server.clock());
            self.conn.answer(response)
        };
        let forwarded = self.hook.client(request.headers());
        let action = self.route(&request, forwarded.as_ref().unwrap_or(self.caller));
        request.extensions_mut().insert(forwarded.unwrap_or_else(|| self.caller.clone()));
        match (action, self.permit.get()) {
            (Action::Pass, Some(permit)) => {
                let finish = move |response| Ok(ready(response));
                Either::Left(self.server.answer(request, self.conn, permit, finish))
            }
            (action, _) => {
                let answering = Box::pin(self.answer_rare(request, action));
                Either::Right(answering.map_ok(ready))
            }
        }
    }

    /// Decides about a request: first its rate, then the form of its path, then the hook.
    fn route<B>(&self, request: &Request<B>, caller: &Caller) -> Action<H::Upgrade> {
        if let Some(refusal) = self.hook.refusal(caller) {
            return Action::Answer(refusal);
        }
        if let Some(moved) = reply::elsewhere(request.uri()) {
            return Action::Answer(moved);
        }
        self.hook.route(&RequestHead {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            caller,
            pipelined: self.conn.pipelined(),
        })
    }

    /// Answers a request that the hook handles, and the first request of a connection without a permit.
    async fn answer_rare<B>(
        &self,
        mut request: Request<B>,
        action: Action<H::Upgrade>,
    ) -> Result<HttpResponse, CloseSilently>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        match action {
            Action::Pass => Ok(self.answer_first(request).await),
            Action::Answer(response) => Ok(reply::after_its_pause(response).await),
            Action::Upgrade(response, upgrade) => {
                let on_upgrade = hyper::upgrade::on(&mut request);
                *self.pending() = Some(Pending { on_upgrade, upgrade });
                Ok(response)
            }
            Action::Close => Err(CloseSilently),
        }
    }

    /// Takes a permit for the connection, and then calls the service.
    async fn answer_first<B>(&self, request: Request<B>) -> HttpResponse
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let acquire = || self.server.permit(self.charged, self.conn);
        let acquired = self.cancel.run_until_cancelled(self.permit.get_or_try_init(acquire)).await;
        if let Some(Ok(permit)) = acquired {
            return self.server.answer(request, self.conn, permit, identity).await;
        }
        let mut response = reply::come_back(StatusCode::SERVICE_UNAVAILABLE, COME_BACK_AFTER);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Option<Pending<H::Upgrade>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the permit back.
    fn into_pending(self) -> Option<Pending<H::Upgrade>> {
        self.pending.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
