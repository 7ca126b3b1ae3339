//! Networks that fall apart and come together again, and paths that lose packets, in memory with a paused clock.
//!
//! A lost packet of TCP is a path that stands still until the packet is sent again, and then delivers everything.

#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gossip::{
    Admission, Inbound, Keypair, NetworkId, NodeAddress, Outbound, PeerClass, PeerInfo, Tag,
    Verdict,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tandem::{Mode, NodeBuilder, Relaying, Running, memory::Network};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

/// Nodes; the first half is one group.
const NODES: usize = 4;

/// Time for which the groups are apart. Source: threats and goals, row 39.
const APART: Duration = Duration::from_secs(60);

/// Longest time until the groups hear each other again. Source: threats and goals, row 39: redials are 30 s apart at
/// most.
const HEALING: Duration = Duration::from_secs(45);

/// Time for which a path loses packets. Source: threats and goals, row 40.
const LOSSY: Duration = Duration::from_secs(600);

type Heard = Arc<Mutex<BTreeSet<(usize, String)>>>;

fn ip(node: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(node + 1).expect("few nodes")).into()
}

fn key(node: usize) -> Keypair {
    Keypair::from_seed([u8::try_from(node + 1).expect("few nodes"); 32])
}

fn address(mode: Mode, node: usize) -> NodeAddress {
    let (ip, id) = (ip(node), key(node).identity());
    match mode {
        Mode::Libp2p => NodeAddress::Multiaddr(format!("/ip4/{ip}/tcp/4191/p2p/{id}")),
        Mode::WebSocket | Mode::Hybrid => format!("{ip}:4190").parse().expect("an address"),
    }
}

/// Nodes that each dial all others, and the votes that they heard.
struct Group {
    network: Network,
    nodes: Vec<Running>,
    heard: Heard,
}

impl Group {
    async fn start(mode: Mode, count: usize) -> Self {
        let (network, heard) = (Network::new(7), Heard::default());
        let mut nodes = Vec::new();
        for node in 0..count {
            let into = Arc::clone(&heard);
            let mut builder = NodeBuilder::new(NetworkId::new("memory").expect("a name"))
                .mode(mode)
                .environment(network.host(ip(node)))
                .key(key(node))
                .listen_ws(format!("{}:4190", ip(node)))
                .listen_p2p([format!("/ip4/{}/tcp/4191", ip(node))])
                .relaying(Relaying::Accepted)
                .handler(Tag::AV, move |message: Inbound| {
                    let vote = String::from_utf8_lossy(&message.body).into_owned();
                    into.lock().unwrap_or_else(PoisonError::into_inner).insert((node, vote));
                    std::future::ready(Verdict::Ignore)
                });
            for other in (0..count).filter(|other| *other != node) {
                builder = builder.peer(address(mode, other));
            }
            let started = Box::pin(builder.start(&CancellationToken::new())).await;
            nodes.push(started.expect("a node in memory starts"));
        }
        let group = Self { network, nodes, heard };
        group
            .until("all are linked", Duration::from_secs(120), || {
                (0..count).all(|node| group.links(node).len() == count - 1)
            })
            .await;
        group
    }

    fn links(&self, node: usize) -> Vec<PeerInfo> {
        self.nodes[node].node().peers(PeerClass::Connected)
    }

    fn say(&self, node: usize, vote: &str) {
        let admission = self.nodes[node].node().broadcast(Outbound::new(Tag::AV, vote.to_owned()));
        assert_eq!(admission, Ok(Admission::Queued));
    }

    fn has_heard(&self, node: usize, vote: &str) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.contains(&(node, vote.to_owned()))
    }

    async fn until(&self, what: &str, limit: Duration, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < limit, "not so after {limit:?}: {what}");
            time::sleep(Duration::from_millis(50)).await;
        }
    }
}

// Issue 8, 31; threats and goals, row 39.
#[tokio::test(start_paused = true)]
async fn two_groups_gossip_on_while_apart_and_hear_each_other_when_they_meet_again() {
    for mode in [Mode::WebSocket, Mode::Libp2p, Mode::Hybrid] {
        let group = Group::start(mode, NODES).await;
        let (left, right) = (0..NODES / 2, NODES / 2..NODES);
        for one in left.clone() {
            right.clone().for_each(|other| group.network.cut(ip(one), ip(other)));
        }
        let began = Instant::now();
        let mut votes = 0;
        while began.elapsed() < APART {
            let vote = format!("apart {votes}");
            group.say(0, &vote);
            group
                .until("a vote is heard within a group", Duration::from_secs(5), || {
                    group.has_heard(1, &vote)
                })
                .await;
            assert!(!group.has_heard(2, &vote), "{mode:?}: a vote crosses a cut");
            votes += 1;
            time::sleep(Duration::from_secs(1)).await;
        }
        // Both ends have noticed by now. The timers of libp2p's pings do not follow the paused clock, so its links stay.
        if mode == Mode::WebSocket {
            (0..NODES).for_each(|node| assert_eq!(group.links(node).len(), 1, "node {node}"));
        }
        for one in left.clone() {
            right.clone().for_each(|other| group.network.mend(ip(one), ip(other)));
        }
        let met = Instant::now();
        let mut number = 0;
        loop {
            let [there, back] = ["there", "back"].map(|way| format!("{way} {number}"));
            group.say(0, &there);
            group.say(3, &back);
            time::sleep(Duration::from_millis(500)).await;
            if right.clone().all(|node| group.has_heard(node, &there))
                && left.clone().all(|node| group.has_heard(node, &back))
            {
                break;
            }
            number += 1;
            assert!(met.elapsed() < HEALING, "{mode:?}: the groups stay apart");
        }
        group
            .until("all are linked again", 2 * HEALING, || {
                (0..NODES).all(|node| group.links(node).len() == NODES - 1)
            })
            .await;
    }
}

// Issue 8, 31; threats and goals, row 40.
#[tokio::test(start_paused = true)]
async fn packets_that_are_lost_delay_votes_and_end_no_link() {
    for mode in [Mode::WebSocket, Mode::Libp2p, Mode::Hybrid] {
        let group = Group::start(mode, 2).await;
        // By then both transports of a hybrid have been dialled, and one link has won.
        time::sleep(Duration::from_secs(10)).await;
        let link = group.links(0)[0].id;
        let mut random = StdRng::seed_from_u64(5);
        let began = Instant::now();
        let mut votes = Vec::new();
        while began.elapsed() < LOSSY {
            let vote = format!("vote {}", votes.len());
            group.say(0, &vote);
            votes.push(vote);
            // Every twentieth packet is lost, and sent again after one to four time-outs of 200 ms that double.
            if random.random_ratio(1, 20) {
                group.network.cut(ip(0), ip(1));
                let time_outs = random.random_range(1..=4_u32);
                time::sleep(Duration::from_millis(200) * (2_u32.pow(time_outs) - 1)).await;
                group.network.mend(ip(0), ip(1));
            }
            time::sleep(Duration::from_millis(random.random_range(50..150))).await;
        }
        let last = votes.last().expect("votes").clone();
        group
            .until("the last vote is heard", Duration::from_secs(10), || group.has_heard(1, &last))
            .await;
        let lost = votes.iter().filter(|vote| !group.has_heard(1, vote)).count();
        assert_eq!(lost, 0, "{mode:?}: of {} votes", votes.len());
        assert_eq!(group.links(0)[0].id, link, "{mode:?}: the link has ended");
    }
}
