//! Ownership of links: which of several links to a node is used, and which one takes over.

use std::{sync::Arc, time::Duration};

use broadcaster::{
    Attached, Broadcaster, LaneSinks, Limits, Link, LinkHooks, LinkInfo, PeerEvent, Relaying,
    Setup, TopicMessage,
};
use bytes::Bytes;
use gossip::{
    Admission, BoxFuture, Direction, DisconnectReason, Identity, LinkId, LinkPath, NetworkProfile,
    Outbound, PeerClass, Tag, Transport,
};
use mesh::{LinkClaim, Ruling};
use runtime::TaskSet;
use testkit::{
    harness::{RawPeer, next_of},
    memory::{MemoryPeer, Shape, pair},
    wait::{soon, until},
};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);
const TWIN: Identity = Identity::from_ed25519([7; 32]);

/// The reaction of a link's other end to a ping.
#[derive(Clone, Copy)]
enum Asked {
    Answers,
    IsSilent,
}

impl LinkHooks for Asked {
    fn control(&self, _: LinkId, _: Tag, _: &Bytes) -> Result<(), DisconnectReason> {
        Ok(())
    }

    fn sign_of_life(&self) -> BoxFuture<'static, ()> {
        match self {
            Self::Answers => Box::pin(time::sleep(Duration::from_millis(100))),
            Self::IsSilent => Box::pin(std::future::pending()),
        }
    }
}

struct Node {
    broadcaster: Broadcaster,
    tasks: TaskSet,
}

impl Node {
    fn start(setup: Setup) -> Self {
        let token = CancellationToken::new();
        Self { broadcaster: Broadcaster::start(setup, &token), tasks: TaskSet::new(&token) }
    }

    fn of(profile: &'static NetworkProfile) -> Self {
        Self::start(Setup::new(profile))
    }

    /// A link that claims to run over `transport`, not yet attached.
    fn link(&self, transport: Transport, asked: Asked) -> (MemoryPeer, Pending) {
        let (near, far) = pair(Shape::default(), &self.tasks);
        let (sink, source) = near.into_halves(self.broadcaster.assembly());
        let about = LinkInfo::new(transport, Direction::Inbound, "here".to_owned());
        let link = Link {
            about,
            sinks: LaneSinks::Shared(sink),
            sources: vec![source],
            greeting: Vec::new(),
            hooks: Some(Arc::new(asked)),
            codec: None,
            gauge: None,
        };
        (MemoryPeer::new(far, TWIN), link)
    }

    /// The claim of a link; of two over one transport, the one with the smaller tie wins.
    fn claim(&self, transport: Transport, tie: u8) -> LinkClaim {
        LinkClaim {
            link: self.broadcaster.next_link_id(),
            identity: TWIN,
            transport,
            path: LinkPath::Direct,
            dialer: TWIN,
            session: None,
            run: None,
            tie: [tie; 32],
        }
    }

    /// A link of the twin, attached with its claim.
    fn twin(&self, transport: Transport, tie: u8, asked: Asked) -> (MemoryPeer, Attached) {
        let (peer, link) = self.link(transport, asked);
        let claim = self.broadcaster.claim(self.claim(transport, tie));
        (peer, self.broadcaster.attach_claimed(claim, link).expect("the node runs"))
    }

    fn peers(&self) -> Vec<LinkId> {
        self.broadcaster.peers(PeerClass::Connected).iter().map(|peer| peer.id).collect()
    }

    fn offer(&self, tag: Tag, body: impl Into<Bytes>) {
        let admission = self.broadcaster.broadcast(&Outbound::new(tag, body));
        assert_eq!(admission, Ok(Admission::Queued));
    }
}

type Pending = Link<testkit::memory::MemorySink, testkit::memory::MemorySource>;

// Issue 9, 6. Before, a released claim left both links without a peer.
#[tokio::test(start_paused = true)]
async fn a_benched_link_takes_over_when_the_winner_dies() {
    let node = Node::of(&NetworkProfile::TANDEM);
    let (mut first, loser) = node.twin(Transport::Libp2p, 2, Asked::Answers);
    let (second, winner) = node.twin(Transport::Libp2p, 1, Asked::Answers);
    assert_eq!(node.peers(), [winner.peer]);
    drop(second);
    until("the other one is used", || node.peers() == [loser.peer]).await;
    assert_eq!(node.broadcaster.holder(&TWIN), Some(loser.peer));
    node.offer(Tag::AV, "vote");
    assert_eq!(next_of(&mut first, Tag::AV).await, "vote");
    // It stays, although the time of a retired link is over.
    time::sleep(10 * SECOND).await;
    assert_eq!(node.peers(), [loser.peer]);
}

