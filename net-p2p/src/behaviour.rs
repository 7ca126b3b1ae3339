//! The combination of behaviours that run on every connection.

use std::{convert::Infallible, time::Duration};

use gossip::NetworkProfile;
use libp2p::{
    connection_limits::{self, ConnectionLimits},
    gossipsub, identify, ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::{
    boxed::Boxed,
    config::{GossipStreams, Mdns, P2pConfig, libp2p_key},
    gated_pubsub::GatedPubsub,
    local_network,
    own_topics::TopicPolicies,
    pubsub, streams,
    topic_gate::TopicGate,
};

/// Largest number of connections to one peer. With a limit of one, two nodes that dial each other at the same
/// moment would each refuse the other's connection and end with none. Source: threats and goals, finding 3.
#[cfg(not(feature = "circuits"))]
const PER_PEER: u32 = 2;

/// The same where a peer may be reached through relays too: two circuits beside the two direct connections, for as long as
/// the link moves from one to the other.
#[cfg(feature = "circuits")]
const PER_PEER: u32 = 4;

/// Interval of the pings on each connection. The library does not report the first failure in a row, so a
/// dead peer is detected after two intervals and two timeouts: 50 s. Chosen: within the 60 s in which a
/// silent peer is detected on the other transport.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Longest time for the answer to a ping. Chosen: with [`PING_INTERVAL`] it detects a dead peer in 50 s.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The swarm of this node.
pub(crate) type NodeSwarm = libp2p::Swarm<Behaviour>;

/// All behaviours of a connection.
#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Event")]
pub(crate) struct Behaviour {
    /// First, so that a connection beyond the limit costs no other behaviour anything.
    limits: connection_limits::Behaviour,
    pub(crate) streams: streams::Behaviour,
    /// Disabled in a node that does not gossip.
    pub(crate) gossipsub: Toggle<Boxed<GatedPubsub>>,
    identify: Boxed<identify::Behaviour>,
    ping: ping::Behaviour,
    mdns: Toggle<local_network::Behaviour>,
    /// Disabled in a node that takes no part in the DHT.
    #[cfg(feature = "dht")]
    pub(crate) dht: Toggle<Boxed<crate::dht::GatedDht>>,
}

/// Events of the behaviours, for the swarm task.
#[derive(Debug)]
pub(crate) enum Event {
    /// An event of GossipSub.
    Gossipsub(Box<gossipsub::Event>),
    /// The result of a ping.
    Ping(ping::Event),
    /// A stream request needs a connection that does not exist yet.
    Streams(streams::DialWanted),
    /// Peers of the local network appeared or expired.
    Mdns(local_network::Event),
    /// The peer sent its identify record, or got this node's.
    Identify(Box<identify::Event>),
    /// An event of the DHT.
    #[cfg(feature = "dht")]
    Dht(Box<libp2p::kad::Event>),
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

impl From<local_network::Event> for Event {
    fn from(event: local_network::Event) -> Self {
        Self::Mdns(event)
    }
}

impl From<identify::Event> for Event {
    fn from(event: identify::Event) -> Self {
        Self::Identify(Box::new(event))
    }
}

#[cfg(feature = "dht")]
impl From<libp2p::kad::Event> for Event {
    fn from(event: libp2p::kad::Event) -> Self {
        Self::Dht(Box::new(event))
    }
}

impl From<Infallible> for Event {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The reason why the behaviours could not be set up.
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
        topics: (TopicGate, TopicPolicies),
        #[cfg(feature = "dht")] dht: Option<crate::dht::GatedDht>,
    ) -> Result<Self, BehaviourError> {
        let key = libp2p_key(&config.key).public();
        let local = key.to_peer_id();
        // The door checks all other bounds.
        let limits = ConnectionLimits::default().with_max_established_per_peer(Some(PER_PEER));
        // Existing nodes announce an empty protocol version. Source: wire facts 8.1.
        let identify = identify::Config::new(String::new(), key)
            .with_agent_version(config.agent.clone())
            .with_push_listen_addr_updates(true)
            .with_hide_listen_addrs(!config.announce.is_empty() || config.tells_confirmed())
            .with_cache_size(0);
        let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
        let mdns = match (config.mdns, config.gossip) {
            (Mdns::Off, _) | (_, GossipStreams::Off) => None,
            (Mdns::On, GossipStreams::On) => {
                Some(local_network::search(local).map_err(BehaviourError::Mdns)?)
            }
        };
        let gossipsub = match config.gossip {
            GossipStreams::On => Some(Boxed(pubsub::build(local, config.fanout, profile, topics)?)),
            GossipStreams::Off => None,
        };
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            streams,
            gossipsub: gossipsub.into(),
            identify: Boxed(identify::Behaviour::new(identify)),
            ping: ping::Behaviour::new(ping),
            mdns: mdns.into(),
            #[cfg(feature = "dht")]
            dht: dht.map(Boxed).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::THandler;

    use super::*;

    // Issue 10, "Shown by": 64 KiB for an idle connection. The library keeps a handler several times in the task of its
    // connection, and the one of the DHT lay there whole, also in nodes that take no part in it.
    #[test]
    fn the_handlers_of_a_connection_lie_in_boxes() {
        let bytes = size_of::<THandler<Behaviour>>();
        assert!(bytes <= 1_536, "{bytes}");
    }
}
