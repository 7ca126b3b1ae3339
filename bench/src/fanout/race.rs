//! One measurement of one contender: set-up, warm-up, measurement.
//!
//! # Invariants
//!
//! * Everything of a contender ends with its runtime, before the next one starts.
//! * A contender that drops, duplicates or reorders a message, or stalls, gets no figure.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use runtime::TaskSet;
use tokio::{
    runtime::Builder,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Contender, Plan,
    by_hand::{self, Batch},
    ours, raw,
    stage::{Publish, Stage},
};
use crate::{
    error::Failure,
    meter::{BLOCK, Meter},
    stats,
    transport::Transport,
};

/// Longest time for the set-up. Chosen: two hundred handshakes on a busy machine.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time for a contender to stop.
const TEARDOWN: Duration = Duration::from_secs(5);

/// Batch of the second loop written by hand, in messages. Source: performance anchors, the best of those tried
/// there.
const BATCH: Batch = Batch(256);

/// The failure of a contender of which nothing arrived in the measured time.
const NOTHING: &str = "nothing was delivered";

/// The result of one contender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Deliveries per second.
    pub(super) per_s: f64,
    /// Deliveries per second of processor time, of senders and receivers together.
    pub(super) per_cpu_s: Option<f64>,
}

/// Measures one contender.
pub(super) fn run(plan: Plan) -> Result<Pace, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rate = runtime.block_on(measure(plan));
    runtime.shutdown_timeout(TEARDOWN);
    rate
}

async fn measure(plan: Plan) -> Result<Pace, Failure> {
    let meter = Meter::new(plan.peers);
    let tasks = TaskSet::new(&CancellationToken::new());
    let stage = Stage { peers: plan.peers, meter: Arc::clone(&meter), tasks: tasks.clone() };
    let publish = time::timeout(SETUP_TIMEOUT, set_up(plan, stage)).await??;
    let publisher = Arc::clone(&meter);
    tasks.spawn("publisher", |_cancel| async move {
        if let Err(error) = publish_all(publish, plan.bytes, &publisher).await {
            publisher.fail(error.to_string());
        }
    });
    time::sleep(plan.warm_up).await;
    let (began, cpu_before, before) = (Instant::now(), stats::cpu_seconds(), meter.total());
    time::sleep(plan.time).await;
    let (elapsed, cpu_after, after) = (began.elapsed(), stats::cpu_seconds(), meter.total());
    let failure = meter.failure().map(str::to_owned);
    meter.fail("the measurement is over");
    // Tasks that still run end with the runtime.
    let _ = tasks.stop(TEARDOWN).await;
    match failure {
        Some(failure) => Err(failure.into()),
        None if after == before => Err(NOTHING.into()),
        None => {
            let delivered = (after - before) as f64;
            let cpu = cpu_before.zip(cpu_after).map(|(before, after)| after - before);
            Ok(Pace {
                per_s: delivered / elapsed.as_secs_f64(),
                per_cpu_s: cpu.filter(|cpu| *cpu > 0.0).map(|cpu| delivered / cpu),
            })
        }
    }
}

async fn set_up(plan: Plan, stage: Stage) -> Result<Publish, Failure> {
    match (plan.contender, plan.transport) {
        (Contender::Raw, _) => raw::start(stage).await,
        (Contender::OneWrite, Transport::Ws) => by_hand::ws(stage, Batch(1)).await,
        (Contender::OneWrite, Transport::P2p) => by_hand::p2p(stage, Batch(1)).await,
        (Contender::Batched, Transport::Ws) => by_hand::ws(stage, BATCH).await,
        (Contender::Batched, Transport::P2p) => by_hand::p2p(stage, BATCH).await,
        (Contender::Ours, Transport::Ws) => ours::ws(stage).await,
        (Contender::Ours, Transport::P2p) => ours::p2p(stage).await,
    }
}

/// Publishes numbered, distinct messages as fast as the window allows.
async fn publish_all(mut publish: Publish, bytes: usize, meter: &Meter) -> Result<(), Failure> {
    let mut number: u64 = 0;
    loop {
        meter.next_block().await?;
        for _ in 0..BLOCK {
            let mut body = vec![0; bytes];
            if let Some(start) = body.first_chunk_mut() {
                *start = number.to_le_bytes();
            }
            publish(Bytes::from(body))?;
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a contender. A busy machine may deliver nothing in a short time, so the time doubles until something comes.
    fn delivers(mut plan: Plan) {
        let longest = Duration::from_secs(5);
        let mut outcome = run(plan);
        while plan.time < longest && matches!(&outcome, Err(error) if error.to_string() == NOTHING)
        {
            plan.time *= 2;
            outcome = run(plan);
        }
        outcome.unwrap();
    }

    #[test]
    fn every_contender_delivers_every_message_once_and_in_order() {
        let time = Duration::from_millis(50);
        for (contender, transport) in [
            (Contender::Raw, Transport::Ws),
            (Contender::OneWrite, Transport::Ws),
            (Contender::OneWrite, Transport::P2p),
            (Contender::Batched, Transport::Ws),
            (Contender::Batched, Transport::P2p),
            (Contender::Ours, Transport::Ws),
            (Contender::Ours, Transport::P2p),
        ] {
            let plan = Plan { contender, transport, peers: 3, bytes: 200, warm_up: time, time };
            // A lost, duplicated or reordered message is an error, and so is a stall.
            delivers(plan);
        }
    }
}
