//! From a finished handshake to a peer of the broadcaster, and what happens when it ends.
//!
//! # Invariants
//!
//! * An identity is claimed once it is verified, not before. What follows from that is the broadcaster's.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broadcaster::{Attached, Claim, LaneSinks, Link, LinkHooks, LinkInfo, Stopping};
use bytes::{Bytes, BytesMut};
use gossip::{
    BoxFuture, Direction, DisconnectReason, Identity, LinkId, NodeAddress, Roles, Tag, Transport,
    wire::identity::{Challenge, ListenerIdentity, Verification},
};
use mesh::LinkClaim;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, Exchange},
    frame::Role,
    port::Port,
    sink::WsSink,
    source::WsSource,
};

/// How long a stopping network waits for one peer. Chosen: the second in which the broadcaster lets the
/// last messages out, and the second in which a sink waits for the peer's end.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A connection whose handshake is done.
pub(crate) struct Established<R, W> {
    /// The two halves of the stream.
    pub(crate) halves: (R, W),
    /// What was read behind the handshake.
    pub(crate) early: BytesMut,
    pub(crate) role: Role,
    /// The address dialled, or the one the peer came from.
    pub(crate) address: String,
    /// Where HTTP calls reach the peer.
    pub(crate) http_address: Option<NodeAddress>,
    /// How far the identity exchange has come.
    pub(crate) exchange: ListenerIdentity,
    /// The run of the dialer.
    pub(crate) session: u64,
    /// What is sent first.
    pub(crate) greeting: Vec<(Tag, Bytes)>,
}

/// Makes a peer of a connection. `claim` is there if it is verified already who is at the other end.
pub(crate) fn attach<R, W>(
    context: &Arc<Context>,
    (peer, claim): (LinkId, Option<Claim>),
    established: Established<R, W>,
) -> Result<Attached, Stopping>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let Established {
        halves: (read_half, write_half),
        early,
        role,
        address,
        http_address,
        exchange,
        session,
        greeting,
    } = established;
    let port = Arc::new(Port::default());
    let (returns, returned) = oneshot::channel();
    let rules = context.broadcaster.assembly();
    let source = WsSource::new((read_half, early), role, rules, Arc::clone(&port), returns);
    // Nobody is dialled over WebSocket whom the operator did not name.
    let (direction, roles) = match role {
        Role::Server => (Direction::Inbound, Roles::NONE),
        Role::Client => (Direction::Outbound, Roles::CONFIGURED),
    };
    let mut about = LinkInfo::new(Transport::WebSocket, direction, address);
    (about.roles, about.http_address) = (roles, http_address);
    let (context, exchange) = (Arc::clone(context), Mutex::new(exchange));
    let random = context.environment().random();
    let hooks = Hooks { context: Arc::clone(&context), exchange, session, port: Arc::clone(&port) };
    let link = Link {
        about,
        sinks: LaneSinks::Shared(WsSink::new(write_half, (role, random), port, returned)),
        sources: vec![source],
        greeting,
        hooks: Some(Arc::new(hooks)),
        codec: None,
        gauge: None,
    };
    match claim {
        Some(claim) => context.broadcaster.attach_claimed(claim, link),
        None => context.broadcaster.attach(peer, link),
    }
}

/// Waits for the end of a peer, which comes at the latest when `cancel` asks for it.
pub(crate) async fn ended(
    context: &Context,
    mut attached: Attached,
    cancel: &CancellationToken,
) -> DisconnectReason {
    tokio::select! {
        biased;
        reason = attached.ended() => return reason,
        () = cancel.cancelled() => {}
    }
    context.broadcaster.disconnect(attached.peer, DisconnectReason::LocalShutdown);
    // A link that was retired goes its own way, which is the broadcaster's to wait for.
    let ended = time::timeout(STOP_PATIENCE, attached.ended());
    ended.await.unwrap_or(DisconnectReason::LocalShutdown)
}

/// A claim for a WebSocket.
pub(crate) fn claim(
    peer: LinkId,
    identity: Identity,
    dialer: Identity,
    (session, tie): (u64, Challenge),
) -> LinkClaim {
    let (transport, session) = (Transport::WebSocket, Some(session));
    LinkClaim { link: peer, identity, transport, dialer, session, tie: tie.0 }
}

/// The end of the identity exchange, which comes as a message.
struct Hooks {
    context: Arc<Context>,
    exchange: Mutex<ListenerIdentity>,
    session: u64,
    port: Arc<Port>,
}

impl LinkHooks for Hooks {
    fn control(&self, peer: LinkId, tag: Tag, payload: &Bytes) -> Result<(), DisconnectReason> {
        // Proofs of stake and packed votes were not asked for, and mean nothing here.
        if tag != Tag::NI || matches!(self.context.exchange, Exchange::Off) {
            return Ok(());
        }
        let (issued, verdict) = {
            let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
            (*exchange, exchange.verify(payload))
        };
        let identity = match verdict {
            Verification::Verified(identity) => identity,
            Verification::Ignored => return Ok(()),
            Verification::Disconnect(reason, error) => {
                tracing::debug!(%peer, %error, "identity refused");
                return Err(reason);
            }
        };
        let ListenerIdentity::Challenged { response_challenge: tie, .. } = issued else {
            return Ok(());
        };
        let claim = claim(peer, identity, identity, (self.session, tie));
        self.context.broadcaster.verified(claim);
        Ok(())
    }

    fn sign_of_life(&self) -> BoxFuture<'static, ()> {
        let port = Arc::clone(&self.port);
        Box::pin(async move { port.sign_of_life().await })
    }
}
