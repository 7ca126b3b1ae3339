//! Attackers that spam invalid messages on a topic.

use std::{sync::Arc, time::Duration};

use broadcaster::{Broadcaster, DropReason, Relaying, Setup};
use gossip::{
    Admission, GossipNode, Inbound, NetworkId, NetworkProfile, Outbound, Tag, Validation,
};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{
    by_hand::{ByHand, send},
    host::{Node, PATIENCE, new_key, until},
    rpc,
};
use crate::{P2pConfig, P2pNetwork, pubsub::GRAYLIST_THRESHOLD};

const TOPIC: &str = "algotx01";

const ATTACKERS: usize = 5;

/// Messages of each attacker in a tenth of a second.
const AT_ONCE: u32 = 100;

/// Honest messages, and the time between two of them.
const HONEST: u32 = 50;
const PAUSE: Duration = Duration::from_millis(50);

/// A relay that rejects transactions which begin with `bad`.
async fn judge() -> Node {
    let root = CancellationToken::new();
    let validator = |message: &Inbound| match message.body.starts_with(b"bad") {
        true => Validation::Reject,
        false => Validation::Accept,
    };
    let setup = Setup::new(&NetworkProfile::ALGORAND)
        .relaying(Relaying::Accepted)
        .validator(Tag::TX, Arc::new(validator));
    let broadcaster = Broadcaster::start(setup, &root);
    let mut config = P2pConfig::new(NetworkId::new("net").unwrap(), new_key());
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let network = P2pNetwork::start(config, broadcaster.clone(), &root).await.unwrap();
    Node { network, broadcaster, heard: Arc::default(), root }
}

// Issue 8, 31; threats and goals, row 21. It held before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_spam_invalid_messages_are_graylisted_and_honest_messages_arrive() {
    let node = judge().await;
    let mut observed = node.broadcaster.observe();
    let profile = &NetworkProfile::ALGORAND;
    let honest = Node::start(profile, "net", new_key()).await;
    honest.network.add_peer(&node.network.listen_addresses()[0].parse().unwrap()).unwrap();
    let mut attackers = Vec::new();
    for _ in 0..ATTACKERS {
        let mut attacker = ByHand::dial(node.address()).await;
        let streams = attacker.subscribe(TOPIC).await;
        attackers.push((attacker, streams));
    }
    let probe = || Outbound::new(Tag::TX, rand::random::<[u8; 40]>().to_vec());
    while honest.broadcaster.broadcast_and_wait(&probe()).await.unwrap().written == 0 {
        time::sleep(Duration::from_millis(20)).await;
    }
    let (begun, mut rounds, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    let mut graylisted = None;
    for number in 0..HONEST {
        for (at, (_, [own, _])) in attackers.iter_mut().enumerate() {
            let body = |part: u32| format!("bad {at} {rounds} {part}").into_bytes();
            let spam = (0..AT_ONCE).map(|part| rpc::request(&[rpc::message(TOPIC, &body(part))]));
            send(own, &spam.flatten().collect::<Vec<_>>()).await;
        }
        rounds += 1;
        let body = [&[1; 200][..], &number.to_be_bytes()].concat();
        let sent = Instant::now();
        let message = Outbound::new(Tag::TX, body.clone());
        assert_eq!(honest.network.broadcast(message), Ok(Admission::Queued));
        let heard = async { while observed.recv().await.unwrap().body != body[..] {} };
        time::timeout(PATIENCE, heard).await.expect("every honest message arrives");
        slowest = slowest.max(sent.elapsed());
        let is_low = |(attacker, _): &(ByHand, _)| {
            let score = node.network.topic_score(&attacker.identity());
            score.is_some_and(|score| score.score < GRAYLIST_THRESHOLD)
        };
        if attackers.iter().all(is_low) {
            graylisted.get_or_insert_with(|| begun.elapsed());
        }
        time::sleep(PAUSE).await;
    }
    println!(
        "all are graylisted after {graylisted:?}; the slowest honest message took {slowest:?}"
    );
    let rejected = || node.broadcaster.metrics().drops(DropReason::Rejected);
    let before = rejected();
    println!("{before} of {} messages were judged", ATTACKERS as u32 * rounds * AT_ONCE);
    assert!(graylisted.is_some(), "they are not graylisted");
    assert!(before < u64::from(rounds * AT_ONCE), "a graylisted peer is heard: {before}");
    // They are disconnected when they stay so low, and a peer without fault is not.
    until("they are disconnected", || attackers.iter_mut().all(|(one, _)| !one.is_alive())).await;
    assert_eq!(rejected(), before);
    let score = node.network.topic_score(&honest.network.identity()).unwrap();
    assert!(!score.is_muted && score.score >= 0.0, "{score:?}");
}
