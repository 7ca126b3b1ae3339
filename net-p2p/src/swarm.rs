//! The task that owns the swarm.
//!
//! ```text
//!   handles         ──try──▶ [commands] ─┐
//!   router          ──try──▶ [outbox]   ─┤
//!   mesh loop       ──try──▶ [orders]   ─┤
//!   validators      ──try──▶ [verdicts] ─┤            ┌─▶ swarm: dial, close, publish, open streams
//!   names           ──looked up────────▶ ┤            │
//!   link tasks      ──wait─▶ [notices]  ─┼─▶ Core ────┤
//!   connections     ──try──▶ [accept]   ─┤            └─▶ link tasks: one per attempt
//!   the swarm       ──events────────────▶┘     ▲
//!   handles         ──wait─▶ [stream requests] ─┴─ taken by the streams behaviour itself
//! ```
//!
//! # Invariants
//!
//! * The task waits only in its `select!`. Its handlers are not `async`; work that waits is a link task.
//! * A bounded number of handshakes on inbound streams is in progress. Further streams wait in the accept queue.
//! * Messages to send and events of the swarm alternate, so that none of them waits for a flood of the other. Verdicts
//!   are no more than events.
//! * The task yields by time, however much there is to do.
//! * Each concern has a part of its own, and no part knows the task.

use std::{io, time::Duration};

use futures::StreamExt;
#[cfg(all(feature = "circuits", feature = "data-channels"))]
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, identify, swarm::SwarmEvent};
use runtime::{
    Breath, TaskSet,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "circuits")]
use crate::reach::ReachNotice;
#[cfg(feature = "reachability")]
use crate::reach::{Reach, SeenFrom};
use crate::{
    address::identity_of,
    behaviour::{Event, NodeSwarm},
    command::{Command, Notice, Receivers},
    dialing::Work,
    gossip_links::GossipLinks,
    listening::Listening,
    recorder::Recorder,
    rounds::Rounds,
    streams::{AcceptQueue, DialWanted},
    topic_traffic::TopicTraffic,
};
#[cfg(feature = "reachability")]
use gossip::LinkPath;

/// Longest time for connections to send the bytes written to them. Chosen: a few round trips on the longest
/// path; with the links' grace it stays well within the 5 s in which a node stops.
const PARTING_LIMIT: Duration = Duration::from_millis(500);

/// Longest wait until every listening address is bound or has failed. Chosen: binding takes milliseconds.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// Interval at which due openings of streams are looked for. Chosen: a small part of the shortest delay of one.
const TICK: Duration = Duration::from_millis(250);

/// The reason why the swarm task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The task was cancelled.
    Cancelled,
    /// The task of a connection or a link panicked.
    TaskPanicked,
}

/// The state of the swarm task: the swarm, and one part for each concern, which is handed the swarm when it works.
pub(crate) struct Core {
    pub(crate) swarm: NodeSwarm,
    pub(crate) rounds: Rounds,
    pub(crate) links: GossipLinks,
    pub(crate) topics: TopicTraffic,
    pub(crate) listening: Listening,
    /// `None` in a node that takes no part in the DHT.
    #[cfg(feature = "dht")]
    pub(crate) dht: Option<crate::dht::Dht>,
    /// The addresses that others are told in place of those of the listeners.
    #[cfg(feature = "dht")]
    pub(crate) announced: Vec<Multiaddr>,
    /// `true` if a host of this node meets others which nobody can dial.
    #[cfg(all(feature = "circuits", feature = "data-channels"))]
    pub(crate) meets: bool,
    #[cfg(feature = "reachability")]
    pub(crate) reach: Reach,
    /// The counts of the library.
    pub(crate) recorder: Recorder,
    pub(crate) receivers: Receivers,
    pub(crate) accept: AcceptQueue,
    /// Tasks of the acceptors, of HTTP and of the application's protocols, and of their streams.
    pub(crate) served: TaskSet,
    /// Cancelled when the task of a connection panics.
    pub(crate) panicked: CancellationToken,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("links", &self.links).finish_non_exhaustive()
    }
}

