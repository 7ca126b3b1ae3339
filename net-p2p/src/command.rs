//! What other tasks and threads may ask of the swarm task.
//!
//! # Invariants
//!
//! * Every channel is bounded. Callers that must not wait are told when one is full; tasks wait.
//! * A swarm that died closes its channels, so who asks it is told, and its successor has new ones.

use std::sync::{Arc, PoisonError, RwLock};

use broadcaster::Reservation;
use gossip::{ConnectPolicy, LinkId};
use libp2p::{
    gossipsub::{MessageAcceptance, MessageId},
    swarm::ConnectionId,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    config::PeerAddress,
    link::LinkOutcome,
    outbox::Publication,
    streams::{OpenError, OpenRequest, OutboundStream, StreamTarget, Turn, Wish},
};

/// Commands that wait for the swarm task. Chosen: what is heard in a few milliseconds.
const COMMANDS: usize = 1_024;

/// Verdicts that wait for the swarm task. Chosen: more than the workers' queues hold.
const VERDICTS: usize = 4_096;

/// Wishes for streams that wait for the swarm task; who wishes waits too. Chosen: a wish of each of
/// the callers that are meant to be served at once.
const WISHES: usize = 256;

/// Notices that wait for the swarm task; their senders wait too.
const NOTICES: usize = 256;

/// From a handle.
#[derive(Debug)]
pub(crate) enum Command {
    /// Publish a message.
    Publish(Publication),
    /// Dial an address, now and whenever the link to it ended.
    Dial(PeerAddress),
    /// See to outgoing connections.
    Connect(ConnectPolicy),
    /// Open a stream for a link.
    Open { peer: libp2p::PeerId, connection: Option<ConnectionId>, request: OpenRequest },
    /// Die, as a bug in a behaviour would make it.
    #[cfg(test)]
    Panic,
}

/// What was said of a message heard on a topic.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) message: MessageId,
    pub(crate) from: libp2p::PeerId,
    pub(crate) acceptance: MessageAcceptance,
    /// What its bytes cost, for as long as they are kept.
    pub(crate) held: Reservation,
}

/// From a task that the swarm task started.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A gossip link was attached.
    LinkUp { peer: libp2p::PeerId, link: LinkId },
    /// A gossip link, or the attempt to make one, ended.
    LinkEnded { peer: libp2p::PeerId, link: LinkId, outcome: LinkOutcome },
}

/// The sending ends, for one life of the swarm.
#[derive(Clone, Debug)]
pub(crate) struct Senders {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) verdicts: mpsc::Sender<Verdict>,
    pub(crate) notices: mpsc::Sender<Notice>,
    pub(crate) wishes: mpsc::Sender<Wish>,
}

/// The receiving ends, for one life of the swarm.
#[derive(Debug)]
pub(crate) struct Receivers {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) verdicts: mpsc::Receiver<Verdict>,
    pub(crate) notices: mpsc::Receiver<Notice>,
    /// `None` once the behaviour has it.
    pub(crate) wishes: Option<mpsc::Receiver<Wish>>,
}

pub(crate) fn channels() -> (Senders, Receivers) {
    let (commands, commands_end) = mpsc::channel(COMMANDS);
    let (verdicts, verdicts_end) = mpsc::channel(VERDICTS);
    let (notices, notices_end) = mpsc::channel(NOTICES);
    let (wishes, wishes_end) = mpsc::channel(WISHES);
    let senders = Senders { commands, verdicts, notices, wishes };
    let receivers = Receivers {
        commands: commands_end,
        verdicts: verdicts_end,
        notices: notices_end,
        wishes: Some(wishes_end),
    };
    (senders, receivers)
}

/// Leads to the swarm that lives now. Clones lead to the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToSwarm {
    current: Arc<RwLock<Option<Leads>>>,
}

#[derive(Debug)]
struct Leads {
    commands: mpsc::Sender<Command>,
    wishes: mpsc::Sender<Wish>,
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The queue is full.
    Full,
    /// No swarm lives.
    Down,
}

impl ToSwarm {
    /// From now on leads to this swarm, or to none.
    pub(crate) fn lead_to(&self, senders: Option<&Senders>) {
        let leads = senders.map(|Senders { commands, wishes, .. }| Leads {
            commands: commands.clone(),
            wishes: wishes.clone(),
        });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = leads;
    }

    /// Whether there is a swarm.
    pub(crate) fn is_up(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Offers a command. Never waits.
    pub(crate) fn offer(&self, command: Command) -> Result<(), NotTaken> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let Leads { commands, .. } = current.as_ref().ok_or(NotTaken::Down)?;
        commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotTaken::Full,
            mpsc::error::TrySendError::Closed(_) => NotTaken::Down,
        })
    }

    /// Opens a stream to a peer, which is dialled if its address is known and it is not connected.
    ///
    /// # Cancel safety
    ///
    /// As of [`ToSwarm::wish`].
    pub(crate) async fn open_to(
        &self,
        to: StreamTarget,
        protocols: Vec<libp2p::StreamProtocol>,
        deadline: Instant,
    ) -> Result<OutboundStream, OpenError> {
        match self.wish(to.clone(), protocols.clone(), deadline).await {
            // The connection was about to end, and the next wish leads to another one. If it was the
            // swarm that ended, the next one is answered at once.
            Err(OpenError::Closed) => self.wish(to, protocols, deadline).await,
            answered => answered,
        }
    }

    /// Wishes for a stream, and waits for it.
    ///
    /// # Cancel safety
    ///
    /// A stream that comes up after the future was dropped is reset.
    pub(crate) async fn wish(
        &self,
        to: StreamTarget,
        protocols: Vec<libp2p::StreamProtocol>,
        deadline: Instant,
    ) -> Result<OutboundStream, OpenError> {
        let wishes = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.as_ref().map(|leads| leads.wishes.clone()).ok_or(OpenError::Closed)?
        };
        let (reply, answer) = oneshot::channel();
        let request = OpenRequest::new(protocols, deadline, Turn::Queued, reply);
        let opened = async {
            wishes.send(Wish { to, request }).await.map_err(|_died| OpenError::Closed)?;
            // Nothing of this call shall keep the queue of a swarm that died.
            drop(wishes);
            answer.await.map_err(|_dropped| OpenError::Closed)?
        };
        timeout_at(deadline, opened).await.map_err(|_elapsed| OpenError::TimedOut)?
    }
}

/// Asks for a stream for a link and waits for it.
pub(crate) async fn open_stream(
    commands: &mpsc::Sender<Command>,
    peer: libp2p::PeerId,
    connection: Option<ConnectionId>,
    protocols: Vec<libp2p::StreamProtocol>,
    deadline: Instant,
) -> Result<OutboundStream, OpenError> {
    let (reply, answer) = oneshot::channel();
    let request = OpenRequest::new(protocols, deadline, Turn::Urgent, reply);
    let command = Command::Open { peer, connection, request };
    let opened = async {
        commands.send(command).await.map_err(|_stopped| OpenError::Closed)?;
        answer.await.map_err(|_dropped| OpenError::Closed)?
    };
    timeout_at(deadline, opened).await.map_err(|_elapsed| OpenError::TimedOut)?
}
