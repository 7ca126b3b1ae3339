//! Nodes that nobody can dial and whose hosts meet within this process, and peers that break the rules of signals. Issue 13, 3.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, future::BoxFuture};
use gossip::{
    Admission, GossipNode, LinkPath, NetworkProfile, NodeAddress, Outbound, PeerClass, Tag,
};
use libp2p::Multiaddr;
use runtime::time;
use tokio_util::codec::Framed;

use super::{
    exchange::{HostSignals, exchange, signals},
    signal::SignalCodec,
    *,
};
use crate::{
    GossipStreams, OpenError, P2pConfig, P2pEvent, ReachConfig, RelayLimits,
    given::channels::{
        ChannelEvents, ChannelTransport, DialledChannels, PeerChannels, tests::Wire,
    },
    tests::host::{Node, PATIENCE, new_key, until},
};

const PROFILE: &NetworkProfile = &NetworkProfile::TANDEM;

const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// The hosts that offer a connection wait here, by a number, for the end that another host makes for them.
#[derive(Clone, Default)]
struct Ether {
    waiting: Arc<Mutex<HashMap<String, Waiting>>>,
    next: Arc<AtomicUsize>,
}

enum Waiting {
    Offered(ChannelEvents),
    Made(Wire),
}

impl fmt::Debug for Ether {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ether")
    }
}

impl Ether {
    fn take(&self, number: &str) -> Option<Waiting> {
        self.waiting.lock().unwrap().remove(number)
    }

    fn put(&self, number: &str, waiting: Waiting) {
        self.waiting.lock().unwrap().insert(number.to_owned(), waiting);
    }

    async fn offer(self, mut signals: Signals, events: ChannelEvents) -> io::Result<Wire> {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        self.put(&number, Waiting::Offered(events));
        signals.sender.send(Signal::Offer(number.clone()))?;
        signals.sender.send(Signal::Candidate("{}".to_owned()))?;
        let answer = signals.receiver.next().await;
        assert_eq!(answer, Some(Signal::Answer(number.clone())));
        let Some(Waiting::Made(wire)) = self.take(&number) else { panic!("no connection") };
        Ok(wire)
    }

    async fn answer(self, mut signals: Signals, events: ChannelEvents) -> io::Result<Wire> {
        let Some(Signal::Offer(number)) = signals.receiver.next().await else {
            return Err(io::Error::other("no offer"));
        };
        let Some(Waiting::Offered(theirs)) = self.take(&number) else {
            return Err(io::Error::other("nobody offers this"));
        };
        let held = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
        let [their_end, our_end] = Wire::pair(&[theirs, events], &held);
        self.put(&number, Waiting::Made(their_end));
        signals.sender.send(Signal::Answer(number))?;
        Ok(our_end)
    }
}

impl ChannelTransport for Ether {
    fn carries(&self, _: &Multiaddr) -> bool {
        false
    }

    fn dial(
        &self,
        _: Multiaddr,
        _: ChannelEvents,
    ) -> BoxFuture<'static, io::Result<DialledChannels>> {
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }

    fn meets(&self) -> bool {
        true
    }

    fn meet(
        &self,
        role: MeetingRole,
        signals: Signals,
        events: ChannelEvents,
    ) -> BoxFuture<'static, io::Result<Box<dyn PeerChannels>>> {
        let ether = self.clone();
        async move {
            let wire = match role {
                MeetingRole::Offers => ether.offer(signals, events).await?,
                MeetingRole::Answers => ether.answer(signals, events).await?,
            };
            Ok(Box::new(wire) as Box<dyn PeerChannels>)
        }
        .boxed()
    }
}

async fn relay() -> Node {
    Node::start_with(PROFILE, "net", new_key(), |mut config| {
        config.gossip = GossipStreams::Off;
        config.reach = ReachConfig::default().with_relay(RelayLimits::default());
        config
    })
    .await
}

/// A node that listens nowhere, and meets others in `ether`.
async fn hidden(ether: &Ether, change: impl FnOnce(&mut P2pConfig)) -> Node {
    Node::start_with(PROFILE, "net", new_key(), |mut config| {
        config.listen = Vec::new();
        config.channel_transports = vec![Arc::new(ether.clone())];
        change(&mut config);
        config
    })
    .await
}

/// A hidden node with a place at `relay`, the address at which others meet it, and the one of its circuits.
async fn behind(relay: &Node, ether: &Ether) -> (Node, String, String) {
    let through: Multiaddr = format!("{}/p2p-circuit", relay.address()).parse().unwrap();
    let node = hidden(ether, |config| config.listen = vec![through]).await;
    until("there is a reservation", || node.network.listen_addresses().len() == 2).await;
    let (met, through) = node
        .network
        .listen_addresses()
        .into_iter()
        .partition::<Vec<_>, _>(|address| address.contains("/p2p-circuit/webrtc/p2p/"));
    (node, met[0].clone(), through[0].clone())
}

