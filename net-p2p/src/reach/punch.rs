//! DCUtR: two ends of a circuit dial each other at the same moment, so that the routers in between let the direct
//! connection through.
//!
//! ```text
//!   accepted the circuit: B                     dialled the circuit: A
//!     connect, my addresses ─────────────────────▶
//!     ◀───────────────────── connect, my addresses
//!     sync ──────────────────────────────────────▶  dials B at once
//!     dials A after half a round trip
//! ```
//!
//! Source: libp2p specifications, `relay/DCUtR.md`. Both ends dial from the port that they listen on. Of the one connection
//! that comes of it, A is the dialer, and B takes the listener's part.
//!
//! # Invariants
//!
//! * At most [`MAX_MEETINGS`] meetings are in progress at an end, at most [`TRIES`] on one circuit, each for [`MEETING_TIME`].
//! * At most [`MAX_TOLD`] addresses of a peer are dialled, all over TCP, and only hosts that learnt addresses may lead to.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use gossip::LinkPath;
use libp2p::{Multiaddr, PeerId, core::Endpoint, multiaddr::Protocol, swarm::ConnectionId};
use runtime::TaskSet;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    DCUTR, MAX_TOLD, Meet,
    observed::Observed,
    wire::{self, HolePunch, punch},
};
use crate::{
    address::{PeerAddress, path_of},
    command::{Command, open_stream},
    metrics::{P2pEvent, P2pMetrics},
    route::{End, Route, Via},
    streams::{AcceptQueue, Bounds, InboundStream, StreamIo, Turn},
};

/// Bounds on streams of peers that want to meet. Chosen: a connection has one at a time.
pub(super) const WAITING: Bounds = Bounds { per_connection: 3, in_all: 32 };

/// Meetings in progress, at most. Chosen: each dials [`MAX_TOLD`] addresses.
const MAX_MEETINGS: usize = 16;

/// Times that two ends try to meet, at most. Source: libp2p specifications, `relay/DCUtR.md`: three.
const TRIES: usize = 3;

/// Pause before the second try, which doubles for the third. Chosen: an end that does not know its outer address yet, or whose machine
/// is busy, is further by then, and a circuit lasts two minutes.
const PAUSE: Duration = Duration::from_secs(2);

/// Longest time of one meeting. Chosen: three round trips on the longest path, and a dial.
const MEETING_TIME: Duration = Duration::from_secs(15);

/// The means to meet peers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Punch {
    pub(super) local: PeerId,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) observed: Observed,
    pub(super) metrics: P2pMetrics,
    places: Arc<Semaphore>,
}

impl Punch {
    pub(super) fn new(
        (local, observed): (PeerId, Observed),
        commands: mpsc::Sender<Command>,
        metrics: P2pMetrics,
    ) -> Self {
        let places = Arc::new(Semaphore::new(MAX_MEETINGS));
        Self { local, commands, observed, metrics, places }
    }

