//! One measurement of one contender: connect, fill the link, measure.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use runtime::TaskSet;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    Contender, Plan, TEARDOWN, dual_queue, ours,
    probe::{Load, Probe, Report},
    raw,
    stage::{Contending, Stage},
};
use crate::{error::Failure, http::paced};

/// Size of a priority message's body, in bytes: roughly a vote.
const PRIORITY_BYTES: usize = 256;

/// Time between two priority messages.
const PERIOD: Duration = Duration::from_millis(5);

/// Bulk that waits in the contender's queue, in bytes; at least two messages.
const BULK_AHEAD_BYTES: usize = 4 * 1024 * 1024;

/// Largest number of bulk messages that wait. Chosen: the same as in the harness of the anchors.
const BULK_AHEAD: usize = 16;

/// Longest time until the first message arrives.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for the last messages.
const STRAGGLERS: Duration = Duration::from_millis(1_500);

/// Measures one contender.
pub(super) async fn run(plan: Plan) -> Result<Report, Failure> {
    let tasks = TaskSet::new(&CancellationToken::new());
    let stage = Stage { probe: Arc::new(Probe::new()), tasks: tasks.clone() };
    let probe = Arc::clone(&stage.probe);
    let report = async {
        let contender: Arc<dyn Contending> = match plan.contender {
            Contender::Raw => return raw_only(plan, stage).await,
            Contender::DualQueue => Arc::new(dual_queue::start(stage).await?),
            Contender::Ours(transport) => Arc::new(ours::start(transport, stage).await?),
        };
        time::timeout(CONNECT_TIMEOUT, greet(&*contender, &probe)).await??;
        start_bulk(plan, Arc::clone(&contender), Arc::clone(&probe), &tasks);
        let votes = async {
            time::sleep(plan.warm_up).await;
            votes(plan.time, &*contender, &probe).await
        };
        let (sent, http) = tokio::join!(votes, Box::pin(http(plan, &*contender)));
        Ok(Report { http: http?, ..probe.report(sent?)? })
    };
    let report = report.await;
    // Tasks that still run end with the runtime.
    let _ = tasks.stop(TEARDOWN).await;
    report
}

async fn raw_only(plan: Plan, stage: Stage) -> Result<Report, Failure> {
    let probe = Arc::clone(&stage.probe);
    raw::start(stage, plan.bulk_bytes).await?;
    time::sleep(plan.warm_up).await;
    probe.begin();
    time::sleep(plan.time).await;
    probe.end();
    probe.report(0)
}

/// Sends priority messages until some of them arrive.
async fn greet(contender: &dyn Contending, probe: &Probe) -> Result<(), Failure> {
    // No measured message has these numbers, so none of those is a duplicate.
    let mut number = u64::MAX;
    while probe.greetings() < 3 {
        contender.priority(probe.body(number, PRIORITY_BYTES))?;
        number -= 1;
        time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Keeps bulk waiting in the contender's queue.
fn start_bulk(plan: Plan, contender: Arc<dyn Contending>, probe: Arc<Probe>, tasks: &TaskSet) {
    let ahead = (BULK_AHEAD_BYTES / plan.bulk_bytes).clamp(2, BULK_AHEAD);
    tasks.spawn("bulk", |cancel| async move {
        let mut waiting = FuturesUnordered::new();
        let mut number = 0;
        loop {
            while waiting.len() < ahead {
                waiting.push(contender.bulk(probe.body(number, plan.bulk_bytes)));
                number += 1;
            }
            let left = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                left = waiting.next() => left,
            };
            if let Some(Err(error)) = left {
                eprintln!("bulk ends: {error}");
                return;
            }
        }
    });
}

/// Sends HTTP requests to the sending node, if the plan says so; those of the warm-up do not count.
async fn http(plan: Plan, contender: &dyn Contending) -> Result<Option<Load>, Failure> {
    let Some(period) = plan.http else { return Ok(None) };
    let client = contender.http().ok_or("the contender serves no HTTP")?;
    paced(&client, period, plan.warm_up).await;
    let paced = paced(&client, period, plan.time).await;
    let per_s = paced.latencies.len() as f64 / plan.time.as_secs_f64();
    Ok(Some(Load { per_s, paced }))
}

/// Sends a priority message at every tick, and returns their number.
async fn votes(
    lasting: Duration,
    contender: &dyn Contending,
    probe: &Probe,
) -> Result<u64, Failure> {
    let mut ticks = time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    probe.begin();
    let end = Instant::now() + lasting;
    let mut sent = 0;
    while ticks.tick().await < end {
        contender.priority(probe.body(sent, PRIORITY_BYTES))?;
        sent += 1;
    }
    probe.end();
    let all_heard = async {
        while probe.heard() < sent {
            time::sleep(PERIOD).await;
        }
    };
    // Messages that are still missing count as lost.
    let _ = time::timeout(STRAGGLERS, all_heard).await;
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Transport;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_contender_delivers_votes_and_bulk() {
        let time = Duration::from_millis(400);
        for contender in [
            Contender::Raw,
            Contender::DualQueue,
            Contender::Ours(Transport::Ws),
            Contender::Ours(Transport::P2p),
            Contender::Ours(Transport::Quic),
        ] {
            let plan = Plan { contender, bulk_bytes: 65_536, http: None, warm_up: time, time };
            let report = run(plan).await.unwrap();
            assert_eq!(report.lost, 0, "{contender:?}");
            if matches!(contender, Contender::Ours(_)) {
                let http = Some(Duration::from_millis(1));
                let load = run(Plan { http, ..plan }).await.unwrap().http.unwrap();
                assert_eq!(load.paced.failed, 0, "{:?}", load.paced.first_failure);
                assert!(load.per_s > 0.0);
            }
        }
    }
}