// Issue 9, 6.
#[tokio::test(start_paused = true)]
async fn unwritten_messages_of_a_dead_winner_go_to_the_link_that_takes_over() {
    let node = Node::of(&NetworkProfile::TANDEM);
    let (mut first, _loser) = node.twin(Transport::Libp2p, 2, Asked::Answers);
    let (_second, winner) = node.twin(Transport::Libp2p, 1, Asked::Answers);
    // More than the pipe holds, and the other end does not read.
    node.offer(Tag::VB, vec![1; 500_000]);
    time::sleep(SECOND / 2).await;
    node.broadcaster.disconnect(winner.peer, DisconnectReason::Silent);
    assert_eq!(next_of(&mut first, Tag::VB).await, vec![1; 500_000]);
}

// Issue 9, 6. Before, the newcomer was ended, and the dead holder kept for a minute.
#[tokio::test(start_paused = true)]
async fn a_refused_newcomer_takes_over_from_a_holder_that_answers_no_ping() {
    let node = Node::of(&NetworkProfile::TANDEM);
    let (_first, mut holder) = node.twin(Transport::Libp2p, 1, Asked::IsSilent);
    let (mut second, newcomer) = node.twin(Transport::Libp2p, 2, Asked::Answers);
    let began = Instant::now();
    assert_eq!(node.peers(), [holder.peer]);
    assert_eq!(soon("the dead one ends", holder.ended()).await, DisconnectReason::Silent);
    assert!(
        began.elapsed() >= 5 * SECOND && began.elapsed() < 11 * SECOND,
        "{:?}",
        began.elapsed()
    );
    assert_eq!(node.peers(), [newcomer.peer]);
    node.offer(Tag::AV, "vote");
    assert_eq!(next_of(&mut second, Tag::AV).await, "vote");
}

// Issue 9, 6.
#[tokio::test(start_paused = true)]
async fn a_refused_newcomer_ends_if_the_holder_answers() {
    let node = Node::of(&NetworkProfile::TANDEM);
    let (_first, holder) = node.twin(Transport::Libp2p, 1, Asked::Answers);
    let (_second, mut newcomer) = node.twin(Transport::Libp2p, 2, Asked::Answers);
    assert_eq!(soon("it ends", newcomer.ended()).await, DisconnectReason::Duplicate);
    assert_eq!(node.peers(), [holder.peer]);
}

impl Node {
    /// A link over plain WebSocket whose exchange ends with a message that names the twin.
    fn claims_to_be_the_twin(&self, asked: Asked) -> (MemoryPeer, Attached) {
        let (peer, link) = self.link(Transport::WebSocket, asked);
        let id = self.broadcaster.next_link_id();
        let attached = self.broadcaster.attach(id, link).expect("the node runs");
        self.broadcaster.verified(LinkClaim { link: id, ..self.claim(Transport::WebSocket, 0) });
        (peer, attached)
    }
}

// Issue 9, 6: a third party can relay the exchange over plain WebSocket.
#[tokio::test(start_paused = true)]
async fn an_identity_that_is_only_claimed_displaces_none_that_was_proven() {
    for profile in NetworkProfile::ALL {
        let node = Node::of(profile);
        let (_first, holder) = node.twin(Transport::Libp2p, 9, Asked::Answers);
        for _ in 0..20 {
            let (_second, mut newcomer) = node.claims_to_be_the_twin(Asked::Answers);
            assert_eq!(soon("it ends", newcomer.ended()).await, DisconnectReason::Duplicate);
            assert_eq!(node.peers(), [holder.peer], "{}", profile.name);
        }
    }
}

// Issue 9, 6. Before, a dead link that had proved its identity was found after 50 s only, by its own transport.
#[tokio::test(start_paused = true)]
async fn a_dead_link_that_proved_its_identity_ends_when_a_claim_makes_it_answer() {
    for profile in NetworkProfile::ALL {
        let node = Node::of(profile);
        let (_first, mut holder) = node.twin(Transport::Libp2p, 9, Asked::IsSilent);
        let began = Instant::now();
        let (mut second, newcomer) = node.claims_to_be_the_twin(Asked::Answers);
        assert_eq!(soon("the dead one ends", holder.ended()).await, DisconnectReason::Silent);
        let after = began.elapsed();
        assert!((5 * SECOND..6 * SECOND).contains(&after), "{}: {after:?}", profile.name);
        if node.peers() == [newcomer.peer] {
            node.offer(Tag::AV, "vote");
            assert_eq!(next_of(&mut second, Tag::AV).await, "vote");
        } else {
            panic!("{}: {:?} took over", profile.name, node.peers());
        }
    }
}

