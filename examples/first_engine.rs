//! Nodes that vote round after round, and go on once three of them have voted: the outline of an engine.

use std::{collections::BTreeMap, env, error::Error, time::Duration};

use tandem::{
    NodeBuilder, Relaying,
    gossip::{Inbound, NetworkId, Outbound, Tag, Validation, Verdict},
};
use tokio::{signal, sync::mpsc, time};
use tokio_util::sync::CancellationToken;

/// Voters that decide a round, this node among them.
const QUORUM: usize = 3;

/// Rounds until everybody goes home.
const ROUNDS: u64 = 5;

/// A vote, sent as "ROUND VOTER ATTEMPT".
struct Vote {
    round: u64,
    voter: String,
}

impl Vote {
    /// `None` when the bytes are no vote.
    fn read(body: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(body).ok()?.split(' ');
        Some(Self { round: words.next()?.parse().ok()?, voter: words.next()?.to_owned() })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(name), Some(listen)) = (arguments.next(), arguments.next()) else {
        println!("usage: first_engine NAME HOST:PORT [PEER]");
        return Ok(());
    };

    let (heard, mut votes) = mpsc::channel(64);
    let mut builder = NodeBuilder::new(NetworkId::new("first-engine")?)
        .listen_ws(listen)
        .relaying(Relaying::Accepted)
        .validator(Tag::AV, |vote: &Inbound| match Vote::read(&vote.body) {
            Some(_) => Validation::Accept,
            None => Validation::Reject,
        })
        .handler(Tag::AV, move |vote: Inbound| {
            let heard = heard.clone();
            async move {
                if let Some(vote) = Vote::read(&vote.body) {
                    // A full channel holds this peer back, and nobody else.
                    let _ = heard.send(vote).await;
                }
                Verdict::Ignore
            }
        });
    if let Some(peer) = arguments.next() {
        builder = builder.peer(peer.parse()?);
    }
    let node = builder.start(&CancellationToken::new()).await?;
    println!("ready");

    let (mut round, mut attempt) = (1, 0);
    // The latest round that each voter has voted in.
    let mut latest = BTreeMap::from([(name.clone(), round)]);
    let mut ticks = time::interval(Duration::from_millis(200));
    while round <= ROUNDS {
        tokio::select! {
            interrupted = signal::ctrl_c() => {
                interrupted?;
                break;
            }
            // A vote is sent again, with a number that makes it a new message, for those who were not there yet.
            _ = ticks.tick() => {
                attempt += 1;
                let vote = Outbound::new(Tag::AV, format!("{round} {name} {attempt}"));
                // A vote that finds no room is made up for by the next one.
                let _ = node.node().broadcast(vote)?;
            }
            Some(vote) = votes.recv() => {
                let known = latest.entry(vote.voter).or_default();
                *known = vote.round.max(*known);
            }
        }
        // A voter of a later round has seen this one decided.
        let voters: Vec<_> = latest.iter().filter(|(_, voted)| **voted >= round).collect();
        if voters.len() >= QUORUM {
            let names: Vec<_> = voters.iter().map(|(name, _)| name.as_str()).collect();
            println!("round {round}: {}", names.join(" "));
            round += 1;
            latest.insert(name.clone(), round);
            node.node().network_advanced();
        }
    }
    // The last word of this node, by which the others leave the last round.
    let last = Outbound::new(Tag::AV, format!("{round} {name} 0"));
    println!("{:?}", node.node().broadcast_and_wait(last).await?);
    println!("{:?}", node.stop(Duration::from_secs(5)).await);
    Ok(())
}
