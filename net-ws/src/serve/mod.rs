//! The listening side: sockets, HTTP, and the upgrade to gossip.
//!
//! ```text
//!   accept ──gate──▶ connection: HttpServer ──▶ hook ─┬─ gossip path ─▶ upgrade ─▶ peer
//!                       │                             └─ other paths ─▶ node's HTTP services
//!                       └─▶ drain (too many of one host)
//! ```
//!
//! # Invariants
//!
//! * Every socket is counted by the gate from accept to close, and every one is a task of the network.
//! * A socket that has not sent a request head after 10 s is closed, and no head is longer than 8 KiB.
//! * A request is answered or its connection closed; the order of the refusals is that of existing nodes.

mod connection;
mod hook;
mod raw;
mod reply;
mod route;
mod upgrade;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh::{Accept, Stage};
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
    let accepted = Instant::now();
    let verdict = context.gate().accept(from.ip(), accepted.into_std());
    let stage = match verdict {
        Accept::CloseNow => return,
        Accept::Serve => Stage::HalfOpen,
        Accept::CloseAfterDrain => Stage::Drained,
    };
    let place = Place { context: Arc::clone(context), from, stage: Mutex::new(stage) };
    match verdict {
        Accept::CloseNow => {}
        Accept::Serve => {
            tasks.spawn("connection", |cancel| connection::serve(stream, place, cancel));
        }
        Accept::CloseAfterDrain => {
            tasks.spawn("drain", |cancel| async move {
                // A stopping network owes this socket nothing.
                let _ = cancel.run_until_cancelled(raw::too_many(stream, place, accepted)).await;
            });
        }
    }
}

/// One accepted socket's place in the counts of the gate, given back when dropped.
struct Place {
    context: Arc<Context>,
    from: SocketAddr,
    stage: Mutex<Stage>,
}

impl Place {
    /// A request head has been read. Only the first counts.
    fn headed(&self) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if *stage == Stage::HalfOpen {
            *stage = Stage::Headed;
            drop(stage);
            self.context.gate().headed(self.from.ip());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let stage = *self.stage.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.context.gate().closed(self.from.ip(), stage);
    }
}
