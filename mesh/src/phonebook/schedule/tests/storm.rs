//! The price of an event of a peer, with a full phonebook.

use super::*;

/// Strangers that come and go in one turn. Chosen: few, so that a turn fits into one slice of a busy processor.
const EVENTS: u32 = 20;

/// Turns, of which the shortest counts: the others were interrupted.
const TURNS: u32 = 100;

/// A phonebook with so many addresses an operator named, and so many from other sources, four of which are linked.
fn bench(configured: u32, sources: u32) -> Bench {
    let mut bench = Bench::with(MeshLimits::default(), &(0..configured).collect::<Vec<_>>());
    for source in 0..sources {
        let id = SourceId::named(SourceKind::Dns, &source.to_string());
        for n in 0..100 {
            let listed = Listed::new(address(10_000 + 100 * source + n), []);
            bench.schedule.book_mut().add(listed, &id, bench.now);
        }
    }
    while bench.schedule.outgoing() < 4 {
        let due = bench.schedule.due(bench.now, &mut bench.rng);
        due.iter().for_each(|address| bench.schedule.connected(address, None, bench.now));
    }
    bench
}

/// The time that a storm of strangers takes, the least of several turns.
fn storm(bench: &mut Bench) -> Duration {
    let turn = |bench: &mut Bench| {
        let began = Instant::now();
        for stranger in 0..EVENTS {
            let who = Identity::from_ed25519([stranger as u8; 32]);
            bench.schedule.identity_connected(who, Transport::WebSocket);
            bench.due();
            bench.wait();
            bench.schedule.identity_gone(&who, Transport::WebSocket, bench.now, &mut bench.rng);
            bench.due();
            bench.wait();
        }
        began.elapsed()
    };
    (0..TURNS).map(|_| turn(bench)).min().unwrap_or_default()
}

// Issue 10, 5: each event walked the whole phonebook twice.
#[test]
fn an_event_costs_no_more_with_a_full_phonebook_than_with_a_small_one() {
    let (small, full) = (storm(&mut bench(4, 1)), storm(&mut bench(1_024, 100)));
    println!("{:?} an event, and {:?} with a full phonebook", small / EVENTS, full / EVENTS);
    assert!(full < 12 * small, "{full:?} against {small:?}");
}
