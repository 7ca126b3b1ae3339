//! The listening side: sockets, HTTP, and the upgrade to gossip.
//!
//! ```text
//!   accept ──door──▶ connection: HttpServer ──▶ hook ─┬─ gossip path ─▶ upgrade ─▶ peer
//!                       │                             └─ other paths ─▶ node's HTTP services
//!                       └─▶ drain (too many of one host)
//! ```
//!
//! # Invariants
//!
//! * Every socket is counted by the door from accept to close, and every one is a task of the network.
//! * A socket that the door evicts is closed at once; a peer in an orderly way.
//! * A socket that has not sent a request head after 10 s is closed, and no head is longer than 8 KiB.
//! * A request is answered or its connection closed; the order of the refusals is that of existing nodes.

mod connection;
mod hook;
mod raw;
mod reply;
mod route;
mod upgrade;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh::{Knock, Pass};
use runtime::{Listener, Stream, TaskSet};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::context::Context;

/// Pause after the system refused to accept, e.g. because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the network stops. Each is served by a task of its own.
pub(crate) async fn accept(
    listener: Listener,
    context: Arc<Context>,
    tasks: TaskSet,
    cancel: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => admit(&context, &tasks, stream, from),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                let pause = cancel.run_until_cancelled(time::sleep(ACCEPT_PAUSE));
                if pause.await.is_none() {
                    return;
                }
            }
        }
    }
}

fn admit(context: &Arc<Context>, tasks: &TaskSet, stream: Stream, from: SocketAddr) {
    let (accepted, evicted) = (Instant::now(), CancellationToken::new());
    let evict = evicted.clone();
    let knock = context.door.knock(from.ip(), accepted.into_std(), move || evict.cancel());
    match knock {
        Knock::Close(_) => {}
        Knock::Serve(pass) => {
            let place = Place { context: Arc::clone(context), from, pass, evicted };
            tasks.spawn("connection", |cancel| async move {
                let evicted = place.evicted.clone();
                let serving = connection::serve(stream, place, cancel);
                if let Some(Some(peer)) = evicted.run_until_cancelled(serving).await {
                    peer.await;
                }
            });
        }
        Knock::Drain(pass) => {
            let place = Place { context: Arc::clone(context), from, pass, evicted };
            tasks.spawn("drain", |cancel| async move {
                // A stopping network owes this socket nothing.
                let _ = cancel.run_until_cancelled(raw::too_many(stream, place, accepted)).await;
            });
        }
    }
}

/// One accepted socket's place in the counts of the door, given back when dropped.
struct Place {
    context: Arc<Context>,
    from: SocketAddr,
    pass: Pass,
    /// Cancelled when the door gives the place to another.
    evicted: CancellationToken,
}
