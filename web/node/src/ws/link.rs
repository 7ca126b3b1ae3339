//! Turns a finished handshake into a link of the broadcaster, and waits for its end.
//!
//! # Invariants
//!
//! * An identity is claimed only after it was verified. The broadcaster decides what the claim leads to.

use std::{sync::Arc, time::Duration};

use broadcaster::{
    AssembledSource, Attached, Broadcaster, LaneSinks, LengthPrefix, Link, LinkGuard, LinkHooks,
    LinkInfo, Ticket,
};
use bytes::{Bytes, BytesMut};
use gossip::{
    BoxFuture, Direction, DisconnectReason, LinkId, Request, Roles, Tag, Transport,
    wire::{identity, topics::Topics},
};
use mesh::{DialFailure, LinkClaim};
use runtime::time;
use tokio_util::sync::CancellationToken;

use super::{
    dial::{DialError, Dialled},
    inbox::Inbox,
    page::Context,
    sink::Sink,
};

/// Longest time that a closing node waits for one link. Chosen: one second in which the broadcaster sends the last
/// messages, and one in which the sink waits for the peer.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Attaches a dialled socket and returns when its link has ended.
pub(super) async fn run(
    context: &Context,
    mut ticket: Ticket,
    dialled: Dialled,
    cancel: &CancellationToken,
) {
    let Dialled { socket, features, verified, round_trip } = dialled;
    let broadcaster = &context.broadcaster;
    let peer = broadcaster.next_link_id();
    let (mut claim, mut greeting) = (None, Vec::new());
    if let (Some(seen), Some(key)) = (verified, &context.key) {
        let session = broadcaster.run_of(context.hello.node_random.as_deref().unwrap_or_default());
        let tie = seen.response_challenge.0;
        let made = LinkClaim::over_web_socket(peer, seen.key, key.identity(), (session, tie));
        let made = broadcaster.claim(made);
        let prevails = cancel.run_until_cancelled(broadcaster.prevails(&made)).await;
        match prevails {
            None => return,
            Some(true) => {}
            Some(false) => {
                let error = DialError::Duplicate(seen.key);
                return ticket.failed(error.failure(), &error.to_string());
            }
        }
        claim = Some(made);
        greeting.push((Tag::NI, identity::verification(key, seen.response_challenge)));
    }
    let identity = verified.map(|seen| seen.key);
    let mut about =
        LinkInfo::new(Transport::WebSocket, Direction::Outbound, ticket.address().shown());
    about.configured = ticket.configured();
    about.roles = if about.configured.is_some() { Roles::CONFIGURED } else { Roles::NONE };
    about.http_address = Some(ticket.address().clone());
    about.features = features;
    about.round_trip.set(round_trip);
    let source = AssembledSource::new(
        Inbox::new(socket.clone()),
        BytesMut::new(),
        LengthPrefix,
        broadcaster.assembly(),
    );
    let link = Link {
        about,
        sinks: LaneSinks::Shared(Sink::new(socket)),
        sources: vec![source],
        greeting,
        hooks: Some(Arc::new(Hooks { broadcaster: broadcaster.clone(), peer })),
        codec: broadcaster.link_codec(features),
        gauge: None,
    };
    let attached = match claim {
        Some(claim) => broadcaster.attach_claimed(claim, link),
        None => broadcaster.attach(peer, link),
    };
    let Ok(attached) = attached else { return };
    ticket.connected(identity);
    let reason = ended(broadcaster, attached, cancel).await;
    match (reason, identity) {
        (DisconnectReason::Duplicate, Some(identity)) => {
            let told = DialError::Duplicate(identity).to_string();
            ticket.failed(DialFailure::Duplicate(identity), &told);
        }
        _ => ticket.ended(reason),
    }
}

/// Waits for the end of a link. Cancellation makes the link close; this returns at most [`STOP_PATIENCE`] later.
async fn ended(
    broadcaster: &Broadcaster,
    mut attached: Attached,
    cancel: &CancellationToken,
) -> DisconnectReason {
    let _guard = LinkGuard::new(broadcaster, attached.peer);
    tokio::select! {
        biased;
        reason = attached.ended() => return reason,
        () = cancel.cancelled() => {}
    }
    broadcaster.disconnect(attached.peer, DisconnectReason::LocalShutdown);
    let ended = time::timeout(STOP_PATIENCE, attached.ended());
    ended.await.unwrap_or(DisconnectReason::LocalShutdown)
}

/// Asks a peer for a sign of life. A page cannot send a ping, so it sends a request, which every node answers.
struct Hooks {
    broadcaster: Broadcaster,
    peer: LinkId,
}

impl LinkHooks for Hooks {
    fn control(&self, _: LinkId, _: Tag, _: &Bytes) -> Result<(), DisconnectReason> {
        Ok(())
    }

    fn sign_of_life(&self) -> BoxFuture<'static, ()> {
        let (broadcaster, peer) = (self.broadcaster.clone(), self.peer);
        Box::pin(async move {
            let request = Request { topics: Topics::default() };
            if broadcaster.request(peer, request).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}
