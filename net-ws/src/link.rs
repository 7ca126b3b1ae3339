//! From a finished handshake to a peer of the broadcaster, and what happens when it ends.
//!
//! # Invariants
//!
//! * An identity is claimed once it is verified, not before, and given back when its link ends.
//! * What a ruling asks for is done at once, by whoever made the claim.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broadcaster::{Attached, LaneSinks, Link, LinkHooks, LinkInfo, Stopping};
use bytes::{Bytes, BytesMut};
use gossip::{
    Direction, DisconnectReason, Identity, LinkId, Tag, Transport,
    wire::identity::{Challenge, ListenerIdentity, Verification},
};
use mesh::{LinkClaim, Ruling, ledger::CLOSE_PATIENCE};
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
    /// Who is at the other end, if that is verified already.
    pub(crate) identity: Option<Identity>,
    /// How far the identity exchange has come.
    pub(crate) exchange: ListenerIdentity,
    /// The run of the dialer.
    pub(crate) session: u64,
    /// What is sent first.
    pub(crate) greeting: Vec<(Tag, Bytes)>,
}

/// Makes a peer of a connection.
pub(crate) fn attach<R, W>(
    context: &Arc<Context>,
    peer: LinkId,
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
        identity,
        exchange,
        session,
        greeting,
    } = established;
    let port = Arc::new(Port::default());
    let (returns, returned) = oneshot::channel();
    let rules = context.broadcaster.assembly();
    let source = WsSource::new((read_half, early), role, rules, Arc::clone(&port), returns);
    let direction = match role {
        Role::Server => Direction::Inbound,
        Role::Client => Direction::Outbound,
    };
    let random = context.environment().random();
    let hooks = Hooks { context: Arc::clone(context), exchange: Mutex::new(exchange), session };
    context.broadcaster.attach(
        peer,
        Link {
            about: LinkInfo { transport: Transport::WebSocket, direction, address, identity },
            sinks: LaneSinks::Shared(WsSink::new(write_half, (role, random), port, returned)),
            sources: vec![source],
            greeting,
            hooks: Some(Arc::new(hooks)),
        },
    )
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

/// Gives an identity back when its link is over, however that comes about.
pub(crate) struct Claimed {
    pub(crate) context: Arc<Context>,
    pub(crate) peer: LinkId,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.context.ledger().release(self.peer);
    }
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

/// Ends the link that lost against `winner`, in the way the ledger says.
pub(crate) fn replace(context: &Context, loser: LinkId, winner: LinkId, identity: &Identity) {
    let patience = context.ledger().patience(identity);
    context.broadcaster.retire(loser, winner, patience);
}

/// Ends a link that was dialled and attached although another holds its identity, or came to hold it
/// since. The peer learns from the last message of the exchange who this is, and closes.
pub(crate) fn yield_to_holder(context: &Context, peer: LinkId, identity: &Identity) {
    let holder = context.ledger().holder(identity).filter(|holder| *holder != peer);
    if let Some(holder) = holder {
        context.broadcaster.retire(peer, holder, CLOSE_PATIENCE);
    }
}

/// The end of the identity exchange, which comes as a message.
struct Hooks {
    context: Arc<Context>,
    exchange: Mutex<ListenerIdentity>,
    session: u64,
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
        let ruling = self.context.ledger().claim(claim);
        match ruling {
            Ruling::Refuse { winner } => {
                tracing::debug!(%peer, %winner, %identity, "the other link to this node stays");
                // Named first, so that what waits for this link goes to the other one.
                self.context.broadcaster.identify(peer, identity);
                replace(&self.context, peer, winner, &identity);
            }
            Ruling::Keep => self.context.broadcaster.identify(peer, identity),
            Ruling::Replace { loser } => {
                self.context.broadcaster.identify(peer, identity);
                replace(&self.context, loser, peer, &identity);
            }
        }
        Ok(())
    }
}
