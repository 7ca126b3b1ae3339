//! Peers that prove what they weigh: the challenge of the listener, the responses, and what follows from them.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{
    Node, Recipe,
    raw::{Raw, gossip_request, masked},
    soon, until,
};
use gossip::{
    Keypair, LinkId, LoopbackRule, NetworkProfile, PriorityScheme,
    wire::priority::{OneTimeSignature, PriorityResponse, Voter},
};
use mesh::InboundLimits;

const DILUTION: u64 = 10;
const ROUND: u64 = 35;

/// The key of an account that votes, whose number is its only name.
fn vote_key(account: u8) -> Keypair {
    Keypair::from_seed([account; 32])
}

fn response(account: u8, challenge: &str, vote_key: &Keypair) -> PriorityResponse {
    let (batch, offset) = (Keypair::from_seed([0xb0; 32]), Keypair::from_seed([0x0f; 32]));
    let voter = Voter { vote_key: vote_key.public(), key_dilution: DILUTION };
    let number = voter.key_number(ROUND);
    let signature = OneTimeSignature::sign(challenge, number, [vote_key, &batch, &offset]);
    PriorityResponse {
        challenge: challenge.to_owned(),
        round: ROUND,
        account: [account; 32],
        signature,
    }
}

/// A ledger, and the account whose keys the node has, if any.
#[derive(Clone, Debug, Default)]
struct Stakes {
    weights: Arc<Mutex<BTreeMap<u8, u64>>>,
    own: Option<u8>,
}

impl Stakes {
    fn of(account: u8) -> Self {
        Self { own: Some(account), ..Self::default() }
    }

    fn set(&self, account: u8, weight: u64) {
        self.weights.lock().unwrap().insert(account, weight);
    }
}

impl PriorityScheme for Stakes {
    fn respond(&self, challenge: &str) -> Option<PriorityResponse> {
        let account = self.own?;
        Some(response(account, challenge, &vote_key(account)))
    }

    fn voter(&self, account: &[u8; 32], round: u64) -> Option<Voter> {
        let known = self.weights.lock().unwrap().contains_key(&account[0]);
        let vote_key = vote_key(account[0]).public();
        (known && round == ROUND).then_some(Voter { vote_key, key_dilution: DILUTION })
    }

    fn weight(&self, account: &[u8; 32]) -> u64 {
        self.weights.lock().unwrap().get(&account[0]).copied().unwrap_or_default()
    }
}

fn with(scheme: &Stakes) -> Recipe {
    let recipe = Recipe::new(&NetworkProfile::ALGORAND);
    recipe.with(|config| config.priority = Some(Arc::new(scheme.clone())))
}

/// The weights of the peers of a node, by link.
fn weights(node: &Node) -> Vec<(LinkId, u64)> {
    node.peers().iter().map(|peer| (peer.id, peer.weight)).collect()
}

async fn dials(relay: &Node, scheme: &Stakes) -> Node {
    let count = relay.peers().len();
    let node = with(scheme).dialling(&[relay.address()]).start().await;
    relay.until_peers(count + 1).await;
    node
}

// Issue 10, 8.
#[tokio::test]
async fn a_peer_weighs_what_it_proves_and_only_its_newest_link_does() {
    let ledger = Stakes::default();
    ledger.set(1, 100);
    ledger.set(2, 300);
    let relay = with(&ledger).listening().relaying().start().await;
    let nobody = dials(&relay, &Stakes::default()).await;
    let light = dials(&relay, &Stakes::of(1)).await;
    let heavy = dials(&relay, &Stakes::of(2)).await;
    let unknown = dials(&relay, &Stakes::of(9)).await;
    let of = |wanted: &[u64]| {
        let wanted = wanted.to_vec();
        let weights: Vec<u64> = weights(&relay).into_iter().map(|(_, weight)| weight).collect();
        weights == wanted
    };
    until("the weights of all", || of(&[0, 100, 300, 0])).await;
    // Another node that votes for the same account takes its weight.
    let twin = dials(&relay, &Stakes::of(2)).await;
    until("the newest link alone weighs", || of(&[0, 100, 0, 0, 300])).await;
    // An end of the older link changes nothing, and one of the newer takes the weight with it.
    heavy.stop().await;
    until("the older one is gone", || of(&[0, 100, 0, 300])).await;
    twin.stop().await;
    until("the newer one is gone", || of(&[0, 100, 0])).await;
    for node in [nobody, light, unknown, relay] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_weight_follows_the_ledger_within_a_minute() {
    let ledger = Stakes::default();
    ledger.set(1, 100);
    let relay = with(&ledger).listening().start().await;
    let peer = dials(&relay, &Stakes::of(1)).await;
    let weight = || weights(&relay).first().map(|(_, weight)| *weight);
    until("the first weight", || weight() == Some(100)).await;
    ledger.set(1, 50);
    // In steps, so that both ends can answer each other's pings in between.
    for _ in 0..4 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(15)).await;
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until("the later weight", || weight() == Some(50)).await;
    peer.stop().await;
    relay.stop().await;
}

/// Upgrades by hand, and gives the challenge of the answer.
async fn raw(relay: &Node) -> (Raw, Option<String>) {
    raw_from([127, 0, 0, 1], relay).await
}

