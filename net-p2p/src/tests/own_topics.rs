//! Topics of an application: between nodes, and with a peer of the library that follows the same policy, or none.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use gossip::{
    GossipNode, NetworkProfile, PeerClass, PublishError, TopicInbound, Validation, Verdict,
};
use libp2p::{
    PeerId, Swarm,
    gossipsub::{self, ConfigBuilder, IdentTopic, MessageAuthenticity, MessageId, ValidationMode},
    identity::Keypair,
    swarm::{Config, SwarmEvent, dial_opts::DialOpts},
};
use mesh::Door;
use runtime::TaskSet;
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;

use super::host::{Node, PATIENCE, new_key, plain_transport, until};
use crate::{
    IdFunction, IdParts, MessageIds, OwnTopic, P2pConfig, P2pEvent, Signing, address::identity_of,
    config::libp2p_key,
};

/// The messages of a topic that a node has handled.
type Handled = Arc<Mutex<Vec<TopicInbound>>>;

fn recorded(topic: OwnTopic) -> (OwnTopic, Handled) {
    let handled = Handled::default();
    let into = Arc::clone(&handled);
    let handler = move |message: TopicInbound| {
        into.lock().unwrap().push(message);
        async { Verdict::Ignore }
    };
    (topic.with_handler(handler), handled)
}

async fn node(topics: Vec<OwnTopic>) -> Node {
    let change = |mut config: P2pConfig| {
        config.topics = topics;
        config
    };
    Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), change).await
}

async fn link(one: &Node, other: &Node) {
    one.network.add_peer(&other.network.listen_addresses()[0].parse().unwrap()).unwrap();
    until("they are linked", || !one.network.peers(PeerClass::Connected).is_empty()).await;
}

