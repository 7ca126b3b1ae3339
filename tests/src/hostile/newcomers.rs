//! Honest hosts that come while the node is attacked.

use std::{net::Ipv4Addr, time::Duration};

use tokio::time::{self, Instant};

use super::{
    Target,
    line::{Carrier, Line},
};

/// Between two of them.
const EVERY: Duration = Duration::from_millis(500);

/// Time for which each newcomer tries to connect.
const PATIENCE: Duration = Duration::from_secs(5);

/// The subnet that they come from.
const SUBNET: [u8; 3] = [127, 20, 0];

/// Number of newcomers, and number of those that were admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Newcomers {
    /// Those that came.
    pub came: u32,
    /// Those that were a peer within five seconds, at the first try.
    pub let_in: u32,
}

/// Lets a host after the other come, by turns over either transport, and leave again, for so long a time.
pub async fn newcomers(target: &Target, lasting: Duration) -> Newcomers {
    let end = Instant::now() + lasting;
    let (mut counted, mut ticks) = (Newcomers::default(), time::interval(EVERY));
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    while ticks.tick().await < end {
        let carrier =
            if counted.came.is_multiple_of(2) { Carrier::WebSocket } else { Carrier::Libp2p };
        let [a, b, c] = SUBNET;
        let source = Ipv4Addr::new(a, b, c, 1 + (counted.came % 200).to_le_bytes()[0]);
        let line = time::timeout(PATIENCE, Line::dial(target, carrier, source)).await;
        counted.came += 1;
        counted.let_in += u32::from(matches!(line, Ok(Ok(_))));
    }
    counted
}
