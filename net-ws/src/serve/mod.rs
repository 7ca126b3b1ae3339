//! The listening side: sockets, HTTP, and the upgrade to gossip.
//!
//! ```text
//!   accept ──gate──▶ connection: first head ──▶ HTTP/1.1 ─┬─ gossip path ─▶ upgrade ─▶ peer
//!                       │                                 └─ other paths ─▶ router
//!                       └─▶ drain (too many of one host)
//! ```
//!
//! # Invariants
//!
//! * Every socket is counted by the gate from accept to close, and every one is a task of the network.
//! * A socket that has not sent a request head after 10 s is closed, and no head is longer than 8 KiB.
//! * A request is answered or its connection closed; the order of the refusals is that of existing nodes.

mod connection;
mod head;
mod raw;
mod replay;
mod reply;
mod route;
mod upgrade;

use std::{convert::Infallible, error::Error, net::SocketAddr, sync::Arc, time::Duration};

use broadcaster::TaskSet;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::{Body, Incoming};
use mesh::{Accept, Stage};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use crate::context::Context;

/// Pause after the system refused to accept, e.g. because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An error of any kind.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// Answers the HTTP requests that are not gossip. See [`route_to`].
pub type Router = BoxCloneSyncService<Request<Incoming>, Response<ResponseBody>, BoxError>;

/// Makes a [`Router`] of any service, such as an `axum::Router`. It is not asked whether it is ready:
/// it has to take every request.
pub fn route_to<S, B>(service: S) -> Router
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service.map_err(Into::into).map_response(|response: Response<B>| {
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    });
    BoxCloneSyncService::new(service)
}

/// A body that is there already.
pub(crate) fn full(body: impl Into<Bytes>) -> ResponseBody {
    http_body_util::Full::new(body.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// Accepts connections until the network stops. Each is served by a task of its own.
pub(crate) async fn accept(
    listener: TcpListener,
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

fn admit(context: &Arc<Context>, tasks: &TaskSet, stream: TcpStream, from: SocketAddr) {
    let accepted = Instant::now();
    let verdict = context.gate().accept(from.ip(), accepted.into_std());
    let stage = match verdict {
        Accept::CloseNow => return,
        Accept::Serve => Stage::HalfOpen,
        Accept::CloseAfterDrain => Stage::Drained,
    };
    let place = Place { context: Arc::clone(context), from, stage };
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
    stage: Stage,
}

impl Place {
    /// A request head has been read.
    fn headed(&mut self) {
        self.context.gate().headed(self.from.ip());
        self.stage = Stage::Headed;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.context.gate().closed(self.from.ip(), self.stage);
    }
}
