//! The task that owns the swarm.
//!
//! ```text
//!   handles, topics ──try──▶ [commands] ─┐
//!   validators      ──try──▶ [verdicts] ─┤            ┌─▶ swarm: dial, close, publish, open streams
//!   link tasks      ──wait─▶ [notices]  ─┼─▶ Core ────┤
//!   connections     ──try──▶ [accept]   ─┤            └─▶ link tasks: one per attempt
//!   the swarm       ──events────────────▶┘     ▲
//!   handles         ──wait─▶ [stream requests] ─┴─ taken by the streams behaviour itself
//! ```
//!
//! # Invariants
//!
//! * The task waits only in its `select!`. Its handlers are not `async`; work that waits is a link task.
//! * At most [`MAX_HANDSHAKES`] handshakes on inbound streams are in progress, at most
//!   [`MAX_HANDSHAKES_PER_PEER`] with one peer. Further streams wait in the accept queue.
//! * Gossip streams are opened and accepted only with peers whose kind of key the network gossips with. All
//!   other protocols are open to every kind.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use gossip::{Direction, DisconnectReason, Tag};
use libp2p::{
    Swarm,
    core::ConnectedPoint,
    gossipsub::IdentTopic,
    ping,
    swarm::{ConnectionId, SwarmEvent},
};
use runtime::TaskSet;
use tokio::{
    sync::oneshot,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    behaviour::{Behaviour, Event},
    command::{Command, Notice, Receivers, Senders},
    config::{GossipStreams, identity_of},
    conventions::{Conventions, LinkEnd},
    dialing::{Dial, Dialing},
    link::{Attempt, LinkContext, LinkOutcome, Start},
    listening::Listening,
    metrics::P2pEvent,
    peers::{Attempted, Connection, Dialled, Peer, Peers, Purpose, REOPENING},
    pubsub,
    streams::{AcceptQueue, DialWanted, InboundStream},
    topic_traffic::TopicTraffic,
};

/// Interval at which due dials and due openings of streams are looked for. Chosen: half the shortest delay of
/// the dial schedule.
const TICK: Duration = Duration::from_millis(250);

/// Largest number of handshakes in progress on inbound streams. Source: threats and goals, row 1.
const MAX_HANDSHAKES: usize = 128;

/// Largest number of those with one peer. Chosen: one is needed; the rest is a margin for reconnections.
const MAX_HANDSHAKES_PER_PEER: usize = 8;

/// The reason why the swarm task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The task was cancelled.
    Cancelled,
    /// The task of a connection or a link panicked.
    TaskPanicked,
}

/// State of the swarm task. Its methods are in several files, one per concern.
pub(crate) struct Core {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) around: Arc<LinkContext>,
    pub(crate) peers: Peers,
    pub(crate) dialing: Dialing,
    pub(crate) listening: Listening,
    pub(crate) topics: Vec<(Tag, IdentTopic)>,
    pub(crate) traffic: TopicTraffic,
    pub(crate) conventions: Conventions,
    pub(crate) gossip: GossipStreams,
    /// Cloned for link tasks.
    pub(crate) senders: Senders,
    pub(crate) receivers: Receivers,
    pub(crate) accept: AcceptQueue,
    /// Link tasks.
    pub(crate) tasks: TaskSet,
    /// Tasks of the acceptors, of HTTP and of the application's protocols, and of their streams.
    pub(crate) served: TaskSet,
    /// Cancelled when the task of a connection panics.
    pub(crate) panicked: CancellationToken,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("peers", &self.peers).finish_non_exhaustive()
    }
}

