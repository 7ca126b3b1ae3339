//! Shared helpers of the cases.

use std::{sync::Arc, time::Duration};

use broadcaster::{Limits, Relaying, Setup};
use bytes::Bytes;
use gossip::{
    Admission, BoxFuture, GossipNode, Handler, Inbound, LinkId, NetworkProfile, Outbound,
    PeerClass, Tag, Verdict, wire::block,
};
use testkit::{
    harness::{Harness, RawPeer, connect, next_of},
    recorder::Recorder,
    wait::{soon, until},
};

/// Unit of the deadlines that cases shorten.
pub(crate) const UNIT: Duration = Duration::from_secs(1);

/// Limits so long that no deadline ends anything unless a case sets it.
pub(crate) fn patient() -> Limits {
    let long = Duration::from_secs(600);
    Limits::default()
        .with_write_timeout(long)
        .with_slow_age(long)
        .with_priority_age(long)
        .with_bulk_age(long)
        .with_priority_window(long)
        .with_bulk_window(long)
        .with_inbound_wait(long)
        .with_handler_timeout(long)
}

/// A node that answers block requests, which a scripted peer needs for its fence.
pub(crate) fn plain() -> Setup {
    Setup::new(&NetworkProfile::TANDEM).limits(patient()).handler(Tag::UE, Arc::new(NoBlocks))
}

/// A node that relays messages.
pub(crate) fn relay() -> Setup {
    plain().relaying(Relaying::Accepted)
}

/// A handler that answers every block request with "no block".
pub(crate) struct NoBlocks;

impl Handler for NoBlocks {
    fn handle(&self, _message: Inbound) -> BoxFuture<'_, Verdict> {
        Box::pin(std::future::ready(Verdict::Respond(block::unavailable(0))))
    }
}

/// A node that records the messages of some tags.
pub(crate) fn recording(tags: &[Tag]) -> (Setup, Recorder) {
    let recorder = Recorder::default();
    let record = |setup: Setup, tag: &Tag| setup.handler(*tag, Arc::new(recorder.clone()));
    (tags.iter().fold(plain(), record), recorder)
}

/// Starts nodes that record the messages of some tags, and connects each to `hub`.
pub(crate) async fn listeners<H: Harness>(
    hub: &H,
    count: usize,
    tags: &[Tag],
) -> Vec<(H, Recorder, LinkId)> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        let (setup, recorder) = recording(tags);
        let node = H::start(setup).await;
        let (_, id) = connect(&node, hub).await;
        listeners.push((node, recorder, id));
    }
    listeners
}

/// A body of `len` bytes that is unlike every other one and does not compress.
pub(crate) fn body(name: &str, len: usize) -> Bytes {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut state = seed | 1;
    let noise = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    name.bytes().chain(std::iter::once(b'|')).chain(noise).take(len.max(name.len())).collect()
}

/// Broadcasts a message, and panics if it is refused.
pub(crate) fn broadcast(node: &Arc<dyn GossipNode>, tag: Tag, body: &Bytes) {
    assert_eq!(node.broadcast(Outbound::new(tag, body.clone())), Ok(Admission::Queued));
}

/// Reads the messages of a tag up to the message `last`.
pub(crate) async fn read_to(raw: &mut impl RawPeer, tag: Tag, last: &Bytes) -> Vec<Bytes> {
    let mut before = Vec::new();
    loop {
        let payload = next_of(raw, tag).await;
        if payload == *last {
            return before;
        }
        before.push(payload);
    }
}

/// Sends a message, and panics if the write fails.
pub(crate) async fn send(raw: &mut impl RawPeer, tag: Tag, payload: &[u8]) {
    soon("a scripted peer writes", raw.send(tag, payload)).await.expect("the connection is open");
}

/// Number of bytes queued in a node for one of its peers.
pub(crate) fn queued<H: Harness>(node: &H, peer: LinkId) -> usize {
    let peers = node.broadcaster().peers(PeerClass::Connected);
    peers.iter().find(|info| info.id == peer).map_or(0, |info| info.queued_bytes)
}

/// Broadcasts bulk until at least `bytes` of it are queued for `peer`, which does not read. Returns the bodies.
pub(crate) async fn stall<H: Harness>(node: &H, peer: LinkId, bytes: usize) -> Vec<Bytes> {
    let (gossip, mut sent) = (node.gossip(), Vec::new());
    while queued(node, peer) < bytes {
        assert!(sent.len() < 2_000, "the peer takes whatever it is sent");
        let message = body(&format!("stall {}", sent.len()), 32 * 1024);
        broadcast(&gossip, Tag::VB, &message);
        sent.push(message);
        // Lets the write loops take all they can before the next message.
        tokio::task::yield_now().await;
        let before = node.broadcaster().budget().used();
        until("the message is routed", || {
            node.broadcaster().budget().used() <= before.max(queued(node, peer) + 1024 * 1024)
        })
        .await;
    }
    sent
}