    /// Tries to meet the peer that dialled a circuit to this node.
    pub(crate) fn begin(&self, tasks: &TaskSet, (peer, circuit): (PeerId, ConnectionId)) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return self.metrics.note(P2pEvent::MeetingRefused);
        };
        let punch = self.clone();
        tasks.spawn("meeting", move |cancel| async move {
            let tries = async {
                let mut pause = Duration::ZERO;
                for _ in 0..TRIES {
                    time::sleep(pause).await;
                    pause = (2 * pause).max(PAUSE);
                    let met = time::timeout(MEETING_TIME, punch.invite(peer, circuit)).await;
                    match met.unwrap_or(Ok(false)) {
                        Ok(true) => return punch.metrics.note(P2pEvent::Met),
                        Ok(false) => {}
                        // The peer does not meet others, or the circuit has ended.
                        Err(error) => return tracing::debug!(%peer, %error, "no meeting"),
                    }
                }
                tracing::debug!(%peer, "the way to a peer stays the circuit");
            };
            cancel.run_until_cancelled(tries).await;
            drop(place);
        });
    }

    /// The part of B.
    async fn invite(&self, peer: PeerId, circuit: ConnectionId) -> io::Result<bool> {
        let deadline = Instant::now() + MEETING_TIME;
        let on = (peer, Some(circuit));
        let opened = open_stream(&self.commands, on, vec![DCUTR], (deadline, Turn::Queued)).await;
        let mut io = StreamIo::from(opened.map_err(io::Error::other)?);
        let sent = Instant::now();
        wire::write(&mut io, &self.connect()).await?;
        let theirs: HolePunch = wire::read(&mut io).await?;
        let round_trip = sent.elapsed();
        if theirs.kind != punch::CONNECT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        wire::write(&mut io, &HolePunch { kind: punch::SYNC, addrs: Vec::new() }).await?;
        time::sleep(round_trip / 2).await;
        Ok(self.meet(peer, theirs, Endpoint::Listener).await)
    }

    /// Takes invitations until cancelled.
    pub(super) async fn run(
        self,
        mut accept: AcceptQueue,
        tasks: TaskSet,
        cancel: CancellationToken,
    ) {
        let mut tries: HashMap<ConnectionId, usize> = HashMap::new();
        while let Some(Some(stream)) = cancel.run_until_cancelled(accept.next()).await {
            if tries.len() >= 4 * MAX_MEETINGS {
                tries.clear();
            }
            let tried = tries.entry(stream.about.connection).or_default();
            *tried += 1;
            let place = Arc::clone(&self.places).try_acquire_owned().ok();
            let Some(place) = place.filter(|_| *tried <= TRIES) else {
                self.metrics.note(P2pEvent::MeetingRefused);
                continue;
            };
            let punch = self.clone();
            tasks.spawn("meeting", move |cancel| async move {
                let peer = stream.peer();
                let met = time::timeout(MEETING_TIME, punch.accept(stream));
                if let Some(Ok(Err(error))) = cancel.run_until_cancelled(met).await {
                    tracing::debug!(%peer, %error, "no meeting");
                }
                drop(place);
            });
        }
    }

    /// The part of A.
    async fn accept(&self, stream: InboundStream) -> io::Result<()> {
        let about = stream.about.clone();
        if path_of(&about.address) == LinkPath::Direct {
            self.metrics.note(P2pEvent::MeetingRefused);
            return Ok(());
        }
        let mut io = StreamIo::from(stream);
        let theirs: HolePunch = wire::read(&mut io).await?;
        if theirs.kind != punch::CONNECT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        wire::write(&mut io, &self.connect()).await?;
        let sync: HolePunch = wire::read(&mut io).await?;
        if sync.kind != punch::SYNC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.meet(about.peer, theirs, Endpoint::Dialer).await {
            self.metrics.note(P2pEvent::Met);
        }
        Ok(())
    }

    fn connect(&self) -> HolePunch {
        let own = self.observed.candidates().into_iter();
        let addrs = own.map(|address| address.with(Protocol::P2p(self.local)).to_vec()).collect();
        HolePunch { kind: punch::CONNECT, addrs }
    }

    /// Has the swarm task dial. Returns `true` if there is a direct connection.
    async fn meet(&self, peer: PeerId, theirs: HolePunch, part: Endpoint) -> bool {
        let addresses = dialled(peer, &theirs.addrs);
        if addresses.is_empty() {
            return false;
        }
        let (reply, met) = oneshot::channel();
        let order = Command::Meet(Meet { peer, addresses, part, reply });
        self.commands.send(order).await.is_ok() && met.await.unwrap_or(false)
    }
}

/// The addresses of a peer that are dialled: over plain TCP to a numbered host.
fn dialled(peer: PeerId, told: &[Vec<u8>]) -> Vec<Multiaddr> {
    let told = told.iter().take(MAX_TOLD);
    let told = told.filter_map(|bytes| Multiaddr::try_from(bytes.clone()).ok());
    let whole = told.filter_map(|address| {
        let bare = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
        let whole = PeerAddress::new(bare.collect::<Multiaddr>().with(Protocol::P2p(peer))).ok()?;
        let is_numbered = crate::address::ip_literal(&whole.address).is_some();
        let route = Route::of(&whole.address, End::Dialler)?;
        (is_numbered && route.via == Via::Tcp).then_some(whole.address)
    });
    whole.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbered_addresses_of_tcp_are_dialled_and_of_the_peer_alone() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let told = |text: String| text.parse::<Multiaddr>().unwrap().to_vec();
        let good = format!("/ip4/192.0.2.1/tcp/1/p2p/{peer}");
        let mut all = vec![
            told("/ip4/192.0.2.1/tcp/1".to_owned()),
            told("/dns4/h.example/tcp/1".to_owned()),
            told("/ip4/192.0.2.1/udp/1/quic-v1".to_owned()),
            told(format!("/ip4/192.0.2.9/tcp/1/p2p/{other}/p2p-circuit")),
            vec![1, 2, 3],
        ];
        let dialled_now = dialled(peer, &all);
        assert_eq!(dialled_now.iter().map(ToString::to_string).collect::<Vec<_>>(), [good]);
        all = vec![told("/ip4/192.0.2.1/tcp/1".to_owned()); 1_000];
        assert_eq!(dialled(peer, &all).len(), MAX_TOLD);
    }
}
