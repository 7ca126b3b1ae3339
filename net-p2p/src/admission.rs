//! The transport layer that asks the node's door about every connection, before and after its handshake.
//!
//! ```text
//!   TCP accept ──knock──▶ handshake ──admit──▶ Admitted: a muxer that holds its place
//!        │ refused           │ evicted, refused      │ evicted
//!        ▼                   ▼                       ▼
//!     closed, and the     closed, an error        ends with an error, and the swarm
//!     swarm hears nothing the swarm logs          closes the connection
//! ```
//!
//! # Invariants
//!
//! * A connection that the door refuses at once costs no task and no event, so unknown peers cannot keep the
//!   swarm busy by connecting.
//! * A connection's share of the door's counts is given back when it is dropped, at any stage.
//! * An admitted connection holds its place until the swarm drops its muxer.
//! * A socket that was accepted on another port of the node has its place already, and is not asked for twice.
//! * Inbound handshakes are computed a few at a time, so that strangers do not keep the tasks of peers waiting.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use gossip::DisconnectReason;
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::{
        muxing::{StreamMuxer, StreamMuxerEvent},
        transport::{DialOpts, ListenerId, TransportEvent},
    },
};
use mesh::{Departure, Door, Knock, Pass, PeerPlace, Refusal};
use runtime::time::{self, Instant};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    address::{identity_of, ip_of},
    muxer::Muxer,
    turns::Turns,
};

/// Refused connections handled in one poll. Chosen: few, so that a flood does not keep the swarm from its turn.
const REFUSALS_A_TURN: usize = 64;

/// The place of the socket that was handed over last, until it is taken. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PassSlot(Arc<Mutex<Option<(Pass, CancellationToken)>>>);

impl PassSlot {
    /// Takes the place of the newest socket; `None` if it has none yet.
    pub(crate) fn take(&self) -> Option<(Pass, CancellationToken)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Leaves the place of a socket that is told next.
    #[cfg(feature = "websocket")]
    pub(crate) fn leave(&self, place: (Pass, CancellationToken)) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }
}

/// A transport whose connections pass through the door.
#[derive(Debug)]
pub(crate) struct Guarded<T> {
    inner: T,
    door: Door,
    turns: Turns,
    /// Places that sockets got at another port of the node.
    passes: PassSlot,
}

/// A muxer, and the place that its connection holds.
#[derive(Debug)]
pub(crate) struct Admitted {
    inner: Muxer,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Inbound {
        /// Resolves when the door evicts this connection in favour of another.
        evicted: Pin<Box<WaitForCancellationFutureOwned>>,
        _place: PeerPlace,
        _pass: Pass,
    },
    Outbound {
        _departure: Departure,
    },
}

type Upgrade = BoxFuture<'static, io::Result<(PeerId, Admitted)>>;

/// The bounds of a transport that can be guarded.
pub(crate) trait Connects:
    Transport<
        Output = (PeerId, Muxer),
        Error: Error + Send + Sync + 'static,
        ListenerUpgrade: Send + 'static,
        Dial: Send + 'static,
    > + Unpin
{
}

impl<T> Connects for T where
    T: Transport<
            Output = (PeerId, Muxer),
            Error: Error + Send + Sync + 'static,
            ListenerUpgrade: Send + 'static,
            Dial: Send + 'static,
        > + Unpin
{
}

fn refused(refusal: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, refusal)
}

impl<T> Guarded<T> {
    /// Lets `door` decide about every connection of `inner`, but for those whose passes `inner` leaves in `passes`.
    pub(crate) fn new(inner: T, door: Door, passes: PassSlot) -> Self {
        Self { inner, door, turns: Turns::new(), passes }
    }

    /// The place of a connection that was just accepted; `None` if the door refuses it.
    fn place(&self, from: &Multiaddr) -> Option<(Pass, CancellationToken)> {
        if let Some(place) = self.passes.take() {
            return Some(place);
        }
        let evicted = CancellationToken::new();
        let evict = evicted.clone();
        let now = time::into_std(Instant::now());
        match self.door.knock(ip_of(from), now, move || evict.cancel()) {
            Knock::Serve(pass) => Some((pass, evicted)),
            _ => None,
        }
    }