async fn raw_from(from: [u8; 4], relay: &Node) -> (Raw, Option<String>) {
    let mut raw = soon(Raw::connect_from(from.into(), relay.address())).await;
    raw.send(gossip_request("X-Algorand-", "").as_bytes()).await;
    let mut answer = raw.answer().await.unwrap();
    assert!(answer.status.starts_with("HTTP/1.1 101 "), "{answer:?}");
    let challenge = answer.headers.remove("x-algorand-prioritychallenge");
    (raw, challenge.and_then(|mut values| values.pop()))
}

fn message(response: &PriorityResponse) -> Vec<u8> {
    masked(0x82, &[b"NP", &response.encode()[..]].concat())
}

#[tokio::test]
async fn a_wrong_response_changes_nothing_and_a_second_one_is_not_looked_at() {
    let ledger = Stakes::default();
    ledger.set(1, 100);
    let relay = with(&ledger).listening().start().await;
    let (mut peer, challenge) = raw(&relay).await;
    let (mut other, others) = raw(&relay).await;
    let (challenge, others) = (challenge.unwrap(), others.unwrap());
    assert_ne!(challenge, others, "each connection has a challenge of its own");
    relay.until_peers(2).await;
    let garbage = masked(0x82, b"NP\xff\xff");
    // The right answer comes second, and too late.
    peer.send(&message(&response(1, &others, &vote_key(1)))).await;
    peer.send(&message(&response(1, &challenge, &vote_key(1)))).await;
    other.send(&garbage).await;
    other.send(&message(&response(1, &others, &vote_key(2)))).await;
    // Once a message that came behind them was heard, they were read, too.
    peer.send(&masked(0x82, b"TXbehind one")).await;
    other.send(&masked(0x82, b"TXbehind the other")).await;
    until("what came behind", || relay.heard.all().len() == 2).await;
    assert_eq!(relay.peers().len(), 2);
    assert!(weights(&relay).iter().all(|(_, weight)| *weight == 0));
    relay.stop().await;
}

#[tokio::test]
async fn a_node_without_a_scheme_neither_asks_nor_answers() {
    let ledger = Stakes::of(1);
    let plain = Recipe::new(&NetworkProfile::ALGORAND).listening().start().await;
    let (_raw, challenge) = raw(&plain).await;
    assert_eq!(challenge, None);
    // A relay that asks is answered by those that have a scheme only.
    ledger.set(1, 100);
    let relay = with(&ledger).listening().start().await;
    let silent = Recipe::new(&NetworkProfile::ALGORAND).dialling(&[relay.address()]).start().await;
    relay.until_peers(1).await;
    assert_eq!(weights(&relay)[0].1, 0);
    for node in [plain, silent, relay] {
        node.stop().await;
    }
}

// Issue 10, 8: "and in who is given up first".
#[tokio::test]
async fn a_heavy_peer_keeps_its_place_when_all_are_taken() {
    let ledger = Stakes::default();
    ledger.set(1, 100);
    let limits = InboundLimits::default().with_total(3).with_loopback(LoopbackRule::Counted);
    let relay = with(&ledger).listening().guarded(limits).start().await;
    let mut crowd = Vec::new();
    for number in 1..=3 {
        crowd.push(raw_from([127, 0, 1, 1], &relay).await);
        relay.until_peers(number).await;
    }
    // The newest would have to go, but for what it weighs.
    let (heavy, challenge) = &mut crowd[2];
    let challenge = challenge.take().unwrap();
    heavy.send(&message(&response(1, &challenge, &vote_key(1)))).await;
    until("its weight", || weights(&relay).last().is_some_and(|(_, weight)| *weight == 100)).await;
    let links = weights(&relay);
    let _newcomer = raw_from([127, 1, 0, 1], &relay).await;
    until("one of the light ones is gone", || {
        let stayed: Vec<_> = weights(&relay).into_iter().filter(|it| links.contains(it)).collect();
        stayed == [links[0], links[2]]
    })
    .await;
    relay.stop().await;
}

// Issue 10, 8: the order in which a crowd gives up its places.
#[tokio::test]
async fn the_lightest_of_a_crowd_is_given_up_first_and_the_heaviest_last() {
    let ledger = Stakes::default();
    for (account, weight) in [(1, 30), (2, 10), (3, 20)] {
        ledger.set(account, weight);
    }
    let limits = InboundLimits::default().with_total(4).with_loopback(LoopbackRule::Counted);
    let relay = with(&ledger).listening().guarded(limits).start().await;
    let mut crowd = Vec::new();
    for (number, account) in (1..).zip([Some(1), None, Some(2), Some(3)]) {
        let (mut peer, challenge) = raw_from([127, 0, 1, 1], &relay).await;
        relay.until_peers(number).await;
        if let Some(account) = account {
            peer.send(&message(&response(account, &challenge.unwrap(), &vote_key(account)))).await;
            let is_ranked = || weights(&relay).last().is_some_and(|(_, weight)| *weight > 0);
            until("its weight", is_ranked).await;
        }
        crowd.push((weights(&relay).last().unwrap().0, peer));
    }
    let mut newcomers = Vec::new();
    for (newcomer, given_up) in (1..).zip([1, 2, 3]) {
        newcomers.push(raw_from([127, newcomer, 0, 1], &relay).await);
        let gone = crowd[given_up].0;
        until("one of the crowd is gone", || {
            let links = weights(&relay);
            links.len() == 4 && links.iter().all(|(link, _)| *link != gone)
        })
        .await;
    }
    assert!(weights(&relay).contains(&(crowd[0].0, 30)), "the heaviest stays");
    relay.stop().await;
}
