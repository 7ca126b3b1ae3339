//! Honest hosts that come while the node is attacked.

use std::{net::Ipv4Addr, time::Duration};

use tokio::time::{self, Instant};

use super::{
    Target,
    line::{Carrier, Line},
};

/// Between two of them.
const EVERY: Duration = Duration::from_millis(500);

/// The subnet that they come from.
const SUBNET: [u8; 3] = [127, 20, 0];

/// Number of newcomers, and those that were not admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newcomers {
    /// Those that came.
    pub came: u32,
    /// Those that were not a peer in time at the first try: the number of each, its transport, and why.
    pub left_out: Vec<String>,
}

impl Newcomers {
    /// Those that were a peer in time, at the first try.
    #[must_use]
    pub fn let_in(&self) -> u32 {
        let left_out = u32::try_from(self.left_out.len()).unwrap_or(u32::MAX);
        self.came.saturating_sub(left_out)
    }
}

/// Lets a host after the other come, by turns over either transport, and leave again, for so long a time. Each
/// tries to connect for as long as its `patience` lasts.
pub async fn newcomers(target: &Target, lasting: Duration, patience: Duration) -> Newcomers {
    let end = Instant::now() + lasting;
    let (mut counted, mut ticks) = (Newcomers::default(), time::interval(EVERY));
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    while ticks.tick().await < end {
        let carrier =
            if counted.came.is_multiple_of(2) { Carrier::WebSocket } else { Carrier::Libp2p };
        let [a, b, c] = SUBNET;
        let source = Ipv4Addr::new(a, b, c, 1 + (counted.came % 200).to_le_bytes()[0]);
        if let Err(error) = Line::dial_within(patience, target, carrier, source).await {
            counted.left_out.push(format!("{} over {carrier:?}: {error}", counted.came));
        }
        counted.came += 1;
    }
    counted
}
