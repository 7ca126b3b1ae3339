//! A peer that publishes on the topic of transactions as fast as it can: what is in order, or what everybody
//! rejects, so that it is graylisted and goes on. Issue 8, 24.

use std::{io, net::Ipv4Addr, time::Duration};

use futures::StreamExt;
use gossip::{Route, Tag};
use libp2p::{
    Swarm, Transport,
    core::upgrade::Version,
    gossipsub::{self, ConfigBuilder, IdentTopic, MessageAuthenticity, MessageId, ValidationMode},
    identity::Keypair,
    noise,
    swarm::{Config, SwarmEvent},
    yamux,
};
use tokio::time::{self, MissedTickBehavior};

use super::{Tally, Target, flood::SOURCE};
use crate::libp2p::Sockets;

/// Messages a second: more than the library of a node reads in that time.
const PER_TICK: u64 = 1_000;
const TICK: Duration = Duration::from_millis(10);

/// Messages that wait in the attacker's own library.
const QUEUE: usize = 20_000;

const BREATH: Duration = Duration::from_millis(200);

/// The messages that are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// Transactions of ten bytes.
    InOrder,
    /// The same, signed, which no node accepts.
    Rejected,
}

pub(super) async fn run(published: Published, target: &Target, tally: &Tally) {
    loop {
        // However it ends, it begins anew.
        let _ = publish(published, target, tally).await;
        time::sleep(BREATH).await;
    }
}

fn swarm(published: Published, source: Ipv4Addr) -> io::Result<Swarm<gossipsub::Behaviour>> {
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let mut config = ConfigBuilder::default();
    config
        .validation_mode(ValidationMode::None)
        .message_id_fn(|message| MessageId::new(&message.data))
        .connection_handler_queue_len(QUEUE);
    let config = config.build().map_err(io::Error::other)?;
    let authenticity = match published {
        Published::InOrder => MessageAuthenticity::Author(peer),
        Published::Rejected => MessageAuthenticity::Signed(key.clone()),
    };
    let behaviour = gossipsub::Behaviour::new(authenticity, config).map_err(io::Error::other)?;
    let transport = Sockets { source }
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).map_err(io::Error::other)?)
        .multiplex(yamux::Config::default())
        .boxed();
    let config =
        Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    Ok(Swarm::new(transport, behaviour, peer, config))
}

async fn publish(published: Published, target: &Target, tally: &Tally) -> io::Result<()> {
    let mut swarm = swarm(published, SOURCE)?;
    let rule = target.profile.tags.rule(Tag::TX).map(|rule| rule.route);
    let Some(Route::Topic(name)) = rule else {
        return Err(io::Error::other("transactions have no topic"));
    };
    let topic = IdentTopic::new(name);
    swarm.behaviour_mut().subscribe(&topic).map_err(io::Error::other)?;
    swarm
        .dial(target.p2p.parse::<libp2p::Multiaddr>().map_err(io::Error::other)?)
        .map_err(io::Error::other)?;
    let mut ticks = time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                for _ in 0..PER_TICK {
                    let number = tally.sending(1);
                    let body = [&number.to_le_bytes()[..], b"tx"].concat();
                    if swarm.behaviour_mut().publish(topic.clone(), body).is_err() {
                        break;
                    }
                }
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { .. } => tally.opened(),
                SwarmEvent::ConnectionClosed { .. } => {
                    tally.cut();
                    return Ok(());
                }
                SwarmEvent::OutgoingConnectionError { .. } => {
                    tally.refused();
                    return Ok(());
                }
                _ => {}
            },
        }
    }
}
