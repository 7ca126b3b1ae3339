//! The ends of connections and nodes.

use std::time::Duration;

use gossip::{Admission, ApplicationReason, DisconnectReason, Outbound, PeerClass, Tag};
use runtime::Shutdown;
use testkit::{
    harness::{Events, Harness, RawPeer, connect, join, rest_of},
    wait::until,
};
use tokio::time::Instant;

use crate::scene::{body, plain, recording, relay, send, stall};

/// Longest time for a node to stop. Source: issue 3.
const GRACE: Duration = Duration::from_secs(5);

pub(crate) async fn a_peer_that_dies_within_a_message_delivers_nothing_of_it<H: Harness>() {
    let (setup, recorder) = recording(&[Tag::AV, Tag::VB]);
    let node = H::start(setup.relaying(broadcaster::Relaying::Accepted)).await;
    let mut events = Events::of(node.broadcaster());
    let (mut other, _) = join(&node).await;
    for (tag, len) in [(Tag::AV, 600), (Tag::VB, 200_000)] {
        let (mut raw, id) = join(&node).await;
        let whole = body(&format!("whole {tag}"), 500);
        send(&mut raw, tag, &whole).await;
        raw.break_within(tag, &body("broken", len)).await;
        assert_eq!(events.disconnected(id).await, DisconnectReason::Transport, "{tag}");
        recorder.hears(&whole).await;
    }
    assert_eq!(recorder.count(), 2);
    assert_eq!(testkit::harness::next_of(&mut other, Tag::AV).await, body("whole AV", 500));
    assert_eq!(testkit::harness::next_of(&mut other, Tag::VB).await, body("whole VB", 500));
    assert_eq!(testkit::harness::fence(&mut other, 1).await, []);
}

pub(crate) async fn a_peer_can_be_disconnected<H: Harness>() {
    let node = H::start(plain()).await;
    let ((mut raw, id), (_other, stays)) = (join(&node).await, join(&node).await);
    let mut events = Events::of(node.broadcaster());
    node.gossip().disconnect(id, ApplicationReason::Requested);
    assert_eq!(events.disconnected(id).await, DisconnectReason::Requested);
    rest_of(&mut raw).await;
    let left: Vec<_> =
        node.gossip().peers(PeerClass::Connected).iter().map(|peer| peer.id).collect();
    assert_eq!(left, [stays]);
    // Issue 9, 11: an application disconnects with a reason and text of its own.
    node.gossip().disconnect(stays, ApplicationReason::Own("equivocated"));
    let reason = events.disconnected(stays).await;
    assert_eq!(reason, DisconnectReason::Application("equivocated"));
    assert_eq!(node.broadcaster().metrics().disconnects(reason), 1);
}

pub(crate) async fn a_peer_is_known_by_its_identity<H: Harness>() {
    let (near, far) = (H::start(plain()).await, H::start(plain()).await);
    let (at_near, at_far) = connect(&near, &far).await;
    for (node, peer, known) in [(&near, at_near, far.identity()), (&far, at_far, near.identity())] {
        until("the peer is identified", || {
            let peers = node.gossip().peers(PeerClass::Connected);
            peers.iter().any(|info| {
                let carried = H::TRANSPORTS.contains(&info.transport);
                info.id == peer && info.identity == known && carried
            })
        })
        .await;
    }
    let (raw, id) = join(&near).await;
    let peers = near.gossip().peers(PeerClass::ConnectedIn);
    let info = peers.iter().find(|info| info.id == id).expect("it is connected");
    assert_eq!(info.identity, raw.identity());
}

pub(crate) async fn a_stopped_node_has_no_task_left<H: Harness>() {
    let node = H::start(relay()).await;
    let other = H::start(relay()).await;
    connect(&node, &other).await;
    let (mut raw, _) = join(&node).await;
    send(&mut raw, Tag::AV, b"vote").await;
    let mut events = Events::of(other.broadcaster());
    let peer = other.gossip().peers(PeerClass::Connected)[0].id;
    assert_eq!(node.stop(GRACE).await, Shutdown::Clean);
    assert_eq!(node.task_count(), 0);
    assert_eq!(node.gossip().peers(PeerClass::Connected), []);
    let late = node.gossip().broadcast(Outbound::new(Tag::AV, "late"));
    assert_eq!(late, Ok(Admission::Closed));
    rest_of(&mut raw).await;
    assert_eq!(events.disconnected(peer).await, DisconnectReason::RemoteClosed);
    assert_eq!(other.stop(GRACE).await, Shutdown::Clean);
}

pub(crate) async fn a_node_with_stalled_peers_stops_within_the_grace<H: Harness>() {
    let node = H::start(plain()).await;
    let mut stalled = Vec::new();
    for _ in 0..3 {
        stalled.push(join(&node).await);
    }
    for (_, id) in &stalled {
        stall(&node, *id, 512 * 1024).await;
    }
    let began = Instant::now();
    assert_eq!(node.stop(GRACE).await, Shutdown::Clean);
    assert!(began.elapsed() <= GRACE, "it took {:?}", began.elapsed());
    assert_eq!(node.task_count(), 0);
    assert_eq!(node.broadcaster().budget().used(), 0);
}
