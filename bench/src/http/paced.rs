//! A caller that sends a request at every tick, without waiting for earlier responses.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use gossip::http::HttpClient;
use tokio::time::{self, Instant, MissedTickBehavior};

use super::app::Wanted;
use crate::{error::Failure, stats::Latencies};

/// Largest number of requests in progress; a further one counts as failed. Chosen: one second at 1,000 a
/// second.
const MAX_UNDER_WAY: usize = 1_024;

/// Longest wait for the last responses.
const STRAGGLERS: Duration = Duration::from_secs(5);

/// The results of the requests.
#[derive(Clone, Debug)]
pub(crate) struct Paced {
    /// Time from the tick of a request to the end of its response.
    pub(crate) latencies: Latencies,
    /// Number of requests without the right response.
    pub(crate) failed: u64,
    /// The error of the first of these.
    pub(crate) first_failure: Option<String>,
}

impl Paced {
    fn note(&mut self, outcome: Result<Duration, Failure>) {
        match outcome {
            Ok(latency) => self.latencies.note(latency),
            Err(error) => self.fail(1, || error.to_string()),
        }
    }

    fn fail(&mut self, requests: usize, reason: impl FnOnce() -> String) {
        if requests > 0 {
            self.failed += u64::try_from(requests).unwrap_or(u64::MAX);
            self.first_failure.get_or_insert_with(reason);
        }
    }
}

/// Sends one request per `period` for the time `lasting`.
///
/// # Cancel safety
///
/// Not safe: a dropped future loses the measurement.
pub(crate) async fn paced(client: &HttpClient, period: Duration, lasting: Duration) -> Paced {
    let mut paced = Paced { latencies: Latencies::new(), failed: 0, first_failure: None };
    let mut ticks = time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + lasting;
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            tick = ticks.tick() => {
                if tick >= end {
                    break;
                }
                if under_way.len() < MAX_UNDER_WAY {
                    under_way.push(async move {
                        Wanted::HELLO.ask(client).await?;
                        Ok(tick.elapsed())
                    });
                } else {
                    paced.fail(1, || "too many are under way".to_owned());
                }
            }
            Some(outcome) = under_way.next() => paced.note(outcome),
        }
    }
    let stragglers = async {
        while let Some(outcome) = under_way.next().await {
            paced.note(outcome);
        }
    };
    // Requests without a response by now count as failed.
    let _ = time::timeout(STRAGGLERS, stragglers).await;
    paced.fail(under_way.len(), || "no response".to_owned());
    paced
}
