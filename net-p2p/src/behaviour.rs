//! What the swarm does on every connection.

use std::{convert::Infallible, time::Duration};

use gossip::NetworkProfile;
use libp2p::{
    connection_limits::{self, ConnectionLimits},
    gossipsub, identify, mdns, ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::{
    config::{GossipStreams, Mdns, P2pConfig, libp2p_key},
    pubsub, streams,
};

/// Connections to one peer. One would do, but then two nodes that dial each other at the same moment
/// each refuse the other's, and end with none. Source: threats and goals, finding 3.
const PER_PEER: u32 = 2;

/// How often a peer is asked whether it is there. The library keeps the first failure in a row to
/// itself, so a peer is found dead after two intervals and two timeouts: 50 s. Chosen: within the 60 s in
/// which a silent peer is noticed on the other transport.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// How long a peer may take to answer that.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that runs over a connection.
#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Event")]
pub(crate) struct Behaviour {
    /// First, so that a connection too many costs nothing else.
    limits: connection_limits::Behaviour,
    pub(crate) streams: streams::Behaviour,
    /// Off in a node that does not gossip.
    pub(crate) gossipsub: Toggle<pubsub::Behaviour>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// What the behaviours tell the swarm task.
#[derive(Debug)]
pub(crate) enum Event {
    /// From GossipSub.
    Gossipsub(Box<gossipsub::Event>),
    /// Of the liveness of a connection.
    Ping(ping::Event),
    /// Of streams that wait for a connection.
    Streams(streams::DialWanted),
    /// Of the local network.
    Mdns(mdns::Event),
    /// What a peer says about itself. Nothing follows from it.
    Identify,
}

impl From<gossipsub::Event> for Event {
    fn from(event: gossipsub::Event) -> Self {
        Self::Gossipsub(Box::new(event))
    }
}

impl From<ping::Event> for Event {
    fn from(event: ping::Event) -> Self {
        Self::Ping(event)
    }
}

impl From<streams::DialWanted> for Event {
    fn from(event: streams::DialWanted) -> Self {
        Self::Streams(event)
    }
}

impl From<mdns::Event> for Event {
    fn from(event: mdns::Event) -> Self {
        Self::Mdns(event)
    }
}

impl From<identify::Event> for Event {
    fn from(_: identify::Event) -> Self {
        Self::Identify
    }
}

impl From<Infallible> for Event {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Why the behaviours were not set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BehaviourError {
    #[error(transparent)]
    Gossipsub(#[from] pubsub::SetupError),
    #[error("the local network cannot be searched for peers")]
    Mdns(#[source] std::io::Error),
}

impl Behaviour {
    pub(crate) fn new(
        config: &P2pConfig,
        profile: &NetworkProfile,
        streams: streams::Behaviour,
    ) -> Result<Self, BehaviourError> {
        let key = libp2p_key(&config.key).public();
        let local = key.to_peer_id();
        // All other bounds are the door's.
        let limits = ConnectionLimits::default().with_max_established_per_peer(Some(PER_PEER));
        // Existing nodes announce an empty protocol version. Source: wire facts 8.1.
        let identify = identify::Config::new(String::new(), key)
            .with_agent_version(config.agent.clone())
            .with_push_listen_addr_updates(true)
            .with_cache_size(0);
        let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
        let mdns = match (config.mdns, config.gossip) {
            (Mdns::Off, _) | (_, GossipStreams::Off) => None,
            (Mdns::On, GossipStreams::On) => {
                let behaviour = mdns::tokio::Behaviour::new(mdns::Config::default(), local);
                Some(behaviour.map_err(BehaviourError::Mdns)?)
            }
        };
        let gossipsub = match config.gossip {
            GossipStreams::On => Some(pubsub::build(local, config.fanout, profile)?),
            GossipStreams::Off => None,
        };
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            streams,
            gossipsub: gossipsub.into(),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            mdns: mdns.into(),
        })
    }
}
