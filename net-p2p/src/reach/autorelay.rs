//! AutoRelay: a node that others cannot dial finds relays, keeps places at two of them, and replaces one that is gone.
//!
//! ```text
//!   not reachable ─▶ fewer than WANTED places ─▶ candidates: connected peers, phonebook, DHT ─▶ reserve ─▶ hold
//!                              ▲                                                                            │
//!                              └──────────────────────────── lost, at once ◀────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! * At most [`WANTED`] places are held, and one is asked for at a time.
//! * A relay that refused or was lost is left out for [`REST`].
//! * Places are given up once the node is found to be reachable.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use gossip::LinkPath;
use libp2p::PeerId;
use rand::seq::SliceRandom;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    HOP,
    client::{Client, Reserved},
};
use crate::{
    address::{PeerAddress, path_of},
    link::LinkContext,
    streams::StreamTarget,
};

/// Places that are held. Source: issue 11, 6. One is left while the other is replaced.
const WANTED: usize = 2;

/// Time for which a relay is left out that refused, or whose place was lost. Chosen: it is not asked again and again, and
/// one that was started again is back soon.
const REST: Duration = Duration::from_secs(60);

/// Relays that are left out, at most; the oldest is forgotten. Chosen: more than are asked in [`REST`].
const MAX_RESTING: usize = 256;

/// Time for which a node waits for a verdict about its addresses before it takes itself for not reachable. Chosen: three
/// rounds of questions.
const PATIENCE: Duration = Duration::from_secs(15);

/// Wait after a search that found no relay. Chosen: it is no burden for the DHT.
const AGAIN: Duration = Duration::from_secs(3);

/// Addresses that are tried in one search, at most. Chosen: each costs a dial.
const MAX_TRIED: usize = 8;

/// Longest time of a search in the DHT. Source: wire facts 8.7.
#[cfg(feature = "dht")]
const SEARCH: Duration = Duration::from_secs(5);

/// The state of a node's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No other node has tried them.
    #[default]
    Unknown,
    /// Others have dialled one of them.
    Reachable,
    /// Others have tried them in vain.
    Unreachable,
}

/// The search for relays of one node.
pub(super) struct AutoRelay {
    pub(super) client: Client,
    pub(super) context: Arc<LinkContext>,
    /// `None` if nobody is asked for a verdict, and the node takes itself for not reachable.
    pub(super) verdict: Option<watch::Receiver<Verdict>>,
    resting: HashMap<PeerId, Instant>,
}

impl AutoRelay {
    pub(super) fn new(
        client: Client,
        context: Arc<LinkContext>,
        verdict: Option<watch::Receiver<Verdict>>,
    ) -> Self {
        Self { client, context, verdict, resting: HashMap::new() }
    }