/// Publishes `body` until so many peers are subscribed.
async fn publish(node: &Node, topic: &str, body: &'static [u8], peers: usize) {
    let published = async {
        loop {
            match node.network.publish(topic, Bytes::from_static(body)).await {
                Ok(sent) if sent == peers => break,
                // No event reports that subscriptions were exchanged.
                Ok(0) => time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    time::timeout(PATIENCE, published).await.expect("the peers subscribe");
}

fn bodies(handled: &Handled) -> Vec<Bytes> {
    handled.lock().unwrap().iter().map(|message| message.body.clone()).collect()
}

// Issue 11, 3.
#[tokio::test]
async fn a_message_of_each_policy_reaches_the_other_node_once_and_is_not_heard_by_its_sender() {
    for signing in [Signing::Strict, Signing::Author, Signing::None] {
        let (here, own) = recorded(OwnTopic::new("chat").with_signing(signing));
        let (there, handled) = recorded(OwnTopic::new("chat").with_signing(signing));
        let (one, other) = (node(vec![here]).await, node(vec![there]).await);
        let mut observed = other.network.observe_topics();
        link(&one, &other).await;
        publish(&one, "chat", b"hello", 1).await;
        until("it is handled", || !handled.lock().unwrap().is_empty()).await;
        let message = observed.recv().await.unwrap();
        assert_eq!((&*message.topic, &message.body[..]), ("chat", &b"hello"[..]));
        let author = (signing != Signing::None).then(|| one.network.identity());
        assert_eq!(message.author, author, "{signing:?}");
        assert_eq!(message.sequence.is_some(), author.is_some());
        assert_eq!(message.from, Some(one.network.identity()));
        publish(&other, "chat", b"hello yourself", 1).await;
        until("the answer is handled", || !own.lock().unwrap().is_empty()).await;
        assert_eq!(bodies(&own), [&b"hello yourself"[..]]);
        assert_eq!(bodies(&handled), [&b"hello"[..]]);
    }
}

// Issue 11, 3.
#[tokio::test]
async fn messages_pass_over_a_node_between_as_they_were_signed() {
    let (there, handled) = recorded(OwnTopic::new("chat"));
    let (one, between, other) = (
        node(vec![OwnTopic::new("chat")]).await,
        node(vec![OwnTopic::new("chat")]).await,
        node(vec![there]).await,
    );
    link(&one, &between).await;
    link(&other, &between).await;
    publish(&between, "chat", b"ready?", 2).await;
    publish(&one, "chat", b"hello", 1).await;
    until("it is handled", || bodies(&handled).contains(&Bytes::from_static(b"hello"))).await;
    let message = handled.lock().unwrap().last().cloned().unwrap();
    assert_eq!(message.author, Some(one.network.identity()));
    assert_eq!(message.from, Some(between.network.identity()));
}

// Issue 11, 3.
#[tokio::test]
async fn messages_that_cannot_be_published_are_refused_with_the_reason() {
    let topic = OwnTopic::new("chat").with_ids(MessageIds::Content).with_max_bytes(5);
    let node = node(vec![topic]).await;
    let publish = |topic: &'static str, body: &'static [u8]| {
        node.network.publish(topic, Bytes::from_static(body))
    };
    let unknown = PublishError::UnknownTopic { topic: "other".to_owned() };
    assert_eq!(publish("other", b"a").await, Err(unknown));
    assert_eq!(publish("chat", b"").await, Err(PublishError::Empty));
    let too_large = PublishError::TooLarge { bytes: 6, max: 5 };
    assert_eq!(publish("chat", b"longer").await, Err(too_large));
    assert_eq!(publish("chat", b"fits").await, Ok(0), "nobody is there");
    node.network.panic_for_test();
    until("the swarm is gone", || !node.network.is_up()).await;
    assert_eq!(publish("chat", b"fits").await, Err(PublishError::Closed));
    until("the swarm is back", || node.network.is_up()).await;
    assert_eq!(publish("chat", b"fits").await, Ok(0));
}

// Issue 11, 3: the id function is data of the topic.
#[tokio::test]
async fn messages_with_one_id_of_the_applications_own_are_one_message() {
    let first = || {
        let ids = IdFunction::new(|parts: IdParts<'_>| parts.body[..1].to_vec());
        OwnTopic::new("chat").with_ids(MessageIds::Custom(ids))
    };
    let (there, handled) = recorded(first());
    let (one, other) = (node(vec![first()]).await, node(vec![there]).await);
    link(&one, &other).await;
    publish(&one, "chat", b"a 1", 1).await;
    let again = one.network.publish("chat", Bytes::from_static(b"a 2")).await;
    assert_eq!(again, Err(PublishError::Duplicate));
    publish(&one, "chat", b"b", 1).await;
    until("both are handled", || handled.lock().unwrap().len() == 2).await;
    let mut bodies = bodies(&handled);
    bodies.sort();
    assert_eq!(bodies, [&b"a 1"[..], b"b"]);
}

/// A peer of the library on the topic `chat`.
struct Stranger {
    id: PeerId,
    heard: Arc<Mutex<Vec<gossipsub::Message>>>,
    say: mpsc::Sender<Vec<u8>>,
    _tasks: TaskSet,
}

impl Stranger {
    fn dial(
        key: &Keypair,
        authenticity: MessageAuthenticity,
        change: impl FnOnce(&mut ConfigBuilder),
        to: &Node,
    ) -> Self {
        let mut config = ConfigBuilder::default();
        change(&mut config);
        let behaviour: gossipsub::Behaviour =
            gossipsub::Behaviour::new(authenticity, config.build().unwrap()).unwrap();
        let transport = plain_transport(key, Door::default());
        let config =
            Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
        let id = key.public().to_peer_id();
        let mut swarm = Swarm::new(transport, behaviour, id, config);
        let topic = IdentTopic::new("chat");
        swarm.behaviour_mut().subscribe(&topic).unwrap();
        swarm.dial(DialOpts::unknown_peer_id().address(to.address()).build()).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&heard);
        let (say, mut to_say) = mpsc::channel::<Vec<u8>>(8);
        let tasks = TaskSet::new(&CancellationToken::new());
        tasks.spawn("stranger", |_cancel| async move {
            loop {
                tokio::select! {
                    Some(body) = to_say.recv() => {
                        // It fails as long as nobody is subscribed.
                        let _ = swarm.behaviour_mut().publish(topic.clone(), body);
                    }
                    event = swarm.select_next_some() => {
                        if let SwarmEvent::Behaviour(gossipsub::Event::Message { message, .. }) = event {
                            into.lock().unwrap().push(message);
                        }
                    }
                }
            }
        });
        Self { id, heard, say, _tasks: tasks }
    }

    /// Says `body`, each time with another number, until `is_heard`.
    async fn says_until(&self, body: &[u8], is_heard: impl Fn() -> bool) {
        let said = async {
            for number in 0_u32.. {
                if is_heard() {
                    break;
                }
                self.say.send([body, &number.to_be_bytes()].concat()).await.unwrap();
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        time::timeout(PATIENCE, said).await.expect("the node hears it");
    }
}

// Issue 11, 3: the library verifies what this node signs, and the node what the library signs.
#[tokio::test]
async fn a_peer_that_demands_signatures_and_the_node_hear_each_other() {
    let (topic, handled) = recorded(OwnTopic::new("chat"));
    let node = node(vec![topic]).await;
    let key = libp2p_key(&new_key());
    let signed = MessageAuthenticity::Signed(key.clone());
    let strict = |config: &mut ConfigBuilder| {
        config.validation_mode(ValidationMode::Strict);
    };
    let peer = Stranger::dial(&key, signed, strict, &node);
    peer.says_until(b"signed", || !handled.lock().unwrap().is_empty()).await;
    assert_eq!(handled.lock().unwrap()[0].author, identity_of(&peer.id));
    publish(&node, "chat", b"hello", 1).await;
    until("the peer hears it", || !peer.heard.lock().unwrap().is_empty()).await;
    let heard = peer.heard.lock().unwrap()[0].clone();
    assert_eq!(
        (heard.data, identity_of(&heard.source.unwrap())),
        (b"hello".to_vec(), Some(node.network.identity()))
    );
}

// Issue 11, 3.
#[tokio::test]
async fn a_peer_that_demands_anonymous_messages_and_the_node_hear_each_other() {
    let (topic, handled) = recorded(OwnTopic::new("chat").with_signing(Signing::None));
    let node = node(vec![topic]).await;
    let anonymous = |config: &mut ConfigBuilder| {
        config.validation_mode(ValidationMode::Anonymous);
        config.message_id_fn(|message| MessageId::new(&message.data));
    };
    let key = libp2p_key(&new_key());
    let peer = Stranger::dial(&key, MessageAuthenticity::Anonymous, anonymous, &node);
    peer.says_until(b"nobody", || !handled.lock().unwrap().is_empty()).await;
    assert_eq!(handled.lock().unwrap()[0].author, None);
    publish(&node, "chat", b"hello", 1).await;
    until("the peer hears it", || !peer.heard.lock().unwrap().is_empty()).await;
    let heard = peer.heard.lock().unwrap()[0].clone();
    assert_eq!((heard.data, heard.source, heard.sequence_number), (b"hello".to_vec(), None, None));
}

// Issue 11, 3: a signature is what tells authors apart, so messages without one go no further.
#[tokio::test]
async fn unsigned_messages_on_a_signed_topic_are_refused_and_held_against_their_peer() {
    let (topic, handled) = recorded(OwnTopic::new("chat"));
    let node = node(vec![topic]).await;
    let permissive = |config: &mut ConfigBuilder| {
        config.validation_mode(ValidationMode::None);
    };
    let key = libp2p_key(&new_key());
    let author = MessageAuthenticity::Author(key.public().to_peer_id());
    let peer = Stranger::dial(&key, author, permissive, &node);
    let identity = identity_of(&peer.id).unwrap();
    let score = || node.network.topic_score(&identity).map_or(0.0, |topics| topics.score);
    peer.says_until(b"unsigned", || score() < -1_000.0).await;
    assert!(handled.lock().unwrap().is_empty());
    until("it is counted", || node.network.metrics().count(P2pEvent::TopicPeerMuted) == 1).await;
}

// Issue 11, 3: `Validation::Reject` counts against the peer, and nothing of it reaches the handler.
#[tokio::test]
async fn a_validator_keeps_messages_from_the_handler_and_from_others() {
    let judge = |message: &TopicInbound| {
        if message.body.starts_with(b"bad") { Validation::Reject } else { Validation::Accept }
    };
    let (topic, handled) = recorded(OwnTopic::new("chat").with_validator(judge));
    let node = node(vec![topic]).await;
    let key = libp2p_key(&new_key());
    let strict = |_: &mut ConfigBuilder| {};
    let peer = Stranger::dial(&key, MessageAuthenticity::Signed(key.clone()), strict, &node);
    peer.says_until(b"good", || !handled.lock().unwrap().is_empty()).await;
    let identity = identity_of(&peer.id).unwrap();
    let score = || node.network.topic_score(&identity).map_or(0.0, |topics| topics.score);
    peer.says_until(b"bad", || score() < -1_000.0).await;
    assert!(bodies(&handled).iter().all(|body| body.starts_with(b"good")));
    assert!(node.network.metrics().count(P2pEvent::TopicRefused) > 0);
}
