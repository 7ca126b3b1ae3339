//! The hand-over of WebSockets from the port of one network to another network of the node.
//!
//! ```text
//!   WebSocket port ──upgraded, no gossip──▶ HandOver ──▶ libp2p transport
//! ```
//!
//! # Invariants
//!
//! * At most [`MAX_WAITING`] sockets wait. Another one is closed, and the giver is told.
//! * A socket keeps its place with the door while it waits and afterwards: the pass goes with it.
//! * Sockets that nobody takes are closed with the last handle.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::BytesMut;
use gossip::Security;
use mesh::{PagePlace, Pass};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::websocket::Carrier;

/// Largest number of sockets that wait to be taken. Chosen: half of the unfinished handshakes that the door lets in.
pub const MAX_WAITING: usize = 64;

/// A WebSocket whose upgrade was accepted, and that carries no gossip.
#[derive(Debug)]
pub struct HandedOver {
    /// The bytes below the WebSocket.
    pub io: Box<dyn Carrier>,
    /// Bytes that were read after the request.
    pub early: BytesMut,
    /// The security of the connection.
    pub security: Security,
    /// The address of the client, behind a trusted proxy that of the proxy's client with port 0.
    pub from: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// The place of the socket in the counts of the door.
    pub pass: Pass,
    /// The place of the client among the pages of its origin, if it is one.
    pub page: Option<PagePlace>,
    /// Cancelled when the door evicts the socket in favour of another.
    pub evicted: CancellationToken,
}

/// An address of the port from which sockets are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The address that is listened on.
    pub address: SocketAddr,
    /// The security with which clients connect.
    pub security: Security,
}

/// Something that the giver tells the taker.
#[derive(Debug)]
enum Item {
    /// The list of ports has changed.
    Ports,
    Socket(Box<HandedOver>),
}

/// A queue of sockets between two networks. Clones share it.
#[derive(Clone, Debug)]
pub struct HandOver {
    give: mpsc::Sender<Item>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ports: Mutex<Vec<Port>>,
    take: Mutex<mpsc::Receiver<Item>>,
}

impl Default for HandOver {
    fn default() -> Self {
        // One place more, for the notice of the ports.
        let (give, take) = mpsc::channel(MAX_WAITING + 1);
        let shared = Shared { ports: Mutex::default(), take: Mutex::new(take) };
        Self { give, shared: Arc::new(shared) }
    }
}

impl HandOver {
    /// Tells the taker the addresses from which sockets will come.
    pub fn listens_on(&self, ports: Vec<Port>) {
        *self.shared.ports.lock().unwrap_or_else(PoisonError::into_inner) = ports;
        // A full queue wakes the taker too, which looks at the list each time.
        let _ = self.give.try_send(Item::Ports);
    }

    /// Hands a socket over. Returns `false` if there was no room, and the socket was closed.
    #[must_use = "a socket that was closed is to be counted"]
    pub fn give(&self, socket: HandedOver) -> bool {
        self.give.try_send(Item::Socket(Box::new(socket))).is_ok()
    }

    /// The addresses from which sockets come.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        self.shared.ports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the next socket; `Ready(None)` if only the list of ports has changed. One task takes at a time: the waker
    /// of an earlier call is replaced.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Box<HandedOver>>> {
        let mut take = self.shared.take.lock().unwrap_or_else(PoisonError::into_inner);
        match take.poll_recv(context) {
            Poll::Ready(Some(Item::Socket(socket))) => Poll::Ready(Some(socket)),
            Poll::Ready(Some(Item::Ports)) => Poll::Ready(None),
            // The handle itself keeps the queue open.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
