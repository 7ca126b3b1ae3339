//! One turn: a new hub, the honest peers beside the attack, and the same beside a harmless load.

use std::{future::pending, pin::pin, time::Duration};

use testkit::hostile::{Attack, Counters, Measured, Newcomers, Pair, Target, growth, newcomers};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{
    attacker::{Done, most_connections},
    hub::{Counted, Gone, Ready},
};
use crate::{
    child::{Child, Priority},
    error::Failure,
};

/// Time for which the honest peers are alone with the hub at first.
const ALONE: Duration = Duration::from_secs(2);

/// Time for an attack to build up before it is measured.
const UNFOLDING: Duration = Duration::from_secs(2);

/// Time within which a newcomer is to be a peer, and the last message is to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time after which an attacker counts as not disconnected. Chosen: a message may take 30 s.
const CUT_PATIENCE: Duration = Duration::from_secs(40);

/// Pause of the hub between the attack and the quiet measurement.
const REST: Duration = Duration::from_secs(2);

/// Requests that the honest peer keeps open. Source: issue 9, 4.
const HELD_REQUESTS: usize = 16;

/// Where honest peers come from. Attacks have addresses of their own.
const HONEST: &str = "127.0.0.1";

/// The load beside the honest peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An attack.
    Attack(Attack),
    /// Requests that one of them keeps open itself.
    HeldRequests,
}

/// The result of a turn.
#[derive(Debug)]
pub(super) struct Turn {
    /// Beside a harmless load, after the attack.
    pub(super) quiet: Measured,
    /// Beside the attack.
    pub(super) attacked: Measured,
    /// Honest hosts that came meanwhile.
    pub(super) newcomers: Newcomers,
    /// Messages of the attacker that the system took, each second.
    pub(super) sent_per_s: f64,
    /// When the attacker was cut first, and why.
    pub(super) cut: Option<String>,
    /// Why honest peers were cut.
    pub(super) honest_cut: Vec<String>,
    /// The most memory that the hub has occupied.
    pub(super) peak_mib: f64,
    /// The memory by which that exceeds the most before the attack, when the honest peers were alone.
    pub(super) grown_mib: f64,
}

/// Measures one turn.
pub(super) async fn measure(kind: Kind, lasting: Duration) -> Result<Turn, Failure> {
    let root = CancellationToken::new();
    let _guard = root.clone().drop_guard();
    let mut hub = Child::start(Priority::Same, &["hub".to_owned()])?;
    let Ready { ws, p2p } = hub.first().await?;
    let target = Target::new(ws, p2p);
    let pair = Box::pin(Pair::start(&target, &root)).await;
    pair.measure(ALONE, PATIENCE).await;
    let alone_mib = hub.peak_mib()?;
    let mut turn = match kind {
        Kind::Attack(attack) => attacked(attack, &target, (&pair, &hub), lasting).await?,
        Kind::HeldRequests => held(&target, &pair, lasting).await?,
    };
    let gone = hub.said::<Gone>();
    let honest = gone.iter().filter(|gone| gone.address.contains(HONEST));
    turn.honest_cut = honest.map(|gone| gone.reason.clone()).collect();
    turn.peak_mib = hub.peak_mib()?;
    turn.grown_mib = turn.peak_mib - alone_mib;
    hub.kill().await?;
    Ok(turn)
}