impl Core {
    /// Runs until cancelled. The caller catches panics of behaviours.
    pub(crate) async fn run(&mut self, cancel: &CancellationToken) -> End {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut breath, mut has_sent) = (Breath::new(), false);
        loop {
            let accepts = self.links.accepts();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return End::Cancelled,
                () = self.panicked.cancelled() => return End::TaskPanicked,
                () = self.links.tasks.token().cancelled() => return End::TaskPanicked,
                () = self.served.token().cancelled() => return End::TaskPanicked,
                Some(notice) = self.receivers.notices.recv() => {
                    self.on_notice(notice);
                }
                Some(command) = self.receivers.commands.recv() => self.on_command(command),
                Some(work) = self.links.dialing.next() => match work {
                    Work::Ordered(ticket) => self.links.dial(&mut self.swarm, ticket),
                    Work::LookedUp(looked) => {
                        self.links.dialing.on_looked_up(&mut self.swarm, *looked);
                    }
                },
                Some(verdict) = self.receivers.verdicts.recv() => self.topics.on_verdict(&mut self.swarm, verdict),
                Some(stream) = self.accept.next(), if accepts => self.links.on_stream(stream),
                () = self.topics.interest_changed() => self.topics.follow_interest(&mut self.swarm),
                _ = tick.tick() => self.on_tick(),
                () = self.topics.due(), if !has_sent => {
                    self.topics.send_due(&mut self.swarm);
                    has_sent = true;
                }
                event = self.rounds.during(self.swarm.select_next_some()) => {
                    self.on_event(event);
                    has_sent = false;
                }
                () = self.topics.due(), if has_sent => self.topics.send_due(&mut self.swarm),
            }
            breath.take().await;
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            #[cfg(feature = "circuits")]
            Notice::Reach(ReachNotice::Reserved { relay, addresses }) => {
                #[cfg(feature = "data-channels")]
                let addresses = self.with_meetings(addresses);
                for address in &addresses {
                    self.swarm.add_external_address(address.clone());
                }
                self.listening.reserved(relay, addresses);
                self.addresses_changed();
            }
            #[cfg(feature = "circuits")]
            Notice::Reach(ReachNotice::Lost { relay }) => {
                for address in self.listening.lost(&relay) {
                    self.swarm.remove_external_address(&address);
                }
                self.addresses_changed();
            }
            #[cfg(feature = "reachability")]
            Notice::Reach(ReachNotice::Verdict { reached }) => {
                for address in self.reach.reached(reached) {
                    self.swarm.remove_external_address(&address);
                }
                for address in self.reach.told().to_vec() {
                    self.swarm.add_external_address(address);
                }
                self.addresses_changed();
            }
            notice => self.links.on_notice(&mut self.swarm, notice),
        }
    }

    /// Adds to addresses through a relay those at which others meet this node.
    #[cfg(all(feature = "circuits", feature = "data-channels"))]
    fn with_meetings(&self, mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        if self.meets {
            let met = |circuit: &Multiaddr| circuit.clone().with(Protocol::WebRTC);
            addresses.extend(addresses.iter().map(met).collect::<Vec<_>>());
        }
        addresses
    }

    /// Has the DHT told of the addresses that this node has now.
    #[cfg(feature = "circuits")]
    #[allow(clippy::unused_self, reason = "without the feature `dht` there is nobody to tell")]
    fn addresses_changed(&mut self) {
        #[cfg(feature = "dht")]
        if let Some(dht) = &mut self.dht {
            dht.addresses_changed();
        }
    }

    fn on_command(&mut self, command: Command) {
        let Self { swarm, .. } = self;
        match command {
            #[cfg(feature = "dht")]
            Command::Dht(order) => {
                // The handle asks only if there is a DHT.
                if let (Some(dht), Some(gate)) = (&mut self.dht, swarm.behaviour_mut().dht.as_mut())
                {
                    let random = &mut self.links.context.broadcaster.environment().random();
                    dht.on_order(gate, order, random);
                }
            }
            Command::Open { peer, connection, request } => {
                swarm.behaviour_mut().streams.open(peer, connection, request);
            }
            #[cfg(feature = "reachability")]
            Command::Meet(meet) => self.links.dialing.meet(swarm, meet),
            #[cfg(test)]
            Command::Panic => panic!("a behaviour panicked, as the test asked"),
        }
    }

    fn on_tick(&mut self) {
        self.links.tend(&mut self.swarm);
        self.topics.watch_scores(&mut self.swarm);
        #[cfg(feature = "dht")]
        if let (Some(dht), Some(gate)) = (&mut self.dht, self.swarm.behaviour_mut().dht.as_mut()) {
            dht.tend(gate, &mut self.links.context.broadcaster.environment().random());
        }
    }

    /// Deals with what the swarm tells.
    fn on_event(&mut self, event: SwarmEvent<Event>) {
        self.recorder.note(&event);
        let Self { swarm, links, topics, listening, .. } = self;
        match event {
            SwarmEvent::Behaviour(Event::Gossipsub(event)) => topics.on_gossipsub(swarm, *event),
            SwarmEvent::Behaviour(Event::Ping(event)) => links.on_ping(swarm, &event),
            SwarmEvent::Behaviour(Event::Streams(DialWanted(address))) => {
                links.dialing.dial_for_streams(swarm, address);
            }
            SwarmEvent::Behaviour(Event::Mdns(event)) => {
                links.dialing.on_mdns(links.context.broadcaster.mesh(), event);
            }
            SwarmEvent::Behaviour(Event::Identify(event)) => self.on_identify(*event),
            #[cfg(feature = "dht")]
            SwarmEvent::Behaviour(Event::Dht(event)) => {
                if let (Some(dht), Some(gate)) = (&mut self.dht, swarm.behaviour_mut().dht.as_mut())
                {
                    let random = &mut links.context.broadcaster.environment().random();
                    dht.on_event(gate, *event, random);
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                topics.connected(peer_id, endpoint.get_remote_address());
                links.on_connected(swarm, peer_id, connection_id, &endpoint);
                #[cfg(feature = "reachability")]
                self.reach.connected((peer_id, connection_id), &endpoint, &self.served);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                if !swarm.is_connected(&peer_id) {
                    topics.forget(swarm, &peer_id);
                    if let Some(identity) = identity_of(&peer_id) {
                        links.context.abouts.forget(&identity);
                    }
                }
                #[cfg(feature = "reachability")]
                self.reach.closed(connection_id);
                #[cfg(feature = "reachability")]
                links.dialing.closed(connection_id);
                links.on_disconnected(swarm, peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                links.dialing.dial_failed(swarm, connection_id, error);
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                #[cfg(feature = "dht")]
                if self.announced.is_empty()
                    && self.dht.as_ref().is_some_and(|dht| dht.tells(&address))
                {
                    swarm.add_external_address(address.clone());
                }
                #[cfg(feature = "reachability")]
                if self.reach.listens(&address) {
                    swarm.add_external_address(address.clone());
                }
                listening.heard(listener_id, address);
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                #[cfg(feature = "dht")]
                swarm.remove_external_address(&address);
                listening.expired(listener_id, &address);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                listening.closed(listener_id, reason);
            }
            SwarmEvent::ListenerError { error, .. } => {
                // The library waits 100 ms after such an error and reports it again for as long as it lasts.
                if let Some(left_out) = links.context.lines.listener.due() {
                    tracing::warn!(%error, left_out, "cannot accept a connection on a libp2p port");
                }
            }
            _ => {}
        }
    }

    /// Notes what a peer says of itself, and of this node.
    fn on_identify(&mut self, event: identify::Event) {
        let Self { swarm, links, .. } = self;
        let identify::Event::Received { connection_id, peer_id, info } = event else { return };
        #[cfg(feature = "reachability")]
        if let Some(observed) = &self.reach.observed
            && links.peers.get(&peer_id).and_then(|peer| peer.path(connection_id))
                == Some(LinkPath::Direct)
        {
            let is_shown = links.dialing.is_from_listening_port(connection_id);
            let from = if is_shown { SeenFrom::ListeningPort } else { SeenFrom::OtherPort };
            observed.note(&info.observed_addr, from);
        }
        #[cfg(not(feature = "reachability"))]
        let _ = connection_id;
        // An event may come after the end of the connection that it is about.
        if swarm.is_connected(&peer_id)
            && let Some(identity) = identity_of(&peer_id)
        {
            links.context.abouts.note(identity, &info);
        }
        #[cfg(feature = "dht")]
        if let (Some(dht), Some(gate)) = (&mut self.dht, swarm.behaviour_mut().dht.as_mut()) {
            dht.on_identified(gate, peer_id, &info);
        }
    }

    /// Closes every connection in an orderly way, so that the bytes written to it are sent.
    pub(crate) async fn part(&mut self) {
        for peer in self.swarm.connected_peers().copied().collect::<Vec<_>>() {
            // This fails only if the peer has disconnected meanwhile.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let gone = async {
            while self.swarm.network_info().num_peers() > 0 {
                drop(self.swarm.select_next_some().await);
            }
        };
        if time::timeout(PARTING_LIMIT, gone).await.is_err() {
            tracing::debug!("not every connection let itself be closed");
        }
    }

    /// Waits until every listening address is bound or has failed.
    ///
    /// # Errors
    ///
    /// The first address that cannot be listened on, and what the system said.
    pub(crate) async fn listen(&mut self) -> Result<(), (Multiaddr, io::Error)> {
        let settled = async {
            while !self.listening.is_settled() {
                let event = self.swarm.select_next_some().await;
                self.on_event(event);
            }
        };
        // An address that is not bound at the deadline is reported as failed below.
        let _ = time::timeout(LISTEN_LIMIT, settled).await;
        match self.listening.take_failure() {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }
}