/// A link that answers the first ping, and none after it.
#[derive(Clone, Default)]
struct AnswersOnce(Arc<std::sync::atomic::AtomicUsize>);

impl LinkHooks for AnswersOnce {
    fn control(&self, _: LinkId, _: Tag, _: &Bytes) -> Result<(), DisconnectReason> {
        Ok(())
    }

    fn sign_of_life(&self) -> BoxFuture<'static, ()> {
        match self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Box::pin(async {}),
            _ => Box::pin(std::future::pending()),
        }
    }
}

// Issue 9, 6: somebody who passes exchanges on could ask a busy link again and again, until it once misses an answer.
#[tokio::test(start_paused = true)]
async fn a_claim_makes_a_link_that_has_answered_answer_again_after_a_minute_only() {
    let node = Node::of(&NetworkProfile::TANDEM);
    let (_first, link) = node.link(Transport::Libp2p, Asked::Answers);
    let hooks = AnswersOnce::default();
    let link = Link { hooks: Some(Arc::new(hooks.clone())), ..link };
    let claim = node.broadcaster.claim(node.claim(Transport::Libp2p, 9));
    let mut holder = node.broadcaster.attach_claimed(claim, link).expect("the node runs");
    let began = Instant::now();
    while began.elapsed() < 50 * SECOND {
        let (_second, mut newcomer) = node.claims_to_be_the_twin(Asked::Answers);
        assert_eq!(soon("it ends", newcomer.ended()).await, DisconnectReason::Duplicate);
        assert_eq!(node.peers(), [holder.peer]);
    }
    assert_eq!(hooks.0.load(std::sync::atomic::Ordering::Relaxed), 1, "pings");
    time::sleep(10 * SECOND).await;
    let (_second, _newcomer) = node.claims_to_be_the_twin(Asked::Answers);
    assert_eq!(soon("it ends", holder.ended()).await, DisconnectReason::Silent);
}

// Issue 9, 6: with the first link kept, a newcomer is attached only after the holder failed to answer.
#[tokio::test(start_paused = true)]
async fn where_the_first_link_stays_a_newcomer_prevails_over_a_dead_one_only() {
    for (asked, expected) in [(Asked::Answers, false), (Asked::IsSilent, true)] {
        let node = Node::of(&NetworkProfile::ALGORAND);
        let (_first, holder) = node.twin(Transport::WebSocket, 1, asked);
        let claim = node.broadcaster.claim(node.claim(Transport::WebSocket, 1));
        assert!(matches!(claim.ruling(), Ruling::Refuse { winner, .. } if winner == holder.peer));
        assert_eq!(node.broadcaster.prevails(&claim).await, expected);
        assert_eq!(node.broadcaster.claimed(), 1);
        drop(claim);
        assert_eq!(node.broadcaster.claimed(), usize::from(!expected));
    }
}

// Issue 9, 6. Before, one of two networks held the claim, also after the link had ended.
#[tokio::test(start_paused = true)]
async fn a_claim_does_not_outlive_its_link() {
    let node = Node::of(&NetworkProfile::TANDEM);
    let (_peer, attached) = node.twin(Transport::Libp2p, 1, Asked::Answers);
    assert_eq!(node.broadcaster.holder(&TWIN), Some(attached.peer));
    node.broadcaster.disconnect(attached.peer, DisconnectReason::Requested);
    assert_eq!(node.broadcaster.holder(&TWIN), None);
    let claim = node.broadcaster.claim(node.claim(Transport::Libp2p, 1));
    assert_eq!(claim.ruling(), Ruling::Keep);
    drop(claim);
    assert_eq!(node.broadcaster.claimed(), 0);
}