async fn attacked(
    attack: Attack,
    target: &Target,
    (pair, hub): (&Pair, &Child),
    lasting: Duration,
) -> Result<Turn, Failure> {
    let most = most_connections(attack);
    if most < attack.connections() {
        eprintln!("{}: {most} connections, the system allows no more", attack.name());
    }
    let (ws, p2p) = (target.ws.to_string(), target.p2p.clone());
    let arguments = ["attacker".to_owned(), attack.name().to_owned(), ws, p2p, most.to_string()];
    let mut attacker = Child::start(Priority::Lowest, &arguments)?;
    let began = Instant::now();
    attacker.first::<Done>().await?;
    time::sleep(UNFOLDING).await;
    let done = || attacker.said::<Done>().into_iter().next_back().unwrap_or_default();
    let before = (done(), attacker.cpu_seconds()?, Instant::now());
    let counted = counters(pair, hub);
    let (attacked, newcomers) =
        tokio::join!(pair.measure(lasting, PATIENCE), newcomers(target, lasting, PATIENCE));
    if attacked.votes.lost + attacked.transactions.lost > 0 {
        let [near, far] = attacked.lost_from;
        eprintln!("  lost: {near} of the WebSocket node, {far} of the libp2p node");
        explain(&counted, &counters(pair, hub));
    }
    let after = (done(), attacker.cpu_seconds()?);
    let seconds = before.2.elapsed().as_secs_f64();
    let sent_per_s = (after.0.sent - before.0.sent) as f64 / seconds;
    let processors = (after.1 - before.1) / seconds;
    let reason = || {
        let gone = hub
            .said::<Gone>()
            .into_iter()
            .find(|gone| !gone.address.contains(HONEST) && !gone.address.contains("127.20."));
        gone.map_or_else(|| "closed".to_owned(), |gone| gone.reason)
    };
    while done().first_cut_ms.is_none() && began.elapsed() < CUT_PATIENCE {
        time::sleep(Duration::from_millis(100)).await;
    }
    let Done { opened, refused, cut, first_cut_ms, .. } = done();
    let first = first_cut_ms
        .map(|ms| format!("{} after {:.1} s", reason(), Duration::from_millis(ms).as_secs_f64()));
    eprintln!(
        "{}: {opened} connections, {refused} refused, {cut} cut, {sent_per_s:.0} messages/s, {processors:.2} processors",
        attack.name()
    );
    attacker.kill().await?;
    time::sleep(REST).await;
    let load = Child::start(Priority::Lowest, &["load".to_owned(), format!("{processors:.2}")])?;
    let quiet = pair.measure(lasting, PATIENCE).await;
    load.kill().await?;
    let turn = Turn {
        quiet,
        attacked,
        newcomers,
        sent_per_s,
        cut: first,
        honest_cut: Vec::new(),
        peak_mib: 0.0,
        grown_mib: 0.0,
    };
    Ok(turn)
}

/// Counters of the hub, the WebSocket node and the libp2p node.
fn counters(pair: &Pair, hub: &Child) -> [Counters; 3] {
    let hub = hub.said::<Counted>().into_iter().next_back();
    let [near, far] = pair.counters();
    [hub.map(|counted| counted.counters).unwrap_or_default(), near, far]
}

/// Prints what each node counted while messages were lost.
fn explain(before: &[Counters; 3], after: &[Counters; 3]) {
    for (place, (before, after)) in ["hub", "near", "far"].iter().zip(before.iter().zip(after)) {
        for (name, count) in growth(before, after) {
            eprintln!("  {place}: {name} {count}");
        }
    }
}

/// The honest WebSocket peer votes while it waits for answers to its own requests.
async fn held(target: &Target, pair: &Pair, lasting: Duration) -> Result<Turn, Failure> {
    let mut asking = pin!(async {
        pair.ask_for_blocks(HELD_REQUESTS).await;
        pending().await
    });
    let measure = async {
        tokio::join!(pair.measure(lasting, PATIENCE), newcomers(target, lasting, PATIENCE))
    };
    let (attacked, newcomers) = tokio::select! {
        never = &mut asking => never,
        measured = measure => measured,
    };
    time::sleep(REST).await;
    let quiet = pair.measure(lasting, PATIENCE).await;
    let cut = Some("not an attack".to_owned());
    Ok(Turn {
        quiet,
        attacked,
        newcomers,
        sent_per_s: 0.0,
        cut,
        honest_cut: Vec::new(),
        peak_mib: 0.0,
        grown_mib: 0.0,
    })
}
