//! One peer that sends as fast as it is let, each message another one. Issue 8, 24.

use std::{net::Ipv4Addr, time::Duration};

use gossip::{
    Tag,
    wire::{block::BlockRequest, request},
};
use tokio::time::{self, MissedTickBehavior};

use super::{
    Tally, Target,
    line::{Carrier, Ears, Line, again_and_again, write},
};

/// Where a flood comes from.
pub(super) const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);

/// Messages a second. Source: issue 8, 24.
const PER_SECOND: u64 = 600_000;

/// Requests a second: hundreds of times what a node takes, and what one peer can make beside that.
const REQUESTS_PER_SECOND: u64 = 100_000;

const TICK: Duration = Duration::from_millis(10);
const TICKS_PER_SECOND: u64 = 100;

/// The messages that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stuff {
    /// Ten bytes with this tag.
    Messages(Tag),
    /// Requests for blocks.
    Requests,
}

impl Stuff {
    fn put(self, number: u64, carrier: Carrier, bytes: &mut Vec<u8>) {
        match self {
            Self::Messages(tag) => {
                let mut body = [0; 10];
                body[..8].copy_from_slice(&number.to_le_bytes());
                carrier.put(tag, &body, bytes);
            }
            Self::Requests => {
                let topics = BlockRequest { round: number }.topics();
                carrier.put(Tag::UE, &request::seal(&topics, number + 1), bytes);
            }
        }
    }

    const fn per_tick(self) -> u64 {
        match self {
            Self::Messages(_) => PER_SECOND / TICKS_PER_SECOND,
            Self::Requests => REQUESTS_PER_SECOND / TICKS_PER_SECOND,
        }
    }
}

pub(super) async fn run(stuff: Stuff, target: &Target, carrier: Carrier, tally: &Tally) {
    let dial = || Line::dial(target, carrier, SOURCE);
    again_and_again(dial, (tally, Ears::Open), |mut pen| async move {
        let mut ticks = time::interval(TICK);
        // A sender that was held up does not catch up.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bytes = Vec::new();
        loop {
            ticks.tick().await;
            bytes.clear();
            let count = stuff.per_tick();
            let first = tally.sending(count);
            for number in first..first + count {
                stuff.put(number, carrier, &mut bytes);
            }
            write(&mut pen, &bytes).await?;
        }
    })
    .await;
}
