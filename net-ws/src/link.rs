//! Turns a finished handshake into a link of the broadcaster, and waits for its end.
//!
//! # Invariants
//!
//! * An identity is claimed only after it was verified. The broadcaster decides what the claim leads to.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broadcaster::{Attached, Claim, LaneSinks, Link, LinkGuard, LinkHooks, LinkInfo, Stopping};
use bytes::{Bytes, BytesMut};
use gossip::{
    BoxFuture, Direction, DisconnectReason, LinkId, NodeAddress, Roles, Tag, Transport,
    wire::{
        features::Features,
        identity::{ListenerIdentity, Verification},
    },
};
use mesh::{ConfiguredAddress, LinkClaim, Merit, PeerPlace, Refusal};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, Exchange},
    frame::Role,
    port::Port,
    sink::WsSink,
    source::WsSource,
};

/// Longest time that a stopping network waits for one link. Chosen: one second in which the broadcaster sends
/// the last messages, and one in which the sink waits for the peer's end of stream.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Longest time for the last message of the identity exchange, in which no listener is told of the peer.
/// Source: threats and goals, row 27.
pub(crate) const IDENTITY_TIME: Duration = Duration::from_secs(10);

/// A connection that has completed its handshake.
pub(crate) struct Established<R, W> {
    /// The read half and the write half of the stream.
    pub(crate) halves: (R, W),
    /// Bytes that were read after the handshake.
    pub(crate) early: BytesMut,
    pub(crate) role: Role,
    /// The address dialled, or the address the peer connected from.
    pub(crate) address: String,
    /// The configured address that was dialled, at the end that dialled.
    pub(crate) configured: Option<ConfiguredAddress>,
    /// The address at which HTTP calls reach the peer, if it has one.
    pub(crate) http_address: Option<NodeAddress>,
    /// The features that the peer announced.
    pub(crate) features: Features,
    /// State of the identity exchange.
    pub(crate) exchange: ListenerIdentity,
    /// Number of the dialer's run, see `Context::session`.
    pub(crate) session: u64,
    /// Messages sent before any other.
    pub(crate) greeting: Vec<(Tag, Bytes)>,
    /// The challenge that the peer may answer to be ranked.
    pub(crate) priority_challenge: Option<String>,
    /// The peer's place with the door, if it has one.
    pub(crate) place: Option<Arc<PeerPlace>>,
    /// Time from the upgrade request to its answer, at the end that dialled.
    pub(crate) round_trip: Option<Duration>,
}

/// Attaches a connection to the broadcaster. `claim` is present if the handshake has already verified the
/// peer's identity.
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
        configured,
        http_address,
        features,
        exchange,
        session,
        greeting,
        priority_challenge,
        place,
        round_trip,
    } = established;
    let port = Arc::new(Port::default());
    if let Some(time) = round_trip {
        port.round_trip().set(time);
    }
    let (returns, returned) = oneshot::channel();
    let rules = context.broadcaster.assembly();
    let source = WsSource::new((read_half, early), role, rules, Arc::clone(&port), returns);
    let direction = match role {
        Role::Server => Direction::Inbound,
        Role::Client => Direction::Outbound,
    };
    let roles = if configured.is_some() { Roles::CONFIGURED } else { Roles::NONE };
    let mut about = LinkInfo::new(Transport::WebSocket, direction, address);
    (about.roles, about.http_address) = (roles, http_address);
    about.configured = configured;
    about.conduct = place.as_ref().and_then(|place| place.conduct());
    about.round_trip = port.round_trip().clone();
    about.features = features;
    if matches!(exchange, ListenerIdentity::Challenged { .. }) {
        about.identity_time = Some(IDENTITY_TIME);
    }
    let (context, exchange) = (Arc::clone(context), Mutex::new(exchange));
    let random = context.environment().random();
    let (hooks_context, hooks_port) = (Arc::clone(&context), Arc::clone(&port));
    let hooks = Hooks {
        context: hooks_context,
        exchange,
        session,
        port: hooks_port,
        priority_challenge: Mutex::new(priority_challenge),
        merit: place.as_ref().and_then(|place| place.merit()),
        place,
    };
    let link = Link {
        about,
        sinks: LaneSinks::Shared(WsSink::new(write_half, (role, random), port, returned)),
        sources: vec![source],
        greeting,
        hooks: Some(Arc::new(hooks)),
        codec: context.broadcaster.link_codec(features),
        gauge: None,
    };
    match claim {
        Some(claim) => context.broadcaster.attach_claimed(claim, link),
        None => context.broadcaster.attach(peer, link),
    }
}

