//! An honest peer at the attacker's own address, as behind one gateway.

use std::{cell::Cell, time::Duration};

use gossip::Tag;
use tokio::time::{self, Instant, MissedTickBehavior};

use super::{
    Target,
    flood::SOURCE,
    line::{Carrier, Ears, Line, write},
};

/// Between two tries to connect. Chosen: quicker than any node redials, and far slower than an attacker.
const AGAIN: Duration = Duration::from_millis(250);

/// Between two votes.
const VOTE_EVERY: Duration = Duration::from_millis(10);

/// The first bytes of its votes, which tell them from those of an attacker.
pub const NEIGHBOURS_VOTE: [u8; 8] = *b"neighbor";

/// Counts of an honest peer at the attacker's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Tries until it was let in.
    pub tries: u32,
    /// Votes that it sent since.
    pub sent: u64,
    /// `true` if its connection was up to the end.
    pub stayed: bool,
}

/// Connects from the attacker's address, trying again until the node lets it in, votes for so long a time, and stays until
/// `handled`, which is told the number of votes, has resolved.
pub async fn neighbour(
    target: &Target,
    carrier: Carrier,
    lasting: Duration,
    handled: impl AsyncFnOnce(u64),
) -> Neighbour {
    let mut tries = 1;
    let line = loop {
        match Line::dial(target, carrier, SOURCE).await {
            Ok(line) => break line,
            Err(_refused) => time::sleep(AGAIN).await,
        }
        tries += 1;
    };
    let (sent, stayed) = (Cell::new(0_u64), Cell::new(false));
    let end = Instant::now() + lasting;
    let voting = line.run(Ears::Open, async |mut pen| {
        let mut ticks = time::interval(VOTE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bytes = Vec::new();
        while Instant::now() < end {
            ticks.tick().await;
            bytes.clear();
            let vote = [NEIGHBOURS_VOTE, sent.get().to_le_bytes()].concat();
            carrier.put(Tag::AV, &vote, &mut bytes);
            write(&mut pen, &bytes).await?;
            sent.set(sent.get() + 1);
        }
        handled(sent.get()).await;
        stayed.set(true);
        Ok(())
    });
    voting.await;
    Neighbour { tries, sent: sent.get(), stayed: stayed.get() }
}
