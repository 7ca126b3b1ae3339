//! A crowd: whole connections with free identities, as many as would take all places of a node. Issue 9, 5;
//! issue 8, 27.

use std::net::Ipv4Addr;

use futures::{StreamExt, stream::FuturesUnordered};
use gossip::{Interest, Tag, wire::interest};
use tokio::sync::Semaphore;

use super::{
    Tally, Target,
    line::{Carrier, Ears, Line, again_and_again, write},
};

/// Handshakes at one time. Chosen: a few, as each takes processor time of both ends.
const AT_ONCE: usize = 32;

/// Peers that a node takes of one host, and hosts with so many of one subnet.
const PER_HOST: u16 = 8;
const HOSTS: u16 = 16;

fn source(number: u16) -> Ipv4Addr {
    let host = number / PER_HOST;
    let (subnet, host) = (host / HOSTS, host % HOSTS);
    // 256 subnets are more than there are peers for.
    Ipv4Addr::new(127, 10, u8::try_from(subnet).unwrap_or(u8::MAX), 1 + host.to_le_bytes()[0])
}

/// Keeps `peers` connected, by turns over either transport. They want no messages: it is places that they
/// take.
pub(super) async fn run(peers: u16, target: &Target, tally: &Tally) {
    let handshakes = Semaphore::new(AT_ONCE);
    let each = |number: u16| {
        let handshakes = &handshakes;
        async move {
            let carrier =
                if number.is_multiple_of(2) { Carrier::WebSocket } else { Carrier::Libp2p };
            let dial = || async {
                // The semaphore is never closed.
                let _turn = handshakes.acquire().await;
                Line::dial(target, carrier, source(number)).await
            };
            again_and_again(dial, (tally, Ears::Open), |mut pen| async move {
                let nothing = interest::encode(Interest::NONE, &target.profile.tags);
                let mut bytes = Vec::new();
                carrier.put(Tag::MI, &nothing, &mut bytes);
                tally.sending(1);
                write(&mut pen, &bytes).await?;
                // It stays for as long as the node lets it.
                std::future::pending().await
            })
            .await;
        }
    };
    let mut all: FuturesUnordered<_> = (0..peers).map(each).collect();
    while all.next().await.is_some() {}
}
