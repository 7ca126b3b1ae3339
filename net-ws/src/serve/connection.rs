//! One accepted socket, from its first request to its end.
//!
//! # Invariants
//!
//! * The socket keeps its place with the gate as long as it lives, also as a peer.
//! * It takes a seat of the http_server with the first request that is not gossip, so that what is served
//!   over HTTP takes no place of a peer, and a peer none of what is served.
//! * A stopping network lets a request under way be answered, and then closes.

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::BytesMut;
use futures::{FutureExt, StreamExt, TryFutureExt, future::Either, stream::FuturesUnordered};
use gossip::{
    HeaderCase, LinkId, StreamUse, Transport,
    http::{Caller, HttpResponse},
};
use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh::TooMany;
use net_http::{
    HttpServer,
    serve::{Answer, ConnState, ConnectionPermit, HeadGuard, Terms},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::OnceCell,
    time::{self, Instant},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{
    Place, reply,
    route::genesis_of,
    upgrade::{self, Accepted, Outcome},
};
use crate::{
    config::GossipService,
    frame::Role,
    link::{self, Claimed, Established},
    socket,
};

/// How much of a body is read or written at once, in bytes. Chosen: as on streams.
const MAX_BUFFER_BYTES: usize = 256 * 1024;

/// What a connection that begins TLS sends first.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves one socket. Its first byte says whether it speaks TLS.
pub(super) async fn serve(stream: TcpStream, place: Place, cancel: CancellationToken) {
    socket::tune(&stream);
    let limits = place.context.http_server.as_ref().map(|http_server| http_server.limits().clone());
    let mut terms = limits.unwrap_or_default().terms(Transport::WebSocket, StreamUse::KeptAlive);
    let Some(acceptor) = place.context.tls.clone() else {
        return serve_over(stream, terms, place, &cancel).await;
    };
    let deadline = Instant::now() + terms.head_time;
    let first = time::timeout_at(deadline, speaks_tls(&stream));
    let stream = match cancel.run_until_cancelled(first).await {
        Some(Ok(Ok(First::Tls))) => {
            let accept = time::timeout_at(deadline, acceptor.accept(stream));
            match cancel.run_until_cancelled(accept).await {
                Some(Ok(Ok(stream))) => stream,
                Some(Ok(Err(error))) => {
                    tracing::debug!(%error, from = %place.from, "TLS handshake failed");
                    return;
                }
                Some(Err(_)) | None => return,
            }
        }
        Some(Ok(Ok(First::Plain))) => {
            terms.head_time = deadline.saturating_duration_since(Instant::now());
            return serve_over(stream, terms, place, &cancel).await;
        }
        Some(Ok(Err(_)) | Err(_)) | None => return,
    };
    terms.head_time = deadline.saturating_duration_since(Instant::now());
    // Far larger than its plain twin, and far rarer.
    Box::pin(serve_over(stream, terms, place, &cancel)).await;
}

/// What a connection begins with.
enum First {
    Tls,
    Plain,
}

async fn speaks_tls(stream: &TcpStream) -> io::Result<First> {
    let mut first = [0];
    let count = stream.peek(&mut first).await?;
    Ok(if count == 1 && first == [TLS_HANDSHAKE] { First::Tls } else { First::Plain })
}

/// A stream that can carry gossip.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin + Sized + 'static {
    type Read: AsyncRead + Unpin + Send + 'static;
    type Write: AsyncWrite + Unpin + Send + 'static;

    /// The socket below.
    fn socket(&self) -> &TcpStream;

    fn halves(self) -> (Self::Read, Self::Write);
}

impl Carrier for TcpStream {
    type Read = OwnedReadHalf;
    type Write = OwnedWriteHalf;

    fn socket(&self) -> &TcpStream {
        self
    }

    fn halves(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        self.into_split()
    }
}

impl Carrier for TlsStream<TcpStream> {
    type Read = ReadHalf<Self>;
    type Write = WriteHalf<Self>;

    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn halves(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        tokio::io::split(self)
    }
}

/// Serves HTTP, and then perhaps a peer.
async fn serve_over<Io: Carrier>(io: Io, terms: Terms, place: Place, cancel: &CancellationToken) {
    let from = place.from;
    let line = place.context.http_server.as_ref().map(HttpServer::line).unwrap_or_default();
    let screen = HeadGuard::new(io, Arc::clone(&line), terms);
    let requests = Requests {
        cancel: cancel.clone(),
        caller: Caller {
            identity: None,
            transport: Transport::WebSocket,
            address: from.to_string().into(),
            ip: Some(from.ip()),
        },
        place,
        line,
        seat: OnceCell::new(),
        accepted: Mutex::default(),
    };
    serve_http(screen, &requests, cancel).await;
    let accepted = requests.accepted.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(accepted) = accepted {
        let place = requests.into_place();
        become_peer::<Io>(&place, *accepted, cancel).await;
    }
}

/// What the requests of one connection share.
struct Requests {
    /// Ends the wait for a seat.
    cancel: CancellationToken,
    place: Place,
    line: Arc<ConnState>,
    caller: Caller,
    /// The seat among those that are served over HTTP.
    seat: OnceCell<ConnectionPermit>,
    /// The peer that this connection becomes when the HTTP library is done with it.
    accepted: Mutex<Option<Box<Accepted>>>,
}

