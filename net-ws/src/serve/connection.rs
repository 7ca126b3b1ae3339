//! One accepted socket, from its first byte to its end.
//!
//! # Invariants
//!
//! * The socket keeps its place with the door until it is closed, also after it has become a peer.
//! * The first request that is not gossip takes a connection permit of the HTTP server. HTTP connections
//!   therefore take no places of peers, and peers no connection permits.

use std::{io, net::SocketAddr, pin::pin, sync::Arc};

use bytes::BytesMut;
use gossip::{BoxFuture, DisconnectReason, LinkId, Security};
use mesh::PeerPlace;
use net_http::serve::{Connection, PermitRule, Terms, Upgraded};
use net_tcp::{hand_over::HandedOver, websocket};
use runtime::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{self, Instant},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Place,
    handed::{Client, Taken},
    hook::GossipHook,
    origin::{Origin, Sender},
    raw,
    upgrade::Accepted,
};
use crate::{
    frame::{self, Data, MAX_HEADER_BYTES, OpCode, Part, Role},
    link::{self, Established, IDENTITY_TIME},
    metrics::{TlsRefusal, UpgradeRefusal},
    socket,
};

/// First byte of a TLS handshake record. Source: RFC 8446, section 5.1.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves one socket until its HTTP ends. The first byte tells TLS from plain HTTP. If the socket was
/// upgraded, returns the future that runs its link.
pub(super) async fn serve(
    mut stream: Stream,
    place: Place,
    cancel: CancellationToken,
) -> Option<BoxFuture<'static, ()>> {
    socket::tune(&stream);
    let context = Arc::clone(&place.context);
    let mut terms = context.http_server.limits().for_socket(context.profile.header_case);
    let deadline = Instant::now() + terms.head_time;
    let origin = match place.begins_with_preamble() {
        false => place.origin(),
        true => {
            let reading = place.introduced(&mut stream, deadline);
            cancel.run_until_cancelled(reading).await??
        }
    };
    if origin.sender == Sender::Proxy {
        terms.permit = PermitRule::WithFirstRequestOfProxy;
    }
    let guest = Guest { place, origin };
    let Some(tls) = context.tls.clone() else {
        return serve_over(stream, terms, guest, &cancel).await;
    };
    let first = time::timeout_at(deadline, speaks_tls(&stream));
    let stream = match cancel.run_until_cancelled(first).await {
        Some(Ok(Ok(First::Tls))) => {
            let span = tracing::debug_span!("tls_handshake", role = "server", from = %guest.origin.address);
            let accept = time::timeout_at(deadline, tls.acceptor().accept(stream).instrument(span));
            match cancel.run_until_cancelled(accept).await {
                Some(Ok(Ok(stream))) => stream,
                Some(Ok(Err(error))) => {
                    context.metrics.note_tls(TlsRefusal::of(&error));
                    tracing::debug!(%error, from = %guest.origin.address, "TLS handshake failed");
                    return None;
                }
                Some(Err(_)) => {
                    context.metrics.note_tls(TlsRefusal::TimedOut);
                    return None;
                }
                None => return None,
            }
        }
        // A proxy that speaks for its clients has looked at their certificates itself.
        Some(Ok(Ok(First::Plain)))
            if tls.demands_certificates() && guest.origin.sender == Sender::Client =>
        {
            context.metrics.note_tls(TlsRefusal::Plain);
            cancel.run_until_cancelled(raw::wants_tls(stream, deadline)).await;
            return None;
        }
        Some(Ok(Ok(First::Plain))) => {
            terms.head_time = deadline.saturating_duration_since(Instant::now());
            return serve_over(stream, terms, guest, &cancel).await;
        }
        Some(Ok(Err(_)) | Err(_)) | None => return None,
    };
    terms.head_time = deadline.saturating_duration_since(Instant::now());
    // Boxed: this future is far larger than the plain one, and far rarer.
    Box::pin(serve_over(stream, terms, guest, &cancel)).await
}

/// An accepted socket, and what is known of its other end.
struct Guest {
    place: Place,
    origin: Origin,
}

/// The kind of the first bytes on a connection.
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
trait Carrier: websocket::Carrier + Sized {
    /// The security of the stream.
    const SECURITY: Security;
    type Read: AsyncRead + Unpin + Send + 'static;
    type Write: AsyncWrite + Unpin + Send + 'static;

    /// The TCP stream below.
    fn socket(&self) -> &Stream;

    fn halves(self) -> (Self::Read, Self::Write);
}

impl Carrier for Stream {
    const SECURITY: Security = Security::Plain;
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
    const SECURITY: Security = Security::Tls;
    type Read = tokio::io::ReadHalf<Self>;
    type Write = tokio::io::WriteHalf<Self>;

