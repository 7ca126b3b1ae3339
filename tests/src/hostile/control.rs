//! A WebSocket peer that floods with what is no message: pings whose answers it never reads, and a message in very many
//! pieces. Issue 10, "Shown by".

use std::time::Duration;

use tokio::time::{self, MissedTickBehavior};

use super::{
    Tally, Target,
    flood::SOURCE,
    line::{Carrier, Ears, Line, again_and_again, write},
};

const TICK: Duration = Duration::from_millis(10);

/// Frames of one tick: 100,000 a second.
const PER_TICK: u64 = 1_000;

/// A ping with the longest payload of a control frame, 125 bytes, and a mask that changes nothing.
fn ping(bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&[0x89, 0x80 | 125, 0, 0, 0, 0]);
    bytes.resize(bytes.len() + 125, b'p');
}

/// A piece of a message that goes on: one byte, or the two bytes of the tag in the first one.
fn piece(first: bool, bytes: &mut Vec<u8>) {
    if first {
        bytes.extend_from_slice(&[0x02, 0x80 | 2, 0, 0, 0, 0, b'V', b'B']);
    } else {
        bytes.extend_from_slice(&[0x00, 0x80 | 1, 0, 0, 0, 0, b'x']);
    }
}

/// Pings as fast as they are taken, and never reads.
pub(super) async fn pings(target: &Target, tally: &Tally) {
    let mut batch = Vec::new();
    (0..PER_TICK).for_each(|_| ping(&mut batch));
    let batch = &batch;
    let dial = || Line::dial(target, Carrier::WebSocket, SOURCE);
    again_and_again(dial, (tally, Ears::Shut), |mut pen| async move {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            tally.sending(PER_TICK);
            write(&mut pen, batch).await?;
        }
    })
    .await;
}

/// One message after the other in pieces of one byte, none of which is the last.
pub(super) async fn pieces(target: &Target, tally: &Tally) {
    let dial = || Line::dial(target, Carrier::WebSocket, SOURCE);
    again_and_again(dial, (tally, Ears::Open), |mut pen| async move {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        piece(true, &mut batch);
        loop {
            (0..PER_TICK).for_each(|_| piece(false, &mut batch));
            ticks.tick().await;
            tally.sending(PER_TICK);
            write(&mut pen, &batch).await?;
            batch.clear();
        }
    })
    .await;
}