    /// Keeps places until cancelled.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut stop = CancellationToken::new();
        let mut holds = FuturesUnordered::<BoxFuture<'static, PeerId>>::new();
        let mut seeking: Option<BoxFuture<'static, Sought>> = None;
        let began = Instant::now();
        let mut next = began;
        loop {
            let verdict = self.verdict.as_ref().map(|verdict| *verdict.borrow());
            let wants = match verdict {
                None | Some(Verdict::Unreachable) => true,
                Some(Verdict::Unknown) => began.elapsed() >= PATIENCE,
                Some(Verdict::Reachable) => false,
            };
            if verdict == Some(Verdict::Reachable) {
                stop.cancel();
                stop = CancellationToken::new();
            }
            if wants && holds.len() < WANTED && seeking.is_none() && next <= Instant::now() {
                seeking = Some(self.seek());
            }
            // A node that is reached, or has all of its places, waits for news alone.
            let wake = match verdict {
                _ if seeking.is_some() || holds.len() >= WANTED => None,
                _ if wants => Some(next),
                Some(Verdict::Unknown) => Some(began + PATIENCE),
                _ => None,
            };
            let changes = async {
                match &mut self.verdict {
                    // An error means that the task that gives verdicts has ended, with the node.
                    Some(verdict) => drop(verdict.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some(relay) = holds.next() => {
                    self.rest(relay);
                    next = Instant::now();
                }
                Some(sought) = async { Some(seeking.as_mut()?.await) } => {
                    seeking = None;
                    for relay in sought.refused {
                        self.rest(relay);
                    }
                    match sought.found {
                        Some(reserved) => {
                            let (client, stop) = (self.client.clone(), stop.clone());
                            holds.push(Box::pin(async move {
                                let relay = reserved.relay();
                                client.hold(reserved, &stop).await;
                                relay
                            }));
                        }
                        None => next = Instant::now() + AGAIN,
                    }
                }
                () = changes => {}
                () = time::sleep_until(wake.unwrap_or(began)), if wake.is_some() => {}
            }
        }
    }

    fn rest(&mut self, relay: PeerId) {
        let now = Instant::now();
        self.resting.retain(|_, since| now.duration_since(*since) < REST);
        if self.resting.len() < MAX_RESTING {
            self.resting.insert(relay, now);
        }
    }

    /// Begins to look for one relay that has a place.
    fn seek(&self) -> BoxFuture<'static, Sought> {
        let now = Instant::now();
        let resting = self.resting.iter().filter(|(_, since)| now.duration_since(**since) < REST);
        let resting: Vec<PeerId> = resting.map(|(relay, _)| *relay).collect();
        let (client, context) = (self.client.clone(), Arc::clone(&self.context));
        Box::pin(async move {
            let is_new = |relay: &PeerId| !resting.contains(relay) && !client.has(relay);
            let mut refused = Vec::new();
            let mut connected: Vec<PeerId> = context.abouts.speaking(&HOP);
            connected.retain(is_new);
            connected.shuffle(&mut context.broadcaster.environment().random());
            let targets =
                connected.into_iter().map(|relay| (relay, StreamTarget::Connected(relay)));
            let mut targets: Vec<_> = targets.take(MAX_TRIED).collect();
            let mut tried = 0;
            // Strangers are asked only once the peers have said no.
            for strangers in [false, true] {
                if strangers {
                    let known = addresses(&client, &context).await;
                    let known = known.into_iter().filter(|known| is_new(&known.peer));
                    targets = known.map(|known| (known.peer, StreamTarget::At(known))).collect();
                }
                for (relay, target) in std::mem::take(&mut targets) {
                    if refused.contains(&relay) || tried >= 2 * MAX_TRIED {
                        continue;
                    }
                    tried += 1;
                    match client.reserve(target).await {
                        Ok(reserved) => return Sought { found: Some(reserved), refused },
                        Err(error) => {
                            tracing::debug!(%relay, %error, "no place at a possible relay");
                            refused.push(relay);
                        }
                    }
                }
            }
            Sought { found: None, refused }
        })
    }
}

/// The result of looking for a relay.
struct Sought {
    found: Option<Reserved>,
    refused: Vec<PeerId>,
}

/// Addresses of nodes that may be relays: those that the DHT names, and those of the phonebook that worked.
async fn addresses(client: &Client, context: &LinkContext) -> Vec<PeerAddress> {
    let mut known = Vec::new();
    #[cfg(feature = "dht")]
    {
        use crate::dht::{Capability, Find, Order};
        let (capability, wanted) = (Capability::circuits(), MAX_TRIED);
        let order = |reply| Order::Find(Find { capability, wanted, limit: SEARCH, reply });
        let found = client.swarm.ask_dht(order).await;
        let found = found.unwrap_or_default().into_iter().flat_map(|provider| provider.addresses);
        known.extend(found.filter_map(|address| PeerAddress::parse(&address).ok()));
    }
    #[cfg(not(feature = "dht"))]
    let _ = client;
    let mut records = context.broadcaster.mesh().records();
    records.retain(|record| record.worked || record.identity.is_some());
    records.shuffle(&mut context.broadcaster.environment().random());
    let of_book = records.iter().filter_map(|record| PeerAddress::parse(&record.address).ok());
    known.extend(of_book.take(MAX_TRIED));
    known.retain(|known| path_of(&known.address) == LinkPath::Direct);
    known
}
