//! The dialler: carries out the orders of the mesh loop over WebSocket.
//!
//! ```text
//!   mesh loop ──Ticket──▶ dial task ─▶ peer ─▶ its end
//!                  ▲          │ connected, failed, ended
//!                  └──────────┘
//! ```
//!
//! # Invariants
//!
//! * The mesh loop bounds the dials in progress. Each is one task, which also waits for the end of its link.
//! * A task that is cancelled drops its ticket, which is a result too.

use std::{net::IpAddr, sync::Arc};

use broadcaster::{Dialer, Ticket};
use gossip::{DisconnectReason, NodeAddress, Tag, wire::identity};
use mesh::{Added, DialFailure, LinkClaim};
use runtime::TaskSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    config::AddPeerError,
    context::{Context, Exchange},
    dial::{self, DialError, Dialled, Target},
    frame::Role,
    link::{self, Established},
};

/// Adds a configured address to those that the mesh loop keeps dialled.
pub(crate) fn configure(context: &Context, address: &NodeAddress) -> Result<(), AddPeerError> {
    Target::new(context, address)?;
    let mesh = context.broadcaster.mesh();
    let is_new = mesh.configured(address).state().is_none();
    if mesh.configure(address.clone()) == Added::Full {
        return Err(AddPeerError::Full);
    }
    if is_new && let Some(ip) = literal(address) {
        context.door.configure_host(ip);
    }
    Ok(())
}

/// Forgets an address, and ends the links to it. Returns `false` if it was not known.
pub(crate) fn remove(context: &Context, address: &NodeAddress) -> bool {
    let was_configured = context.broadcaster.mesh().configured(address).state().is_some();
    if was_configured && let Some(ip) = literal(address) {
        context.door.dismiss_host(ip);
    }
    context.broadcaster.remove_peer(address)
}

/// The IP address that an address names by number. A host name may resolve to another node by the time its owner
/// connects, so only such an address may be matched with inbound peers.
fn literal(address: &NodeAddress) -> Option<IpAddr> {
    match address {
        NodeAddress::WebSocket(known) => known.host().trim_matches(['[', ']']).parse().ok(),
        NodeAddress::Multiaddr(_) => None,
    }
}

/// Carries out orders until the network stops.
pub(crate) async fn run(
    context: Arc<Context>,
    mut dialer: Dialer,
    tasks: TaskSet,
    cancel: CancellationToken,
) {
    loop {
        let ordered = cancel.run_until_cancelled(dialer.next()).await;
        let Some(Some(ticket)) = ordered else {
            // Another network has taken over, or this one stops.
            return cancel.cancelled().await;
        };
        let context = Arc::clone(&context);
        tasks.spawn("dial", |cancel| keep_dialled(context, ticket, cancel));
    }
}

/// Dials once, and waits for the end of the link.
async fn keep_dialled(context: Arc<Context>, ticket: Ticket, cancel: CancellationToken) {
    let target = match Target::new(&context, ticket.address()) {
        Ok(target) => target,
        Err(error) => return ticket.failed(DialFailure::Unreachable, &error.to_string()),
    };
    let _departure = match context.door.depart() {
        Ok(departure) => departure,
        Err(refusal) => return ticket.failed(DialFailure::Unreachable, &refusal.to_string()),
    };
    let dialling = dial::dial(&context, &target, ticket.hosts()).instrument(ticket.span().clone());
    let dialled = cancel.run_until_cancelled(dialling);
    match dialled.await {
        None => {}
        Some(Err(error)) => failed(&context, ticket, &error),
        Some(Ok(dialled)) => link_up(&context, (&target, ticket), dialled, &cancel).await,
    }
}

fn failed(context: &Context, ticket: Ticket, error: &DialError) {
    if let Some(refusal) = error.refusal() {
        context.metrics.note_dial(refusal);
    }
    let told = match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    ticket.failed(error.failure(), &told);
}

/// Attaches a dialled connection and returns when its link has ended.
async fn link_up(
    context: &Arc<Context>,
    (target, mut ticket): (&Target, Ticket),
    dialled: Dialled,
    cancel: &CancellationToken,
) {
    let Dialled { mut stream, early, features, verified, priority_challenge, round_trip } = dialled;
    let peer = context.broadcaster.next_link_id();
    let session = context.session(context.node_random());
    let mut greeting = Vec::new();
    let (mut identity, mut claim) = (None, None);
    let mut exchange = identity::ListenerIdentity::Anonymous;
    if let (Some(seen), Exchange::On { key, .. }) = (verified, &context.exchange) {
        let tie = seen.response_challenge.0;
        let made = LinkClaim::over_web_socket(peer, seen.key, key.identity(), (session, tie));
        let made = context.broadcaster.claim(made);
        let prevails = cancel.run_until_cancelled(context.broadcaster.prevails(&made)).await;
        match prevails {
            None => return,
            Some(true) => {}
            Some(false) => {
                let error = DialError::Duplicate(seen.key);
                dial::abort(context, &mut stream, &error).await;
                return failed(context, ticket, &error);
            }
        }
        claim = Some(made);
        greeting.push((Tag::NI, identity::verification(key, seen.response_challenge)));
        exchange = identity::ListenerIdentity::Verified { key: seen.key };
        identity = Some(seen.key);
    }
    let priority = context.priority.as_ref().zip(priority_challenge);
    greeting.extend(priority.and_then(|(priority, challenge)| priority.respond(&challenge)));
    let established = Established {
        halves: stream.into_split(),
        early,
        role: Role::Client,
        address: target.name.clone(),
        configured: ticket.configured(),
        http_address: Some(ticket.address().clone()),
        features,
        exchange,
        session,
        greeting,
        priority_challenge: None,
        place: None,
        round_trip: Some(round_trip),
    };
    let Ok(attached) = link::attach(context, (peer, claim), established) else { return };
    ticket.connected(identity);
    tracing::debug!(%peer, to = %target.name, "peer connected");
    let reason = link::ended(context, attached, cancel).await;
    tracing::debug!(%peer, to = %target.name, %reason, "peer gone");
    match (reason, identity) {
        (DisconnectReason::Duplicate, Some(identity)) => {
            let told = DialError::Duplicate(identity).to_string();
            ticket.failed(DialFailure::Duplicate(identity), &told);
        }
        _ => ticket.ended(reason),
    }
}