    fn socket(&self) -> &Stream {
        self.get_ref().0
    }

    fn halves(self) -> (Self::Read, Self::Write) {
        tokio::io::split(self)
    }
}

/// Serves HTTP. If the connection was upgraded, returns the future that runs its link.
async fn serve_over<Io: Carrier>(
    io: Io,
    terms: Terms,
    Guest { place, origin }: Guest,
    cancel: &CancellationToken,
) -> Option<BoxFuture<'static, ()>> {
    let caller = origin.caller();
    let server = place.context.http_server.clone();
    let hook = GossipHook { place: &place, origin: &origin };
    let served = server.serve(Connection { io, caller, terms }, &hook, cancel);
    let (Upgraded { io, early, upgrade }, cancel) = (served.await?, cancel.clone());
    match upgrade {
        Taken::Gossip(upgrade) => {
            let upgraded = Upgraded { io, early, upgrade };
            Some(Box::pin(async move { become_peer(&place, upgraded, &cancel).await }))
        }
        Taken::Other(client) => {
            hand_over(place, io, early, client);
            None
        }
    }
}

/// Hands a WebSocket over to the other network of the node, with its place at the door.
fn hand_over<Io: Carrier>(place: Place, io: Io, early: BytesMut, client: Client) {
    let Place { context, from, pass, evicted } = place;
    let Client { caller, page } = client;
    let from = match caller.ip {
        Some(ip) if ip != from.ip() => SocketAddr::new(ip, 0),
        _ => from,
    };
    let Ok(local) = io.socket().local_addr() else { return };
    socket::tune_for_gossip(io.socket());
    let security = Io::SECURITY;
    let socket = HandedOver { io: Box::new(io), early, security, from, local, pass, page, evicted };
    if !context.hand_over.as_ref().is_some_and(|to| to.give(socket)) {
        context.metrics.note_upgrade(UpgradeRefusal::NotTaken);
    }
}

/// Resolves once a peer that got its place as a member has not proved in time that it is that member; never for any other.
async fn unproved(place: &PeerPlace) {
    if !place.is_proved() {
        // Boxed: a link holds no room for it, and few ever need it.
        Box::pin(time::sleep(IDENTITY_TIME)).await;
    }
    if place.is_proved() {
        std::future::pending().await
    }
}

/// Sends a page the answer to its hello, as a text message: every message of gossip is a binary one.
async fn tell<Io: AsyncWrite + Unpin>(io: &mut Io, text: &str) -> io::Result<()> {
    let mut frame = Vec::with_capacity(MAX_HEADER_BYTES + text.len());
    frame::write_frame(&mut frame, None, (Part::Last, OpCode::Data(Data::Text)), text.as_bytes());
    io.write_all(&frame).await?;
    io.flush().await
}

/// Attaches an upgraded connection, and waits for the end of its link.
async fn become_peer<Io: Carrier>(
    place: &Place,
    upgraded: Upgraded<Io, Box<Accepted>>,
    cancel: &CancellationToken,
) {
    let Upgraded { mut io, early, upgrade } = upgraded;
    let Accepted {
        features,
        exchange,
        session,
        priority_challenge,
        place: peer_place,
        listens,
        told,
        caller,
    } = *upgrade;
    let peer_place = Arc::new(peer_place);
    socket::tune_for_gossip(io.socket());
    let context = &place.context;
    if let Some(told) = told {
        let telling = time::timeout(IDENTITY_TIME, tell(&mut io, &told));
        match cancel.run_until_cancelled(telling).await {
            Some(Ok(Ok(()))) => {}
            None => return,
            Some(Ok(Err(_)) | Err(_)) => {
                context.metrics.note_upgrade(UpgradeRefusal::Untold);
                return;
            }
        }
    }
    let peer: LinkId = context.broadcaster.next_link_id();
    let established = Established {
        halves: io.halves(),
        early,
        role: Role::Server,
        configured: None,
        address: caller.address.to_string(),
        http_address: listens,
        features,
        exchange,
        session,
        greeting: Vec::new(),
        priority_challenge,
        place: Some(Arc::clone(&peer_place)),
        round_trip: None,
    };
    if let Ok(attached) = link::attach(context, (peer, None), established) {
        tracing::debug!(%peer, from = %caller.address, "peer connected");
        let mut ended = pin!(link::ended(context, attached, cancel));
        let reason = tokio::select! {
            biased;
            reason = &mut ended => reason,
            () = place.evicted.cancelled() => {
                context.broadcaster.disconnect(peer, DisconnectReason::Evicted);
                ended.await
            }
            () = unproved(&peer_place) => {
                context.broadcaster.disconnect(peer, DisconnectReason::NotMember);
                ended.await
            }
        };
        tracing::debug!(%peer, from = %caller.address, %reason, "peer gone");
    }
}
