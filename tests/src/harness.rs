//! The interface through which the conformance suite runs on every network.

use std::{future::Future, io, sync::Arc, time::Duration};

use broadcaster::{Broadcaster, PeerEvent, Setup};
use bytes::Bytes;
use gossip::{
    DisconnectReason, GossipNode, Identity, LinkId, NetworkId, Tag, Transport,
    wire::{block::BlockRequest, request},
};
use runtime::Shutdown;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::wait::soon;

/// A scripted peer. It sends what a test says, even against the rules, and reads only in [`RawPeer::recv`].
pub trait RawPeer: Send + 'static {
    /// Sends one message.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    fn send(&mut self, tag: Tag, payload: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Receives the next message; `None` once the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: the read part of a message is kept for the next call.
    fn recv(&mut self) -> impl Future<Output = Option<(Tag, Bytes)>> + Send;

    /// Announces a message with a payload of `len` bytes, and sends its tag.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    fn begin(&mut self, tag: Tag, len: usize) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends more bytes of the announced payload.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    fn go_on(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends the first half of a message, and then breaks the connection.
    fn break_within(self, tag: Tag, payload: &[u8]) -> impl Future<Output = ()> + Send;

    /// The identity that the node must assign to this peer; `None` if the transport proves none.
    fn identity(&self) -> Option<Identity>;
}

/// The clock on which a network's tests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The clock is paused, and advances when every task waits: deadlines are exact.
    Paused,
    /// The system's clock: a deadline may fire late.
    Real,
}

/// One running node of the network under test.
pub trait Harness: Send + Sync + Sized + 'static {
    /// A scripted peer of this network.
    type Raw: RawPeer;

    /// The clock of this network's tests.
    const CLOCK: Clock;

    /// The transports that links of this network may use.
    const TRANSPORTS: &[Transport];

    /// Starts a node that others can dial.
    fn start(setup: Setup) -> impl Future<Output = Self> + Send;

    /// The node behind the interface for applications.
    fn gossip(&self) -> Arc<dyn GossipNode>;

    /// The broadcaster of the node.
    fn broadcaster(&self) -> &Broadcaster;

    /// The identity of the node, if the network has identities.
    fn identity(&self) -> Option<Identity>;

    /// Makes this node connect to another one.
    fn dial(&self, other: &Self) -> impl Future<Output = ()> + Send;

    /// Connects a scripted peer to this node.
    fn dial_raw(&self) -> impl Future<Output = Self::Raw> + Send;

    /// Stops the node.
    fn stop(&self, grace: Duration) -> impl Future<Output = Shutdown> + Send;

    /// Number of running tasks, of the node and of its transport.
    fn task_count(&self) -> usize;
}

/// The network of all tests.
///
/// # Panics
///
/// Never: the name is valid.
#[must_use]
pub fn network() -> NetworkId {
    NetworkId::new("conformance-v1").expect("the name is a short path segment")
}

/// The peer events of a node, in their order.
#[derive(Debug)]
pub struct Events(Receiver<PeerEvent>);

impl Events {
    /// Subscribes to the events from now on.
    #[must_use]
    pub fn of(broadcaster: &Broadcaster) -> Self {
        Self(broadcaster.events())
    }

    async fn next(&mut self) -> PeerEvent {
        match self.0.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => panic!("events were lost"),
            Err(RecvError::Closed) => panic!("the node is gone"),
        }
    }

    /// Waits for the next link.
    ///
    /// # Panics
    ///
    /// If there is none in time.
    pub async fn connected(&mut self) -> LinkId {
        let connected = async {
            loop {
                if let PeerEvent::Connected(peer) = self.next().await {
                    return peer.id;
                }
            }
        };
        soon("a peer connects", connected).await
    }

    /// Waits for the end of a link, and returns the reason.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub async fn disconnected(&mut self, id: LinkId) -> DisconnectReason {
        let disconnected = async {
            loop {
                match self.next().await {
                    PeerEvent::Disconnected(peer, reason) if peer.id == id => return reason,
                    _ => {}
                }
            }
        };
        soon("a peer disconnects", disconnected).await
    }
}

/// Connects `near` to `far`. Returns each node's number for the link.
pub async fn connect<H: Harness>(near: &H, far: &H) -> (LinkId, LinkId) {
    let mut near_events = Events::of(near.broadcaster());
    let mut far_events = Events::of(far.broadcaster());
    near.dial(far).await;
    (near_events.connected().await, far_events.connected().await)
}

/// Connects a scripted peer to a node. Returns the peer, and the node's number for the link.
pub async fn join<H: Harness>(node: &H) -> (H::Raw, LinkId) {
    let mut events = Events::of(node.broadcaster());
    let raw = node.dial_raw().await;
    let id = events.connected().await;
    (raw, id)
}

/// Receives the next message with a tag, and skips those with other tags.
///
/// # Panics
///
/// If it does not come in time, or the connection ends first.
pub async fn next_of(raw: &mut impl RawPeer, tag: Tag) -> Bytes {
    let message = async {
        loop {
            let Some((got, payload)) = raw.recv().await else {
                panic!("the connection ended before a message {tag} came");
            };
            if got == tag {
                return payload;
            }
        }
    };
    soon(&format!("a message {tag}"), message).await
}

/// Reads until the connection ends. Returns the messages received.
///
/// # Panics
///
/// If it does not end in time.
pub async fn rest_of(raw: &mut impl RawPeer) -> Vec<(Tag, Bytes)> {
    let rest = async {
        let mut rest = Vec::new();
        while let Some(message) = raw.recv().await {
            rest.push(message);
        }
        rest
    };
    soon("the connection ends", rest).await
}

/// Requests a block from the node and reads up to its answer, which travels in the bulk lane. At that point the
/// node has read everything the peer sent before, and everything it had queued in the bulk lane has arrived.
///
/// The node needs a handler for UE. Returns the messages before the answer.
///
/// # Panics
///
/// If no answer comes in time.
pub async fn fence(raw: &mut impl RawPeer, number: u64) -> Vec<(Tag, Bytes)> {
    let mut before = fence_with_interests(raw, number).await;
    // A node may send its message of interest at any time.
    before.retain(|(tag, _)| *tag != Tag::MI);
    before
}

/// Does as [`fence`] does, and returns the messages of interest of the node too.
///
/// # Panics
///
/// If no answer comes in time.
pub async fn fence_with_interests(raw: &mut impl RawPeer, number: u64) -> Vec<(Tag, Bytes)> {
    let question = request::seal(&BlockRequest { round: number }.topics(), number);
    raw.send(Tag::UE, &question).await.expect("the connection is open");
    let key = request::RequestKey::of(&question);
    let answer = async {
        let mut before = Vec::new();
        loop {
            let Some((tag, payload)) = raw.recv().await else {
                panic!("the connection ended before the answer; before it came {before:?}");
            };
            let answers = tag == Tag::TS
                && request::open_answer(&payload).is_ok_and(|(of, _)| of == Some(key));
            if answers {
                return before;
            }
            before.push((tag, payload));
        }
    };
    soon("the answer to a request", answer).await
}