    /// Asks the door about a connection that was just accepted. `None` means that it must be closed.
    fn let_in<E: Error + Send + Sync + 'static>(
        &self,
        from: &Multiaddr,
        upgrade: impl Future<Output = Result<(PeerId, Muxer), E>> + Send + 'static,
    ) -> Option<Upgrade> {
        let (pass, evicted) = self.place(from)?;
        let (turns, upgrade) = (self.turns.clone(), Box::pin(upgrade));
        Some(Box::pin(async move {
            let Some(upgraded) = evicted.run_until_cancelled(turns.run(upgrade)).await else {
                return Err(refused(Refusal::HalfOpen));
            };
            let (peer, inner) = upgraded.map_err(io::Error::other)?;
            pass.headed();
            let place = pass.admit(identity_of(&peer), time::into_std(Instant::now()));
            let _place = place.map_err(refused)?;
            let evicted = Box::pin(evicted.cancelled_owned());
            Ok((peer, Admitted { inner, held: Held::Inbound { evicted, _place, _pass: pass } }))
        }))
    }
}

impl<T: Connects> Transport for Guarded<T> {
    type Output = (PeerId, Admitted);
    type Error = io::Error;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address).map_err(|error| error.map(io::Error::other))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Upgrade, TransportError<io::Error>> {
        let departure = self.door.depart().map_err(|full| TransportError::Other(refused(full)))?;
        let dial = self.inner.dial(address, options);
        let dial = dial.map_err(|error| error.map(io::Error::other))?;
        Ok(Box::pin(async move {
            let (peer, inner) = dial.await.map_err(io::Error::other)?;
            Ok((peer, Admitted { inner, held: Held::Outbound { _departure: departure } }))
        }))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Upgrade, io::Error>> {
        for _ in 0..REFUSALS_A_TURN {
            match ready!(Pin::new(&mut self.inner).poll(context)).map_err(io::Error::other) {
                TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => {
                    let Some(upgrade) = self.let_in(&send_back_addr, upgrade) else { continue };
                    return Poll::Ready(TransportEvent::Incoming {
                        listener_id,
                        upgrade,
                        local_addr,
                        send_back_addr,
                    });
                }
                TransportEvent::NewAddress { listener_id, listen_addr } => {
                    return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr });
                }
                TransportEvent::AddressExpired { listener_id, listen_addr } => {
                    return Poll::Ready(TransportEvent::AddressExpired {
                        listener_id,
                        listen_addr,
                    });
                }
                TransportEvent::ListenerClosed { listener_id, reason } => {
                    return Poll::Ready(TransportEvent::ListenerClosed { listener_id, reason });
                }
                TransportEvent::ListenerError { listener_id, error } => {
                    return Poll::Ready(TransportEvent::ListenerError { listener_id, error });
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl StreamMuxer for Admitted {
    type Substream = <Muxer as StreamMuxer>::Substream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<<Muxer as StreamMuxer>::Substream>> {
        Pin::new(&mut self.inner).poll_inbound(context).map_err(io::Error::other)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<<Muxer as StreamMuxer>::Substream>> {
        Pin::new(&mut self.inner).poll_outbound(context).map_err(io::Error::other)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context).map_err(io::Error::other)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<StreamMuxerEvent>> {
        if let Held::Inbound { evicted, .. } = &mut self.held
            && evicted.as_mut().poll(context).is_ready()
        {
            // Before the connection ends: its links shall not take that for a broken one.
            self.inner.end_streams(DisconnectReason::Evicted);
            return Poll::Ready(Err(refused(Refusal::PeerEvicted)));
        }
        Pin::new(&mut self.inner).poll(context).map_err(io::Error::other)
    }
}
