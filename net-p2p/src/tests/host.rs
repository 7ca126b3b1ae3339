//! A node under test, and a plain libp2p host as its peer.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use broadcaster::{Broadcaster, Relaying, Setup};
use futures::StreamExt;
use gossip::{Inbound, NetworkId, NetworkProfile, Tag, Verdict};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identify,
    identity::Keypair,
    swarm::{Config, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
};
use mesh::Door;
use runtime::{Environment, TaskSet};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    P2pConfig, P2pNetwork,
    backlog::Backlog,
    command::{Command, open_stream},
    config::libp2p_key,
    connections::ConnectionTasks,
    dial_hosts::DialHosts,
    given::Given,
    metrics::P2pMetrics,
    own_topics::Stamp,
    rounds::Rounds,
    security::Security,
    sockets::Sockets,
    streams::{self, AcceptQueue, Acceptors, HTTP, OpenError, OutboundStream, Turn},
    transport::{self, TransportParts},
};

/// Longest time for any step. Only a fault takes this long: on a busy processor a dial may fail, and is tried again after 11 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `is_so` holds; panics with `what` after [`PATIENCE`].
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so after {PATIENCE:?}: {what}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// The tasks of a plain host's connections.
pub(crate) fn connection_tasks() -> ConnectionTasks {
    ConnectionTasks::new(TaskSet::new(&CancellationToken::new()), CancellationToken::new())
}

/// The transport of a plain host, as a node of this crate has it by default.
pub(crate) fn plain_transport(key: &Keypair, door: Door) -> Boxed<(PeerId, StreamMuxerBox)> {
    secured_transport(key, door, Security::ALL)
}

/// The same with the security protocols `security`.
pub(crate) fn secured_transport(
    key: &Keypair,
    door: Door,
    security: &[Security],
) -> Boxed<(PeerId, StreamMuxerBox)> {
    let config = P2pConfig::new(NetworkId::new("net").unwrap(), new_key());
    let system = (&Environment::system(), &DialHosts::default());
    transport_in(system, &config, (key, door, security))
}

/// The same in `environment`, with dials to `hosts`, and with what `config` says of its sockets.
pub(crate) fn transport_in(
    (environment, hosts): (&Environment, &DialHosts),
    config: &P2pConfig,
    (key, door, security): (&Keypair, Door, &[Security]),
) -> Boxed<(PeerId, StreamMuxerBox)> {
    let sockets =
        Sockets::new((environment.clone(), hosts.clone()), config, &P2pMetrics::default());
    let (tasks, backlog) = (connection_tasks(), backlog());
    let parts = TransportParts {
        given: Given::new(config.transports.clone(), hosts.clone()),
        sockets,
        key,
        security,
        door,
        tasks,
        backlog,
        #[cfg(feature = "circuits")]
        relayed: transport::ThroughRelays::none(),
        stamp: Stamp::default(),
        rounds: Rounds::default(),
        #[cfg(feature = "data-channels")]
        channels: (config.channel_transports.clone(), hosts.clone()),
        #[cfg(feature = "quic")]
        quic: Some(transport::QuicUse {
            environment: environment.clone(),
            hosts: hosts.clone(),
            first: Vec::new(),
            gauges: crate::gauges::Gauges::default(),
        }),
        #[cfg(feature = "webrtc")]
        webrtc: Some(transport::WebRtcUse {
            environment: environment.clone(),
            hosts: hosts.clone(),
            certificate: crate::WebRtcCertificate::generate().unwrap(),
            version: crate::webrtc::WebRtcVersion::V1,
        }),
        #[cfg(all(feature = "quic", feature = "webrtc"))]
        shared: crate::address::shared_by(&config.listen),
    };
    transport::build(parts).unwrap()
}

/// Bound on the backlog of a plain host, in bytes.
pub(crate) fn backlog() -> Backlog {
    Backlog::new(1 << 26, P2pMetrics::default())
}

/// A node that records the messages of one tag.
pub(crate) struct Node {
    pub(crate) network: P2pNetwork,
    pub(crate) broadcaster: Broadcaster,
    pub(crate) heard: Arc<Mutex<Vec<Inbound>>>,
    pub(crate) root: CancellationToken,
}

impl Node {
    pub(crate) async fn start(
        profile: &'static NetworkProfile,
        network: &str,
        key: gossip::Keypair,
    ) -> Self {
        Self::start_with(profile, network, key, |config| config).await
    }

    pub(crate) async fn start_with(
        profile: &'static NetworkProfile,
        network: &str,
        key: gossip::Keypair,
        change: impl FnOnce(P2pConfig) -> P2pConfig,
    ) -> Self {
        Self::start_as(Relaying::Off, profile, network, key, change).await
    }

    /// Starts a node that relays messages.
    pub(crate) async fn relay(profile: &'static NetworkProfile, network: &str) -> Self {
        let key = new_key();
        Self::start_as(Relaying::Accepted, profile, network, key, |config| config).await
    }

    async fn start_as(
        relaying: Relaying,
        profile: &'static NetworkProfile,
        network: &str,
        key: gossip::Keypair,
        change: impl FnOnce(P2pConfig) -> P2pConfig,
    ) -> Self {
        let root = CancellationToken::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&heard);
        let handler = move |message: Inbound| {
            into.lock().unwrap().push(message);
            async { Verdict::Ignore }
        };
        let setup = Setup::new(profile).relaying(relaying).handler(Tag::VB, Arc::new(handler));
        let broadcaster = Broadcaster::start(setup, &root);
        let mut config = P2pConfig::new(NetworkId::new(network).unwrap(), key);
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        let network = P2pNetwork::start(change(config), broadcaster.clone(), &root).await.unwrap();
        Self { network, broadcaster, heard, root }
    }

    pub(crate) fn address(&self) -> Multiaddr {
        self.network.listen_addresses()[0].parse().unwrap()
    }

    pub(crate) fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().iter().map(|message| message.body.to_vec()).collect()
    }
}

