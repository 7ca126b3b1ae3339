//! A deterministic simulation of three hybrid nodes on an in-memory network: one seed gives one trace.
//!
//! ```text
//!   a ──WebSocket── b        a and b lose each other for three seconds
//!    ╲             ╱
//!     libp2p   by name
//!        ╲     ╱
//!           c
//! ```
//!
//! # Invariants
//!
//! * Delays, keys, messages and their times come from the seed, never from the system.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gossip::{
    Admission, Inbound, Keypair, NetworkId, NodeAddress, Outbound, PeerClass, Tag, Verdict,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tandem::{Mode, NodeBuilder, Relaying, Running, memory::Network};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

/// Number of nodes.
pub const NODES: usize = 3;

/// Number of messages that each node sends.
pub const MESSAGES: usize = 40;

/// Longest time for the nodes to connect.
const MEETING_TIME: Duration = Duration::from_secs(30);

/// Longest time for the last messages to arrive.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// A message that a node handled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handled {
    /// Time since the start of the simulation.
    pub at: Duration,
    /// Number of the node.
    pub node: usize,
    /// Tag of the message.
    pub tag: Tag,
    /// The first bytes of the message: its sender, and its number.
    pub about: [u8; 2],
    /// Length of the message, in bytes.
    pub len: usize,
}

type Trace = Arc<Mutex<Vec<Handled>>>;

fn ip(node: usize) -> IpAddr {
    let last = u8::try_from(node + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn builder(network: &Network, node: usize, began: Instant, trace: &Trace) -> NodeBuilder {
    let seed = u8::try_from(node + 1).unwrap_or(u8::MAX);
    let name = NetworkId::new("simulated").expect("a name");
    let mut builder = NodeBuilder::new(name)
        .mode(Mode::Hybrid)
        .environment(network.host(ip(node)))
        .key(Keypair::from_seed([seed; 32]))
        .listen_ws(format!("{}:4190", ip(node)))
        .listen_p2p([format!("/ip4/{}/tcp/4191", ip(node))])
        .relaying(Relaying::Accepted);
    for tag in [Tag::AV, Tag::TX] {
        let trace = Arc::clone(trace);
        builder = builder.handler(tag, move |message: Inbound| {
            let about = [0, 1].map(|at| message.body.get(at).copied().unwrap_or_default());
            let handled = Handled {
                at: began.elapsed(),
                node,
                tag: message.tag,
                about,
                len: message.body.len(),
            };
            trace.lock().unwrap_or_else(PoisonError::into_inner).push(handled);
            std::future::ready(Verdict::Ignore)
        });
    }
    builder
}

async fn start(builder: NodeBuilder) -> Running {
    Box::pin(builder.start(&CancellationToken::new())).await.expect("a node in memory starts")
}

/// Runs the simulation of a seed. Returns the handled messages in their order.
///
/// # Panics
///
/// When a node does not start, or the nodes do not connect in time.
///
/// # Cancel safety
///
/// Safe: dropping the future ends the nodes.
pub async fn run(seed: u64) -> Vec<Handled> {
    let (network, began, trace) = (Network::new(seed), Instant::now(), Trace::default());
    network.name("b.example", &[ip(1)]);
    let node = |number| builder(&network, number, began, &trace);
    let first = start(node(0)).await;
    let web = first.ws_url().and_then(|url| url.parse::<NodeAddress>().ok());
    let second = start(node(1).peer(web.expect("it listens"))).await;
    let multiaddr = first.p2p_addresses().swap_remove(0);
    let third = start(
        node(2)
            .peer(NodeAddress::Multiaddr(multiaddr))
            .peer("b.example:4190".parse().expect("an address")),
    )
    .await;
    let nodes = [first, second, third];
    let met = async {
        while nodes.iter().any(|node| node.node().peers(PeerClass::Connected).len() < NODES - 1) {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(MEETING_TIME, met).await.expect("the nodes find each other");
    let mut random = StdRng::seed_from_u64(seed);
    for number in 0..MESSAGES {
        if number == MESSAGES / 4 {
            network.cut(ip(0), ip(1));
        }
        if number == MESSAGES / 2 {
            network.mend(ip(0), ip(1));
        }
        for (sender, node) in nodes.iter().enumerate() {
            time::sleep(Duration::from_millis(random.random_range(1..200))).await;
            let tag = if random.random() { Tag::AV } else { Tag::TX };
            let mut body = vec![0; random.random_range(2..1_000)];
            body[..2].copy_from_slice(&[sender, number].map(|byte| byte as u8));
            let admission = node.node().broadcast(Outbound::new(tag, body));
            assert_eq!(admission, Ok(Admission::Queued));
        }
    }
    time::sleep(LAST_WORDS).await;
    for node in nodes {
        // The trace is complete, so the result of the stop does not matter.
        let _ = node.stop(Duration::from_secs(5)).await;
    }
    let mut trace = trace.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *trace)
}
