//! Claims of being a member, over WebSocket, whose exchange proves an identity only after the upgrade: attacks by
//! somebody who has seen a member's challenge.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use crate::common::{
    Node, Recipe,
    raw::{self, End, Raw},
    soon, until,
};
use broadcaster::PeerEvent;
use gossip::{
    DisconnectReason, NetworkProfile,
    wire::identity::{self, Challenge, Keypair},
};
use mesh::{InboundLimits, Member, Refusal};

fn key(seed: u8) -> Arc<Keypair> {
    Arc::new(Keypair::from_seed([seed; 32]))
}

fn tandem(seed: u8) -> Recipe {
    let recipe = Recipe::new(&NetworkProfile::TANDEM).listening();
    recipe.with(|config| config.identity = Some(key(seed)))
}

/// A node whose only place is kept for its member, which has the key 9.
async fn node() -> Node {
    let node = tandem(1).guarded(InboundLimits::default().with_total(1)).start().await;
    node.broadcaster.set_members(1, [Member::new(key(9).identity(), [])]).unwrap();
    node
}

/// An upgrade with a challenge of this key, and the status of the answer.
async fn claim(node: &Node, seed: u8) -> (Raw, String) {
    let challenge = identity::request_header(&key(seed), "somewhere:1", Challenge([7; 32]));
    let header = format!("X-Tandem-IdentityChallenge: {challenge}\r\n");
    let mut raw = Raw::connect(node.address()).await;
    raw.send(raw::gossip_request("X-Tandem-", &header).as_bytes()).await;
    let status = raw.answer().await.unwrap().status;
    (raw, status)
}

// Issue 10, 4.
#[tokio::test]
async fn a_challenge_that_was_overheard_takes_no_place_from_the_member() {
    let node = node().await;
    let (_, status) = claim(&node, 8).await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(node.door.refused(Refusal::Total), 1);
    let (mut replayed, status) = claim(&node, 9).await;
    assert_eq!(status, "HTTP/1.1 101 Switching Protocols");
    let member = tandem(9).dialling(&[node.address()]).start().await;
    until("the member", || {
        node.peers().iter().any(|peer| peer.identity == Some(key(9).identity()))
    })
    .await;
    // Its place is proved, so nobody who only claims it comes near.
    let (_, end) = replayed.frames().await;
    assert!(matches!(end, End::Over), "{end:?}");
    assert_eq!((node.peers().len(), node.door.peers()), (1, 1));
    let (_, status) = claim(&node, 9).await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    member.stop().await;
    node.stop().await;
}

#[tokio::test]
async fn a_claim_that_is_not_proved_in_time_ends() {
    let node = node().await;
    let mut events = node.broadcaster.events();
    let (_kept, status) = claim(&node, 9).await;
    assert_eq!(status, "HTTP/1.1 101 Switching Protocols");
    let ended = tokio::time::timeout(Duration::from_secs(40), async {
        loop {
            if let PeerEvent::Disconnected(_, reason) = events.recv().await.unwrap() {
                return reason;
            }
        }
    });
    assert_eq!(ended.await, Ok(DisconnectReason::NotMember));
    until("no place", || node.door.peers() == 0).await;
    soon(node.stop()).await;
}

#[tokio::test]
async fn a_banned_identity_is_refused_when_it_is_claimed() {
    let node = tandem(1).start().await;
    let hour = Duration::from_secs(3_600);
    let subject = mesh::BanSubject::Identity(key(8).identity());
    node.broadcaster.ban(subject, hour, "a test").unwrap();
    let (_, status) = claim(&node, 8).await;
    assert_eq!(status, "HTTP/1.1 403 Forbidden");
    let (_peer, status) = claim(&node, 9).await;
    assert_eq!(status, "HTTP/1.1 101 Switching Protocols");
    assert_eq!((node.door.refused(Refusal::Banned), node.door.peers()), (1, 1));
    node.stop().await;
}
