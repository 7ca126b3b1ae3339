//! Members that change while nodes run, over real sockets: sets that are replaced whole under load, places that are kept,
//! and strangers that are not let in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use broadcaster::{Broadcaster, Setup};
use gossip::{
    Admission, GossipNode, Identity, Inbound, Keypair, NetworkId, NetworkProfile, NodeAddress,
    Outbound, PeerClass, Tag, Transport, Verdict,
};
use mesh::{Admit, Door, InboundLimits, Member, MembersError, MeshLimits, Refusal};
use net_hybrid::{HybridConfig, HybridNetwork};
use net_p2p::P2pConfig;
use net_ws::WsConfig;
use runtime::TaskSet;
use testkit::wait::{PATIENCE, soon, until};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// The numbers of the votes that were heard, by their senders.
type Heard = Arc<Mutex<BTreeMap<u8, BTreeSet<u64>>>>;

struct Node {
    network: HybridNetwork,
    broadcaster: Broadcaster,
    door: Door,
    seed: u8,
    heard: Heard,
    /// Number of votes that it has sent.
    sent: Arc<AtomicU64>,
    root: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.root.cancel();
    }
}

fn key(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

fn identity(seed: u8) -> Identity {
    key(seed).identity()
}

/// Sender and number of a vote.
fn read(body: &[u8]) -> Option<(u8, u64)> {
    let (sender, number) = std::str::from_utf8(body).ok()?.split_once(' ')?;
    Some((sender.parse().ok()?, number.parse().ok()?))
}

impl Node {
    async fn start(seed: u8, admit: Admit, inbound: InboundLimits) -> Self {
        let (root, heard) = (CancellationToken::new(), Heard::default());
        let hears = Arc::clone(&heard);
        let handler = move |message: Inbound| {
            if let Some((sender, number)) = read(&message.body) {
                hears
                    .lock()
                    .expect("no handler panicked")
                    .entry(sender)
                    .or_default()
                    .insert(number);
            }
            async { Verdict::Ignore }
        };
        let setup = Setup::new(&NetworkProfile::TANDEM)
            .handler(Tag::AV, Arc::new(handler))
            .mesh(MeshLimits::default().with_admit(admit));
        let broadcaster = Broadcaster::start(setup, &root);
        let network = NetworkId::new("members").expect("the name is a short path segment");
        let mut ws = WsConfig::new(network.clone());
        ws.listen = Some("127.0.0.1:0".to_owned());
        let mut p2p = P2pConfig::new(network, key(seed));
        p2p.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("it is a multiaddr")];
        let door = Door::new(inbound);
        p2p.door = door.clone();
        let config = HybridConfig { ws, p2p };
        let network = HybridNetwork::start(config, broadcaster.clone(), &root).await;
        let network = network.expect("the node starts");
        Self { network, broadcaster, door, seed, heard, sent: Arc::default(), root }
    }

    fn address(&self, transport: Transport) -> NodeAddress {
        match transport {
            Transport::Libp2p => self.network.p2p().addresses().remove(0),
            _ => self.network.ws().addresses().remove(0),
        }
    }

    fn dial(&self, transport: Transport, to: &Self) {
        let address = to.address(transport);
        match transport {
            Transport::Libp2p => self.network.p2p().add_peer(&address).expect("it can be dialled"),
            _ => self.network.ws().add_peer(&address).expect("it can be dialled"),
        }
    }

    fn as_member(&self) -> Member {
        let addresses = [Transport::WebSocket, Transport::Libp2p].map(|via| self.address(via));
        Member::new(identity(self.seed), addresses)
    }

    fn peers(&self) -> BTreeSet<Identity> {
        let peers = self.network.peers(PeerClass::Connected);
        peers.iter().filter_map(|peer| peer.identity).collect()
    }

    /// The peers by their seeds.
    fn seeds(&self, nodes: &[Self]) -> Vec<u8> {
        let peers = self.peers();
        let seeds = nodes.iter().map(|node| node.seed);
        seeds.filter(|seed| peers.contains(&identity(*seed))).collect()
    }

    /// Sends a vote every few milliseconds until the node ends.
    fn vote(&self, tasks: &TaskSet) {
        let (broadcaster, seed, sent) =
            (self.broadcaster.clone(), self.seed, Arc::clone(&self.sent));
        tasks.spawn("votes", move |cancel| async move {
            let mut ticks = time::interval(Duration::from_millis(3));
            while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
                let number = sent.load(Ordering::Relaxed);
                let message = Outbound::new(Tag::AV, format!("{seed} {number}"));
                assert_eq!(broadcaster.broadcast(&message), Ok(Admission::Queued));
                sent.store(number + 1, Ordering::Relaxed);
            }
        });
    }
}

