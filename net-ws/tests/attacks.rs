//! What strangers may try, and what it costs: sockets, memory and time stay bounded.

#![allow(clippy::disallowed_methods, reason = "a test is its own surroundings")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, time::Duration};

use broadcaster::PeerEvent;
use common::{
    Node, PATIENCE, Recipe,
    raw::{self, End, Raw, masked},
    soon,
};
use futures::future::join_all;
use gossip::{DisconnectReason, NetworkProfile};
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};
use tokio::{
    io::AsyncWriteExt,
    sync::{Mutex, MutexGuard, broadcast},
    time::{Instant, interval, timeout},
};

const MIB: usize = 1024 * 1024;

/// The memory of the process is looked at, so one attack at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().await
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
}

async fn victim() -> Node {
    let recipe = Recipe::new(&NetworkProfile::ALGORAND).listening();
    recipe.with(|config| config.inbound.per_ip = 1_000).start().await
}

/// An honest client gets through, and quickly.
async fn serves(node: &Node) {
    let began = Instant::now();
    let client = soon(raw::upgraded(node.address())).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop(client);
}

async fn ended_because(events: &mut broadcast::Receiver<PeerEvent>) -> DisconnectReason {
    loop {
        if let PeerEvent::Disconnected(_, reason) = soon(events.recv()).await.unwrap() {
            return reason;
        }
    }
}

/// Writes until the other end has had enough, and says how much that was.
async fn pour(client: &mut Raw, chunk: &[u8], most: usize) -> usize {
    let mut poured = 0;
    while poured < most {
        match timeout(PATIENCE, client.stream.write(chunk)).await.unwrap() {
            Ok(count) => poured += count,
            Err(_) => break,
        }
    }
    poured
}

#[tokio::test]
async fn garbage_is_closed_and_harms_nobody() {
    let _alone = alone().await;
    let node = victim().await;
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..100 {
        let mut garbage = vec![0; rng.random_range(1..20_000)];
        rng.fill_bytes(&mut garbage);
        // A first letter of a method, or none at all, and at last a line end.
        if rng.random() {
            garbage.splice(0..0, *b"GET / HTTP/1.1\r\n");
        }
        garbage.extend(b"\r\n\r\n");
        let mut client = Raw::connect(node.address()).await;
        client.send(&garbage).await;
        while soon(client.read(PATIENCE)).await == End::Bytes {}
    }
    for _ in 0..100 {
        let mut garbage = vec![0; rng.random_range(100..20_000)];
        rng.fill_bytes(&mut garbage);
        let mut client = soon(raw::upgraded(node.address())).await;
        client.send(&garbage).await;
        client.stream.shutdown().await.ok();
        while soon(client.read(PATIENCE)).await == End::Bytes {}
    }
    serves(&node).await;
    node.until_peers(0).await;
    node.stop().await;
}

#[tokio::test]
async fn a_flood_of_pings_from_a_client_that_does_not_read_is_ended() {
    let _alone = alone().await;
    let node = victim().await;
    let mut events = node.broadcaster.events();
    let mut client = soon(raw::upgraded(node.address())).await;
    let before = resident();
    let poured = pour(&mut client, &masked(0x89, &[7; 125]).repeat(500), 100 * MIB).await;
    assert_eq!(ended_because(&mut events).await, DisconnectReason::Flood);
    assert!(poured < 32 * MIB, "{poured}");
    let grown = resident().saturating_sub(before);
    assert!(grown < 2 * MIB, "{grown}");
    serves(&node).await;
    node.stop().await;
}

#[tokio::test]
async fn floods_of_fragments_are_ended() {
    let _alone = alone().await;
    for piece in [&b""[..], b"x"] {
        let node = victim().await;
        let mut events = node.broadcaster.events();
        let mut client = soon(raw::upgraded(node.address())).await;
        let before = resident();
        client.send(&masked(0x02, b"VB")).await;
        let _poured = pour(&mut client, &masked(0x00, piece).repeat(1_000), 100 * MIB).await;
        assert_eq!(ended_because(&mut events).await, DisconnectReason::Protocol);
        let grown = resident().saturating_sub(before);
        assert!(grown < 2 * MIB, "{grown}");
        node.stop().await;
    }
}

#[tokio::test]
async fn announced_messages_take_no_memory() {
    let _alone = alone().await;
    let node = victim().await;
    let mut clients = Vec::new();
    // Made before memory is looked at: the whole message would show in what the client itself uses.
    let announced = masked(0x82, &[&b"VB"[..], &[7; 6_000_000]].concat())[..1_000].to_vec();
    let before = resident();
    for _ in 0..50 {
        let mut client = soon(raw::upgraded(node.address())).await;
        client.send(&announced).await;
        clients.push(client);
    }
    node.until_peers(50).await;
    serves(&node).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 12 * MIB, "{grown}");
    assert_eq!(node.broadcaster.budget().used(), 0);
    drop(clients);
    node.stop().await;
}

#[tokio::test]
async fn slow_requests_are_closed_in_time_and_hold_nobody_up() {
    let _alone = alone().await;
    let node = victim().await;
    let request = raw::gossip_request("X-Algorand-", "");
    let slow = async || {
        let mut client = Raw::connect(node.address()).await;
        let (began, mut ticks) = (Instant::now(), interval(Duration::from_secs(1)));
        for byte in request.as_bytes() {
            tokio::select! {
                _ = ticks.tick() => client.send(&[*byte]).await,
                end = client.read(PATIENCE) => {
                    assert_eq!(end, End::Over);
                    return began.elapsed();
                }
            }
        }
        panic!("the request was read to its end");
    };
    let honest = async {
        for _ in 0..20 {
            serves(&node).await;
        }
    };
    let (times, ()) = tokio::join!(join_all((0..100).map(|_| slow())), honest);
    for took in times {
        assert!((9_500..11_000).contains(&took.as_millis()), "{took:?}");
    }
    node.until_peers(0).await;
    node.stop().await;
}

#[tokio::test]
async fn silent_sockets_do_not_take_every_place() {
    let _alone = alone().await;
    let recipe = Recipe::new(&NetworkProfile::ALGORAND).listening();
    let node = recipe.with(|config| config.inbound.half_open_total = 10).start().await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(Raw::connect(node.address()).await);
    }
    common::until("ten half-open sockets", || node.network.task_count() == 12).await;
    let mut eleventh = Raw::connect(node.address()).await;
    assert_eq!(soon(eleventh.read(PATIENCE)).await, End::Over);
    drop(sockets);
    common::until("their end", || node.network.task_count() == 2).await;
    serves(&node).await;
    node.stop().await;
}

#[tokio::test]
async fn connections_that_come_and_go_leave_nothing_behind() {
    let _alone = alone().await;
    let node = victim().await;
    let (tasks, peer_tasks) = (node.network.task_count(), node.broadcaster.task_count());
    let mut rng = SmallRng::seed_from_u64(2);
    for _ in 0..300 {
        let mut client = Raw::connect(node.address()).await;
        let request = raw::gossip_request("X-Algorand-", "");
        let upto = rng.random_range(0..=request.len());
        client.send(&request.as_bytes()[..upto]).await;
        if upto == request.len() && rng.random() {
            client.answer().await.unwrap();
            client.send(&masked(0x82, b"TXhalf")[..rng.random_range(0..8)]).await;
        }
    }
    node.until_peers(0).await;
    common::until("every connection task's end", || node.network.task_count() == tasks).await;
    common::until("every peer task's end", || node.broadcaster.task_count() == peer_tasks).await;
    node.stop().await;
}
