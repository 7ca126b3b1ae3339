//! One accepted socket, from its first request to its end.
//!
//! # Invariants
//!
//! * The socket keeps its place with the gate as long as it lives, also as a peer.
//! * A stopping network lets a request under way be answered, and then closes.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use gossip::PeerId;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    Place, ResponseBody,
    head::{self, Behind, Head, MAX_HEAD_BYTES},
    raw::{self, Refusal},
    replay::Replay,
    reply,
    route::{Route, route},
    upgrade::{self, Accepted, Outcome},
};
use crate::{
    config::{GossipService, RemoteAddress},
    context::Context,
    frame::Role,
    link::{self, Claimed, Established},
    socket,
};

/// How long the first head may take. Source: wire facts 1.6.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a connection may idle between two requests. Source: wire facts 1.6.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// Serves one socket.
pub(super) async fn serve(mut stream: TcpStream, mut place: Place, cancel: CancellationToken) {
    socket::tune(&stream);
    let head = time::timeout(HEAD_TIME, head::read(&mut stream));
    let refusal = match cancel.run_until_cancelled(head).await {
        Some(Ok(Ok(Head::Complete { bytes, behind }))) => {
            place.headed();
            return serve_http(Replay::new(bytes, stream), behind, place, cancel).await;
        }
        Some(Ok(Ok(Head::TooLong))) => Refusal::TooLong,
        Some(Ok(Ok(Head::Malformed))) => Refusal::Malformed,
        Some(Ok(Ok(Head::NoHost))) => Refusal::NoHost,
        Some(Ok(Ok(Head::Gone) | Err(_)) | Err(_)) | None => return,
    };
    place.headed();
    raw::refuse(stream, refusal).await;
}

/// What the requests of one connection share.
struct Requests {
    context: Arc<Context>,
    from: std::net::SocketAddr,
    behind_first: Behind,
    had_first: AtomicBool,
    /// The peer that this connection becomes when the HTTP library is done with it.
    accepted: Mutex<Option<Box<Accepted>>>,
}

async fn serve_http(io: Replay, behind_first: Behind, place: Place, cancel: CancellationToken) {
    let requests = Arc::new(Requests {
        context: Arc::clone(&place.context),
        from: place.from,
        behind_first,
        had_first: AtomicBool::new(false),
        accepted: Mutex::default(),
    });
    let service = service_fn(|request| answer(Arc::clone(&requests), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIME)
        .max_buf_size(MAX_HEAD_BYTES)
        .title_case_headers(true)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        biased;
        served = connection.as_mut() => served,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, from = %place.from, "HTTP connection failed");
    }
    let accepted = requests.accepted.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(accepted) = accepted {
        become_peer(&place, *accepted, &cancel).await;
    }
}

/// The connection is to end without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the client did not wait for the answer to its upgrade")]
struct CloseSilently;

async fn answer(
    requests: Arc<Requests>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, CloseSilently> {
    let is_first = !requests.had_first.swap(true, Ordering::Relaxed);
    let context = &requests.context;
    let now = Instant::now().into_std();
    let allowed = context.gate().request(requests.from.ip(), now);
    if let Err(too_many) = allowed {
        return Ok(reply::dated(reply::too_many(too_many.retry_after)));
    }
    let response = match route(request.uri().path()) {
        Route::Gossip { genesis } if context.gossip_service == GossipService::On => {
            let behind = if is_first { requests.behind_first } else { Behind::Nothing };
            match upgrade::decide(context, request, &genesis, (requests.from, behind)) {
                Outcome::Refused(response) => response,
                Outcome::CloseSilently => return Err(CloseSilently),
                Outcome::Accepted(response, accepted) => {
                    let mut slot = requests.accepted.lock().unwrap_or_else(PoisonError::into_inner);
                    *slot = Some(accepted);
                    response
                }
            }
        }
        Route::Moved { path } => match request.uri().query() {
            Some(query) => reply::moved(&format!("{path}?{query}")),
            None => reply::moved(&path),
        },
        Route::Gossip { .. } | Route::Other => ask_router(&requests, request).await,
    };
    Ok(reply::dated(response))
}

async fn ask_router(requests: &Requests, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let Some(router) = requests.context.router.clone() else { return reply::not_found() };
    request.extensions_mut().insert(RemoteAddress(requests.from));
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(%error, "an HTTP service failed");
            reply::failed()
        }
    }
}

/// Goes on as a peer, to its end.
async fn become_peer(place: &Place, accepted: Accepted, cancel: &CancellationToken) {
    let Accepted { on_upgrade, exchange, session, greeting, seat } = accepted;
    let Some((early, stream)) = on_upgrade.await.ok().and_then(|upgraded| {
        let parts = upgraded.downcast::<TokioIo<Replay>>().ok()?;
        let (unread, stream) = parts.io.into_inner().into_parts();
        let mut early = BytesMut::from(&parts.read_buf[..]);
        early.extend_from_slice(&unread);
        Some((early, stream))
    }) else {
        return;
    };
    let context = &place.context;
    let peer: PeerId = context.broadcaster.next_peer_id();
    let _claimed = Claimed { context: Arc::clone(context), peer };
    let established = Established {
        stream,
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
