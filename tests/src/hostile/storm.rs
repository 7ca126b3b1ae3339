//! Hosts that connect, become peers, and leave at once to come again. Issue 10, "Shown by".

use std::net::Ipv4Addr;

use futures::{StreamExt, stream::FuturesUnordered};

use super::{
    Tally, Target,
    line::{Carrier, Line},
};

/// Hosts that do so at one time, each from an address of its own.
const HOSTS: u8 = 64;

/// Comes again and again, by turns over either transport.
pub(super) async fn run(target: &Target, tally: &Tally) {
    let each = |number: u8| async move {
        let source = Ipv4Addr::new(127, 11, number % 16, 1 + number / 16);
        for round in 0_u64.. {
            let carrier =
                if round.is_multiple_of(2) { Carrier::WebSocket } else { Carrier::Libp2p };
            match Line::dial(target, carrier, source).await {
                Ok(line) => {
                    tally.opened();
                    tally.sending(1);
                    drop(line);
                }
                Err(_refused) => {
                    tally.refused();
                    // Nothing is refused faster than this takes: an attacker in a tight loop would only hold up itself.
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    let mut all: FuturesUnordered<_> = (0..HOSTS).map(each).collect();
    while all.next().await.is_some() {}
}
