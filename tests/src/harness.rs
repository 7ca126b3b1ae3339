//! What a network must offer to be put through the conformance suite.

use std::{future::Future, io, sync::Arc, time::Duration};

use broadcaster::{Broadcaster, PeerEvent, Setup};
use bytes::Bytes;
use gossip::{
    DisconnectReason, GossipNode, Identity, LinkId, NetworkId, Tag, Transport,
    wire::{block::BlockRequest, request},
};
use runtime::Shutdown;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{
    memory::{MemoryNetwork, MemoryPeer, Shape},
    wait::soon,
};

/// A peer that speaks messages, follows no rule it is not told to, and reads only in [`RawPeer::recv`].
pub trait RawPeer: Send + 'static {
    /// Sends one message.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    fn send(&mut self, tag: Tag, payload: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits for the next message; `None` once the connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was read of a message is kept for the next call.
    fn recv(&mut self) -> impl Future<Output = Option<(Tag, Bytes)>> + Send;

    /// Announces a message with a payload of `len` bytes, and sends its tag.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    fn begin(&mut self, tag: Tag, len: usize) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends so much of the payload that was announced.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    fn go_on(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends the first half of a message, and dies.
    fn break_within(self, tag: Tag, payload: &[u8]) -> impl Future<Output = ()> + Send;

    /// Whom the node must take it for, where the transport shows that.
    fn identity(&self) -> Option<Identity>;
}

/// Whether a network's deadlines are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The clock is paused, and moves on when nothing else can: deadlines are exact.
    Paused,
    /// Deadlines are met or passed.
    Real,
}

/// One running node of the network under test.
pub trait Harness: Send + Sync + Sized + 'static {
    /// A scripted peer of this network.
    type Raw: RawPeer;

    /// What its clock is.
    const CLOCK: Clock;

    /// What may carry its links.
    const TRANSPORTS: &[Transport];

    /// Starts a node that others can dial.
    fn start(setup: Setup) -> impl Future<Output = Self> + Send;

    /// The node as an application has it.
    fn gossip(&self) -> Arc<dyn GossipNode>;

    /// The node's engine.
    fn broadcaster(&self) -> &Broadcaster;

    /// How others know the node.
    fn identity(&self) -> Option<Identity>;

    /// Makes this node connect to another one.
    fn dial(&self, other: &Self) -> impl Future<Output = ()> + Send;

    /// Connects a scripted peer to this node.
    fn dial_raw(&self) -> impl Future<Output = Self::Raw> + Send;

    /// Ends the node.
    fn stop(&self, grace: Duration) -> impl Future<Output = Shutdown> + Send;

    /// Tasks that run, of the node and of its transport.
    fn task_count(&self) -> usize;
}

/// The network of all tests.
///
/// # Panics
///
/// Never: the name is a good one.
#[must_use]
pub fn network() -> NetworkId {
    NetworkId::new("conformance-v1").expect("the name is a short path segment")
}

/// Nodes over memory links.
#[derive(Debug)]
pub struct Memory(MemoryNetwork);

impl Memory {
    /// The node itself.
    #[must_use]
    pub fn network(&self) -> &MemoryNetwork {
        &self.0
    }
}

impl Harness for Memory {
    type Raw = MemoryPeer;

    const CLOCK: Clock = Clock::Paused;
    const TRANSPORTS: &[Transport] = &[Transport::Memory];

    async fn start(setup: Setup) -> Self {
        Self(MemoryNetwork::start(network(), setup))
    }

    fn gossip(&self) -> Arc<dyn GossipNode> {
        Arc::new(self.0.clone())
    }

    fn broadcaster(&self) -> &Broadcaster {
        self.0.broadcaster()
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.0.identity())
    }

    async fn dial(&self, other: &Self) {
        let link = self.0.connect(&other.0, Shape::default());
        assert!(link.is_some(), "a node is stopping");
    }

    async fn dial_raw(&self) -> MemoryPeer {
        let scripted = self.0.scripted(Shape::default());
        scripted.expect("the node is not stopping").0
    }

    async fn stop(&self, grace: Duration) -> Shutdown {
        self.0.stop(grace).await
    }

    fn task_count(&self) -> usize {
        self.0.task_count()
    }
}

/// What happens to the peers of a node, in the order in which it happens.
#[derive(Debug)]
pub struct Events(Receiver<PeerEvent>);

impl Events {
    /// What happens from now on.
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

    /// Waits for the next connection.
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

    /// Waits for the end of a connection, and says why it ended.
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

/// Connects `near` to `far`, and says how each of them calls the other.
pub async fn connect<H: Harness>(near: &H, far: &H) -> (LinkId, LinkId) {
    let mut near_events = Events::of(near.broadcaster());
    let mut far_events = Events::of(far.broadcaster());
    near.dial(far).await;
    (near_events.connected().await, far_events.connected().await)
}

/// Connects a scripted peer to a node, and says how the node calls it.
pub async fn join<H: Harness>(node: &H) -> (H::Raw, LinkId) {
    let mut events = Events::of(node.broadcaster());
    let raw = node.dial_raw().await;
    let id = events.connected().await;
    (raw, id)
}

/// Waits for the next message of a tag, passing over those of other tags.
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

/// Reads until the connection ends, and returns what came before.
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

/// Asks the node for a block and reads up to its answer, which comes in the bulk lane. What the peer
/// had sent before has been read by then, and what the node had queued in the bulk lane has come.
///
/// The node needs a handler of UE. Returns what came before the answer.
///
/// # Panics
///
/// If no answer comes in time.
pub async fn fence(raw: &mut impl RawPeer, number: u64) -> Vec<(Tag, Bytes)> {
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
            // A node may say at any time what it wants to be sent.
            if tag != Tag::MI {
                before.push((tag, payload));
            }
        }
    };
    soon("the answer to a request", answer).await
}
