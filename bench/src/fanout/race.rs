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
    ours,
    quic::{self, Form},
    raw,
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

/// Interval at which a measurement of a number of messages looks for its end.
const LOOK: Duration = Duration::from_millis(5);

/// The extent of a measurement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    /// This many messages to each receiver, rounded up to whole blocks.
    Messages(u64),
    /// The messages that can be delivered in a given time.
    Time {
        /// Time before the measurement.
        warm_up: Duration,
        /// Time of the measurement.
        time: Duration,
    },
}

impl Amount {
    /// Number of blocks that are published.
    fn blocks(self) -> u64 {
        match self {
            Self::Messages(messages) => messages.div_ceil(BLOCK),
            Self::Time { .. } => u64::MAX,
        }
    }
}

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
    let mut publish = time::timeout(SETUP_TIMEOUT, set_up(plan, stage)).await??;
    let publisher = Arc::clone(&meter);
    // A given number of messages counts from the first one on, which may have come before this task runs again.
    let mut start = Readings::now(&meter);
    tasks.spawn("publisher", |cancel| async move {
        if let Err(error) = publish_all(&mut publish, plan, &publisher).await {
            publisher.fail(error.to_string());
        }
        // Without it the connections end, before the last messages are counted.
        cancel.cancelled().await;
        drop(publish);
    });
    if let Amount::Time { warm_up, .. } = plan.amount {
        time::sleep(warm_up).await;
        start = Readings::now(&meter);
    }
    match plan.amount {
        Amount::Time { time, .. } => time::sleep(time).await,
        Amount::Messages(_) => {
            let all = plan.amount.blocks() * BLOCK * plan.peers as u64;
            while meter.total() < all && meter.failure().is_none() {
                time::sleep(LOOK).await;
            }
        }
    }
    let end = Readings::now(&meter);
    let failure = meter.failure().map(str::to_owned);
    meter.fail("the measurement is over");
    // Tasks that still run end with the runtime.
    let _ = tasks.stop(TEARDOWN).await;
    match failure {
        Some(failure) => Err(failure.into()),
        None if end.delivered == start.delivered => Err(NOTHING.into()),
        None => {
            let delivered = (end.delivered - start.delivered) as f64;
            let cpu = start.cpu_s.zip(end.cpu_s).map(|(start, end)| end - start);
            Ok(Pace {
                per_s: delivered / (end.at - start.at).as_secs_f64(),
                per_cpu_s: cpu.filter(|cpu| *cpu > 0.0).map(|cpu| delivered / cpu),
            })
        }
    }
}

/// The readings at one end of a measurement.
#[derive(Clone, Copy, Debug)]
struct Readings {
    at: Instant,
    /// Processor time of this process, where the system tells it.
    cpu_s: Option<f64>,
    delivered: u64,
}

impl Readings {
    fn now(meter: &Meter) -> Self {
        Self { at: Instant::now(), cpu_s: stats::cpu_seconds(), delivered: meter.total() }
    }
}

async fn set_up(plan: Plan, stage: Stage) -> Result<Publish, Failure> {
    match (plan.contender, plan.transport) {
        (Contender::Raw, Transport::Ws | Transport::P2p) => raw::start(stage).await,
        (Contender::Raw, Transport::Quic) => quic::start(stage, BATCH, Form::Chunks).await,
        (Contender::OneWrite, Transport::Ws) => by_hand::ws(stage, Batch(1)).await,
        (Contender::OneWrite, Transport::P2p) => by_hand::p2p(stage, Batch(1)).await,
        (Contender::OneWrite, Transport::Quic) => {
            quic::start(stage, Batch(1), Form::OneWrite).await
        }
        (Contender::Batched, Transport::Quic) => quic::start(stage, BATCH, Form::OneWrite).await,
        (Contender::Batched, Transport::Ws) => by_hand::ws(stage, BATCH).await,
        (Contender::Batched, Transport::P2p) => by_hand::p2p(stage, BATCH).await,
        (Contender::Ours, Transport::Ws) => ours::ws(stage).await,
        (Contender::Ours, Transport::P2p) => ours::p2p(stage).await,
        (Contender::Ours, Transport::Quic) => ours::quic(stage).await,
    }
}

/// Publishes numbered, distinct messages as fast as the window allows.
async fn publish_all(publish: &mut Publish, plan: Plan, meter: &Meter) -> Result<(), Failure> {
    let mut number: u64 = 0;
    for _ in 0..plan.amount.blocks() {
        meter.next_block().await?;
        for _ in 0..BLOCK {
            let mut body = vec![0; plan.bytes];
            if let Some(start) = body.first_chunk_mut() {
                *start = number.to_le_bytes();
            }
            publish(Bytes::from(body))?;
            number += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a contender. A busy machine may deliver nothing in a short time, so the time doubles until something comes.
    fn delivers(mut plan: Plan) {
        let longest = Duration::from_secs(5);
        let mut outcome = run(plan);
        while let Amount::Time { time, .. } = &mut plan.amount
            && *time < longest
            && matches!(&outcome, Err(error) if error.to_string() == NOTHING)
        {
            *time *= 2;
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
            (Contender::Raw, Transport::Quic),
            (Contender::OneWrite, Transport::Quic),
            (Contender::Batched, Transport::Quic),
            (Contender::Ours, Transport::Quic),
        ] {
            // A lost, duplicated or reordered message is an error, and so is a stall.
            for amount in [Amount::Time { warm_up: time, time }, Amount::Messages(1)] {
                delivers(Plan { contender, transport, peers: 3, bytes: 200, amount });
            }
        }
    }
}
