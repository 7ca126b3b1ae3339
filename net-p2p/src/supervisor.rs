//! Runs the swarm, and restarts it after a panic.
//!
//! ```text
//!   build ─▶ listen ─▶ run ─┬─ asked to stop ─▶ links end, then the swarm ─▶ done
//!     ▲                     └─ panic ─▶ its links end ─▶ wait 1 s … 30 s ─┐
//!     └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! * A panic in a behaviour or a connection ends one swarm and nothing else. The next swarm has the same
//!   identity and the same listening addresses, and gets the orders of the mesh loop.
//! * While no swarm runs, topics report `Closed`, so their messages go over other transports.
//! * Every task of a swarm has ended or was aborted before the next swarm starts.

use std::{io, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use gossip::Transport;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, TransportError,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
    swarm::Config as SwarmConfig,
};
use runtime::{
    TaskSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

#[cfg(all(feature = "circuits", feature = "data-channels"))]
use crate::given::MeetingParts;
#[cfg(all(feature = "circuits", not(feature = "reachability")))]
use crate::reach::Relayed;
#[cfg(feature = "reachability")]
use crate::reach::{Reach, ReachParts};
use crate::{
    backlog::Backlog,
    behaviour::{Behaviour, BehaviourError, NodeSwarm},
    command::{Senders, ToSwarm, channels},
    config::{GossipStreams, P2pConfig, Subscription, libp2p_key},
    connections::ConnectionTasks,
    conventions::Conventions,
    dial_hosts::DialHosts,
    dialing::Dialing,
    given::Given,
    gossip_links::GossipLinks,
    http::StreamAcceptor,
    link::{LinkContext, gossip_protocols},
    listening::{Bound, Listening, of_the_system},
    memory::MemoryBounds,
    metrics::P2pEvent,
    outbox::{Outbox, max_waiting_bytes},
    own_topics::{Stamp, TopicPolicies, TopicPool},
    peers::Peers,
    protocols::ProtocolServer,
    publications::publications,
    pubsub,
    recorder::Recorder,
    rounds::Rounds,
    sockets::Sockets,
    streams::{self, AcceptQueue, Acceptors},
    swarm::{Core, End},
    topic_debts::TopicDebts,
    topic_gate::TopicGate,
    topic_traffic::{KnownTopics, TopicTraffic},
    transport::{self, TransportParts, TransportSetupError},
    trees::Trees,
};
#[cfg(feature = "circuits")]
use crate::{reach::Circuits, transport::ThroughRelays};

/// Time for which a connection without any stream is kept. The swarm checks a connection at its next ping at
/// the latest. Chosen: four ping intervals.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Shortest delay before the swarm is restarted; doubles up to [`MAX_RESTART`]. Source: threats and
/// goals, row 35.
const RESTART: Duration = Duration::from_secs(1);

/// Longest delay before the swarm is restarted. Source: threats and goals, row 35.
const MAX_RESTART: Duration = Duration::from_secs(30);

/// Run time of a swarm after which the delay starts over. Chosen: twice the longest delay.
const STABLE: Duration = Duration::from_secs(60);

/// Longest time for the orderly end of links and of requests in progress. Chosen: longer than the broadcaster
/// gives a stopping peer to drain and to close.
const LINKS_GRACE: Duration = Duration::from_millis(2_500);

/// Longest time for the tasks of connections to end. Chosen: they have nothing left to wait for.
const CONNECTIONS_GRACE: Duration = Duration::from_secs(1);

/// The reason why a swarm could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("the key cannot be used to secure connections")]
    Transport(#[from] TransportSetupError),
    #[error(transparent)]
    Behaviour(#[from] BehaviourError),
    #[error("cannot listen on {address}")]
    Listen { address: Multiaddr, source: io::Error },
}

/// The parts from which every swarm is built.
#[derive(Debug)]
pub(crate) struct SwarmParts {
    pub(crate) config: P2pConfig,
    pub(crate) context: Arc<LinkContext>,
    pub(crate) swarm: ToSwarm,
    pub(crate) bound: Bound,
    /// The application's topics.
    pub(crate) policies: TopicPolicies,
    pub(crate) pool: TopicPool,
}

/// One swarm, from its start to its end.
pub(crate) struct Life {
    core: Box<Core>,
    connections: TaskSet,
    /// The addresses it listens on, with their ports.
    listen: Vec<Multiaddr>,
}

impl SwarmParts {
    /// The bounds that follow from the byte budget: of what connections keep, and of what topics cost.
    fn memory_bounds(&self) -> (Backlog, TopicGate) {
        let (budget, metrics) = (self.context.broadcaster.budget().total(), &self.context.metrics);
        let mut bounds = MemoryBounds::beside(budget);
        if let Some(bytes) = self.config.backlog_bytes {
            bounds = bounds.with_backlog(bytes);
        }
        let backlog = Backlog::new(bounds.backlog_bytes, metrics.clone());
        let gate = TopicGate::new(bounds.message_id_bytes, metrics.clone());
        (backlog, gate.at(self.context.door.clone()))
    }

    /// Builds a swarm, and waits until it listens.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future drops the swarm.
    pub(crate) async fn make(
        &self,
        listen: &[Multiaddr],
        cancel: &CancellationToken,
    ) -> Result<Life, BuildError> {
        // Not a child of the network's cancellation: connections must still send the last bytes of their links.
        let (connections, panicked) =
            (TaskSet::new(&CancellationToken::new()), CancellationToken::new());
        let recorder = Recorder::new(self.context.metrics.library().begin());
        let profile = self.context.broadcaster.profile();
        let mut acceptors = Acceptors::new(self.context.metrics.clone());
        let accept = self.gossip_queue(&mut acceptors);
        let served = TaskSet::new(cancel);
        self.serve_http(&mut acceptors, &served);
        self.serve_protocols(&mut acceptors, &served);
        let budget_bytes = self.context.broadcaster.budget().total();
        let (publications, to_publish) = publications(max_waiting_bytes(budget_bytes));
        let (senders, mut receivers) = channels(publications);
        let key = libp2p_key(&self.config.key);
        let hosts = DialHosts::new(self.context.broadcaster.mesh().limits().learnt_hosts);
        #[cfg(feature = "circuits")]
        let (reach, circuits) = self.reach(&key, &mut acceptors, hosts.clone());
        #[cfg(feature = "circuits")]
        let relayed = self.through_relays(circuits, &mut acceptors, &hosts);
        let streams = streams::Behaviour::new(acceptors, receivers.stream_requests.take());
        let executor = ConnectionTasks::new(connections.clone(), panicked.clone());
        let (backlog, gate) = self.memory_bounds();
        let (debts, rounds) = (backlog.debts().clone(), Rounds::default());
        #[cfg(feature = "reachability")]
        let parts = (executor.clone(), backlog.clone());
        #[cfg(feature = "dht")]
        let (gated_dht, dht) = self.dht(key.public().to_peer_id()).unzip();
        let mut swarm = Swarm::new(
            self.transport(
                &key,
                &hosts,
                (executor.clone(), backlog, rounds.clone()),
                #[cfg(feature = "circuits")]
                relayed,
            )?,
            Behaviour::new(
                &self.config,
                profile,
                streams,
                (gate, self.policies.clone()),
                #[cfg(feature = "dht")]
                gated_dht,
            )?,
            key.public().to_peer_id(),
            SwarmConfig::with_executor(executor).with_idle_connection_timeout(IDLE_TIMEOUT),
        );
        let listening = self.listen_on(&mut swarm, listen)?;
        let leads = senders.clone();
        let outbox = Outbox::new(to_publish, budget_bytes, Instant::now());
        let topics = self.topics(&mut swarm, &senders, (outbox, debts));
        let mut core = Box::new(Core {
            swarm,
            rounds,
            links: self.gossip_links(senders, hosts, cancel),
            topics,
            listening,
            #[cfg(feature = "dht")]
            dht,
            #[cfg(feature = "dht")]
            announced: self.config.announce.clone(),
            #[cfg(all(feature = "circuits", feature = "data-channels"))]
            meets: self.channel_transports().iter().any(|transport| transport.meets()),
            #[cfg(feature = "reachability")]
            reach: Reach::default(),
            recorder,
            receivers,
            accept,
            served,
            panicked,
        });
        let failed = |(address, source)| BuildError::Listen { address, source };
        core.listen().await.map_err(failed)?;
        self.swarm.lead_to(Some(&leads));
        #[cfg(feature = "reachability")]
        self.start_reach(&mut core, reach, &leads, parts)?;
        #[cfg(all(feature = "circuits", not(feature = "reachability")))]
        drop(reach.start(&self.context, (&self.swarm, &leads), &core.served));
        let listen = core.listening.fixed();
        Ok(Life { core, connections, listen })
    }

    /// The queue of inbound gossip streams.
    fn gossip_queue(&self, acceptors: &mut Acceptors) -> AcceptQueue {
        let profile = self.context.broadcaster.profile();
        let mut protocols = Vec::new();
        if self.config.gossip == GossipStreams::On {
            protocols = gossip_protocols(profile);
            protocols.extend(profile.bulk_stream_protocol.map(StreamProtocol::new));
        }
        acceptors.accept(&protocols, streams::GOSSIP)
    }

    /// The traffic of topics, which are subscribed to if the node is to receive them.
    fn topics(
        &self,
        swarm: &mut NodeSwarm,
        senders: &Senders,
        (outbox, debts): (Outbox, TopicDebts),
    ) -> TopicTraffic {
        let known = KnownTopics {
            of_tags: pubsub::topics(self.context.broadcaster.profile()),
            own: self.policies.clone(),
            pool: self.pool.clone(),
            verdicts: senders.verdicts.clone(),
        };
        let mut topics = TopicTraffic::new(Arc::clone(&self.context), known, outbox, debts);
        if self.config.subscribe == Subscription::Subscribed {
            topics.subscribe(swarm);
        }
        topics
    }

    /// The part in making nodes reachable, before it runs, and the transport of circuits.
    #[cfg(feature = "reachability")]
    fn reach(
        &self,
        key: &Keypair,
        acceptors: &mut Acceptors,
        hosts: DialHosts,
    ) -> (ReachParts, Circuits) {
        let local = key.public().to_peer_id();
        let of_node = (local, self.bound.clone(), self.context.metrics.clone());
        ReachParts::new(&self.config, of_node, acceptors, (self.swarm.clone(), hosts))
    }

    /// The circuits that lead to this node through relays, before it runs, and their transport.
    #[cfg(all(feature = "circuits", not(feature = "reachability")))]
    fn reach(
        &self,
        _: &Keypair,
        acceptors: &mut Acceptors,
        hosts: DialHosts,
    ) -> (Relayed, Circuits) {
        let by = (self.swarm.clone(), hosts);
        Relayed::new(&self.config.listen, &self.context.metrics, acceptors, by)
    }

    /// Starts what makes this node, and others, reachable, in a swarm that runs.
    #[cfg(feature = "reachability")]
    fn start_reach(
        &self,
        core: &mut Core,
        reach: ReachParts,
        leads: &Senders,
        parts: (ConnectionTasks, Backlog),
    ) -> Result<(), BuildError> {
        if let Some(relays) = reach.shows_port() {
            core.links.dialing.show_port_to(relays);
        }
        let leads = (&self.swarm, leads);
        core.reach = reach.start(&self.context, leads, self.dial_back(parts)?, &core.served);
        for address in core.reach.told().to_vec() {
            core.swarm.add_external_address(address);
        }
        Ok(())
    }

    /// Builds the transport, whose connections run in `tasks` and are counted in `backlog`.
    fn transport(
        &self,
        key: &Keypair,
        hosts: &DialHosts,
        (tasks, backlog, rounds): (ConnectionTasks, Backlog, Rounds),
        #[cfg(feature = "circuits")] relayed: ThroughRelays,
    ) -> Result<Boxed<(PeerId, StreamMuxerBox)>, BuildError> {
        let environment = self.context.broadcaster.environment().clone();
        Ok(transport::build(TransportParts {
            given: Given::new(self.config.transports.clone(), hosts.clone()),
            #[cfg(feature = "data-channels")]
            channels: (self.channel_transports(), hosts.clone()),
            sockets: Sockets::new(
                (environment, hosts.clone()),
                &self.config,
                &self.context.metrics,
            ),
            key,
            security: &self.config.security,
            door: self.context.door.clone(),
            tasks,
            backlog,
            #[cfg(feature = "circuits")]
            relayed,
            stamp: Stamp::new(key.clone(), &self.policies),
            rounds,
            #[cfg(feature = "quic")]
            quic: self.quic(hosts),
            #[cfg(feature = "webrtc")]
            webrtc: self.webrtc(hosts),
            #[cfg(all(feature = "quic", feature = "webrtc"))]
            shared: crate::address::shared_by(&self.config.listen),
        })?)
    }

    /// The transport that tries the addresses of others, under an identity of its own: nobody takes it for this node.
    #[cfg(feature = "reachability")]
    fn dial_back(
        &self,
        (tasks, backlog): (ConnectionTasks, Backlog),
    ) -> Result<Boxed<(PeerId, StreamMuxerBox)>, BuildError> {
        use rand::Rng as _;
        let seed: [u8; 32] = self.context.broadcaster.environment().random().random();
        let key = libp2p_key(&gossip::Keypair::from_seed(seed));
        self.transport(
            &key,
            &DialHosts::default(),
            (tasks, backlog, Rounds::default()),
            ThroughRelays::none(),
        )
    }

    /// The embedder's, but in a private network, as with QUIC.
    #[cfg(feature = "data-channels")]
    fn channel_transports(&self) -> Vec<crate::given::SharedChannelTransport> {
        #[cfg(feature = "private-network")]
        if self.config.private_network.is_some() {
            return Vec::new();
        }
        self.config.channel_transports.clone()
    }

    /// The ways to peers that begin at a relay.
    #[cfg(feature = "circuits")]
    #[allow(clippy::unused_self, unused_variables, reason = "without data channels nobody is met")]
    fn through_relays(
        &self,
        circuits: Circuits,
        acceptors: &mut Acceptors,
        hosts: &DialHosts,
    ) -> ThroughRelays {
        #[cfg(feature = "data-channels")]
        let led = (self.swarm.clone(), hosts.clone());
        ThroughRelays {
            circuits,
            #[cfg(feature = "data-channels")]
            meetings: MeetingParts::new(self.channel_transports(), acceptors, led),
        }
    }

    /// QUIC, but in a private network: it has no way to keep others out there.
    #[cfg(feature = "quic")]
    fn quic(&self, hosts: &DialHosts) -> Option<transport::QuicUse> {
        #[cfg(feature = "private-network")]
        if self.config.private_network.is_some() {
            return None;
        }
        let broadcaster = &self.context.broadcaster;
        let first = gossip_protocols(broadcaster.profile());
        Some(transport::QuicUse {
            environment: broadcaster.environment().clone(),
            hosts: hosts.clone(),
            first: first.iter().map(ToString::to_string).collect(),
            gauges: self.context.gauges.clone(),
        })
    }

    /// WebRTC, but in a private network, as with QUIC.
    #[cfg(feature = "webrtc")]
    fn webrtc(&self, hosts: &DialHosts) -> Option<transport::WebRtcUse> {
        #[cfg(feature = "private-network")]
        if self.config.private_network.is_some() {
            return None;
        }
        let certificate = self.config.webrtc_certificate.clone()?;
        let environment = self.context.broadcaster.environment().clone();
        let version = self.config.webrtc_version;
        Some(transport::WebRtcUse { environment, hosts: hosts.clone(), certificate, version })
    }

    /// The part that the node takes in the DHT.
    #[cfg(feature = "dht")]
    fn dht(&self, local: libp2p::PeerId) -> Option<(crate::dht::GatedDht, crate::dht::Dht)> {
        #[cfg(feature = "reachability")]
        let (listen, settings) = {
            let mut settings = self.config.dht.clone();
            if self.config.reach.has(crate::reach::ReachPart::Relay) {
                settings.provides.push(crate::dht::Capability::circuits());
            }
            (crate::reach::own(&self.config.listen), settings)
        };
        #[cfg(all(feature = "circuits", not(feature = "reachability")))]
        let (listen, settings) = (crate::reach::own(&self.config.listen), self.config.dht.clone());
        #[cfg(not(feature = "circuits"))]
        let (listen, settings) = (self.config.listen.clone(), self.config.dht.clone());
        let node = crate::dht::Participant {
            profile: self.context.broadcaster.profile(),
            network: &self.config.network,
            local,
            listen: &listen,
            peers: &self.config.peers,
            gossip: (self.config.gossip == GossipStreams::On).then(crate::dht::Capability::gossip),
        };
        crate::dht::build(&settings, node, &self.context.metrics)
    }

    /// Listens on every address, and tells others those that are announced.
    fn listen_on(
        &self,
        swarm: &mut NodeSwarm,
        listen: &[Multiaddr],
    ) -> Result<Listening, BuildError> {
        for address in &self.config.announce {
            swarm.add_external_address(address.clone());
        }
        let mut listening = Listening::new(self.bound.clone());
        #[cfg(feature = "circuits")]
        let listen = &crate::reach::own(listen);
        for address in listen {
            let failed = |error| BuildError::Listen {
                address: address.clone(),
                source: match error {
                    TransportError::Other(error) => of_the_system(error),
                    unsupported => self
                        .config
                        .kept_private(address)
                        .unwrap_or_else(|| io::Error::other(unsupported)),
                },
            };
            listening.add(swarm.listen_on(address.clone()).map_err(failed)?, address.clone());
        }
        Ok(listening)
    }

    /// No links yet, and the dialer that takes the orders of the mesh loop.
    fn gossip_links(
        &self,
        senders: Senders,
        hosts: DialHosts,
        cancel: &CancellationToken,
    ) -> GossipLinks {
        let (context, broadcaster) = (&self.context, &self.context.broadcaster);
        let dialer = match self.config.gossip {
            GossipStreams::On => Some(broadcaster.mesh().attach(Transport::Libp2p)),
            GossipStreams::Off => None,
        };
        let trees = Trees::new(self.config.resolver.clone());
        let dialing = Dialing::new(dialer, trees, hosts, (context.local, context.metrics.clone()));
        let conventions = Conventions::of(broadcaster.profile());
        GossipLinks {
            context: Arc::clone(context),
            conventions,
            gossip: self.config.gossip,
            peers: Peers::new(context.local, conventions.gossip_keys),
            dialing,
            senders,
            tasks: TaskSet::new(cancel),
        }
    }

    /// Serves HTTP on streams, if an HTTP server is configured.
    fn serve_http(&self, acceptors: &mut Acceptors, served: &TaskSet) {
        let Some(http_server) = self.config.http_server.clone() else { return };
        let profile = self.context.broadcaster.profile();
        let protocol = StreamProtocol::new(profile.http_protocol);
        let accept = acceptors.accept(&[protocol], streams::HTTP);
        let metrics = self.context.metrics.clone();
        let stream_acceptor = StreamAcceptor::new(accept, http_server, profile, metrics);
        let each = served.clone();
        served.spawn("http streams", |cancel| stream_acceptor.run(each, cancel));
    }

    /// Accepts streams of the application's protocols.
    fn serve_protocols(&self, acceptors: &mut Acceptors, served: &TaskSet) {
        for protocol in &self.config.protocols {
            // The names were checked when the network started, so this never fails.
            let Ok(name) = StreamProtocol::try_from_owned(protocol.name().to_owned()) else {
                continue;
            };
            let accept = acceptors.accept(&[name], protocol.limits.queue());
            let metrics = self.context.metrics.clone();
            let server = ProtocolServer::new(accept, protocol.clone(), metrics);
            let each = served.clone();
            served.spawn("own protocol streams", |cancel| server.run(each, cancel));
        }
    }

    /// Runs one swarm after the other until cancelled.
    pub(crate) async fn supervise(self, mut life: Life, cancel: CancellationToken) {
        let mut wait = RESTART;
        loop {
            let (began, listen) = (Instant::now(), life.listen.clone());
            let ended = life.live(&cancel).await;
            self.swarm.lead_to(None);
            life.end(ended).await;
            if ended == Some(End::Cancelled) {
                return;
            }
            self.context.metrics.note(P2pEvent::SwarmRestarted);
            if began.elapsed() >= STABLE {
                wait = RESTART;
            }
            tracing::error!(?ended, ?wait, "the libp2p swarm died and will be restarted");
            life = loop {
                let made = async {
                    time::sleep(wait).await;
                    self.make(&listen, &cancel).await
                };
                let made = tokio::select! {
                    biased;
                    () = cancel.cancelled() => return,
                    made = made => made,
                };
                wait = (2 * wait).min(MAX_RESTART);
                match made {
                    Ok(life) => break life,
                    Err(error) => tracing::error!(%error, ?wait, "the libp2p swarm cannot start"),
                }
            };
        }
    }
}

impl Life {
    /// Runs the swarm until it ends. Returns `None` after a panic.
    async fn live(&mut self, cancel: &CancellationToken) -> Option<End> {
        AssertUnwindSafe(self.core.run(cancel)).catch_unwind().await.ok()
    }

    /// Ends the swarm: links first, while connections can still carry their last bytes.
    async fn end(self, ended: Option<End>) {
        let Self { mut core, connections, listen: _ } = self;
        // Nothing reads notices from here on. Closing the channel keeps links from waiting for room in it.
        core.receivers.notices.close();
        // A link's panic was logged and is the reason for this end, so it stops here.
        let links = AssertUnwindSafe(core.links.tasks.stop(LINKS_GRACE)).catch_unwind();
        let served = AssertUnwindSafe(core.served.stop(LINKS_GRACE)).catch_unwind();
        let (links, served) = tokio::join!(links, served);
        let (links, served) = (links.ok(), served.ok());
        if ended == Some(End::Cancelled) {
            core.part().await;
        }
        // A behaviour that panicked may panic again while it is dropped.
        let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| drop(core)));
        if dropped.is_err() {
            tracing::error!("a swarm that died panicked again when it was dropped");
        }
        let connections = connections.stop(CONNECTIONS_GRACE).await;
        tracing::debug!(?links, ?served, ?connections, "the libp2p swarm ended");
    }
}
