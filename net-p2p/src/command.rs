//! Channels from other tasks and threads to the swarm task.
//!
//! # Invariants
//!
//! * Every channel is bounded. A caller that must not wait gets an error when its channel is full; tasks wait.
//! * A swarm that panicked closes its channels, so its callers get an error. Its successor has new ones.

use std::sync::{Arc, PoisonError, RwLock};

use broadcaster::Reservation;
use gossip::{DisconnectReason, LinkId};
use libp2p::{
    gossipsub::{MessageAcceptance, MessageId},
    swarm::ConnectionId,
};
use runtime::time::{Instant, timeout_at};
use tokio::sync::{mpsc, oneshot};

use crate::{
    publications::{NotTaken, Publication, Publications},
    streams::{OpenError, OpenRequest, OutboundStream, StreamRequest, StreamTarget, Turn},
};

/// Capacity of the command channel. Chosen: the commands of a few milliseconds.
const COMMANDS: usize = 1_024;

/// Capacity of the verdict channel. Chosen: more than the workers' queues hold.
const VERDICTS: usize = 4_096;

/// Capacity of the channel for stream requests; a caller waits for room. Chosen: one for each of the callers
/// that are meant to be served at once.
const STREAM_REQUESTS: usize = 256;

/// Capacity of the notice channel; senders wait for room. Chosen: two for each handshake that may be in
/// progress.
const NOTICES: usize = 256;

/// A command of a network handle.
#[derive(Debug)]
pub(crate) enum Command {
    /// Opens a stream for a link.
    Open { peer: libp2p::PeerId, connection: Option<ConnectionId>, request: OpenRequest },
    /// Has the DHT do something.
    #[cfg(feature = "dht")]
    Dht(crate::dht::Order),
    /// Dials a peer for a direct connection beside the circuit.
    #[cfg(feature = "reachability")]
    Meet(crate::reach::Meet),
    /// Panics, as a bug in a behaviour would. For tests.
    #[cfg(test)]
    Panic,
}

/// The validator's verdict on a message received from a topic.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) message: MessageId,
    pub(crate) from: libp2p::PeerId,
    pub(crate) acceptance: MessageAcceptance,
    /// The charge for the message, held for as long as GossipSub keeps it.
    pub(crate) held: Reservation,
    pub(crate) topic: libp2p::gossipsub::TopicHash,
    /// The lane of the topic's messages.
    pub(crate) lane: gossip::Lane,
}

/// A notice from a task that the swarm task has spawned.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A gossip link was attached to the broadcaster.
    LinkUp { peer: libp2p::PeerId, link: LinkId },
    /// A gossip link, or an attempt to make one, ended.
    LinkEnded { peer: libp2p::PeerId, link: LinkId, outcome: LinkOutcome },
    /// News of this node's reachability.
    #[cfg(feature = "circuits")]
    Reach(crate::reach::ReachNotice),
}

/// The result of an attempt to make a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkOutcome {
    /// The peer does not support the gossip protocol.
    Unsupported,
    /// The stream could not be opened, broke, or its handshake was malformed.
    Failed,
    /// The peer answered, but has another version or belongs to another network.
    Foreign,
    /// The second stream did not open in time.
    NoSecondLane,
    /// Another link to the same peer is kept.
    Duplicate {
        /// The link that is kept.
        winner: LinkId,
    },
    /// This node is stopping.
    Stopping,
    /// The link was attached, and has ended.
    Ended(DisconnectReason),
}

/// Sending ends of the channels of one swarm.
#[derive(Clone, Debug)]
pub(crate) struct Senders {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) verdicts: mpsc::Sender<Verdict>,
    pub(crate) notices: mpsc::Sender<Notice>,
    pub(crate) stream_requests: mpsc::Sender<StreamRequest>,
    pub(crate) publications: Publications,
}

/// Receiving ends of the channels of one swarm.
#[derive(Debug)]
pub(crate) struct Receivers {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) verdicts: mpsc::Receiver<Verdict>,
    pub(crate) notices: mpsc::Receiver<Notice>,
    /// `None` after the streams behaviour has taken it.
    pub(crate) stream_requests: Option<mpsc::Receiver<StreamRequest>>,
}

/// The channels of one swarm, beside the queue of its `publications`.
pub(crate) fn channels(publications: Publications) -> (Senders, Receivers) {
    let (commands, commands_end) = mpsc::channel(COMMANDS);
    let (verdicts, verdicts_end) = mpsc::channel(VERDICTS);
    let (notices, notices_end) = mpsc::channel(NOTICES);
    let (stream_requests, stream_requests_end) = mpsc::channel(STREAM_REQUESTS);
    let senders = Senders { commands, verdicts, notices, stream_requests, publications };
    let receivers = Receivers {
        commands: commands_end,
        verdicts: verdicts_end,
        notices: notices_end,
        stream_requests: Some(stream_requests_end),
    };
    (senders, receivers)
}

