//! The interest of a node of ours: when it tells its peers of it, and the bytes that it is spared, counted on its sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gossip::{
    Admission, NetworkId, NetworkProfile, NodeAddress, Outbound, PeerClass, Tag,
    wire::{features::Features, topics::Topics},
};
use serde::Deserialize;
use tandem::{
    Mode, NodeBuilder, Relaying, Running, Shutdown, StartError, WantError, WantedTags,
    services::blocks::{Capacity, Responder},
};
use testkit::{
    harness::{RawPeer, fence_with_interests},
    recorder::Recorder,
    wait::{soon, until},
    websocket::{RawWebSocket, upgrade_request_with},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    peer_features: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    event: String,
    mi_received: Vec<String>,
}

fn network() -> NetworkId {
    NetworkId::new("interest-v1").unwrap()
}

fn node(mode: Mode) -> NodeBuilder {
    NodeBuilder::new(network()).profile(&NetworkProfile::ALGORAND).mode(mode)
}

async fn start(node: NodeBuilder) -> Running {
    node.start(&CancellationToken::new()).await.unwrap()
}

async fn stop(node: Running) {
    assert_eq!(node.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}

fn ws_address(node: &Running) -> SocketAddr {
    node.ws_url().unwrap().strip_prefix("http://").unwrap().parse().unwrap()
}

/// The messages of interest that a peer has got by now, each as its tags in order.
async fn interests(raw: &mut impl RawPeer) -> Vec<String> {
    let heard = fence_with_interests(raw, 1).await;
    let listed = |payload: bytes::Bytes| {
        let topics = Topics::decode(&payload).unwrap();
        let list = String::from_utf8(topics.get("tags").unwrap().to_vec()).unwrap();
        let mut tags: Vec<&str> = list.split(',').collect();
        tags.sort_unstable();
        tags.join(",")
    };
    heard.into_iter().filter(|(tag, _)| *tag == Tag::MI).map(|(_, mi)| listed(mi)).collect()
}

/// The wish of an application that follows the rule of existing nodes: one that takes part in consensus wants
/// transactions, and others do not.
fn wish(takes_part: bool) -> WantedTags {
    if takes_part { WantedTags::Usual } else { WantedTags::UsualBut(vec![Tag::TX]) }
}

// Issue 10, 10: sections 3.3 and 3.4 of the wire facts.
#[tokio::test]
async fn a_node_tells_of_its_interest_when_existing_nodes_do() {
    let cases = include_str!("../../../gossip/testdata/vectors/mi_sending.json");
    let cases = serde_json::from_str::<Vectors>(cases).unwrap().cases;
    assert_eq!(cases.len(), 6);
    for case in cases {
        let relays = case.name == "force_relay_messages";
        let follows = case.name.starts_with("non_relay_");
        let relaying = if relays { Relaying::Accepted } else { Relaying::Off };
        let ours = node(Mode::WebSocket).relaying(relaying);
        let ours = start(ours.handler(Tag::UE, Responder::new(Capacity::default()))).await;
        let features = Features::parse(&case.peer_features, "2.2");
        let request = upgrade_request_with(&NetworkProfile::ALGORAND, &network(), features);
        let mut raw = RawWebSocket::connect(ws_address(&ours), &request).await.unwrap();
        for step in &case.steps {
            let takes_part = step.event.rsplit_once("participating=").map(|(_, is)| is == "true");
            if let Some(takes_part) = takes_part.filter(|_| follows || relays) {
                match ours.want(wish(takes_part)) {
                    Ok(()) => assert!(!relays, "{}", case.name),
                    Err(error) => assert_eq!((error, relays), (WantError::Relays, true)),
                }
            }
            if step.event != "connected" {
                ours.node().network_advanced();
            }
            // A node that always fetches transactions never tells anybody: its application says nothing.
            let expected = if follows || relays { step.mi_received.clone() } else { Vec::new() };
            assert_eq!(step.mi_received, expected, "{}", case.name);
            let shown = format!("{}: {}", case.name, step.event);
            assert_eq!(interests(&mut raw).await, expected, "{shown}");
        }
        stop(ours).await;
    }
}

// Issue 10, 10: a later peer hears first of all what the others were told, and a relay says nothing over libp2p.
#[tokio::test]
async fn a_later_peer_is_told_of_the_interest_first() {
    let ours = node(Mode::WebSocket).want(WantedTags::Only(vec![Tag::VB]));
    let ours = start(ours.handler(Tag::UE, Responder::new(Capacity::default()))).await;
    let connect = async || {
        let features = Features::announcing(gossip::wire::features::VoteCompression::Off);
        let request = upgrade_request_with(&NetworkProfile::ALGORAND, &network(), features);
        RawWebSocket::connect(ws_address(&ours), &request).await.unwrap()
    };
    let protocol = "MI,MS,NI,NP,TS,UE";
    let mut first = connect().await;
    assert_eq!(interests(&mut first).await, [format!("{protocol},VB")]);
    let asked = ours.ask_for(&[Tag::SP, Tag::UE]).unwrap();
    let twice = ours.ask_for(&[Tag::SP]).unwrap();
    assert_eq!(interests(&mut first).await, ["MI,MS,NI,NP,SP,TS,UE,VB"]);
    let mut second = connect().await;
    assert_eq!(soon("a message", second.recv()).await.unwrap().0, Tag::MI);
    drop(asked);
    assert_eq!(interests(&mut first).await, [""; 0], "somebody else still asks for it");
    drop(twice);
    for raw in [&mut first, &mut second] {
        assert_eq!(interests(raw).await, [format!("{protocol},VB")]);
    }
    // A handler that is added later counts where handlers decide.
    ours.want(WantedTags::Handled).unwrap();
    assert_eq!(interests(&mut first).await, [protocol]);
    ours.handle(Tag::AV, Recorder::default()).unwrap();
    assert_eq!(interests(&mut first).await, [format!("AV,{protocol}")]);
    let everything = ours.ask_for(&[]).unwrap();
    assert_eq!(interests(&mut first).await, ["AV,MI,MS,NI,NP,PP,SP,TS,TX,UE,VB"]);
    drop(everything);
    for (wanted, expected) in [
        (WantedTags::Only(vec![Tag::UE]), WantError::OfProtocol { tag: Tag::UE }),
        (WantedTags::UsualBut(vec![Tag(*b"zz")]), WantError::UnknownTag { tag: Tag(*b"zz") }),
    ] {
        assert_eq!(ours.want(wanted), Err(expected));
    }
    assert_eq!(interests(&mut first).await, [format!("AV,{protocol}")]);
    stop(ours).await;
}

#[tokio::test]
async fn a_relay_that_wants_some_tags_only_does_not_start() {
    let relay = node(Mode::WebSocket).relaying(Relaying::OnRequest).want(WantedTags::Handled);
    assert!(matches!(relay.check(), Err(StartError::Want(WantError::Relays))));
    let unknown = node(Mode::WebSocket).want(WantedTags::Only(vec![Tag(*b"zz")]));
    assert!(matches!(unknown.check(), Err(StartError::Want(WantError::UnknownTag { .. }))));
}

/// A way to a node that counts the bytes which come back over it.
struct CountedWay {
    address: SocketAddr,
    bytes: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl CountedWay {
    /// To `to`, for one connection.
    async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bytes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&bytes);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(to).await.unwrap();
            let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
                (near.into_split(), far.into_split());
            let up = async { drop(tokio::io::copy(&mut near_in, &mut far_out).await) };
            let down = async {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = far_in.read(&mut buffer).await {
                    counted.fetch_add(read, Ordering::Relaxed);
                    if near_out.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = up => {}
                () = down => {}
            }
        });
        Self { address, bytes, _tasks: tasks }
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The address of a node behind a counted way.
async fn behind(relay: &Running, mode: Mode) -> (NodeAddress, CountedWay) {
    if mode == Mode::WebSocket {
        let way = CountedWay::to(ws_address(relay)).await;
        return (way.address.to_string().parse().unwrap(), way);
    }
    let address = relay.p2p_addresses().remove(0);
    let port = |address: &str| address.split('/').nth(4).unwrap().to_owned();
    let to = format!("127.0.0.1:{}", port(&address)).parse().unwrap();
    let way = CountedWay::to(to).await;
    let own = format!("/tcp/{}/", way.address.port());
    (address.replace(&format!("/tcp/{}/", port(&address)), &own).parse().unwrap(), way)
}

/// Bytes that do not shrink.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut word = seed + 1;
    let bytes = std::iter::from_fn(|| {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        Some(word.to_be_bytes()[1])
    });
    bytes.take(len).collect()
}