// Issue 9, 6. Before, a message from a losing link went back to its sender over the other link.
#[tokio::test(start_paused = true)]
async fn a_message_is_not_sent_back_to_its_node_by_another_link() {
    let node = Node::start(Setup::new(&NetworkProfile::TANDEM).relaying(Relaying::Accepted));
    let (mut old, _loser) = node.twin(Transport::Libp2p, 2, Asked::Answers);
    let (mut new, _winner) = node.twin(Transport::Libp2p, 1, Asked::Answers);
    let (mut third, link) = node.link(Transport::Libp2p, Asked::Answers);
    let _third = node.broadcaster.attach(node.broadcaster.next_link_id(), link).unwrap();
    old.send(Tag::AV, b"from the twin").await.unwrap();
    assert_eq!(next_of(&mut third, Tag::AV).await, "from the twin");
    node.offer(Tag::AV, "from the node");
    assert_eq!(next_of(&mut new, Tag::AV).await, "from the node", "and not what it sent");
}

// Issue 9, 6. Before, old messages from another link ended the winner.
#[tokio::test(start_paused = true)]
async fn messages_that_grew_old_on_another_link_do_not_make_the_winner_slow() {
    let limits = Limits::default().with_write_timeout(90 * SECOND);
    let old = limits.slow_age + SECOND;
    let node = Node::start(Setup::new(&NetworkProfile::TANDEM).limits(limits));
    let mut events = node.broadcaster.events();
    let (_first, _loser) = node.twin(Transport::Libp2p, 2, Asked::Answers);
    node.offer(Tag::VB, vec![1; 500_000]);
    time::sleep(SECOND).await;
    node.offer(Tag::VB, "old");
    time::sleep(old).await;
    let (mut second, winner) = node.twin(Transport::Libp2p, 1, Asked::Answers);
    assert_eq!(next_of(&mut second, Tag::VB).await, "old");
    time::sleep(SECOND).await;
    assert_eq!(node.peers(), [winner.peer]);
    while let Ok(event) = events.try_recv() {
        if let PeerEvent::Disconnected(_, reason) = event {
            assert_ne!(reason, DisconnectReason::Slow);
        }
    }
}

// Issue 9, 13.
#[tokio::test(start_paused = true)]
async fn a_message_carries_the_identity_of_its_sender_where_one_was_proved() {
    let node = Node::of(&NetworkProfile::TANDEM);
    let mut observed = node.broadcaster.observe();
    let mut hears = async |body: &'static str, from, identity| {
        let message = soon("it is heard", observed.recv()).await.expect("the node runs");
        assert_eq!((&message.body[..], message.from), (body.as_bytes(), from));
        assert_eq!(message.identity, identity, "{body}");
    };
    let (mut named, twin) = node.twin(Transport::Libp2p, 1, Asked::Answers);
    named.send(Tag::AV, b"named").await.unwrap();
    hears("named", Some(twin.peer), Some(TWIN)).await;

    let (mut late, link) = node.link(Transport::WebSocket, Asked::Answers);
    let id = node.broadcaster.next_link_id();
    let _late = node.broadcaster.attach(id, link).unwrap();
    late.send(Tag::AV, b"nameless").await.unwrap();
    hears("nameless", Some(id), None).await;
    let identity = Identity::from_ed25519([8; 32]);
    let claim = LinkClaim { link: id, identity, ..node.claim(Transport::WebSocket, 1) };
    node.broadcaster.verified(claim);
    late.send(Tag::AV, b"named by now").await.unwrap();
    hears("named by now", Some(id), Some(identity)).await;

    // Messages of a topic can come from nodes that are not gossip peers.
    for (body, from) in [("no peer", Some(Identity::from_ed25519([9; 32]))), ("nobody", None)] {
        node.broadcaster.hear(TopicMessage {
            tag: Tag::TX,
            body: body.into(),
            from,
            transport: Transport::Libp2p,
            report: Box::new(|_verdict| {}),
        });
        hears(body, None, from).await;
    }
}

// Issue 9, 13.
#[tokio::test(start_paused = true)]
async fn every_event_tells_the_peer_that_it_happened_to() {
    let node = Node::of(&NetworkProfile::TANDEM);
    let mut events = node.broadcaster.events();
    let (_peer, link) = node.link(Transport::WebSocket, Asked::Answers);
    let id = node.broadcaster.next_link_id();
    let _attached = node.broadcaster.attach(id, link).unwrap();
    node.broadcaster.verified(LinkClaim { link: id, ..node.claim(Transport::WebSocket, 1) });
    node.broadcaster.disconnect(id, DisconnectReason::Requested);
    for expected in [None, Some(TWIN), Some(TWIN)] {
        let event = soon("something happens", events.recv()).await.expect("the node runs");
        assert_eq!((event.peer().id, event.peer().identity), (id, expected), "{event:?}");
    }
}