/// Waits for the end of a link. Cancellation makes the link close; this returns at most [`STOP_PATIENCE`]
/// later.
pub(crate) async fn ended(
    context: &Context,
    mut attached: Attached,
    cancel: &CancellationToken,
) -> DisconnectReason {
    let _guard = LinkGuard::new(&context.broadcaster, attached.peer);
    let _ranked = Ranked { context, link: attached.peer };
    tokio::select! {
        biased;
        reason = attached.ended() => return reason,
        () = cancel.cancelled() => {}
    }
    context.broadcaster.disconnect(attached.peer, DisconnectReason::LocalShutdown);
    // A retired link may take longer than this; the broadcaster owns and ends it.
    let ended = time::timeout(STOP_PATIENCE, attached.ended());
    ended.await.unwrap_or(DisconnectReason::LocalShutdown)
}

/// The rank of a link, which it loses when this is dropped.
struct Ranked<'c> {
    context: &'c Context,
    link: LinkId,
}

impl Drop for Ranked<'_> {
    fn drop(&mut self) {
        if let Some(priority) = &self.context.priority {
            priority.gone(self.link);
        }
    }
}

/// Completes the identity exchange on the listening side, whose last part comes as a message.
struct Hooks {
    context: Arc<Context>,
    exchange: Mutex<ListenerIdentity>,
    session: u64,
    port: Arc<Port>,
    /// Taken by the first response.
    priority_challenge: Mutex<Option<String>>,
    merit: Option<Merit>,
    place: Option<Arc<PeerPlace>>,
}

impl LinkHooks for Hooks {
    fn control(&self, peer: LinkId, tag: Tag, payload: &Bytes) -> Result<(), DisconnectReason> {
        match tag {
            Tag::NI => self.identify(peer, payload),
            Tag::NP => {
                self.rank(peer, payload);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn delivered(&self) {
        if let Some(merit) = &self.merit {
            merit.delivered(Instant::now().into_std());
        }
    }

    fn sign_of_life(&self) -> BoxFuture<'static, ()> {
        let port = Arc::clone(&self.port);
        Box::pin(async move { port.sign_of_life().await })
    }
}

impl Hooks {
    /// Ranks the peer by its response, if one was asked for. A wrong one changes nothing. Source: wire facts 7.
    fn rank(&self, peer: LinkId, payload: &Bytes) {
        let Some(priority) = &self.context.priority else { return };
        let challenge =
            self.priority_challenge.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(challenge) = challenge else { return };
        let link = (peer, self.merit.as_ref());
        match priority.judge(&self.context.broadcaster, link, &challenge, payload) {
            Ok(()) => {}
            Err(error) => tracing::debug!(%peer, %error, "not ranked"),
        }
    }

    /// Deals with the last message of the identity exchange.
    fn identify(&self, peer: LinkId, payload: &Bytes) -> Result<(), DisconnectReason> {
        if matches!(self.context.exchange, Exchange::Off) {
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
        if let Some(place) = &self.place {
            place.prove(identity, Instant::now().into_std()).map_err(|refusal| match refusal {
                Refusal::Banned => DisconnectReason::Banned,
                _ => DisconnectReason::NotMember,
            })?;
        }
        let claim = LinkClaim::over_web_socket(peer, identity, identity, (self.session, tie.0));
        self.context.broadcaster.verified(claim);
        Ok(())
    }
}
