//! A network of processes that know nothing of each other but a name in DNS, and whose relays are killed in turn.
//!
//! The sizes come from the environment, so that `tests/discovery/ten_minutes` runs the same at full length.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use gossip::{Tag, wire::digest::Digest};
use runtime::TaskSet;
use tempfile::{TempDir, tempdir};
use testkit::{
    admin::Admin,
    dial_log::{DIALS, DialLog},
    dns::{DnsServer, srv, txt},
    process::Node,
    wait::{PATIENCE, eventually},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// The network, which is also the name in DNS.
const NETWORK: &str = "found.example";

/// Votes of one node that wait for their peers at one time. One that finds no place is not sent.
const SENDS: usize = 8;

/// Time for which a killed relay is away.
const AWAY: Duration = Duration::from_secs(5);

/// Dials of one address within a second, at most. Source: `MeshLimits::rate`.
const PER_SECOND: usize = 60;

/// Dials of one address within a minute, at most: the back-off doubles up to 30 s, so a relay that is away for
/// [`AWAY`] twice within the minute, is dialled about ten times; twice as many are bad luck.
const PER_MINUTE: usize = 30;

/// Time in which the last votes may still arrive.
const LAST: Duration = Duration::from_secs(2);

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Votes on their way from one node to another.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    heard: u64,
    last: Option<Instant>,
    /// Longest time from one vote to the next.
    gap: Duration,
}

/// All votes of the network.
#[derive(Debug)]
struct Votes {
    /// The sender of a vote by its digest.
    sent: Mutex<HashMap<String, usize>>,
    /// From each sender to each listener.
    paths: Mutex<Vec<Vec<Path>>>,
}

impl Votes {
    fn new(nodes: usize) -> Self {
        let paths = vec![vec![Path::default(); nodes]; nodes];
        Self { sent: Mutex::default(), paths: Mutex::new(paths) }
    }

    fn paths(&self) -> MutexGuard<'_, Vec<Vec<Path>>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, listener: usize, digest: &str) {
        let Some(sender) = self.sent().get(digest).copied() else { return };
        let path = &mut self.paths()[sender][listener];
        let now = Instant::now();
        path.gap = path.gap.max(path.last.map_or(Duration::ZERO, |last| now - last));
        (path.last, path.heard) = (Some(now), path.heard + 1);
    }

    /// Returns `true` if everybody has heard everybody else.
    fn is_whole(&self) -> bool {
        let paths = self.paths();
        let heard = |sender: usize, listener: usize| {
            sender == listener || paths[sender][listener].heard > 0
        };
        (0..paths.len()).all(|sender| (0..paths.len()).all(|listener| heard(sender, listener)))
    }

    /// The number of votes that were heard by others.
    fn heard(&self) -> u64 {
        let paths = self.paths();
        let of = |(sender, of_sender): (usize, &Vec<Path>)| -> u64 {
            let others = of_sender.iter().enumerate().filter(|(listener, _)| *listener != sender);
            others.map(|(_, path)| path.heard).sum()
        };
        paths.iter().enumerate().map(of).sum()
    }

    /// The longest gap, with its ends, that counts up to `until`.
    fn longest_gap(&self, until: Instant) -> (Duration, usize, usize) {
        let paths = self.paths();
        let mut longest = (Duration::ZERO, 0, 0);
        for (sender, of_sender) in paths.iter().enumerate() {
            for (listener, path) in of_sender.iter().enumerate().filter(|(at, _)| *at != sender) {
                let open = path.last.map_or(Duration::MAX, |last| until.duration_since(last));
                longest = longest.max((path.gap.max(open), sender, listener));
            }
        }
        longest
    }
}