/// The behaviours of a plain host.
#[derive(NetworkBehaviour)]
pub(crate) struct HostBehaviour {
    streams: streams::Behaviour,
    identify: identify::Behaviour,
}

/// Events that a host has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connected: Vec<PeerId>,
    pub(crate) closed: usize,
    pub(crate) identified: Option<identify::Info>,
    pub(crate) listens: Option<Multiaddr>,
}

/// A plain libp2p host. It opens and accepts streams when asked, and does nothing else.
pub(crate) struct Host {
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) accepted: AcceptQueue,
    commands: mpsc::Sender<Command>,
    _tasks: TaskSet,
}

impl Host {
    /// Dials `to`, and accepts streams of `protocols`.
    pub(crate) async fn dial(
        key: &gossip::Keypair,
        protocols: &[StreamProtocol],
        to: Multiaddr,
    ) -> Self {
        Self::dial_as(&libp2p_key(key), protocols, to).await
    }

    /// Dials `to` with a key of any kind, and accepts streams of `protocols`.
    pub(crate) async fn dial_as(
        key: &Keypair,
        protocols: &[StreamProtocol],
        to: Multiaddr,
    ) -> Self {
        let host = Self::start(key, protocols, |swarm| {
            swarm.dial(DialOpts::unknown_peer_id().address(to).build()).unwrap();
        });
        // The dialer is connected first. The node's identify record comes once the node is connected too.
        until("both are connected", || host.seen.lock().unwrap().identified.is_some()).await;
        host
    }

    /// Listens at the returned address, and accepts streams of `protocols`.
    pub(crate) async fn listen(
        key: &gossip::Keypair,
        protocols: &[StreamProtocol],
    ) -> (Self, Multiaddr) {
        Self::listen_as(&libp2p_key(key), protocols).await
    }

    /// Listens with a key of any kind, and accepts streams of `protocols`.
    pub(crate) async fn listen_as(
        key: &Keypair,
        protocols: &[StreamProtocol],
    ) -> (Self, Multiaddr) {
        let host = Self::start(key, protocols, |swarm| {
            swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        });
        until("the host listens", || host.seen.lock().unwrap().listens.is_some()).await;
        let address = host.seen.lock().unwrap().listens.clone().unwrap();
        (host, address.with_p2p(key.public().to_peer_id()).unwrap())
    }

    /// Starts a host, which is told by `reach` where to dial or listen.
    pub(crate) fn start(
        key: &Keypair,
        protocols: &[StreamProtocol],
        reach: impl FnOnce(&mut Swarm<HostBehaviour>),
    ) -> Self {
        let mut acceptors = Acceptors::new(P2pMetrics::default());
        let accepted = acceptors.accept(protocols, HTTP);
        let behaviour = HostBehaviour {
            streams: streams::Behaviour::new(acceptors, None),
            identify: identify::Behaviour::new(identify::Config::new(String::new(), key.public())),
        };
        let config =
            Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(120));
        let transport = plain_transport(key, Door::default());
        let mut swarm = Swarm::new(transport, behaviour, key.public().to_peer_id(), config);
        reach(&mut swarm);
        let (commands, mut wanted) = mpsc::channel(64);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let tasks = TaskSet::new(&CancellationToken::new());
        let notes = Arc::clone(&seen);
        tasks.spawn("host", |_cancel| async move {
            loop {
                tokio::select! {
                    Some(command) = wanted.recv() => {
                        let Command::Open { peer, connection, request } = command else { continue };
                        swarm.behaviour_mut().streams.open(peer, connection, request);
                    }
                    event = swarm.select_next_some() => note(&notes, event),
                }
            }
        });
        Self { seen, accepted, commands, _tasks: tasks }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.seen.lock().unwrap().connected[0]
    }

    pub(crate) async fn try_open(
        &self,
        protocol: &'static str,
    ) -> Result<OutboundStream, OpenError> {
        let protocols = vec![StreamProtocol::new(protocol)];
        let deadline = Instant::now() + PATIENCE;
        open_stream(&self.commands, (self.peer(), None), protocols, (deadline, Turn::Urgent)).await
    }

    pub(crate) async fn open(&self, protocol: &'static str) -> Stream {
        self.try_open(protocol).await.unwrap().stream
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.seen.lock().unwrap().closed == 0
    }
}

fn note(seen: &Mutex<Seen>, event: SwarmEvent<HostBehaviourEvent>) {
    let mut seen = seen.lock().unwrap();
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } => seen.connected.push(peer_id),
        SwarmEvent::ConnectionClosed { .. } => seen.closed += 1,
        SwarmEvent::NewListenAddr { address, .. } => seen.listens = Some(address),
        SwarmEvent::Behaviour(HostBehaviourEvent::Identify(identify::Event::Received {
            info,
            ..
        })) => seen.identified = Some(info),
        _ => {}
    }
}

/// Draws the key of a new node.
pub(crate) fn new_key() -> gossip::Keypair {
    gossip::Keypair::from_seed(rand::random())
}

/// Draws two keys; the first has the smaller peer ID.
pub(crate) fn ordered_keys() -> (gossip::Keypair, gossip::Keypair) {
    let (one, other) = (new_key(), new_key());
    if one.identity() < other.identity() { (one, other) } else { (other, one) }
}
