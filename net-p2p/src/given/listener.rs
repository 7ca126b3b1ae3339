//! One listener of a transport that the embedder brought along.
//!
//! # Invariants
//!
//! * A listener tells its addresses before the first stream, and its end once.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr,
    core::transport::{ListenerId, TransportEvent},
};
use runtime::time;

use super::{
    ByteListener, SharedTransport,
    stream::{Event, GivenStream},
};

/// Longest time from the order to a listener. Chosen: below the time for which a starting node waits for it.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(8);

/// A listener, from the order to its end.
pub(super) struct Listener {
    pub(super) id: ListenerId,
    state: State,
    /// Addresses that were not told yet.
    to_tell: VecDeque<Multiaddr>,
}

enum State {
    Opening(BoxFuture<'static, io::Result<ByteListener>>),
    Open(ByteListener),
    Over,
}

impl Listener {
    /// Listens on `address`.
    pub(super) fn new(id: ListenerId, transport: &SharedTransport, address: Multiaddr) -> Self {
        let opening = time::timeout(LISTEN_TIMEOUT, transport.listen(address));
        let opening = async move { opening.await.unwrap_or_else(|_| Err(late())) };
        Self { id, state: State::Opening(opening.boxed()), to_tell: VecDeque::new() }
    }

    /// Returns `true` once its end was told.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// The next event of the listener; never ready again after its end.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let listener_id = self.id;
        loop {
            if let Some(listen_addr) = self.to_tell.pop_front() {
                return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr });
            }
            match &mut self.state {
                State::Opening(opening) => match ready!(opening.poll_unpin(context)) {
                    Ok(listener) if listener.addresses.is_empty() => {
                        let error = io::Error::other("the transport listens on no address");
                        return self.end(Err(error));
                    }
                    Ok(listener) => {
                        self.to_tell.extend(listener.addresses.iter().cloned());
                        self.state = State::Open(listener);
                    }
                    Err(error) => return self.end(Err(error)),
                },
                State::Open(listener) => match ready!(listener.accepted.poll_next_unpin(context)) {
                    Some(Ok(accepted)) => {
                        let stream = GivenStream(accepted.stream);
                        return Poll::Ready(TransportEvent::Incoming {
                            listener_id,
                            upgrade: futures::future::ready(Ok(stream)).boxed(),
                            local_addr: accepted.local,
                            send_back_addr: accepted.from,
                        });
                    }
                    Some(Err(error)) => {
                        return Poll::Ready(TransportEvent::ListenerError { listener_id, error });
                    }
                    None => return self.end(Ok(())),
                },
                State::Over => return Poll::Pending,
            }
        }
    }

    fn end(&mut self, reason: io::Result<()>) -> Poll<Event> {
        self.state = State::Over;
        Poll::Ready(TransportEvent::ListenerClosed { listener_id: self.id, reason })
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the transport did not listen in time")
}