impl Requests {
    /// Gives the seat back, and keeps the place.
    fn into_place(self) -> Place {
        self.place
    }
}

async fn serve_http<Io: Carrier>(
    screen: HeadGuard<Io>,
    requests: &Requests,
    cancel: &CancellationToken,
) {
    let service = service_fn(|request| answer(requests, request));
    let context = &requests.place.context;
    let connection = http1::Builder::new()
        .max_buf_size(MAX_BUFFER_BYTES)
        .title_case_headers(context.profile.header_case == HeaderCase::Canonical)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(screen), service)
        .with_upgrades();
    let served = async {
        let mut connection = pin!(connection);
        // In a set of one, so that it is asked only when it has something to say.
        let mut cancelled: FuturesUnordered<_> = [cancel.cancelled()].into_iter().collect();
        tokio::select! {
            biased;
            served = connection.as_mut() => served,
            Some(()) = cancelled.next() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    requests.line.run(served, &requests.place.from).await;
}

/// The connection is to end without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the client did not wait for the answer to its upgrade")]
struct CloseSilently;

/// Not an `async fn`: what nearly every request goes through leaves a small future to wait for.
fn answer(
    requests: &Requests,
    request: Request<Incoming>,
) -> impl Future<Output = Result<http::Response<Answer>, CloseSilently>> + Send {
    let Requests { place, line, caller, .. } = requests;
    place.headed();
    let context = &place.context;
    let now = Instant::now().into_std();
    let allowed = context.gate().request(place.from.ip(), now);
    let is_gossip = context.gossip_service == GossipService::On;
    let ready = |response| line.answer(reply::dated(response));
    match (allowed, &context.http_server, requests.seat.get()) {
        (Ok(()), Some(http_server), Some(seat))
            if reply::is_clean(request.uri())
                && !(is_gossip && genesis_of(request.uri().path()).is_some()) =>
        {
            let answering = http_server.answer(request, caller, line, seat);
            Either::Left(answering.map(move |response| Ok(ready(response))))
        }
        (allowed, _, _) => {
            let answering = Box::pin(answer_rare(requests, request, allowed));
            Either::Right(answering.map_ok(ready))
        }
    }
}

/// Answers the first request of a connection, one for gossip, and one that is refused.
async fn answer_rare(
    requests: &Requests,
    request: Request<Incoming>,
    allowed: Result<(), TooMany>,
) -> Result<HttpResponse, CloseSilently> {
    let Requests { place, line, .. } = requests;
    let context = &place.context;
    if let Err(too_many) = allowed {
        return Ok(reply::after_pause(reply::too_many(too_many.retry_after)).await);
    }
    if let Some(moved) = reply::elsewhere(request.uri()) {
        return Ok(moved);
    }
    Ok(match (genesis_of(request.uri().path()), &context.http_server) {
        (Some(genesis), _) if context.gossip_service == GossipService::On => {
            match upgrade::decide(context, request, &genesis, (place.from, line.behind())) {
                Outcome::Refused(response) => response,
                Outcome::CloseSilently => return Err(CloseSilently),
                Outcome::Accepted(response, accepted) => {
                    let mut slot = requests.accepted.lock().unwrap_or_else(PoisonError::into_inner);
                    *slot = Some(accepted);
                    response
                }
            }
        }
        (_, None) => reply::not_found(),
        (_, Some(http_server)) => ask_seated(requests, http_server, request).await,
    })
}

/// Takes a seat unless the connection has one, and has the http_server answer.
async fn ask_seated(
    requests: &Requests,
    http_server: &HttpServer,
    request: Request<Incoming>,
) -> HttpResponse {
    let enter = || http_server.enter(&requests.caller, &requests.line);
    let entered = requests.cancel.run_until_cancelled(requests.seat.get_or_try_init(enter)).await;
    if let Some(Ok(seat)) = entered {
        return http_server.answer(request, &requests.caller, &requests.line, seat).await;
    }
    let mut response = reply::unavailable();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Goes on as a peer, to its end.
async fn become_peer<Io: Carrier>(place: &Place, accepted: Accepted, cancel: &CancellationToken) {
    let Accepted { on_upgrade, exchange, session, greeting, seat } = accepted;
    let Some((early, stream)) = on_upgrade.await.ok().and_then(|upgraded| {
        let parts = upgraded.downcast::<TokioIo<HeadGuard<Io>>>().ok()?;
        let (unread, stream) = parts.io.into_inner().into_parts();
        let mut early = BytesMut::from(&parts.read_buf[..]);
        early.extend_from_slice(&unread);
        Some((early, stream))
    }) else {
        return;
    };
    socket::tune_for_gossip(stream.socket());
    let context = &place.context;
    let peer: LinkId = context.broadcaster.next_link_id();
    let _claimed = Claimed { context: Arc::clone(context), peer };
    let established = Established {
        halves: stream.halves(),
        early,
        role: Role::Server,
        address: place.from.to_string(),
        identity: None,
        exchange,
        session,
        greeting,
    };
    if let Ok(attached) = link::attach(context, peer, established) {
        tracing::debug!(%peer, from = %place.from, "peer connected");
        let reason = link::ended(context, attached, cancel).await;
        tracing::debug!(%peer, from = %place.from, %reason, "peer gone");
    }
    drop(seat);
}
