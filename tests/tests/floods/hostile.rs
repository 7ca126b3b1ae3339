//! Floods, bombs, endless messages and half handshakes beside honest peers, each for a moment: no honest message is
//! lost, and every newcomer is let in. `bench -- hostile` does the same at the scale of the issue, with times.

use std::time::Duration;

use testkit::hostile::{Attack, Attacker, Pair, counters, growth, hub, newcomers};
use tokio_util::sync::CancellationToken;

/// Time for which each attack lasts. Chosen: long enough for every queue on the way to fill.
const LASTING: Duration = Duration::from_secs(2);

/// Longest time until a newcomer is let in, and until the last message arrives. Chosen: far more than both take on a
/// machine with a build beside; the bench measures how long they take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Half handshakes at one time. Chosen: more than the 128 that a node has places for, and few enough for any
/// limit on open files.
const CONNECTIONS: u16 = 200;

// Issue 8, 24, 25, 26 and 27; issue 9, "Shown by".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attack_takes_a_message_or_a_place_from_an_honest_peer() {
    let _alone = crate::alone().await;
    let root = CancellationToken::new();
    let (hub, target) = Box::pin(hub(&root)).await.expect("the hub starts");
    let pair = Box::pin(Pair::start(&target, &root)).await;
    for attack in [
        Attack::VotesWs,
        // Issue 8, 24: transactions of honest peers were lost in the queue to the swarm task, and at the receiver.
        Attack::TransactionsWs,
        Attack::TransactionsTopic,
        Attack::UnknownWs,
        Attack::RequestsP2p,
        Attack::BombsWs,
        // Issue 10, "Shown by".
        Attack::Pings,
        Attack::Pieces,
        Attack::Storm,
        Attack::Slow,
        Attack::Endless,
        Attack::HalfOpen,
    ] {
        let before = (counters(&hub), pair.counters());
        let attacker = Attacker::start(attack, &target, CONNECTIONS).expect("a thread");
        let newcomers = newcomers(&target, LASTING, PATIENCE);
        let (measured, newcomers) = tokio::join!(pair.measure(LASTING, PATIENCE), newcomers);
        let (name, counts) = (attack.name(), attacker.tally().counts());
        drop(attacker);
        assert!(counts.opened > 0, "{name}: nobody attacked: {counts:?}");
        let lost = (measured.votes.lost, measured.transactions.lost);
        let [near, far] = pair.counters();
        assert_eq!(
            lost,
            (0, 0),
            "{name}: lost, of each node {:?}; counted by the hub: {:#?}, the WebSocket node: {:#?}, the libp2p node: {:#?}",
            measured.lost_from,
            growth(&before.0, &counters(&hub)),
            growth(&before.1[0], &near),
            growth(&before.1[1], &far),
        );
        assert_eq!((measured.votes.doubled, measured.transactions.doubled), (0, 0), "{name}");
        assert!(
            newcomers.left_out.is_empty(),
            "{name}: {newcomers:?}; counted by the hub: {:#?}",
            growth(&before.0, &counters(&hub)),
        );
        assert!(pair.is_connected(), "{name}: an honest peer was cut");
    }
}