/// Handle to the swarm that currently runs. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToSwarm {
    current: Arc<RwLock<Option<Leads>>>,
}

#[derive(Debug)]
struct Leads {
    #[cfg(any(test, feature = "dht"))]
    commands: mpsc::Sender<Command>,
    stream_requests: mpsc::Sender<StreamRequest>,
    publications: Publications,
}

impl ToSwarm {
    /// Directs this handle and its clones to another swarm, or to none.
    pub(crate) fn lead_to(&self, senders: Option<&Senders>) {
        let leads = senders.map(|senders| Leads {
            #[cfg(any(test, feature = "dht"))]
            commands: senders.commands.clone(),
            stream_requests: senders.stream_requests.clone(),
            publications: senders.publications.clone(),
        });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = leads;
    }

    /// Returns `true` while a swarm is running.
    pub(crate) fn is_up(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Offers a command without waiting.
    #[cfg(any(test, feature = "dht"))]
    pub(crate) fn offer(&self, command: Command) -> Result<(), NotTaken> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let Leads { commands, .. } = current.as_ref().ok_or(NotTaken::Down)?;
        commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotTaken::Full,
            mpsc::error::TrySendError::Closed(_) => NotTaken::Down,
        })
    }

    /// Has the DHT do something, and waits for its reply.
    ///
    /// # Cancel safety
    ///
    /// Safe: a search ends with the future.
    #[cfg(feature = "dht")]
    pub(crate) async fn ask_dht<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<T>) -> crate::dht::Order,
    ) -> Result<T, crate::dht::DhtError> {
        use crate::dht::DhtError;
        let (reply, answer) = oneshot::channel();
        self.offer(Command::Dht(order(reply))).map_err(|error| match error {
            NotTaken::Full => DhtError::Busy,
            NotTaken::Down => DhtError::Closed,
        })?;
        // The swarm task drops the reply if too much is under way.
        answer.await.map_err(|_dropped| DhtError::Busy)
    }

    /// Offers a message to be published without waiting, and returns the number of messages of others that were
    /// dropped for it.
    pub(crate) fn publish(&self, message: Publication) -> Result<usize, NotTaken> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().ok_or(NotTaken::Down)?.publications.offer(message)
    }

    /// Opens a stream to a peer. If it is not connected and its address is known, it is dialled first.
    ///
    /// # Cancel safety
    ///
    /// The same as for [`ToSwarm::request_stream`].
    pub(crate) async fn open_to(
        &self,
        to: StreamTarget,
        protocols: Vec<libp2p::StreamProtocol>,
        deadline: Instant,
    ) -> Result<OutboundStream, OpenError> {
        match self.request_stream(to.clone(), protocols.clone(), deadline).await {
            // The connection was ending, and a second request goes to another one. If the swarm itself has
            // ended, the second request fails at once.
            Err(OpenError::Closed) => self.request_stream(to, protocols, deadline).await,
            answered => answered,
        }
    }

    /// Requests a stream and waits for it.
    ///
    /// # Cancel safety
    ///
    /// Safe: a stream that opens after the future was dropped is reset.
    pub(crate) async fn request_stream(
        &self,
        to: StreamTarget,
        protocols: Vec<libp2p::StreamProtocol>,
        deadline: Instant,
    ) -> Result<OutboundStream, OpenError> {
        // A timer fires up to a millisecond late, in which a quick peer may answer.
        if deadline <= Instant::now() {
            return Err(OpenError::TimedOut);
        }
        let stream_requests = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.as_ref().map(|leads| leads.stream_requests.clone()).ok_or(OpenError::Closed)?
        };
        let (reply, answer) = oneshot::channel();
        let request = OpenRequest::new(protocols, deadline, Turn::Queued, reply);
        let opened = async {
            stream_requests
                .send(StreamRequest { to, request })
                .await
                .map_err(|_died| OpenError::Closed)?;
            // Drops the sender before the wait, so that this call does not keep the channel of a dead swarm
            // open.
            drop(stream_requests);
            answer.await.map_err(|_dropped| OpenError::Closed)?
        };
        timeout_at(deadline, opened).await.map_err(|_elapsed| OpenError::TimedOut)?
    }
}

/// Requests a stream to a peer, on a connection if one is named, and waits for it.
pub(crate) async fn open_stream(
    commands: &mpsc::Sender<Command>,
    (peer, connection): (libp2p::PeerId, Option<ConnectionId>),
    protocols: Vec<libp2p::StreamProtocol>,
    (deadline, turn): (Instant, Turn),
) -> Result<OutboundStream, OpenError> {
    let (reply, answer) = oneshot::channel();
    let request = OpenRequest::new(protocols, deadline, turn, reply);
    let command = Command::Open { peer, connection, request };
    let opened = async {
        commands.send(command).await.map_err(|_stopped| OpenError::Closed)?;
        answer.await.map_err(|_dropped| OpenError::Closed)?
    };
    timeout_at(deadline, opened).await.map_err(|_elapsed| OpenError::TimedOut)?
}