async fn a_subscriber_is_spared_what_it_does_not_want(mode: Mode) {
    const MESSAGES: u8 = 50;
    const VOTE_BYTES: usize = 600;
    let relay = start(node(mode).relaying(Relaying::Accepted)).await;
    let (votes, all) = (Recorder::default(), Recorder::default());
    let (address, way) = behind(&relay, mode).await;
    let subscriber = node(mode).want(WantedTags::Handled).peer(address);
    let subscriber = start(subscriber.handler(Tag::AV, votes.clone())).await;
    let (address, whole_way) = behind(&relay, mode).await;
    let mut usual = node(mode).peer(address);
    for tag in [Tag::AV, Tag::PP, Tag::TX, Tag::VB] {
        usual = usual.handler(tag, all.clone());
    }
    let usual = start(usual).await;
    let node = relay.node();
    until("both are peers", || node.peers(PeerClass::Connected).len() == 2).await;
    // One of them wants no bundle, once its interest was read, and the other is sent every transaction.
    let drops = || relay.broadcaster().metrics().drops(tandem::DropReason::NotInterested);
    for probe in 0.. {
        let [bundle, transaction] = [100, 101].map(|len| noise(len, 1_000_000 + probe));
        for (tag, body) in [(Tag::VB, &bundle), (Tag::TX, &transaction)] {
            let written = node.broadcast_and_wait(Outbound::new(tag, body.clone()));
            soon("a probe is written", written).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if drops() > 0 && [&bundle, &transaction].iter().all(|body| all.times(body) > 0) {
            break;
        }
    }
    let (spared_from, whole_from) = (way.bytes(), whole_way.bytes());
    let heard_from = all.count();
    for number in 0..MESSAGES {
        for (tag, bytes) in
            [(Tag::AV, VOTE_BYTES), (Tag::VB, 30_000), (Tag::TX, 2_000), (Tag::PP, 9_000)]
        {
            let body = noise(bytes, u64::from(number) << 16 | bytes as u64);
            assert_eq!(node.broadcast(Outbound::new(tag, body)), Ok(Admission::Queued));
        }
    }
    let messages = usize::from(MESSAGES);
    until("every vote is heard", || votes.count() == messages).await;
    until("the other hears everything", || all.count() - heard_from == 4 * messages).await;
    let (spared, whole) = (way.bytes() - spared_from, whole_way.bytes() - whole_from);
    assert!(whole > messages * (VOTE_BYTES + 41_000), "{whole}");
    // Control messages of libp2p, such as pings and the heartbeats of topics, come on top of votes and frames.
    let bound = messages * (VOTE_BYTES + 100) + 10_000;
    assert!((messages * VOTE_BYTES..bound).contains(&spared), "{spared} of {whole}");
    stop(usual).await;
    stop(subscriber).await;
    stop(relay).await;
}

// Issue 10, 10: an application could not say that it wants only some tags.
#[tokio::test]
async fn a_subscriber_over_websocket_is_spared_the_bytes_of_what_it_does_not_want() {
    a_subscriber_is_spared_what_it_does_not_want(Mode::WebSocket).await;
}

#[tokio::test]
async fn a_subscriber_over_libp2p_is_spared_the_bytes_of_what_it_does_not_want() {
    a_subscriber_is_spared_what_it_does_not_want(Mode::Libp2p).await;
}
