//! Forty libp2p identities that announce six megabytes and send a byte every few seconds. Issue 9, 3;
//! issue 8, 26.

use std::{net::Ipv4Addr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use gossip::{MAX_MESSAGE_BYTES, Tag};
use tokio::time;

use super::{
    Tally, Target,
    line::{Carrier, Ears, Line, again_and_again, write},
};

const IDENTITIES: u8 = 40;

/// As many as a node takes of one host.
const PER_HOST: u8 = 8;

/// Between two bytes.
const PAUSE: Duration = Duration::from_secs(3);

pub(super) async fn run(target: &Target, tally: &Tally) {
    let each = |number: u8| async move {
        let source = Ipv4Addr::new(127, 9, 1, 1 + number / PER_HOST);
        let dial = || Line::dial(target, Carrier::Libp2p, source);
        again_and_again(dial, (tally, Ears::Open), |mut pen| async move {
            let mut bytes = Vec::new();
            tally.sending(1);
            Carrier::Libp2p.begin(Tag::VB, MAX_MESSAGE_BYTES - Tag::BYTES, &mut bytes);
            loop {
                bytes.push(0);
                write(&mut pen, &bytes).await?;
                bytes.clear();
                time::sleep(PAUSE).await;
            }
        })
        .await;
    };
    let mut all: FuturesUnordered<_> = (0..IDENTITIES).map(each).collect();
    while all.next().await.is_some() {}
}
