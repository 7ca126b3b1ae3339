//! One turn: a node, its peers, and who looks at it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gossip::Tag;
use runtime::TaskSet;
use serde::Deserialize;
use testkit::hostile::{Pair, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{Onlookers, Pace, Plan, onlookers};
use crate::{
    child::{Child, Priority},
    error::Failure,
    receiver::ws,
};

/// Length of a vote's body, in bytes.
pub(super) const VOTE_BYTES: usize = 200;

/// Length of such a vote in a frame of a server: header, length in two bytes, tag and body.
const FRAME_BYTES: u64 = 4 + Tag::BYTES as u64 + VOTE_BYTES as u64;

/// Time before a measurement, in which everything is as in it.
const WARM_UP: Duration = Duration::from_secs(1);

/// Time for the last messages of the pair to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two batches of a sender. Chosen: several batches arrive while the node writes one.
const TICK: Duration = Duration::from_millis(5);

/// The line of a node that is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    ws: String,
    p2p: Vec<String>,
    metrics: Option<String>,
    admin: Option<String>,
}

/// Measures one turn.
pub(super) async fn measure(plan: &Plan, onlookers: Onlookers) -> Result<Pace, Failure> {
    let root = CancellationToken::new();
    let _guard = root.clone().drop_guard();
    let dir = tempfile::tempdir()?;
    let mut node = Child::of(&plan.program, Priority::Same, &arguments(dir.path(), onlookers))?;
    let Ready { ws, p2p, metrics, admin } = node.first().await?;
    let at: SocketAddr = ws.strip_prefix("http://").ok_or("no URL of HTTP")?.parse()?;
    let p2p = p2p.into_iter().next().ok_or("the node does not listen on libp2p")?;
    let target = Target::new(at, p2p);
    let genesis = target.network.as_str();

    let (tasks, received) = (TaskSet::new(&root), Arc::new(AtomicU64::new(0)));
    for number in 0..plan.peers {
        let stream = ws::connect_from(host(1, number)?, at, genesis).await?;
        let received = Arc::clone(&received);
        tasks.spawn("receiver", move |_| receive(stream, received));
    }
    for number in 0..plan.senders {
        let stream = ws::connect_from(host(2, number)?, at, genesis).await?;
        let (rate, number) = (plan.rate, number as u64);
        tasks.spawn("sender", move |_| async move {
            // A sender that was cut off shows as too few deliveries.
            let _ = send(stream, rate, number).await;
        });
    }
    let looks = Arc::new(AtomicU64::new(0));
    if let (Some(metrics), Some(admin)) = (metrics, admin) {
        let token = std::fs::read_to_string(dir.path().join("admin.token"))?;
        onlookers::spawn(&tasks, (&metrics, &admin, token.trim()), &looks)?;
    }
    let pair = Box::pin(Pair::start(&target, &root)).await;
    pair.measure(WARM_UP, PATIENCE).await;

    let read = || (Instant::now(), received.load(Ordering::Relaxed));
    let (cpu_before, (began, before)) = (node.cpu_seconds()?, read());
    let seen = looks.load(Ordering::Relaxed);
    let measured = pair.measure(plan.time, PATIENCE).await;
    let (cpu_after, (ended, after)) = (node.cpu_seconds()?, read());
    node.check()?;
    let deliveries = (after - before) as f64 / FRAME_BYTES as f64;
    let pace = Pace {
        deliveries_per_s: deliveries / (ended - began).as_secs_f64(),
        deliveries_per_cpu_s: deliveries / (cpu_after - cpu_before),
        pair: measured,
        looks: looks.load(Ordering::Relaxed) - seen,
    };
    node.kill().await?;
    if onlookers == Onlookers::All && pace.looks == 0 {
        return Err("nobody looked at the node".into());
    }
    Ok(pace)
}

/// The command line of the node.
fn arguments(dir: &Path, onlookers: Onlookers) -> Vec<String> {
    let looked_at: &[&str] = match onlookers {
        Onlookers::Nobody => &["--trace-one-in", "0"],
        Onlookers::All => {
            &["--trace-one-in", "1000", "--metrics", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        }
    };
    let network = Target::new(([127, 0, 0, 1], 0).into(), String::new()).network;
    let dir = dir.to_string_lossy();
    let first = ["run", "--json", "--data-dir", &dir, "--network", network.as_str()];
    let ports = ["--listen-ws", "127.0.0.1:0", "--listen-p2p", "/ip4/127.0.0.1/tcp/0"];
    [&first[..], &ports, looked_at].concat().into_iter().map(str::to_owned).collect()
}

/// An address of this machine for each peer, so that no limit per address applies.
fn host(kind: u8, number: usize) -> Result<Ipv4Addr, Failure> {
    Ok(Ipv4Addr::new(127, 0, kind, u8::try_from(number + 1)?))
}

/// Counts what comes until the connection ends. Nothing is answered: a turn is over before a silent peer is doubted.
async fn receive(mut stream: TcpStream, received: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        received.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// Sends votes at a rate, and reads what comes.
async fn send(stream: TcpStream, rate: u32, sender: u64) -> Result<(), Failure> {
    let (mut reader, mut writer) = stream.into_split();
    let drain = async {
        let mut buffer = vec![0; 64 * 1024];
        while reader.read(&mut buffer).await? > 0 {}
        Ok(())
    };
    let write = async {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (began, mut sent, mut batch) = (Instant::now(), 0_u64, Vec::new());
        loop {
            ticks.tick().await;
            let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
            batch.clear();
            for number in sent..due {
                put_vote(sender, number, &mut batch)?;
            }
            sent = due;
            writer.write_all(&batch).await?;
        }
    };
    tokio::select! {
        ended = drain => ended,
        failed = write => failed,
    }
}

/// Appends a vote as a client frames it, masked with zeros.
fn put_vote(sender: u64, number: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
    out.extend([0x82, 0xfe]);
    out.extend(u16::try_from(Tag::BYTES + VOTE_BYTES)?.to_be_bytes());
    out.extend([0; 4]);
    out.extend(Tag::AV.0);
    let end = out.len() + VOTE_BYTES;
    out.extend(sender.to_le_bytes());
    out.extend(number.to_le_bytes());
    out.resize(end, b'.');
    Ok(())
}
