//! Forty libp2p identities that announce messages of five megabytes and send single bytes of them: no vote of
//! an honest peer is lost, and the forty are disconnected at their deadline.
//!
//! Prints the latencies of votes without and with the attack.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use broadcaster::{Broadcaster, Limits, Relaying, Setup};
use gossip::{Admission, DisconnectReason, NetworkProfile, Outbound, PeerClass, Tag};
use testkit::{
    harness::{Harness, RawPeer, next_of},
    networks::P2p,
    wait::{PATIENCE, until},
};
use tokio::time::{self, Instant};

const ATTACKERS: usize = 40;
const ANNOUNCED_BYTES: usize = 5_000_000;
/// Longest time for a message in this test. Chosen: a fifth of the default, which shortens the test.
const MESSAGE_TIME: Duration = Duration::from_secs(6);
const VOTE_INTERVAL: Duration = Duration::from_millis(5);

/// A vote of the node itself.
const OWN: &[u8] = b"own";

/// Sends votes through the node for `time`, and returns the latency of each.
async fn votes(
    (sender, reader): (&mut impl RawPeer, &mut impl RawPeer),
    name: &str,
    time: Duration,
) -> Vec<Duration> {
    let count = u32::try_from(time.as_millis() / VOTE_INTERVAL.as_millis()).unwrap();
    let (began, mut delays) = (Instant::now(), Vec::new());
    let vote = |number: u32| format!("{name} {number:0>500}").into_bytes();
    let send = async {
        for number in 0..count {
            time::sleep_until(began + VOTE_INTERVAL * number).await;
            sender.send(Tag::AV, &vote(number)).await.expect("an honest peer stays");
        }
    };
    let read = async {
        for number in 0..count {
            let mut heard = next_of(reader, Tag::AV).await;
            while heard == OWN {
                heard = next_of(reader, Tag::AV).await;
            }
            assert_eq!(heard, vote(number), "a vote is lost");
            delays.push(began.elapsed().saturating_sub(VOTE_INTERVAL * number));
        }
    };
    tokio::join!(send, read);
    delays.sort();
    delays
}

fn show(name: &str, delays: &[Duration]) {
    let at = |percent: usize| delays[(delays.len() * percent / 100).min(delays.len() - 1)];
    println!("{name}: {} votes, p50 {:?}, p99 {:?}", delays.len(), at(50), at(99));
}

fn is_over(node: &Broadcaster) -> bool {
    node.metrics().disconnects(DisconnectReason::Protocol) == ATTACKERS as u64
}

// Issue 9, 3; issue 8, 26.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_identities_that_never_end_their_messages_take_no_vote_from_anybody() {
    let _alone = crate::alone().await;
    let limits = Limits::default().with_message_time(MESSAGE_TIME);
    let setup = Setup::new(&NetworkProfile::ALGORAND).relaying(Relaying::Accepted).limits(limits);
    let node = P2p::start(setup).await;
    let (mut sender, mut reader) = (node.dial_raw().await, node.dial_raw().await);
    let quiet = votes((&mut sender, &mut reader), "quiet", Duration::from_secs(2)).await;

    let mut attackers = Vec::new();
    for _ in 0..ATTACKERS {
        let mut attacker = node.dial_raw().await;
        attacker.begin(Tag::PP, ANNOUNCED_BYTES).await.unwrap();
        attackers.push(attacker);
    }
    let began = Instant::now();
    let attack = async {
        while !is_over(node.broadcaster()) {
            assert!(began.elapsed() < MESSAGE_TIME + PATIENCE, "they are not cut off");
            for attacker in &mut attackers {
                // The write fails if the node has disconnected the peer.
                let _ = attacker.go_on(&[0]).await;
            }
            time::sleep(MESSAGE_TIME / 5).await;
        }
    };
    let own = Outbound::new(Tag::AV, OWN);
    let watch = async {
        for _ in 0..10 {
            assert_eq!(node.gossip().broadcast(own.clone()), Ok(Admission::Queued));
            let used = node.broadcaster().budget().used();
            assert!(used < 4 << 20, "{used} bytes are held for what has not come");
            time::sleep(MESSAGE_TIME / 20).await;
        }
    };
    let honest = votes((&mut sender, &mut reader), "attack", MESSAGE_TIME);
    let (attacked, (), ()) = tokio::join!(honest, attack, watch);

    until("only the honest ones are left", || node.gossip().peers(PeerClass::Connected).len() == 2)
        .await;
    show("quiet", &quiet);
    show("under attack", &attacked);
    assert!(node.stop(PATIENCE).await == runtime::Shutdown::Clean);
}
