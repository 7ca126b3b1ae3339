//! Keeps a swarm alive.
//!
//! ```text
//!   build ─▶ listen ─▶ run ─┬─ asked to stop ─▶ links end, then the swarm ─▶ done
//!     ▲                     └─ panic ─▶ its links end ─▶ wait 1 s … 30 s ─┐
//!     └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! * A panic in a behaviour or a connection ends one life of the swarm and nothing else. The next one
//!   has the same identity, the same addresses and the same peers to dial.
//! * While no swarm lives, topics say that they are closed, so their messages go over other transports.
//! * Every task of a life has ended, or was aborted, before the next life begins.

use std::{
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, TransportError, noise, swarm::Config as SwarmConfig,
};
use mesh::Dials;
use runtime::TaskSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    behaviour::{Behaviour, BehaviourError},
    command::{ToSwarm, channels},
    config::{GossipStreams, P2pConfig, Subscription, libp2p_key},
    connections::ConnectionTasks,
    conventions::Conventions,
    dialing::Dialing,
    http::StreamAcceptor,
    link::{LinkContext, gossip_protocols},
    listening::{Bound, Listening},
    metrics::P2pEvent,
    peers::Peers,
    pubsub,
    streams::{self, Acceptors},
    swarm::{Core, End},
    topic_traffic::TopicTraffic,
    transport,
};

/// How long the system may take to answer every configured address. Chosen.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// How long a connection without any stream is kept. The swarm notices that the last stream has gone when
/// it next looks at the connection, which is at the next ping at the latest. Chosen: twice their interval.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Shortest wait before the swarm is made again; doubles up to [`MAX_RESTART`]. Source: threats and
/// goals, row 35.
const RESTART: Duration = Duration::from_secs(1);

/// Longest wait before the swarm is made again. Source: threats and goals, row 35.
const MAX_RESTART: Duration = Duration::from_secs(30);

/// How long a swarm must have lived for the waiting to start over. Chosen.
const STABLE: Duration = Duration::from_secs(60);

/// How long links, and requests under way, may take to end in an orderly way. Chosen: longer than the broadcaster gives a
/// stopping peer to drain and to close.
const LINKS_GRACE: Duration = Duration::from_millis(2_500);

/// How long connections may take to send what was written to them. Chosen: a few round trips on the
/// longest path; with the links' grace it stays well within the five seconds in which a node stops.
const PARTING_LIMIT: Duration = Duration::from_millis(500);

/// How long connection tasks may take to end. They have nothing left to wait for.
const CONNECTIONS_GRACE: Duration = Duration::from_secs(1);

