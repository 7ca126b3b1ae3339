//! Floods through a relay: senders that are each within their rate are no flood of the relay for the next node, and the
//! relay sheds what they send too much, those who send most first.
//!
//! ```text
//!   attackers ──▶ relay ──▶ node behind
//!   honest    ──▶
//! ```

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use broadcaster::{DropReason, Limits, Rate, Rates, Relaying};
use gossip::{DisconnectReason, Inbound, Tag, Verdict};
use testkit::{
    harness::RawPeer,
    memory::Shape,
    rig::{settle, setup, start},
};
use tokio::time;

const SECOND: Duration = Duration::from_secs(1);
const ATTACKERS: usize = 4;
const HONEST: usize = ATTACKERS;

/// Limits with a hundredth of the rates as shipped.
fn limits() -> Limits {
    let rates = Rates::default();
    let small = |rate: Rate| Rate::new(rate.per_second / 100, rate.burst / 100);
    let rates = rates
        .with_gossip(rates.gossip.map(small))
        .with_passed_on(rates.passed_on.map(small))
        .with_flood_after(2 * SECOND);
    Limits::default().with_rates(rates)
}

fn vote(sender: usize, number: u32) -> Vec<u8> {
    let mut vote = vec![u8::try_from(sender).expect("few send"); 100];
    vote[1..5].copy_from_slice(&number.to_le_bytes());
    vote
}

// Issue 8, 24. Before, the next node cut the relay after two seconds.
#[tokio::test(start_paused = true)]
async fn a_relay_of_many_senders_is_no_flood_for_the_next_node() {
    let heard = Arc::new(Mutex::new([0; ATTACKERS + 1]));
    let ear = Arc::clone(&heard);
    let listen = move |message: Inbound| {
        ear.lock().unwrap()[usize::from(message.body[0])] += 1;
        async { Verdict::Ignore }
    };
    let handled = |_: Inbound| async { Verdict::Ignore };
    let relay = setup(limits()).relaying(Relaying::Accepted).handler(Tag::AV, Arc::new(handled));
    let (relay_node, relay) = start(relay);
    let (node_behind, behind) = start(setup(limits()).handler(Tag::AV, Arc::new(listen)));
    let link = relay_node.connect(&node_behind, Shape::default()).expect("both run");
    let mut peers: Vec<_> = (0..=ATTACKERS)
        .map(|_| relay_node.scripted(Shape::default()).expect("it runs").0)
        .collect();
    settle().await;
    let mut sent = [0; ATTACKERS + 1];
    for tick in 0..1_000 {
        for (sender, peer) in peers.iter_mut().enumerate() {
            // 400 a second, which is less than the 500 of one peer; and twenty.
            let count = if sender == HONEST { u32::from(tick % 5 == 0) } else { 4 };
            for _ in 0..count {
                peer.send(Tag::AV, &vote(sender, sent[sender])).await.expect("nobody is cut");
                sent[sender] += 1;
            }
        }
        time::sleep(SECOND / 100).await;
    }
    time::sleep(3 * SECOND).await;
    for node in [&relay, &behind] {
        assert_eq!(node.metrics().disconnects(DisconnectReason::Flood), 0);
    }
    let heard = *heard.lock().unwrap();
    assert_eq!(heard[HONEST], sent[HONEST], "an honest vote is lost: {heard:?}");
    let most = heard[..ATTACKERS].iter().max().unwrap();
    let least = heard[..ATTACKERS].iter().min().unwrap();
    assert!(most - least < most / 10, "their shares are equal: {heard:?}");
    let passed: u32 = heard.iter().sum();
    assert_eq!(
        u64::from(sent.iter().sum::<u32>() - passed),
        relay.metrics().drops(DropReason::OverRate)
    );
    drop(link);
}