/// Sleeps until `at`; for ever if it is `None`.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Core {
    /// Runs until cancelled. The caller catches panics of behaviours.
    pub(crate) async fn run(&mut self, cancel: &CancellationToken) -> End {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepts = self.peers.handshakes() < MAX_HANDSHAKES;
            tokio::select! {
                biased;
                () = cancel.cancelled() => return End::Cancelled,
                () = self.panicked.cancelled() => return End::TaskPanicked,
                () = self.tasks.token().cancelled() => return End::TaskPanicked,
                () = self.served.token().cancelled() => return End::TaskPanicked,
                Some(notice) = self.receivers.notices.recv() => self.on_notice(notice),
                Some(command) = self.receivers.commands.recv() => self.on_command(command),
                Some(verdict) = self.receivers.verdicts.recv() => self.on_verdict(verdict),
                Some(stream) = self.accept.next(), if accepts => self.on_stream(stream),
                () = due(self.traffic.outbox.due()) => self.publish_due(),
                _ = tick.tick() => self.on_tick(),
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish(publication) => self.publish(publication),
            Command::Dial(address) => {
                self.dialing.add_configured(address);
                self.dial_due();
            }
            Command::Connect(policy) => self.connect_outgoing(policy),
            Command::Open { peer, connection, request } => {
                self.swarm.behaviour_mut().streams.open(peer, connection, request);
            }
            #[cfg(test)]
            Command::Panic => panic!("a behaviour panicked, as the test asked"),
        }
    }

    fn on_tick(&mut self) {
        if self.gossip == GossipStreams::Off {
            return;
        }
        self.dial_due();
        self.close_unused();
        self.watch_scores();
        let now = Instant::now();
        for (peer, connection) in self.peers.due(now) {
            if self.would_lose(&peer) {
                self.peers.postpone(&peer, now + REOPENING);
                self.settle(&peer, |_| true);
            } else {
                self.open_link(peer, connection);
            }
        }
    }

    /// Returns `true` if a new link to this peer would be refused in favour of a link over another transport.
    fn would_lose(&self, peer: &libp2p::PeerId) -> bool {
        let Some(identity) = self.peers.get(peer).map(|peer| peer.identity) else { return true };
        self.conventions.link_end == LinkEnd::Connection
            && self.around.broadcaster.holder(&identity).is_some()
    }

    pub(crate) fn on_event(&mut self, event: SwarmEvent<Event>) {
        match event {
            SwarmEvent::Behaviour(Event::Gossipsub(event)) => self.on_gossipsub(*event),
            SwarmEvent::Behaviour(Event::Ping(event)) => self.on_ping(&event),
            SwarmEvent::Behaviour(Event::Streams(DialWanted(address))) => {
                self.dial_for_streams(address);
            }
            SwarmEvent::Behaviour(Event::Mdns(event)) => self.on_mdns(event),
            SwarmEvent::Behaviour(Event::Identify) => {}
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                if !self.swarm.is_connected(&peer_id) {
                    self.forget_on_topics(&peer_id);
                }
                if let Some(dialled) = self.peers.closed(peer_id, connection_id) {
                    self.dialing.lost(&dialled);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.dial_failed(connection_id, error);
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.listening.heard(listener_id, address);
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                self.listening.expired(listener_id, &address);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                self.listening.closed(listener_id, reason);
            }
            SwarmEvent::ListenerError { error, .. } => {
                // The library waits 100 ms after such an error and reports it again for as long as it lasts.
                if let Some(left_out) = self.around.lines.listener.due() {
                    tracing::warn!(%error, left_out, "cannot accept a connection on a libp2p port");
                }
            }
            _ => {}
        }
    }

    fn on_connected(
        &mut self,
        peer: libp2p::PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        let direction = match endpoint {
            ConnectedPoint::Dialer { .. } => Direction::Outbound,
            ConnectedPoint::Listener { .. } => Direction::Inbound,
        };
        let dialled = self.dialing.arrived(connection);
        let Some(identity) = identity_of(&peer) else {
            self.around.metrics.note(P2pEvent::ForeignKey);
            self.swarm.close_connection(connection);
            return;
        };
        tracing::debug!(%peer, direction = direction.label(), "connected");
        if let Some(gossipsub) = self.swarm.behaviour_mut().gossipsub.as_mut() {
            pubsub::welcome(gossipsub, &peer);
        }
        let (purpose, dialled) = match dialled {
            Some(Dial { purpose: Purpose::Streams, .. }) => (Purpose::Streams, None),
            Some(Dial { address, .. }) => {
                (Purpose::Gossip, Some(Dialled { address, settled: false }))
            }
            None => (Purpose::Gossip, None),
        };
        let now = Instant::now();
        let known = Connection { id: connection, direction, purpose, dialled };
        self.peers.connected(peer, identity, known, now);
        if !self.peers.entry(peer, identity).gossips {
            // This peer gets no gossip link, and topics use the connection as it is.
            self.settle(&peer, |known| known == connection);
        }
        self.on_tick();
    }

    fn on_ping(&mut self, event: &ping::Event) {
        match &event.result {
            // The library does not report the first failure in a row, so this is the second.
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                self.around.metrics.note(P2pEvent::PingTimeout);
                if let Some(left_out) = self.around.lines.silent.due() {
                    tracing::info!(peer = %event.peer, left_out, "no answer to pings, disconnecting");
                }
                let attempts =
                    self.peers.get(&event.peer).into_iter().flat_map(|peer| &peer.attempts);
                for attempt in attempts.filter(|attempt| attempt.connection == event.connection) {
                    // Without this, the connection's orderly end would run first, and the peer could delay it.
                    self.around.broadcaster.disconnect(attempt.link, DisconnectReason::Silent);
                }
                self.swarm.close_connection(event.connection);
            }
            Ok(_) | Err(ping::Failure::Unsupported) => {}
        }
    }

    /// Handles an inbound gossip stream.
    fn on_stream(&mut self, stream: InboundStream) {
        let (peer, connection) = (stream.about.peer, stream.about.connection);
        let Some(identity) = identity_of(&peer) else {
            return self.around.metrics.note(P2pEvent::ForeignKey);
        };
        let profile = self.around.broadcaster.profile();
        if profile.bulk_stream_protocol.is_some_and(|bulk| stream.protocol == bulk) {
            return self.hand_second(&peer, connection, stream);
        }
        let known = self.peers.entry(peer, identity);
        if !known.gossips {
            return self.around.metrics.note(P2pEvent::ForeignKey);
        }
        if known.handshakes() >= MAX_HANDSHAKES_PER_PEER {
            return self.around.metrics.note(P2pEvent::TooManyHandshakes);
        }
        self.begin(peer, connection, Start::Accepted(Box::new(stream)));
    }

    /// Hands a second stream to the attempt on its connection that waits for one.
    fn hand_second(&mut self, peer: &libp2p::PeerId, on: ConnectionId, stream: InboundStream) {
        let attempts = self.peers.get_mut(peer).map(|peer| &mut peer.attempts);
        let waiting = attempts.into_iter().flatten().find_map(|attempt| {
            if attempt.connection == on { attempt.second.take() } else { None }
        });
        if waiting.is_none_or(|waiting| waiting.send(stream).is_err()) {
            self.around.metrics.note(P2pEvent::AcceptorGone);
        }
    }

    pub(crate) fn open_link(&mut self, peer: libp2p::PeerId, connection: ConnectionId) {
        self.begin(peer, connection, Start::Open(connection));
    }

    fn begin(&mut self, id: libp2p::PeerId, connection: ConnectionId, start: Start) {
        let Some(peer) = identity_of(&id).map(|identity| self.peers.entry(id, identity)) else {
            return;
        };
        let opener = match start {
            Start::Accepted(_) => Direction::Inbound,
            Start::Open(_) => Direction::Outbound,
        };
        let link = self.around.broadcaster.next_link_id();
        let (identity, lanes) = (peer.identity, peer.lanes);
        let (second, awaited) = oneshot::channel();
        let second = Some(second);
        peer.attempts.push(Attempted { link, connection, opener, up: false, second });
        let attempt = Attempt { peer: id, identity, link, start, lanes, second: awaited };
        let (around, senders) = (Arc::clone(&self.around), self.senders.clone());
        self.tasks.spawn("gossip link", |cancel| attempt.run(around, senders, cancel));
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::LinkUp { peer, link } => self.on_link_up(&peer, link),
            Notice::LinkEnded { peer, link, outcome } => self.on_link_ended(peer, link, outcome),
        }
    }

    fn on_link_up(&mut self, id: &libp2p::PeerId, link: gossip::LinkId) {
        let Some(peer) = self.peers.up(id, link) else { return };
        let on = peer.attempts.iter().find(|attempt| attempt.link == link);
        let on = on.map(|attempt| attempt.connection);
        self.dialing.linked(peer.identity);
        let mut needless = Vec::new();
        for known in &mut peer.connections {
            let Some(dialled) = known.dialled.as_mut().filter(|dialled| !dialled.settled) else {
                continue;
            };
            if Some(known.id) == on {
                dialled.settled = true;
                self.dialing.connected(&dialled.address);
            } else {
                self.dialing.duplicate(&dialled.address);
                (known.dialled, known.purpose) = (None, Purpose::Streams);
                needless.push(known.id);
            }
        }
        for connection in needless {
            self.swarm.behaviour_mut().streams.retire(id, connection);
        }
        self.close_unused();
    }

    /// Closes the retired connections without a stream in use.
    fn close_unused(&mut self) {
        for connection in self.swarm.behaviour().streams.unused() {
            self.swarm.close_connection(connection);
        }
    }

    fn on_link_ended(&mut self, id: libp2p::PeerId, link: gossip::LinkId, outcome: LinkOutcome) {
        let identity = self.peers.get(&id).map(|peer| peer.identity);
        let Some(attempted) = self.peers.ended(id, link, outcome, Instant::now()) else { return };
        let peer = self.peers.get(&id);
        if attempted.up
            && let Some(identity) = identity.filter(|_| !peer.is_some_and(|peer| peer.is_linked()))
        {
            self.dialing.unlinked(&identity);
        }
        let on = attempted.connection;
        match outcome {
            LinkOutcome::Ended(DisconnectReason::Duplicate) | LinkOutcome::Stopping => {}
            LinkOutcome::Ended(reason) => {
                let ours = peer.is_some_and(|peer| peer.has_dialled(on) && !peer.uses(on));
                let shared = peer.and_then(|peer| peer.purpose(on)) == Some(Purpose::Streams);
                if ours || (self.conventions.link_end == LinkEnd::Connection && !shared) {
                    tracing::debug!(peer = %id, %reason, "closing the connection of a link that ended");
                    self.swarm.close_connection(on);
                }
            }
            LinkOutcome::Duplicate { winner } => self.on_duplicate(&id, on, winner),
            // A link with one stream is tried at once.
            LinkOutcome::NoSecondLane => self.on_tick(),
            LinkOutcome::Unsupported | LinkOutcome::Foreign => self.refused(&id, on),
            LinkOutcome::Failed => self.unreachable(&id, on),
        }
    }

    fn on_duplicate(&mut self, id: &libp2p::PeerId, on: ConnectionId, winner: gossip::LinkId) {
        let here = |peer: &Peer| peer.attempts.iter().any(|attempt| attempt.link == winner);
        // If the winning link is on this transport, it settles its connection itself.
        if !self.peers.get(id).is_some_and(here) {
            self.settle(id, |connection| connection == on);
        }
    }

    /// Keeps dialled connections although their links were refused, because topics use them.
    pub(crate) fn settle(&mut self, id: &libp2p::PeerId, which: impl Fn(ConnectionId) -> bool) {
        let connections = self.peers.get_mut(id).map(|peer| &mut peer.connections);
        for known in connections.into_iter().flatten().filter(|known| which(known.id)) {
            if let Some(dialled) = known.dialled.as_mut().filter(|dialled| !dialled.settled) {
                dialled.settled = true;
                self.dialing.connected(&dialled.address);
            }
        }
    }
}