fn counted(node: &Node, event: P2pEvent) -> u64 {
    node.network.metrics().count(event)
}

fn is_met(node: &Node) -> bool {
    let peers = node.network.peers(PeerClass::Connected);
    peers.len() == 1 && peers[0].path == LinkPath::Direct
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_nobody_can_dial_meet_and_their_relay_may_go() {
    let (relay, ether) = (relay().await, Ether::default());
    let (target, address, _) = behind(&relay, &ether).await;
    let peers = vec![NodeAddress::Multiaddr(address)];
    let dialler = hidden(&ether, |config| config.peers = peers).await;
    until("they are linked directly", || is_met(&target) && is_met(&dialler)).await;
    for node in [&target, &dialler] {
        let peers = node.network.peers(PeerClass::Connected);
        assert!(peers[0].address.contains("/p2p-circuit/webrtc"), "{}", peers[0].address);
        assert_eq!(counted(node, P2pEvent::Met), 1);
    }
    let links = [&target, &dialler].map(|node| node.network.peers(PeerClass::Connected)[0].id);
    let _ended = relay.network.stop(Duration::from_secs(2)).await;
    drop(relay);
    until("the place at the relay is gone", || target.network.listen_addresses().is_empty()).await;
    for (from, to, byte) in [(&target, &dialler, 1), (&dialler, &target, 2)] {
        let large = vec![byte; 100_000];
        let sent = from.network.broadcast(Outbound::new(Tag::VB, large.clone()));
        assert_eq!(sent, Ok(Admission::Queued));
        until("it comes whole", || to.heard() == [large.clone()]).await;
    }
    let after = [&target, &dialler].map(|node| node.network.peers(PeerClass::Connected)[0].id);
    assert_eq!(after, links, "the links are those from before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_to_a_peer_that_is_met_first_goes_over_the_direct_connection() {
    let (relay, ether) = (relay().await, Ether::default());
    let (_target, address, _) = behind(&relay, &ether).await;
    let quiet = |config: &mut P2pConfig| config.gossip = GossipStreams::Off;
    let client = hidden(&ether, quiet).await;
    let to = NodeAddress::Multiaddr(address);
    let opened = client.network.open_stream_to(&to, vec![PING], PATIENCE).await.unwrap();
    assert!(opened.address().to_string().contains("/webrtc/"), "{}", opened.address());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_host_meets_nobody_says_so() {
    let (relay, ether) = (relay().await, Ether::default());
    let (_target, address, _) = behind(&relay, &ether).await;
    let node = Node::start(PROFILE, "net", new_key()).await;
    let to = NodeAddress::Multiaddr(address);
    let error = node.network.open_stream_to(&to, vec![PING], PATIENCE).await.unwrap_err();
    let OpenError::Dial(why) = error else { panic!("{error}") };
    assert!(format!("{why:?}").contains("NoHost"), "{why:?}");
}

// "Bad input": signals of a peer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_breaks_the_rules_of_signals_is_refused_and_counted() {
    let (relay, ether) = (relay().await, Ether::default());
    let (target, _, circuit) = behind(&relay, &ether).await;
    let attacker = Node::start(PROFILE, "net", new_key()).await;
    let open = async |address: &str| {
        let to = NodeAddress::Multiaddr(address.to_owned());
        attacker.network.open_stream_to(&to, vec![SIGNALLING], PATIENCE).await.unwrap()
    };
    let faults = || counted(&target, P2pEvent::SignalFault);
    let refused = || counted(&target, P2pEvent::MeetingRefused);
    // An answer that nobody asked for, an offer of too many bytes, a candidate first, and no protobuf.
    for (number, bytes) in
        [&b"\x05\x08\x01\x12\x01x"[..], b"\xff\xff\x01", b"\x06\x08\x02\x12\x02{}", b"\x01\xff"]
            .into_iter()
            .enumerate()
    {
        let mut opened = open(&circuit).await;
        assert!(!opened.address().to_string().contains("/webrtc/"));
        opened.stream.write_all(bytes).await.unwrap();
        opened.stream.flush().await.unwrap();
        let end = time::timeout(PATIENCE, opened.stream.read(&mut [0; 1])).await;
        assert!(!matches!(end.expect("an end"), Ok(1..)), "it was answered");
        until("the fault is counted", || faults() == number as u64 + 1).await;
    }
    assert_eq!(refused(), 0);
    // A meeting whose peer says nothing has a place, and a second meeting of the same peer has none.
    let _silent = open(&circuit).await;
    let mut second = open(&circuit).await;
    until("the second one is refused", || refused() == 1).await;
    let end = time::timeout(PATIENCE, second.stream.read(&mut [0; 1])).await;
    assert!(!matches!(end.expect("an end"), Ok(1..)));
    // Others are met meanwhile.
    let peer = hidden(&ether, |_| {}).await;
    let met = target.network.listen_addresses();
    let met = met.iter().find(|address| address.contains("/webrtc/")).unwrap().clone();
    let to = NodeAddress::Multiaddr(met);
    peer.network.open_stream_to(&to, vec![PING], PATIENCE).await.unwrap();
    // Over a direct connection there is nothing to tell.
    let direct = format!("/p2p/{}", target.network.identity());
    let to = NodeAddress::Multiaddr(direct);
    let _stream = peer.network.open_stream_to(&to, vec![SIGNALLING], PATIENCE).await.unwrap();
    until("it is refused", || refused() == 2).await;
}

fn framed() -> [Framed<tokio::io::DuplexStream, SignalCodec>; 2] {
    let (near, far) = tokio::io::duplex(1 << 16);
    [near, far].map(|end| Framed::new(end, SignalCodec))
}

fn candidate(number: usize) -> Signal {
    Signal::Candidate(number.to_string())
}

#[tokio::test]
async fn signals_of_both_ends_arrive_in_their_order() {
    let [mut near, mut far] = framed();
    let have_all = tokio::sync::Barrier::new(2);
    let host = async |role, mut signals: Signals| {
        let (own, other) = match role {
            MeetingRole::Offers => (Signal::Offer("o".into()), Signal::Answer("a".into())),
            MeetingRole::Answers => (Signal::Answer("a".into()), Signal::Offer("o".into())),
        };
        signals.sender.send(own)?;
        for number in 0..64 {
            signals.sender.send(candidate(number))?;
        }
        assert!(signals.sender.send(candidate(64)).is_err(), "it is one too many");
        assert_eq!(signals.receiver.next().await, Some(other));
        for number in 0..64 {
            assert_eq!(signals.receiver.next().await, Some(candidate(number)));
        }
        have_all.wait().await;
        io::Result::Ok(())
    };
    let [(one, of_one), (other, of_other)] = [signals(), signals()];
    let (offers, answers) = (MeetingRole::Offers, MeetingRole::Answers);
    let both = async {
        tokio::join!(
            exchange(&mut near, offers, host(offers, one), of_one),
            exchange(&mut far, answers, host(answers, other), of_other)
        )
    };
    let (one, other) = time::timeout(PATIENCE, both).await.expect("an end");
    assert!(one.is_ok() && other.is_ok());
}

/// The result of a meeting whose host answers and waits, with a peer that sends `signals` and ends.
async fn told(sent: Vec<Signal>) -> Result<(), MeetingError> {
    let [mut near, mut far] = framed();
    let (mut own, of_host): (Signals, HostSignals) = signals();
    let host = async move {
        own.sender.send(Signal::Answer("a".into()))?;
        while own.receiver.next().await.is_some() {}
        Ok(())
    };
    for signal in sent {
        futures::SinkExt::send(&mut far, signal).await.unwrap();
    }
    drop(far);
    let met = exchange(&mut near, MeetingRole::Answers, host, of_host);
    time::timeout(PATIENCE, met).await.expect("an end")
}

#[tokio::test]
async fn the_end_of_signals_ends_a_meeting_only_before_the_description() {
    let early = told(Vec::new()).await;
    assert!(matches!(early, Err(MeetingError::Signals(_))), "{early:?}");
    let late = told(vec![Signal::Offer("o".into()), candidate(1)]).await;
    assert!(late.is_ok(), "{late:?}");
    let twice = told(vec![Signal::Offer("o".into()), Signal::Offer("o".into())]).await;
    assert!(matches!(twice, Err(MeetingError::OfPeer(SignalFault::Misplaced))), "{twice:?}");
}

#[tokio::test]
async fn a_host_that_breaks_the_rules_fails_its_own_meeting() {
    let [mut near, _far] = framed();
    let (own, of_host) = signals();
    own.sender.send(candidate(1)).unwrap();
    let met =
        exchange(&mut near, MeetingRole::Offers, std::future::pending::<io::Result<()>>(), of_host);
    let met = time::timeout(PATIENCE, met).await.expect("an end");
    assert!(matches!(met, Err(MeetingError::OfHost(SignalFault::Misplaced))), "{met:?}");
}
