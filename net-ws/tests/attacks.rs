//! Attacks by unknown peers: the sockets, the memory and the time they cost stay bounded.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, time::Duration};

use broadcaster::{DropReason, PeerEvent};
use common::{
    Node, PATIENCE, Recipe,
    raw::{self, End, Raw, masked},
    soon,
};
use futures::future::join_all;
use gossip::{DisconnectReason, NetworkProfile};
use mesh::{InboundLimits, LoopbackRule, RateWindow, Refusal};
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};
use tokio::{
    io::AsyncWriteExt,
    sync::{Mutex, MutexGuard, broadcast},
    time::{Instant, interval, timeout},
};

const MIB: usize = 1024 * 1024;

/// Serializes the tests of this file, because they measure the memory of the process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().await
}

/// Returns the resident memory of this process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
}

async fn victim() -> Node {
    let recipe = Recipe::new(&NetworkProfile::ALGORAND).listening();
    recipe.guarded(InboundLimits::default().with_per_ip(1_000)).start().await
}

/// Checks that an honest client is served quickly.
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

/// Writes chunks until the peer closes or `most` bytes are written. Returns the number of bytes written.
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
async fn garbage_ends_its_connection_and_no_other() {
    let _alone = alone().await;
    let node = victim().await;
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..100 {
        let mut garbage = vec![0; rng.random_range(1..20_000)];
        rng.fill_bytes(&mut garbage);
        // Starts like a method or with any byte, and ends with a line end.
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
    // Built before memory is measured: the whole message would show up as memory of the client.
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
async fn slow_requests_are_closed_in_time_and_delay_no_other_client() {
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

// Issue 9, 5: the oldest half-open socket is evicted, and the newest is served.
#[tokio::test]
async fn a_silent_socket_makes_room_for_a_newer_one() {
    let _alone = alone().await;
    let limits = InboundLimits::default().with_half_open_total(10);
    let node = Recipe::new(&NetworkProfile::ALGORAND).listening().guarded(limits).start().await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(Raw::connect(node.address()).await);
    }
    common::until("ten half-open sockets", || node.door.half_open() == 10).await;
    serves(&node).await;
    assert_eq!(soon(sockets[0].read(PATIENCE)).await, End::Over);
    assert_eq!(sockets[1].read(Duration::from_millis(50)).await, End::Open);
    assert_eq!(node.door.refused(Refusal::HalfOpen), 1);
    drop(sockets);
    common::until("their end", || node.network.task_count() == 2).await;
    node.stop().await;
}

/// Limits that count loopback, so that every address of 127.0.0.0/8 is a host of its own.
fn counted() -> InboundLimits {
    InboundLimits::default().with_loopback(LoopbackRule::Counted)
}

// Issue 8, 27. Before, ten addresses filled the port, and 0 of 24 honest upgrades succeeded.
#[tokio::test]
async fn silent_sockets_of_many_hosts_keep_no_honest_peer_out() {
    let _alone = alone().await;
    let recipe = Recipe::new(&NetworkProfile::ALGORAND).listening().guarded(counted());
    let node = recipe.start().await;
    let mut silent = Vec::new();
    for number in 0..500_u32 {
        let from = [127, 0, 1, u8::try_from(number % 10 + 1).unwrap()];
        silent.push(Raw::connect_from(from.into(), node.address()).await);
    }
    common::until("a full door", || node.door.half_open() == 128).await;
    let mut honest = Vec::new();
    for number in 0..24 {
        let from = [127, 1, number, 1].into();
        honest.push(soon(raw::upgraded_from(from, node.address())).await);
    }
    node.until_peers(24).await;
    assert!(node.door.half_open() <= 128);
    drop((silent, honest));
    node.stop().await;
}

// Issue 8, 27. Before, complete connections with free identities took all places, and 0 of 10 honest peers
// got one.
#[tokio::test]
async fn a_full_node_takes_places_from_the_crowd_for_newcomers() {
    let _alone = alone().await;
    let limits = counted().with_total(40);
    let node = Recipe::new(&NetworkProfile::ALGORAND).listening().guarded(limits).start().await;
    let mut events = node.broadcaster.events();
    let mut crowd = Vec::new();
    for number in 0..40 {
        let from = [127, 0, 1, number / 8 + 1].into();
        crowd.push(soon(raw::upgraded_from(from, node.address())).await);
    }
    node.until_peers(40).await;
    let mut honest = Vec::new();
    for number in 0..10 {
        let from = [127, 1, number, 1].into();
        honest.push(soon(raw::upgraded_from(from, node.address())).await);
        assert_eq!(ended_because(&mut events).await, DisconnectReason::Evicted);
    }
    node.until_peers(40).await;
    assert_eq!((node.door.peers(), node.door.refused(Refusal::PeerEvicted)), (40, 10));
    for peer in &mut honest {
        assert_eq!(peer.read(Duration::from_millis(10)).await, End::Open);
    }
    // Another connection of the crowd evicts no honest peer.
    let mut one_more = Raw::connect_from([127, 0, 1, 1].into(), node.address()).await;
    one_more.send(raw::gossip_request("X-Algorand-", "").as_bytes()).await;
    let answer = soon(one_more.answer()).await.unwrap();
    assert!(answer.status.starts_with("HTTP/1.1 503 "), "{answer:?}");
    drop((crowd, honest, one_more));
    node.stop().await;
}

// Issue 9, 5: whoever brings messages that nobody else has brought is evicted last.
#[tokio::test]
async fn of_a_crowd_whoever_brought_a_message_stays() {
    let _alone = alone().await;
    let limits = counted().with_total(3);
    let node = Recipe::new(&NetworkProfile::ALGORAND).listening().guarded(limits).start().await;
    let mut events = node.broadcaster.events();
    let mut crowd = Vec::new();
    for number in 1..=3 {
        crowd.push(soon(raw::upgraded_from([127, 0, 1, 1].into(), node.address())).await);
        node.until_peers(number).await;
    }
    // The newest would go first. What its twin repeats is not new.
    crowd[2].send(&masked(0x82, b"VBnew")).await;
    common::until("it was heard", || node.heard.all().len() == 1).await;
    crowd[1].send(&masked(0x82, b"VBnew")).await;
    common::until("it was heard again", || {
        node.broadcaster.metrics().drops(DropReason::Duplicate) == 1
    })
    .await;
    let _newcomer = soon(raw::upgraded_from([127, 1, 0, 1].into(), node.address())).await;
    assert_eq!(ended_because(&mut events).await, DisconnectReason::Evicted);
    // Behind what was sent before, such as a close frame.
    while soon(crowd[1].read(PATIENCE)).await == End::Bytes {}
    while crowd[2].read(Duration::from_millis(50)).await == End::Bytes {}
    assert_eq!(crowd[2].read(Duration::from_millis(50)).await, End::Open);
    node.stop().await;
}

// Issue 8, 31; threats and goals, row 32: no header changes the address that limits are charged to.
#[tokio::test]
async fn headers_do_not_change_the_address_of_a_client() {
    let _alone = alone().await;
    let rate = RateWindow::new(5, Duration::from_secs(60));
    let limits = counted().with_rate(rate);
    let node = Recipe::new(&NetworkProfile::ALGORAND).listening().guarded(limits).start().await;
    let mut client = Raw::connect_from([127, 0, 1, 1].into(), node.address()).await;
    let mut refused = 0;
    for number in 0..7 {
        let request = format!(
            "GET /nothing HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.1.2.{number}\r\n\
             Forwarded: for=10.2.3.{number}\r\nX-Real-IP: 10.3.4.{number}\r\n\r\n"
        );
        client.send(request.as_bytes()).await;
        let answer = soon(client.answer()).await.unwrap();
        let length = answer.headers["content-length"][0].parse().unwrap();
        client.exactly(length).await.unwrap();
        refused += usize::from(answer.status.starts_with("HTTP/1.1 429 "));
    }
    assert_eq!(refused, 2);
    drop(client);
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