async fn listens(admin: Admin, listener: usize, votes: Arc<Votes>) {
    loop {
        if let Ok(mut lines) = admin.listen("AV").await {
            while let Ok(line) = lines.next().await {
                votes.hear(listener, line["digest"].as_str().unwrap_or_default());
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn votes_on(admin: Admin, sender: usize, every: Duration, votes: Arc<Votes>, tasks: TaskSet) {
    let (mut ticks, places) = (interval(every), Arc::new(Semaphore::new(SENDS)));
    for count in 0_u64.. {
        ticks.tick().await;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let body = format!("vote {count} of {sender}");
        votes.sent().insert(Digest::of(Tag::AV, body.as_bytes()).to_string(), sender);
        let admin = admin.clone();
        tasks.spawn("send", |_| async move {
            let _place = place;
            // A vote that is not sent is missed by everybody, and counted below.
            let _ = admin.send("AV", body.as_bytes()).await;
        });
    }
}

fn folders(count: u64) -> Vec<TempDir> {
    (0..count).map(|_| tempdir().expect("a temporary folder")).collect()
}

/// The counters of dropped messages of all nodes, by reason and lane.
async fn dropped(nodes: &[PathBuf]) -> HashMap<String, u64> {
    let mut dropped: HashMap<String, u64> = HashMap::new();
    for dir in nodes {
        let text = Admin::of(dir).ask("GET", "/metrics", b"").await.unwrap_or_default();
        for line in text.lines().filter_map(|line| line.strip_prefix("tandem_dropped_total{")) {
            if let Some((labels, count)) = line.rsplit_once("} ") {
                *dropped.entry(labels.to_owned()).or_default() += count.parse().unwrap_or(0);
            }
        }
    }
    dropped.retain(|_, count| *count > 0);
    dropped
}

/// The log of a process, which goes on after its end.
type Log = Box<dyn Fn() -> Vec<String>>;

/// Tells how often each process dialled an address at most, and fails if that is more often than its limits say.
fn check_dials(logs: &[Log]) {
    let dials: Vec<DialLog> = logs.iter().map(|log| DialLog::read(&log())).collect();
    let most = |window| dials.iter().map(|log| log.most_within(window)).max().unwrap_or_default();
    let [(second, _), (ten, _), (minute, address)] = [1_000, 10_000, 60_000].map(most);
    let all: usize = dials.iter().map(DialLog::count).sum();
    println!(
        "{all} dials; of one node to one address at most {second} within a second, {ten} within ten, {minute} \
         within a minute ({address})"
    );
    assert!(all > 0, "no dial was logged");
    assert!(second <= PER_SECOND, "{second} dials of one address within a second");
    assert!(minute <= PER_MINUTE, "{minute} dials of {address} within a minute");
}

/// Kills one relay after the other, and starts each again with its key and its ports.
async fn kill_in_turn(
    (relays, logs): (&mut Vec<Node>, &mut Vec<Log>),
    (folders, arguments): (&[TempDir], &[&str]),
    every: Duration,
    end: Instant,
) {
    let mut next = Instant::now() + every;
    for victim in (0..relays.len()).cycle() {
        if next + AWAY >= end {
            return;
        }
        sleep_until(next).await;
        next += every;
        let relay = relays.remove(victim);
        let (ws, p2p) = (relay.ws_address().to_owned(), relay.p2p[0].clone());
        relay.kill().await;
        sleep(AWAY).await;
        let place = p2p.split("/p2p/").next().unwrap_or_default();
        let back = [arguments, &["--listen-ws", &ws, "--listen-p2p", place]].concat();
        let relay = Node::run(folders[victim].path(), &back).await;
        logs.push(Box::new(relay.kept_log()));
        relays.insert(victim, relay);
    }
}

// Issue 10, 2, and the second line of its "Shown by".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_found_by_dns_alone_stays_whole_while_its_relays_are_killed() {
    let relays = number("RELAYS", 3);
    let nodes = number("NODES", 6);
    let kill_every = Duration::from_secs(number("KILL_EVERY", 8));
    let lasts = Duration::from_secs(number("SECONDS_TO_RUN", 20));
    let votes_every = Duration::from_millis(number("VOTE_MILLIS", 500));
    let server = DnsServer::start(Vec::new()).await;
    let dns = server.address.to_string();
    let shared = [
        ["--network", NETWORK],
        ["--bootstrap", NETWORK],
        ["--dns-server", &dns],
        ["--max-inbound-per-ip", "100"],
        ["--log", DIALS],
    ]
    .concat();
    let relay_folders = folders(relays);
    let started = relay_folders.iter().map(|folder| Node::run(folder.path(), &shared));
    let mut running = join_all(started).await;
    let mut records = Vec::new();
    for relay in &running {
        let port = relay.ws_address().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let port = port.expect("an address has a port");
        records.push(srv(&format!("_tandem._tcp.{NETWORK}"), 60, "127.0.0.1", port));
        let address = format!("dnsaddr={}", relay.p2p[0]);
        records.push(txt(&format!("_dnsaddr.{NETWORK}"), 60, &address));
    }
    server.replace(records).await;

    let node_folders = folders(nodes);
    let modes = ["ws", "p2p", "hybrid"].into_iter().cycle();
    let started = node_folders.iter().zip(modes).map(|(folder, mode)| {
        let arguments = [&shared[..], &["--mode", mode, "--relay", "off"]].concat();
        async move { Node::run(folder.path(), &arguments).await }
    });
    let nodes = join_all(started).await;
    let processes = running.iter().chain(&nodes);
    let mut logs: Vec<Log> = processes.map(|node| Box::new(node.kept_log()) as Log).collect();
    let began = Instant::now();
    let tasks = TaskSet::new(&CancellationToken::new());
    let votes = Arc::new(Votes::new(node_folders.len()));
    for (number, folder) in node_folders.iter().enumerate() {
        let admin = Admin::of(folder.path());
        tasks.spawn("listener", |_| listens(admin.clone(), number, Arc::clone(&votes)));
        let sends = tasks.clone();
        tasks.spawn("votes", |_| votes_on(admin, number, votes_every, Arc::clone(&votes), sends));
    }
    eventually("the network is whole", PATIENCE, || votes.is_whole().then_some(())).await;
    let whole_after = began.elapsed();

    let end = Instant::now() + lasts;
    kill_in_turn((&mut running, &mut logs), (&relay_folders, &shared), kill_every, end).await;
    sleep_until(end).await;
    let (gap, sender, listener) = votes.longest_gap(end);
    sleep(LAST).await;

    let sent = votes.sent().len();
    let expected = sent * (node_folders.len() - 1);
    let heard = votes.heard();
    let all = relay_folders.iter().chain(&node_folders).map(|folder| folder.path().to_owned());
    let dropped = dropped(&all.collect::<Vec<_>>()).await;
    println!("whole after {:.1} s", whole_after.as_secs_f64());
    println!(
        "longest gap {:.2} s, in the votes of node {sender} at node {listener}",
        gap.as_secs_f64()
    );
    println!("{sent} votes sent, {heard} of {expected} heard");
    check_dials(&logs);
    println!("dropped, of the processes that live: {dropped:?}");
    assert!(gap < PATIENCE, "node {listener} does not hear node {sender} for {gap:?}");
    assert!(heard >= expected as u64 / 2, "{heard} of {expected} votes were heard");
}