/// The names of events, with the number of the peer and whether its identity was known.
fn told(
    events: &mut tokio::sync::broadcast::Receiver<PeerEvent>,
) -> Vec<(&'static str, u64, bool)> {
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let name = match &event {
            PeerEvent::Connected(_) => "connected",
            PeerEvent::Identified(_) => "identified",
            PeerEvent::Disconnected(..) => "disconnected",
            other => panic!("{other:?}"),
        };
        told.push((name, event.peer().id.0, event.peer().identity.is_some()));
    }
    told
}

/// A node, a link on which an identity exchange goes on, and the events from before it was attached.
struct Introduced {
    node: Node,
    events: tokio::sync::broadcast::Receiver<PeerEvent>,
    peer: MemoryPeer,
    attached: Attached,
}

impl Introduced {
    fn start() -> Self {
        let node = Node::of(&NetworkProfile::TANDEM);
        let events = node.broadcaster.events();
        let (peer, mut link) = node.link(Transport::WebSocket, Asked::Answers);
        link.about.identity_time = Some(10 * SECOND);
        let attached = node
            .broadcaster
            .attach(node.broadcaster.next_link_id(), link)
            .expect("the broadcaster runs");
        Self { node, events, peer, attached }
    }

    fn prove(&self) {
        let claim = self.node.claim(Transport::WebSocket, 1);
        self.node.broadcaster.verified(LinkClaim { link: self.attached.peer, ..claim });
    }
}

// Issue 9, 13: `Connected` came without the identity, and the identity by an event of its own a moment later.
#[tokio::test(start_paused = true)]
async fn a_peer_that_is_to_prove_its_identity_is_connected_when_it_is_known() {
    let mut introduced = Introduced::start();
    let id = introduced.attached.peer.0;
    time::sleep(9 * SECOND).await;
    assert_eq!(told(&mut introduced.events), []);
    assert_eq!(introduced.node.broadcaster.peers(PeerClass::Connected).len(), 1, "it is a peer");
    introduced.prove();
    assert_eq!(told(&mut introduced.events), [("connected", id, true)]);
    time::sleep(60 * SECOND).await;
    assert_eq!(told(&mut introduced.events), [], "the deadline is off");
    introduced.node.broadcaster.disconnect(introduced.attached.peer, DisconnectReason::Requested);
    introduced.attached.ended().await;
    assert_eq!(told(&mut introduced.events), [("disconnected", id, true)]);
}

// Issue 9, 13.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_proves_its_identity_is_connected_without_in_time() {
    let mut introduced = Introduced::start();
    let id = introduced.attached.peer.0;
    time::sleep(10 * SECOND + Duration::from_millis(1)).await;
    assert_eq!(told(&mut introduced.events), [("connected", id, false)]);
    // A proof that comes late is told all the same.
    introduced.prove();
    assert_eq!(told(&mut introduced.events), [("identified", id, true)]);
}

// Issue 9, 13: events of a peer come in pairs, also if it goes before it was told of.
#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_during_the_exchange_was_connected_first() {
    for goes in [0, 1] {
        let mut introduced = Introduced::start();
        let id = introduced.attached.peer.0;
        match goes {
            0 => drop(introduced.peer),
            _ => {
                let broadcaster = &introduced.node.broadcaster;
                broadcaster.disconnect(introduced.attached.peer, DisconnectReason::BadIdentity);
            }
        }
        introduced.attached.ended().await;
        let pair = [("connected", id, false), ("disconnected", id, false)];
        assert_eq!(told(&mut introduced.events), pair);
        let claim = introduced.node.claim(Transport::WebSocket, 1);
        let late = LinkClaim { link: introduced.attached.peer, ..claim };
        introduced.node.broadcaster.verified(late);
        time::sleep(60 * SECOND).await;
        assert_eq!(told(&mut introduced.events), [], "nothing follows the end");
    }
}

// Issue 9, 13.
#[tokio::test(start_paused = true)]
async fn messages_that_come_during_the_exchange_are_handled() {
    let mut introduced = Introduced::start();
    let mut observed = introduced.node.broadcaster.observe();
    introduced.peer.send(Tag::AV, b"early").await.unwrap();
    let early = soon("it is heard", observed.recv()).await.expect("the node runs");
    assert_eq!((&early.body[..], early.identity), (&b"early"[..], None));
    assert_eq!(told(&mut introduced.events), []);
    introduced.node.offer(Tag::AV, "to it");
    assert_eq!(next_of(&mut introduced.peer, Tag::AV).await, "to it");
    introduced.prove();
    assert_eq!(told(&mut introduced.events), [("connected", introduced.attached.peer.0, true)]);
}

