//! Peers that never read, though they asked for everything. Issue 10, "Shown by".

use std::{net::Ipv4Addr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use gossip::Tag;
use tokio::time;

use super::{
    Tally, Target,
    line::{Carrier, Ears, Line, again_and_again, write},
};

/// Peers, as many as a node takes of one host.
const PEERS: u16 = 8;

const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 9, 3, 1);

/// Between two messages by which a peer learns that it was cut.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps them connected, by turns over either transport.
pub(super) async fn run(target: &Target, tally: &Tally) {
    let each = |number: u16| async move {
        let carrier = if number.is_multiple_of(2) { Carrier::WebSocket } else { Carrier::Libp2p };
        let dial = || Line::dial(target, carrier, SOURCE);
        again_and_again(dial, (tally, Ears::Shut), |mut pen| async move {
            let mut bytes = Vec::new();
            // A digest of a message that nobody has: as short as a message can be without being an offence.
            carrier.put(Tag::MS, &[0; 32], &mut bytes);
            loop {
                tally.sending(1);
                write(&mut pen, &bytes).await?;
                time::sleep(PAUSE).await;
            }
        })
        .await;
    };
    let mut all: FuturesUnordered<_> = (0..PEERS).map(each).collect();
    while all.next().await.is_some() {}
}