const GROUPS: usize = 3;
const IN_GROUP: usize = 2;

/// The nodes of the group whose turn an epoch is.
fn of_epoch(nodes: &[Node], epoch: u64) -> &[Node] {
    let group = usize::try_from(epoch).expect("few epochs") % GROUPS;
    &nodes[group * IN_GROUP..(group + 1) * IN_GROUP]
}

/// Waits until the members of two successive epochs are connected with each other, and with nobody else, and all others
/// with nobody.
async fn whole(nodes: &[Node], epochs: [u64; 2]) {
    let members = || epochs.into_iter().flat_map(|epoch| of_epoch(nodes, epoch));
    let all: BTreeSet<Identity> = members().map(|node| identity(node.seed)).collect();
    let wrong = || {
        let wrong = nodes.iter().filter(|node| {
            let mut others = all.clone();
            let is_member = others.remove(&identity(node.seed));
            node.peers() != if is_member { others } else { BTreeSet::new() }
        });
        wrong.map(|node| (node.seed, node.seeds(nodes))).collect::<Vec<_>>()
    };
    let settled = time::timeout(PATIENCE, async {
        while !wrong().is_empty() {
            time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(settled.await.is_ok(), "epochs {epochs:?}, nodes with wrong peers: {:?}", wrong());
}

// Issue 10, 4: "A validator set that is replaced whole, ten epochs in a row under load, loses no vote between members of
// both."
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_that_are_replaced_whole_lose_no_vote_between_members_of_both() {
    let mut nodes = Vec::new();
    for seed in 1..=(GROUPS * IN_GROUP) as u8 {
        nodes.push(Node::start(seed, Admit::MembersOnly, InboundLimits::default()).await);
    }
    let set = |epoch| {
        let members: Vec<Member> = of_epoch(&nodes, epoch).iter().map(Node::as_member).collect();
        for node in &nodes {
            node.broadcaster.set_members(epoch, members.clone()).expect("the epoch is new");
        }
    };
    let load = TaskSet::new(&CancellationToken::new());
    nodes.iter().for_each(|node| node.vote(&load));
    set(0);
    set(1);
    let mut checked = 0;
    for epoch in 2..12 {
        whole(&nodes, [epoch - 2, epoch - 1]).await;
        let staying = of_epoch(&nodes, epoch - 1);
        let sent = || staying.iter().map(|node| node.sent.load(Ordering::Relaxed));
        let from: Vec<u64> = sent().collect();
        time::sleep(Duration::from_millis(100)).await;
        set(epoch);
        whole(&nodes, [epoch - 1, epoch]).await;
        time::sleep(Duration::from_millis(100)).await;
        let to: Vec<u64> = sent().collect();
        for (sender, (from, to)) in staying.iter().zip(from.into_iter().zip(to)) {
            for other in staying.iter().filter(|other| other.seed != sender.seed) {
                let missing = || -> Vec<u64> {
                    let heard = other.heard.lock().expect("no handler panicked");
                    let theirs = heard.get(&sender.seed);
                    let is_there = |number: &u64| theirs.is_some_and(|all| all.contains(number));
                    (from..to).filter(|number| !is_there(number)).collect()
                };
                let all = time::timeout(Duration::from_secs(20), async {
                    while !missing().is_empty() {
                        time::sleep(Duration::from_millis(10)).await;
                    }
                });
                if all.await.is_err() {
                    panic!("epoch {epoch}, {} to {}: {:?}", sender.seed, other.seed, missing());
                }
                checked += to - from;
            }
        }
        let again = nodes[0].broadcaster.set_members(epoch, []);
        assert_eq!(again, Err(MembersError::OldEpoch { given: epoch, newest: epoch }));
    }
    assert!(checked > 1_000, "{checked} votes are no load");
    let _ = load.stop(Duration::from_secs(5)).await;
}

/// A node that is full but for the places of its members lets a member in.
async fn a_member_finds_a_place(transport: Transport) {
    let full = InboundLimits::default().with_total(2);
    let node = Node::start(1, Admit::Everybody, full).await;
    let member = Node::start(2, Admit::Everybody, InboundLimits::default()).await;
    // It only dials, so that its connection comes in.
    node.broadcaster.set_members(1, [Member::new(identity(2), [])]).expect("the first epoch");
    let mut others = Vec::new();
    for seed in 3..6 {
        let other = Node::start(seed, Admit::Everybody, InboundLimits::default()).await;
        other.dial(transport, &node);
        others.push(other);
    }
    until("a stranger", || node.peers().len() == 1).await;
    until("a refusal", || node.door.refused_over(Refusal::Total, transport) > 1).await;
    assert_eq!(node.peers().len(), 1);
    member.dial(transport, &node);
    until("the member", || node.peers().contains(&identity(2))).await;
    assert_eq!((node.peers().len(), node.door.peers()), (2, 2));
}

// Issue 10, 4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_finds_a_place_over_libp2p_where_all_others_are_taken() {
    a_member_finds_a_place(Transport::Libp2p).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_finds_a_place_over_websocket_where_all_others_are_taken() {
    a_member_finds_a_place(Transport::WebSocket).await;
}

/// Where members only are let in, a stranger is refused until it is one.
async fn strangers_wait_outside(transport: Transport) {
    let node = Node::start(1, Admit::MembersOnly, InboundLimits::default()).await;
    let other = Node::start(2, Admit::Everybody, InboundLimits::default()).await;
    other.dial(transport, &node);
    until("a refusal", || node.door.refused_over(Refusal::NotMember, transport) > 1).await;
    assert_eq!(node.peers(), BTreeSet::new());
    node.broadcaster.set_members(1, [Member::new(identity(2), [])]).expect("the first epoch");
    until("the member", || node.peers() == BTreeSet::from([identity(2)])).await;
    // It stays for one more epoch, and is let go then.
    node.broadcaster.set_members(2, []).expect("the next epoch");
    time::sleep(Duration::from_millis(300)).await;
    assert_eq!(node.peers(), BTreeSet::from([identity(2)]));
    let mut events = node.broadcaster.events();
    node.broadcaster.set_members(3, []).expect("the next epoch");
    let ended = soon("the end of the link", async {
        loop {
            if let Ok(broadcaster::PeerEvent::Disconnected(_, reason)) = events.recv().await {
                return reason;
            }
        }
    });
    assert_eq!(ended.await, gossip::DisconnectReason::NotMember);
    until("no peer", || node.peers().is_empty() && node.door.peers() == 0).await;
}

// Issue 10, 4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_wait_outside_over_libp2p() {
    strangers_wait_outside(Transport::Libp2p).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_wait_outside_over_websocket() {
    strangers_wait_outside(Transport::WebSocket).await;
}

// Issue 10, 4: members are dialled and kept, whatever the fan-out is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_is_dialled() {
    let node = Node::start(1, Admit::Everybody, InboundLimits::default()).await;
    let mut members = vec![node.as_member()];
    let mut others = Vec::new();
    for seed in 2..9 {
        let other = Node::start(seed, Admit::Everybody, InboundLimits::default()).await;
        members.push(other.as_member());
        others.push(other);
    }
    // More than the fan-out of four; its own address is no peer.
    node.broadcaster.set_members(1, members).expect("the first epoch");
    until("all of them", || node.peers().len() == 7).await;
    assert_eq!(
        node.broadcaster.mesh().members().map(|(epoch, all)| (epoch, all.len())),
        Some((1, 8))
    );
    // Those that left are let go as far as there are more links than the fan-out wants.
    node.broadcaster.set_members(2, []).expect("the next epoch");
    node.broadcaster.set_members(3, []).expect("the next epoch");
    until("the fan-out", || node.peers().len() == 4).await;
}