// Issue 8, 8. Before, the second of two nodes with one key was refused again and again, and nothing reported it.
#[tokio::test(start_paused = true)]
async fn refused_links_of_another_session_are_counted_while_the_holder_answers() {
    for (asked, expected) in [(Asked::Answers, 5), (Asked::IsSilent, 0)] {
        let node = Node::of(&NetworkProfile::ALGORAND);
        let contested = || node.broadcaster.metrics().identity_contested();
        let claim = |session: u64| LinkClaim {
            session: Some(session),
            ..node.claim(Transport::WebSocket, 0)
        };
        let (_peer, link) = node.link(Transport::WebSocket, asked);
        let holder = node.broadcaster.claim(claim(0));
        let _holder = node.broadcaster.attach_claimed(holder, link).expect("the node runs");
        // A further link of the same session is a second way to the same node.
        let (_peer, link) = node.link(Transport::WebSocket, Asked::Answers);
        let same = node.broadcaster.claim(claim(0));
        let mut same = node.broadcaster.attach_claimed(same, link).expect("the node runs");
        if let Asked::Answers = asked {
            assert_eq!(same.ended().await, DisconnectReason::Duplicate);
        }
        for session in 1..=5 {
            let (_peer, link) = node.link(Transport::WebSocket, Asked::Answers);
            let late = node.broadcaster.claim(claim(session));
            let mut late = node.broadcaster.attach_claimed(late, link).expect("the node runs");
            if let Asked::Answers = asked {
                assert_eq!(late.ended().await, DisconnectReason::Duplicate);
                assert_eq!(contested(), session, "{session}");
                assert_eq!(node.broadcaster.is_contested(), session == 5, "{session}");
            } else {
                time::sleep(10 * SECOND).await;
                break;
            }
        }
        assert_eq!(contested(), expected);
    }
}

// Issue 8, 8. Before, twins of which each used another transport shadowed each other, and nothing reported it.
#[tokio::test(start_paused = true)]
async fn twins_over_two_transports_are_counted_and_one_node_over_two_is_not() {
    for (other_run, expected) in [(2, 5), (1, 0)] {
        let node = Node::of(&NetworkProfile::TANDEM);
        let contested = || node.broadcaster.metrics().identity_contested();
        let claim = |transport, run| LinkClaim { run: Some(run), ..node.claim(transport, 0) };
        let (_peer, link) = node.link(Transport::Libp2p, Asked::Answers);
        let holder = node.broadcaster.claim(claim(Transport::Libp2p, 1));
        let _holder = node.broadcaster.attach_claimed(holder, link).expect("the node runs");
        for _ in 0..5 {
            let (_peer, link) = node.link(Transport::WebSocket, Asked::Answers);
            let late = node.broadcaster.claim(claim(Transport::WebSocket, other_run));
            let mut late = node.broadcaster.attach_claimed(late, link).expect("the node runs");
            assert_eq!(late.ended().await, DisconnectReason::Duplicate);
        }
        assert_eq!(contested(), expected, "run {other_run}");
        assert_eq!(node.broadcaster.is_contested(), expected == 5);
    }
}

// Issue 8, 8. Before, two nodes with one key evicted each other for ever, and nothing reported it.
#[tokio::test(start_paused = true)]
async fn links_that_take_an_identity_over_from_another_session_are_counted() {
    for profile in NetworkProfile::ALL {
        let node = Node::of(profile);
        let contested = || node.broadcaster.metrics().identity_contested();
        let mut peers = Vec::new();
        for number in 0_u8..6 {
            let (peer, link) = node.link(Transport::Libp2p, Asked::Answers);
            let session = Some(number.into());
            let claim = LinkClaim { session, ..node.claim(Transport::Libp2p, number) };
            let claim = node.broadcaster.claim(claim);
            let attached = node.broadcaster.attach_claimed(claim, link).expect("the node runs");
            assert_eq!(node.peers(), [attached.peer], "{}", profile.name);
            assert_eq!(contested(), u64::from(number), "{}", profile.name);
            peers.push(peer);
        }
        // Another link of the same session does not count as a take-over.
        let claim = LinkClaim { session: Some(5), ..node.claim(Transport::Libp2p, 0) };
        drop(node.broadcaster.claim(claim));
        assert_eq!(contested(), 5, "{}", profile.name);
    }
}
