//! One measurement of one contender: set-up, warm-up, measurement.
//!
//! # Invariants
//!
//! * Everything of a contender ends with its runtime, before the next one starts.
//! * A request without a response by the end of the measurement counts as failed, so no wait is endless.

use std::{fmt, sync::Arc, time::Duration};

use runtime::TaskSet;
use tokio::{
    runtime::Builder,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Carrier, Contender, Plan, bare, ours,
    score::Score,
    stage::{Keep, Stage},
    usual,
};
use crate::{error::Failure, stats};

/// Longest time for the set-up.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time for a contender to stop.
const TEARDOWN: Duration = Duration::from_secs(5);

/// Longest time without any response before the measurement fails.
const STANDSTILL: Duration = Duration::from_secs(20);

/// Interval at which the score is checked.
const LOOK: Duration = Duration::from_millis(5);

/// The extent of a measurement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    /// This many requests, of all callers together.
    Requests(u64),
    /// The requests that can be answered in a given time.
    Time {
        /// Time before the measurement.
        warm_up: Duration,
        /// Time of the measurement.
        time: Duration,
    },
}

/// The result of one contender.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Answered requests per second.
    pub(super) per_s: f64,
    /// Answered requests per second of processor time, of both ends together.
    pub(super) per_cpu_s: Option<f64>,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    /// Number of requests without the right response, warm-up included.
    pub(super) failed: u64,
    first_failure: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_cpu_s = self.per_cpu_s.unwrap_or(f64::NAN);
        write!(f, "{:.0}/s, {per_cpu_s:.0} per processor second", self.per_s)?;
        if let (Some(p50), Some(p99)) = (self.p50_us, self.p99_us) {
            write!(f, ", p50 {p50:.0} us, p99 {p99:.0} us")?;
        }
        match &self.first_failure {
            Some(first) => write!(f, ", {} FAILED, first: {first}", self.failed),
            None => write!(f, ", none failed"),
        }
    }
}

/// Measures one contender.
pub(super) fn run(plan: Plan) -> Result<Outcome, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(measure(plan));
    runtime.shutdown_timeout(TEARDOWN);
    outcome
}

async fn measure(plan: Plan) -> Result<Outcome, Failure> {
    let requests = match plan.amount {
        Amount::Requests(requests) => requests,
        Amount::Time { .. } => u64::MAX,
    };
    let score = Arc::new(Score::new(plan.callers, requests));
    let tasks = TaskSet::new(&CancellationToken::new());
    let stage = Stage { plan, score: Arc::clone(&score), tasks: tasks.clone() };
    let contender = time::timeout(SETUP_TIMEOUT, set_up(stage)).await??;
    // The set-up of two nodes takes longer than that of two sockets, and is no part of a request.
    let mut began = (Instant::now(), stats::cpu_seconds());
    if let Amount::Time { warm_up, time } = plan.amount {
        time::sleep(warm_up).await;
        score.begin();
        began = (Instant::now(), stats::cpu_seconds());
        time::sleep(time).await;
    } else {
        all_ended(&score).await;
    }
    let (elapsed, cpu_after) = (began.0.elapsed(), stats::cpu_seconds());
    let latencies = score.latencies();
    score.end();
    all_ended(&score).await;
    let stuck = u64::try_from(score.calling())?;
    score.failed(stuck, || "no response".to_owned());
    drop(contender);
    // The servers of bare connections have no orderly stop, so they are aborted.
    let _ = tasks.stop(Duration::ZERO).await;
    let answered = latencies.len() as f64;
    let cpu = began.1.zip(cpu_after).map(|(before, after)| after - before);
    Ok(Outcome {
        per_s: answered / elapsed.as_secs_f64(),
        per_cpu_s: cpu.filter(|cpu| *cpu > 0.0).map(|cpu| answered / cpu),
        p50_us: latencies.quantile_us(0.5),
        p99_us: latencies.quantile_us(0.99),
        failed: score.failures(),
        first_failure: score.first_failure().map(str::to_owned),
    })
}

/// Waits until every caller has ended, or until no more responses come.
async fn all_ended(score: &Score) {
    let (mut total, mut moved) = (score.total(), Instant::now());
    while score.calling() > 0 && moved.elapsed() < STANDSTILL {
        time::sleep(LOOK).await;
        let now = score.total();
        if now != total {
            (total, moved) = (now, Instant::now());
        }
    }
}

async fn set_up(stage: Stage) -> Result<Keep, Failure> {
    match (stage.plan.contender, stage.plan.carrier) {
        (Contender::Bare, Carrier::Tcp) => bare::tcp(stage).await,
        (Contender::Bare, Carrier::Tls) => bare::tls(stage).await,
        (Contender::Bare, Carrier::P2p) => bare::p2p(stage).await,
        (Contender::Server, _) => ours::start_server(stage).await,
        (Contender::Ours, _) => ours::start(stage).await,
        (Contender::Usual, _) => usual::start(stage).await,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Reuse, *};

    #[test]
    fn every_contender_answers_every_request() {
        for carrier in Carrier::ALL {
            for contender in Contender::on(carrier) {
                for bytes in [5, 100_000] {
                    let (reuse, amount) = (Reuse::Kept, Amount::Requests(50));
                    let plan = Plan { contender, carrier, callers: 3, bytes, reuse, amount };
                    let outcome = run(plan).unwrap();
                    // `libp2p-stream` drops one of two streams that arrive at the same time.
                    let excused = match (contender, carrier) {
                        (Contender::Bare, Carrier::P2p) => 3,
                        _ => 0,
                    };
                    assert!(outcome.failed <= excused, "{plan:?}: {outcome}");
                    assert!(outcome.per_s > 0.0);
                }
            }
        }
    }

    #[test]
    fn a_node_loses_no_request_with_one_stream_per_request() {
        for carrier in Carrier::ALL {
            let (contender, reuse) = (Contender::Ours, Reuse::Fresh);
            let (callers, bytes, amount) = (16, 5, Amount::Requests(200));
            let outcome = run(Plan { contender, carrier, callers, bytes, reuse, amount }).unwrap();
            assert_eq!(outcome.failed, 0, "{carrier:?}: {outcome}");
        }
    }
}
