//! The listener: sockets, HTTP, and the upgrade to gossip.
//!
//! ```text
//!   accept ──door──▶ connection: HttpServer ──▶ hook ─┬─ gossip path ─▶ upgrade ─▶ peer
//!                       │                             ├─ upgrade of / ─▶ another network of the node
//!                       │                             └─ other paths ─▶ node's HTTP services
//!                       └─▶ drain (too many of one host)
//! ```
//!
//! # Invariants
//!
//! * The door counts every socket from accept to close, and each is one task of the network.
//! * A trusted proxy is not limited as one host; its clients are, as soon as it has told them.
//! * A socket that the door evicts is closed at once; one that has become a peer is closed with a close frame.
//! * A socket that has not sent a whole request head after 10 s is closed, and no head is longer than 8 KiB.
//! * Every request is answered, or its connection closed. The refusals are in the order of existing nodes.

mod connection;
mod handed;
mod hook;
mod origin;
mod raw;
mod reply;
mod route;
mod upgrade;

use std::{net::SocketAddr, sync::Arc};

use mesh::{Knock, Pass};
use runtime::{AcceptPause, CancelWatch, Listener, Stream, TaskSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;

/// Accepts connections until the network stops. Each is served by a task of its own.
pub(crate) async fn accept(
    listener: Listener,
    context: Arc<Context>,
    tasks: TaskSet,
    cancel: CancellationToken,
) {
    let mut pause = AcceptPause::new("a connection on the WebSocket port");
    loop {
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                pause.accepted();
                admit(&context, &tasks, stream, from);
            }
            Err(error) => {
                if cancel.run_until_cancelled(pause.refused(&error)).await.is_none() {
                    return;
                }
            }
        }
    }
}

fn admit(context: &Arc<Context>, tasks: &TaskSet, stream: Stream, from: SocketAddr) {
    let (accepted, evicted) = (Instant::now(), CancellationToken::new());
    let evict = evicted.clone();
    let (now, evict) = (accepted.into_std(), move || evict.cancel());
    let knock = match context.proxies.trusts(from.ip()) {
        true => context.door.knock_of_proxy(now, evict),
        false => context.door.knock(from.ip(), now, evict),
    };
    match knock {
        Knock::Close(_) => {}
        Knock::Serve(pass) => {
            let place = Place { context: Arc::clone(context), from, pass, evicted };
            tasks.spawn("connection", |cancel| async move {
                let evicted = place.evicted.clone();
                // Boxed, so that a peer does not hold the memory of the HTTP connection that it was before.
                let serving = Box::pin(connection::serve(stream, place, cancel));
                if let Some(Some(peer)) = CancelWatch::run(&evicted, serving).await {
                    peer.await;
                }
            });
        }
        Knock::Drain(pass) => {
            let place = Place { context: Arc::clone(context), from, pass, evicted };
            tasks.spawn("drain", |cancel| async move {
                // The result is cancellation or the end of the socket; nothing is left to do after either.
                let _ = cancel.run_until_cancelled(raw::too_many(stream, place, accepted)).await;
            });
        }
    }
}

/// The place of one accepted socket in the counts of the door, given back when dropped.
struct Place {
    context: Arc<Context>,
    from: SocketAddr,
    pass: Pass,
    /// Cancelled when the door evicts this socket in favour of another.
    evicted: CancellationToken,
}