/// Why a swarm was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("the key cannot be used for noise")]
    Noise(#[from] noise::Error),
    #[error(transparent)]
    Behaviour(#[from] BehaviourError),
    #[error("cannot listen on {address}")]
    Listen { address: Multiaddr, source: io::Error },
}

/// The error of the system that transports have wrapped in their own, or the outermost one if there is none.
fn of_the_system(error: io::Error) -> io::Error {
    let mut inner = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(cause) = inner {
        let code = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if let Some(code) = code {
            return io::Error::from_raw_os_error(code);
        }
        inner = cause.source();
    }
    error
}

/// What every life of the swarm is made of.
#[derive(Debug)]
pub(crate) struct SwarmParts {
    pub(crate) config: P2pConfig,
    pub(crate) around: Arc<LinkContext>,
    pub(crate) swarm: ToSwarm,
    pub(crate) bound: Bound,
    /// How it stands with them.
    pub(crate) dials: Dials,
}

/// One life of the swarm.
pub(crate) struct Life {
    core: Box<Core>,
    connections: TaskSet,
    /// Where it listens, ports included.
    listen: Vec<Multiaddr>,
}

impl SwarmParts {
    /// Makes a swarm and waits until it listens.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the swarm.
    pub(crate) async fn make(
        &self,
        listen: &[Multiaddr],
        cancel: &CancellationToken,
    ) -> Result<Life, BuildError> {
        // Connections outlive the wish to stop: they carry what links write at their end.
        let (connections, panicked) =
            (TaskSet::new(&CancellationToken::new()), CancellationToken::new());
        let (profile, environment) =
            (self.around.broadcaster.profile(), self.around.broadcaster.environment());
        let mut acceptors = Acceptors::new(self.around.metrics.clone());
        let mut protocols = Vec::new();
        if self.config.gossip == GossipStreams::On {
            protocols = gossip_protocols(profile);
            protocols.extend(profile.bulk_stream_protocol.map(StreamProtocol::new));
        }
        let accept = acceptors.accept(&protocols, streams::GOSSIP);
        let http = self.serve_http(&mut acceptors, cancel);
        let (senders, mut receivers) = channels();
        let streams = streams::Behaviour::new(acceptors, receivers.wishes.take());
        let key = libp2p_key(&self.config.key);
        let executor = ConnectionTasks::new(connections.clone(), panicked.clone());
        let mut swarm = Swarm::new(
            transport::build(
                environment.clone(),
                &key,
                self.config.door.clone(),
                executor.clone(),
                self.around.metrics.clone(),
            )?,
            Behaviour::new(&self.config, profile, streams)?,
            key.public().to_peer_id(),
            SwarmConfig::with_executor(executor).with_idle_connection_timeout(IDLE_TIMEOUT),
        );
        let topics = pubsub::topics(profile);
        if let Some(gossipsub) = swarm.behaviour_mut().gossipsub.as_mut()
            && self.config.subscribe == Subscription::Subscribed
        {
            for (_, topic) in &topics {
                if let Err(error) = gossipsub.subscribe(topic) {
                    tracing::error!(%error, %topic, "cannot subscribe");
                }
            }
        }
        let mut listening = Listening::new(self.bound.clone());
        for address in listen {
            let failed = |error| BuildError::Listen {
                address: address.clone(),
                source: match error {
                    TransportError::Other(error) => of_the_system(error),
                    unsupported => io::Error::other(unsupported),
                },
            };
            listening.add(swarm.listen_on(address.clone()).map_err(failed)?, address.clone());
        }
        let mut dialing = Dialing::new(self.config.dial, self.dials.clone(), environment.random());
        let configured =
            self.around.configured.lock().unwrap_or_else(PoisonError::into_inner).clone();
        configured.into_iter().for_each(|address| dialing.add_configured(address));
        let leads = senders.clone();
        let mut core = Box::new(Core {
            swarm,
            around: Arc::clone(&self.around),
            peers: Peers::new(self.around.local, Conventions::of(profile).gossip_keys),
            dialing,
            listening,
            topics,
            traffic: TopicTraffic::new(self.around.broadcaster.budget().total(), Instant::now()),
            conventions: Conventions::of(profile),
            gossip: self.config.gossip,
            senders,
            receivers,
            accept,
            tasks: TaskSet::new(cancel),
            http,
            panicked,
        });
        core.listen().await?;
        self.swarm.lead_to(Some(&leads));
        let listen = core.listening.fixed();
        Ok(Life { core, connections, listen })
    }

    /// Serves HTTP on streams, if anything is served.
    fn serve_http(&self, acceptors: &mut Acceptors, cancel: &CancellationToken) -> TaskSet {
        let http = TaskSet::new(cancel);
        if let Some(http_server) = self.config.http_server.clone() {
            let profile = self.around.broadcaster.profile();
            let protocol = StreamProtocol::new(profile.http_protocol);
            let accept = acceptors.accept(&[protocol], streams::HTTP);
            let metrics = self.around.metrics.clone();
            let stream_acceptor = StreamAcceptor::new(accept, http_server, profile, metrics);
            let each = http.clone();
            http.spawn("http streams", |cancel| stream_acceptor.run(each, cancel));
        }
        http
    }

    /// Lives one life after the other until asked to stop.
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
            self.around.metrics.note(P2pEvent::SwarmRestarted);
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
    /// Lives until asked to stop, or dead. `None` after a panic.
    async fn live(&mut self, cancel: &CancellationToken) -> Option<End> {
        AssertUnwindSafe(self.core.run(cancel)).catch_unwind().await.ok()
    }

    /// Ends what belongs to this life: links first, while connections still carry what they write.
    async fn end(self, ended: Option<End>) {
        let Self { mut core, connections, listen: _ } = self;
        // Nobody reads notices any more, so no link shall wait for room for its last one.
        core.receivers.notices.close();
        // A panic of a link ends here: it was logged, and it is why this life ends.
        let links = AssertUnwindSafe(core.tasks.stop(LINKS_GRACE)).catch_unwind();
        let http = AssertUnwindSafe(core.http.stop(LINKS_GRACE)).catch_unwind();
        let (links, http) = tokio::join!(links, http);
        let (links, http) = (links.ok(), http.ok());
        if ended == Some(End::Cancelled) {
            core.part().await;
        }
        // What panicked once may do so again on its way out.
        let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| drop(core)));
        if dropped.is_err() {
            tracing::error!("a swarm that died panicked again when it was dropped");
        }
        let connections = connections.stop(CONNECTIONS_GRACE).await;
        tracing::debug!(?links, ?http, ?connections, "the libp2p swarm ended");
    }
}

impl Core {
    /// Closes every connection in an orderly way, so that what was written to it gets out.
    async fn part(&mut self) {
        for peer in self.swarm.connected_peers().copied().collect::<Vec<_>>() {
            // Who has gone meanwhile needs no closing.
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

    /// Waits until the system has answered every address.
    async fn listen(&mut self) -> Result<(), BuildError> {
        let settled = async {
            while !self.listening.is_settled() {
                let event = self.swarm.select_next_some().await;
                self.on_event(event);
            }
        };
        // Who has not answered by then is a failure like any other.
        let _ = time::timeout(LISTEN_LIMIT, settled).await;
        match self.listening.take_failure() {
            None => Ok(()),
            Some((address, source)) => Err(BuildError::Listen { address, source }),
        }
    }
}
