//! One accepted socket, from its first byte to its end.
//!
//! # Invariants
//!
//! * The socket keeps its place with the door as long as it lives, also as a peer.
//! * It takes a permit of the HTTP server with the first request that is not gossip, so that HTTP takes no
//!   place of a peer, and a peer none of HTTP.

use std::{io, pin::pin};

use gossip::{BoxFuture, DisconnectReason, LinkId, Transport, http::Caller};
use net_http::serve::{Connection, Terms, Upgraded};
use runtime::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{self, Instant},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{Place, hook::GossipHook, upgrade::Accepted};
use crate::{
    frame::Role,
    link::{self, Established},
    socket,
};

/// First byte of a connection that begins TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves one socket, to the end of its HTTP. Its first byte says whether it speaks TLS. Gives the rest
/// of its life if it became a peer.
pub(super) async fn serve(
    stream: Stream,
    place: Place,
    cancel: CancellationToken,
) -> Option<BoxFuture<'static, ()>> {
    socket::tune(&stream);
    let context = &place.context;
    let mut terms = context.http_server.limits().for_socket(context.profile.header_case);
    let Some(acceptor) = context.tls.clone() else {
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
                    return None;
                }
                Some(Err(_)) | None => return None,
            }
        }
        Some(Ok(Ok(First::Plain))) => {
            terms.head_time = deadline.saturating_duration_since(Instant::now());
            return serve_over(stream, terms, place, &cancel).await;
        }
        Some(Ok(Err(_)) | Err(_)) | None => return None,
    };
    terms.head_time = deadline.saturating_duration_since(Instant::now());
    // Far larger than its plain twin, and far rarer.
    Box::pin(serve_over(stream, terms, place, &cancel)).await
}

/// The first thing on a connection.
enum First {
    Tls,
    Plain,
}

async fn speaks_tls(stream: &Stream) -> io::Result<First> {
    let mut first = [0];
    let count = stream.peek(&mut first).await?;
    Ok(if count == 1 && first == [TLS_HANDSHAKE] { First::Tls } else { First::Plain })
}

/// A stream that can carry gossip.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin + Sized + 'static {
    type Read: AsyncRead + Unpin + Send + 'static;
    type Write: AsyncWrite + Unpin + Send + 'static;

    /// The socket below.
    fn socket(&self) -> &Stream;

    fn halves(self) -> (Self::Read, Self::Write);
}

impl Carrier for Stream {
    type Read = runtime::ReadHalf;
    type Write = runtime::WriteHalf;

    fn socket(&self) -> &Stream {
        self
    }

    fn halves(self) -> (Self::Read, Self::Write) {
        self.into_split()
    }
}

impl Carrier for TlsStream<Stream> {
    type Read = tokio::io::ReadHalf<Self>;
    type Write = tokio::io::WriteHalf<Self>;

    fn socket(&self) -> &Stream {
        self.get_ref().0
    }

    fn halves(self) -> (Self::Read, Self::Write) {
        tokio::io::split(self)
    }
}

/// Serves HTTP, and gives the peer that it may have become.
async fn serve_over<Io: Carrier>(
    io: Io,
    terms: Terms,
    place: Place,
    cancel: &CancellationToken,
) -> Option<BoxFuture<'static, ()>> {
    let caller = Caller {
        identity: None,
        transport: Transport::WebSocket,
        address: place.from.to_string().into(),
        ip: Some(place.from.ip()),
    };
    let (server, hook) = (place.context.http_server.clone(), GossipHook(&place));
    let served = server.serve(Connection { io, caller, terms }, &hook, cancel);
    let (upgraded, cancel) = (served.await?, cancel.clone());
    Some(Box::pin(async move { become_peer(&place, upgraded, &cancel).await }))
}

/// Goes on as a peer, to its end.
async fn become_peer<Io: Carrier>(
    place: &Place,
    upgraded: Upgraded<Io, Box<Accepted>>,
    cancel: &CancellationToken,
) {
    let Upgraded { io, early, upgrade } = upgraded;
    let Accepted { exchange, session, greeting, place: _peer_place } = *upgrade;
    socket::tune_for_gossip(io.socket());
    let context = &place.context;
    let peer: LinkId = context.broadcaster.next_link_id();
    let established = Established {
        halves: io.halves(),
        early,
        role: Role::Server,
        address: place.from.to_string(),
        exchange,
        session,
        greeting,
    };
    if let Ok(attached) = link::attach(context, (peer, None), established) {
        tracing::debug!(%peer, from = %place.from, "peer connected");
        let mut ended = pin!(link::ended(context, attached, cancel));
        let reason = tokio::select! {
            biased;
            reason = &mut ended => reason,
            () = place.evicted.cancelled() => {
                context.broadcaster.disconnect(peer, DisconnectReason::Evicted);
                ended.await
            }
        };
        tracing::debug!(%peer, from = %place.from, %reason, "peer gone");
    }
}
