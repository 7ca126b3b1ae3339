//! One turn: a node, an honest caller alone, then the same caller beside an attack.

use std::{env, fmt, process::Stdio, time::Duration};

use broadcaster::Setup;
use gossip::{NetworkProfile, NodeAddress, http::HttpService};
use net_http::{
    Reception,
    serve::{Incident, LoopbackRule, ServeLimits},
};
use tokio::{
    process::{Child, Command},
    runtime::Builder,
    time,
};
use tokio_util::sync::CancellationToken;

use super::super::{Carrier, Paced, client_limits, paced, router};
use crate::{
    error::Failure,
    fanout::Transport,
    node::{Http, Node},
};

/// How long an attack has to unfold before the caller is measured.
const UNFOLDING: Duration = Duration::from_secs(2);

/// How long the caller asks before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long the end of a turn may take.
const TEARDOWN: Duration = Duration::from_secs(5);

/// Bytes of the longest answer the attack can ask for.
const BODY_BYTES: usize = 1_048_576;

/// What the honest caller met.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) alone: Paced,
    pub(super) attacked: Paced,
    /// Requests of the attack that were handled.
    handled: u64,
    incidents: Vec<(Incident, u64)>,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p99 = |paced: &Paced| paced.latencies.quantile_us(0.99).unwrap_or(f64::NAN);
        let (alone, attacked) = (p99(&self.alone), p99(&self.attacked));
        write!(f, "p99 {alone:.0} us alone, {attacked:.0} us attacked")?;
        for (when, paced) in [("alone", &self.alone), ("attacked", &self.attacked)] {
            if let Some(first) = &paced.first_failure {
                write!(f, ", {} FAILED {when}, first: {first}", paced.failed)?;
            }
        }
        write!(f, "; {} requests handled", self.handled)?;
        self.incidents
            .iter()
            .try_for_each(|(incident, times)| write!(f, ", {times} {}", incident.label()))
    }
}

/// Measures one turn on a runtime of two workers.
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
    // As shipped, but that all of this happens on one machine.
    let limits = ServeLimits { loopback: LoopbackRule::Counted, ..ServeLimits::default() };
    let reception = Reception::new(HttpService::new(router(BODY_BYTES)), limits);
    let mut serving = Http { reception: Some(reception.clone()), ..Http::default() };
    serving.inbound.exempt_loopback_from_rate = mesh::LoopbackRule::Counted;
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
    let attack = start(carrier, &address)?;
    time::sleep(UNFOLDING).await;
    let before = reception.metrics().requests();
    let attacked = paced(&client, period, lasting).await;
    let handled = reception.metrics().requests() - before;
    let count = |incident| (incident, reception.metrics().count(incident));
    let incidents = Incident::ALL.into_iter().map(count).filter(|(_, times)| *times > 0).collect();
    stop(attack).await?;
    Ok(Turn { alone, attacked, handled, incidents })
}

/// Starts this program again, as the attack.
fn start(carrier: Carrier, address: &NodeAddress) -> Result<Child, Failure> {
    let mut attack = Command::new("nice");
    attack.args(["-n", "19"]).arg(env::current_exe()?).args(["attack", carrier.name()]);
    attack.arg(address.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(attack.kill_on_drop(true).spawn()?)
}

/// Ends the attack, which must not have ended by itself.
async fn stop(mut attack: Child) -> Result<(), Failure> {
    if let Some(status) = attack.try_wait()? {
        return Err(format!("the attack has ended: {status}").into());
    }
    Ok(attack.kill().await?)
}
