//! Messages that other implementations publish on topics.

use std::time::Duration;

use futures::StreamExt;
use gossip::{GossipNode, Inbound, NetworkProfile, Outbound, Tag};
use libp2p::{
    Swarm,
    gossipsub::{self, ConfigBuilder, IdentTopic, MessageAuthenticity, MessageId, ValidationMode},
    identity::Keypair,
    swarm::{Config, dial_opts::DialOpts},
};
use mesh::Door;
use runtime::TaskSet;
use tokio::{sync::broadcast, time};
use tokio_util::sync::CancellationToken;

use super::host::{Node, new_key, plain_transport, until};
use crate::config::libp2p_key;

/// Publishes a message ten times a second, each time with another number at its end.
fn publish_for_ever(authenticity: MessageAuthenticity, to: &Node, body: &'static [u8]) -> TaskSet {
    publish_as(&libp2p_key(&new_key()), authenticity, to, body)
}

/// The same with a key of any kind.
pub(super) fn publish_as(
    key: &Keypair,
    authenticity: MessageAuthenticity,
    to: &Node,
    body: &'static [u8],
) -> TaskSet {
    let mut config = ConfigBuilder::default();
    config.validation_mode(ValidationMode::None);
    // The default ID is made of author and sequence number, which some of these messages lack.
    config.message_id_fn(|message| MessageId::new(&message.data));
    let config = config.build().unwrap();
    let behaviour: gossipsub::Behaviour = gossipsub::Behaviour::new(authenticity, config).unwrap();
    let transport = plain_transport(key, Door::default());
    let config =
        Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    let mut swarm = Swarm::new(transport, behaviour, key.public().to_peer_id(), config);
    let topic = IdentTopic::new("algotx01");
    swarm.behaviour_mut().subscribe(&topic).unwrap();
    swarm.dial(DialOpts::unknown_peer_id().address(to.address()).build()).unwrap();
    let tasks = TaskSet::new(&CancellationToken::new());
    tasks.spawn("publisher", |_cancel| async move {
        let mut tick = time::interval(Duration::from_millis(100));
        for number in 0_u32.. {
            let due = tick.tick();
            tokio::pin!(due);
            loop {
                tokio::select! {
                    _ = &mut due => break,
                    _event = swarm.select_next_some() => {}
                }
            }
            let message = [body, &number.to_be_bytes()].concat();
            // The publish fails as long as no peer is subscribed.
            let _ = swarm.behaviour_mut().publish(topic.clone(), message);
        }
    });
    tasks
}

pub(super) fn heard(observed: &mut broadcast::Receiver<Inbound>, body: &[u8]) -> bool {
    let mut found = false;
    while let Ok(message) = observed.try_recv() {
        found |= message.tag == Tag::TX && message.body.starts_with(body);
    }
    found
}

#[tokio::test]
async fn unsigned_messages_with_or_without_author_are_accepted_and_signed_ones_are_not() {
    let node = Node::start(&NetworkProfile::ALGORAND, "net", new_key()).await;
    let mut observed = node.broadcaster.observe();
    let author = MessageAuthenticity::Author(libp2p_key(&new_key()).public().to_peer_id());
    let _author = publish_for_ever(author, &node, b"author");
    until("an author is heard", || heard(&mut observed, b"author")).await;
    let _nobody = publish_for_ever(MessageAuthenticity::Anonymous, &node, b"anonymous");
    until("who does not say who it is is heard", || heard(&mut observed, b"anonymous")).await;

    let key = libp2p_key(&new_key());
    let _signed = publish_for_ever(MessageAuthenticity::Signed(key), &node, b"signed");
    for _ in 0..10 {
        // The others are published ten times a second, so this takes as long as ten signed messages.
        until("the others are heard", || heard(&mut observed, b"author")).await;
        assert!(!heard(&mut observed, b"signed"));
    }
    assert!(
        node.network.peers(gossip::PeerClass::Connected).is_empty(),
        "no node gossips on streams"
    );
}

// Issue 8, 11. Before, `send` returned the number of connected peers in any case.
#[tokio::test]
async fn a_sender_gets_the_number_of_peers_its_topic_message_was_sent_to() {
    let profile = &NetworkProfile::ALGORAND;
    let node = Node::start(profile, "net", new_key()).await;
    let one = |number: u8| Outbound::new(Tag::TX, vec![number; 40]);
    assert_eq!(node.broadcaster.broadcast_and_wait(&one(0)).await.unwrap().written, 0);
    let mut peers = Vec::new();
    // The number of peers that the door admits from one address.
    for _ in 0..8 {
        let peer = Node::start(profile, "net", new_key()).await;
        peer.network.add_peer(&node.network.listen_addresses()[0].parse().unwrap()).unwrap();
        peers.push(peer);
    }
    let mut written = 0;
    for number in 1..=200 {
        written = node.broadcaster.broadcast_and_wait(&one(number)).await.unwrap().written;
        if written == peers.len() {
            break;
        }
        // No event reports that subscriptions were exchanged.
        time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(written, peers.len());
    let mut observed: Vec<_> = peers.iter().map(|peer| peer.broadcaster.observe()).collect();
    assert_eq!(node.broadcaster.broadcast_and_wait(&one(255)).await.unwrap().written, peers.len());
    for observed in &mut observed {
        until("every one of them hears it", || heard(observed, &[255; 40])).await;
    }
}
