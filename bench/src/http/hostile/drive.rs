//! One turn: a node with an honest caller alone, then with the same caller beside each attack.

use std::{env, process::Stdio, time::Duration};

use broadcaster::Setup;
use gossip::{NetworkProfile, NodeAddress, http::HttpService};
use net_http::{HttpServer, Incident, LoopbackRule, Protection, ServeContext, ServeLimits};
use tokio::{
    process::{Child, Command},
    runtime::Builder,
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Carrier, Paced, client_limits, paced, router},
    attack::AttackKind,
};
use crate::{
    error::Failure,
    node::{Http, Node},
    transport::Transport,
};

/// Time for an attack to build up before the caller is measured.
const UNFOLDING: Duration = Duration::from_secs(2);

/// Time for which the caller sends requests before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Longest time for a turn to stop.
const TEARDOWN: Duration = Duration::from_secs(5);

/// Size of the longest answer that the attack can request, in bytes.
const BODY_BYTES: usize = 1_048_576;

/// The measurements of the honest caller.
#[derive(Debug)]
pub(super) struct Turn {
    /// Without an attack.
    pub(super) alone: Paced,
    /// Beside each kind of attack.
    pub(super) attacked: Vec<(AttackKind, Paced)>,
}

/// Measures one turn on a runtime with two workers.
pub(super) fn run(carrier: Carrier, period: Duration, time: Duration) -> Result<Turn, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let turn = runtime.block_on(measure(carrier, period, time));
    runtime.shutdown_timeout(TEARDOWN);
    turn
}

async fn measure(carrier: Carrier, period: Duration, lasting: Duration) -> Result<Turn, Failure> {
    let transport = match carrier {
        Carrier::Tcp | Carrier::Tls => Transport::Ws,
        Carrier::P2p => Transport::P2p,
    };
    // The default limits, except that loopback is counted, because attacker and caller are on this machine.
    let context = ServeContext { loopback: LoopbackRule::Counted, ..ServeContext::default() };
    let service = HttpService::new(Protection::default().apply(router(BODY_BYTES)));
    let http_server = HttpServer::within(service, ServeLimits::default(), context);
    let mut serving = Http { http_server: Some(http_server.clone()), ..Http::default() };
    serving.inbound.loopback = LoopbackRule::Counted;
    let asking = Http { clients: client_limits(), ..Http::default() };
    let (parent, profile) = (CancellationToken::new(), &NetworkProfile::TANDEM);
    let _guard = parent.clone().drop_guard();
    let near = Node::start(transport, Setup::new(profile), None, serving, &parent).await?;
    let address = near.address()?;
    let peer = Some(address.clone());
    let far = Node::start(transport, Setup::new(profile), peer, asking, &parent).await?;
    far.connected(1).await?;
    let client = far.network.http_client(&address)?;
    paced(&client, period, WARM_UP).await;
    let alone = paced(&client, period, lasting).await;
    eprintln!("{} alone: {}", carrier.name(), said(&alone));
    let mut attacked = Vec::new();
    for way in AttackKind::EVERY {
        let metrics = http_server.metrics();
        let count = || Incident::ALL.map(|incident| metrics.count(incident));
        let (requests, before) = (metrics.requests(), count());
        let attack = start(carrier, way, &address)?;
        time::sleep(UNFOLDING).await;
        let met = paced(&client, period, lasting).await;
        stop(attack).await?;
        let (name, handled) = (way.name(), metrics.requests() - requests);
        eprint!("{} beside {name}: {}; {handled} requests handled", carrier.name(), said(&met));
        for ((incident, after), before) in Incident::ALL.iter().zip(count()).zip(before) {
            if after > before {
                eprint!(", {} {}", after - before, incident.label());
            }
        }
        eprintln!();
        attacked.push((way, met));
    }
    Ok(Turn { alone, attacked })
}

fn said(paced: &Paced) -> String {
    let quantile = |share| paced.latencies.quantile_us(share).unwrap_or(f64::NAN);
    let first = paced.first_failure.iter().map(|first| format!(", first: {first}"));
    let (p50, p99, failed) = (quantile(0.5), quantile(0.99), paced.failed);
    format!("p50 {p50:.0} us, p99 {p99:.0} us, {failed} failed{}", first.collect::<String>())
}

/// Starts this program a second time as the attacker.
fn start(carrier: Carrier, way: AttackKind, address: &NodeAddress) -> Result<Child, Failure> {
    let mut attack = Command::new("nice");
    attack.args(["-n", "19"]).arg(env::current_exe()?);
    attack.args(["attack", carrier.name(), way.name()]);
    attack.arg(address.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(attack.kill_on_drop(true).spawn()?)
}

/// Kills the attacker. It is an error if it has ended by itself.
async fn stop(mut attack: Child) -> Result<(), Failure> {
    if let Some(status) = attack.try_wait()? {
        return Err(format!("the attack has ended: {status}").into());
    }
    Ok(attack.kill().await?)
}
