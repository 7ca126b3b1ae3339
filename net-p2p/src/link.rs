//! The life of one gossip link, in a task of its own.
//!
//! ```text
//!   open, or accepted ─▶ handshake ─▶ second lane ─▶ claim ─▶ attach ─▶ (lives) ─▶ release ─▶ notice
//!   └───────────── within HANDSHAKE_LIMIT ────────┘
//! ```
//!
//! # Invariants
//!
//! * A link is attached only while it holds its peer's identity in the ledger, and frees it at its end,
//!   also when its task is aborted.
//! * The swarm task hears of the end of every attempt exactly once.
//! * A stream whose handshake fails is reset; its connection is left alone.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use broadcaster::{Attached, Broadcaster, LaneSinks, Link, LinkInfo};
use futures::{
    AsyncReadExt, AsyncWriteExt,
    io::{ReadHalf, WriteHalf},
};
use gossip::{
    ClaimRule, Direction, DisconnectReason, Identity, LinkId, NetworkId, NetworkProfile, Transport,
};
use libp2p::{Stream, StreamProtocol, swarm::ConnectionId};
use mesh::{Ledger, LinkClaim, Ruling};
use rand::Rng;
use runtime::{KeyedHasher, Rarely};
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    command::{Notice, Senders, open_stream},
    conventions::{Conventions, LinkEnd},
    handshake::{self, Form, HandshakeError, LaneCount, Met, Ours},
    metrics::{P2pEvent, P2pMetrics},
    sink::StreamSink,
    source::{StreamSource, stream_source},
    streams::{About, InboundStream, OpenError},
};

/// From the wish for a stream to the end of the handshake. Existing nodes have no such limit.
/// Source: threats and goals, row 1.
pub(crate) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How long the second stream of a link may take. Chosen: a few round trips on the longest path.
const SECOND_LANE_LIMIT: Duration = Duration::from_secs(2);

/// How long the orderly end of a refused link may take. Chosen: one round trip on the longest path.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// One peer, one gossip link, on whatever transport: shared by all networks of a node.
pub type SharedLedger = Arc<Mutex<Ledger>>;

/// What every link of a network needs.
#[derive(Debug)]
pub(crate) struct LinkContext {
    pub(crate) broadcaster: Broadcaster,
    pub(crate) ledger: SharedLedger,
    pub(crate) network: NetworkId,
    pub(crate) local: Identity,
    /// Random, of this run of the process.
    pub(crate) run: KeyedHasher,
    /// The links that are claimed, each with its connection.
    pub(crate) links: Mutex<HashMap<LinkId, ConnectionId>>,
    pub(crate) metrics: P2pMetrics,
    pub(crate) lines: StrangersLines,
}

/// Lines that strangers can cause, so that each comes rarely.
#[derive(Debug, Default)]
pub(crate) struct StrangersLines {
    /// Connections could not be accepted.
    pub(crate) listener: Rarely,
    /// Peers of other networks were refused.
    pub(crate) other_network: Rarely,
    /// Peers of other versions were refused.
    pub(crate) other_version: Rarely,
    /// Peers answered no ping.
    pub(crate) silent: Rarely,
}

/// Where the first stream of a link comes from.
#[derive(Debug)]
pub(crate) enum Start {
    /// The peer opened it.
    Accepted(Box<InboundStream>),
    /// It is to be opened, on this connection.
    Open(ConnectionId),
}

/// An attempt to make a link.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) peer: libp2p::PeerId,
    pub(crate) identity: Identity,
    pub(crate) link: LinkId,
    pub(crate) start: Start,
    /// Over how many streams this end would run it.
    pub(crate) lanes: LaneCount,
    /// The second stream, if the peer opens one.
    pub(crate) second: oneshot::Receiver<InboundStream>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkOutcome {
    /// The peer does not speak the protocol.
    Unsupported,
    /// The stream was not opened, or broke, or made no sense.
    Failed,
    /// The peer answered, and is of another version or network.
    Foreign,
    /// The second stream did not come up.
    NoSecondLane,
    /// Another link to the same peer stays.
    Duplicate {
        /// That link.
        winner: LinkId,
    },
    /// This node is stopping.
    Stopping,
    /// The link was up, and has ended.
    Ended(DisconnectReason),
}

/// A stream with its handshake behind it.
struct Ready {
    about: About,
    stream: Stream,
    met: Met,
    second: Option<Stream>,
}

/// Frees the identity when it goes.
struct Claimed<'a> {
    around: &'a LinkContext,
    link: LinkId,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.around.links().remove(&self.link);
        self.around.ledger().release(self.link);
    }
}

impl Attempt {
    /// Makes the link, lives with it, and reports its end.
    pub(crate) async fn run(
        self,
        around: Arc<LinkContext>,
        senders: Senders,
        cancel: CancellationToken,
    ) {
        let (peer, link) = (self.peer, self.link);
        let outcome = self.live(&around, &senders, &cancel).await;
        tracing::debug!(%peer, %link, ?outcome, "gossip link ended");
        let notice = Notice::LinkEnded { peer, link, outcome };
        // A swarm that is gone keeps no book of links.
        let _ = senders.notices.send(notice).await;
    }

    async fn live(
        self,
        around: &LinkContext,
        senders: &Senders,
        cancel: &CancellationToken,
    ) -> LinkOutcome {
        let (peer, identity, link) = (self.peer, self.identity, self.link);
        let deadline = Instant::now() + HANDSHAKE_LIMIT;
        let prepare = time::timeout_at(deadline, self.prepare(around, senders, deadline));
        let ready = tokio::select! {
            biased;
            () = cancel.cancelled() => return LinkOutcome::Stopping,
            ready = prepare => ready.unwrap_or(Err(LinkOutcome::Failed)),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(outcome) => {
                around.metrics.note(P2pEvent::HandshakeFailed);
                return outcome;
            }
        };
        let ruling = around.claim(link, identity, &ready);
        if let Ruling::Refuse { winner } = ruling {
            around.metrics.note(P2pEvent::DuplicateLink);
            // Where both ends rank links, the peer may have sent messages over this one already, which
            // have to be read: it is attached, and yields at once.
            if around.broadcaster.profile().claims != ClaimRule::Ranked {
                goodbye(ready).await;
                return LinkOutcome::Duplicate { winner };
            }
        }
        let _claimed = Claimed { around, link };
        let Some(mut attached) = around.attach(link, identity, ready) else {
            return LinkOutcome::Stopping;
        };
        around.settle(link, identity, ruling);
        tracing::info!(%peer, %link, "gossip link up");
        // A swarm that is gone takes the link with it, which `ended` tells.
        let _ = senders.notices.send(Notice::LinkUp { peer, link }).await;
        tokio::select! {
            biased;
            reason = attached.ended() => return LinkOutcome::Ended(reason),
            () = cancel.cancelled() => {}
        }
        around.broadcaster.disconnect(link, DisconnectReason::LocalShutdown);
        LinkOutcome::Ended(attached.ended().await)
    }

    /// Opens the stream if it is not there, and brings everything up before the claim.
    async fn prepare(
        self,
        around: &LinkContext,
        senders: &Senders,
        deadline: Instant,
    ) -> Result<Ready, LinkOutcome> {
        let profile = around.broadcaster.profile();
        let (about, protocol, mut stream, opened) = match self.start {
            Start::Accepted(inbound) => (inbound.about, inbound.protocol, inbound.stream, false),
            Start::Open(on) => {
                let protocols = gossip_protocols(profile);
                open_stream(&senders.commands, self.peer, Some(on), protocols, deadline)
                    .await
                    .map(|opened| (opened.about, opened.protocol, opened.stream, true))
                    .map_err(|error| match error {
                        OpenError::Unsupported => LinkOutcome::Unsupported,
                        _ => LinkOutcome::Failed,
                    })?
            }
        };
        let form = if protocol == profile.stream_protocol { Form::Headers } else { Form::Legacy };
        let network = around.network.clone();
        let mut random = around.broadcaster.environment().random();
        let (dial, link) = (around.run.hash_one(about.connection), random.random());
        let ours = Ours { profile, network, dial, link, lanes: self.lanes };
        let met = handshake::exchange(&mut stream, form, about.direction, &ours)
            .await
            .map_err(|error| around.blame(self.peer, &error))?;
        let second = match (met.lanes, profile.bulk_stream_protocol) {
            (LaneCount::PerLane, Some(protocol)) => {
                let (peer, on) = (self.peer, about.connection);
                let second = async {
                    if opened {
                        let deadline = Instant::now() + SECOND_LANE_LIMIT;
                        let protocols = vec![StreamProtocol::new(protocol)];
                        let open =
                            open_stream(&senders.commands, peer, Some(on), protocols, deadline);
                        open.await.ok().map(|opened| opened.stream)
                    } else {
                        self.second.await.ok().map(|inbound| inbound.stream)
                    }
                };
                let second = time::timeout(SECOND_LANE_LIMIT, second).await.ok().flatten();
                Some(second.ok_or(LinkOutcome::NoSecondLane)?)
            }
            _ => None,
        };
        Ok(Ready { about, stream, met, second })
    }
}

impl LinkContext {
    fn claim(&self, link: LinkId, identity: Identity, ready: &Ready) -> Ruling {
        let dialer = match ready.about.direction {
            Direction::Outbound => self.local,
            Direction::Inbound => identity,
        };
        let Met { session, tie, .. } = ready.met;
        let transport = Transport::Libp2p;
        let claim = LinkClaim { link, identity, transport, dialer, session, tie };
        let on = ready.about.connection;
        let mut links = self.links();
        let mut ledger = self.ledger();
        // Where the first link stays, a peer that comes back on another connection would be refused
        // until its old one is found dead. Existing nodes replace it, and its key is proven.
        let first_stays =
            Conventions::of(self.broadcaster.profile()).link_end == LinkEnd::Connection;
        let is_elsewhere = |old: &LinkId| links.get(old).is_some_and(|known| *known != on);
        let old = ledger.holder(&identity).filter(|old| first_stays && is_elsewhere(old));
        if let Some(old) = old {
            ledger.release(old);
        }
        let ruling = match (ledger.claim(claim), old) {
            (Ruling::Keep, Some(loser)) => Ruling::Replace { loser },
            (ruling, _) => ruling,
        };
        if !matches!(ruling, Ruling::Refuse { .. }) {
            links.insert(link, on);
        }
        ruling
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<LinkId, ConnectionId>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the link to the broadcaster; `None` when the node is stopping.
    fn attach(&self, link: LinkId, identity: Identity, ready: Ready) -> Option<Attached> {
        let Ready { about, stream, second, .. } = ready;
        let (source, sink) = self.halves(stream);
        let (sinks, sources) = match second {
            None => (LaneSinks::Shared(sink), vec![source]),
            Some(second) => {
                let (bulk_source, bulk) = self.halves(second);
                (LaneSinks::PerLane { priority: sink, bulk }, vec![source, bulk_source])
            }
        };
        let about = LinkInfo {
            transport: Transport::Libp2p,
            direction: about.direction,
            address: about.address.to_string(),
            identity: Some(identity),
        };
        let greeting = Vec::new();
        let made = Link { about, sinks, sources, greeting, hooks: None };
        self.broadcaster.attach(link, made).ok()
    }

    fn halves(
        &self,
        stream: Stream,
    ) -> (StreamSource<ReadHalf<Stream>>, StreamSink<WriteHalf<Stream>>) {
        let (read, write) = stream.split();
        (stream_source(read, self.broadcaster.assembly()), StreamSink::new(write))
    }

    /// Ends the link that lost, which may be this one.
    fn settle(&self, link: LinkId, identity: Identity, ruling: Ruling) {
        if let Ruling::Replace { loser } = ruling {
            self.end_loser(loser, link, &identity);
        }
        let holder = self.ledger().holder(&identity);
        if let Some(holder) = holder.filter(|holder| *holder != link) {
            self.end_loser(link, holder, &identity);
        }
    }

    /// Ends the link that lost against `winner`, in the way the ledger says.
    fn end_loser(&self, loser: LinkId, winner: LinkId, identity: &Identity) {
        let patience = self.ledger().patience(identity);
        self.broadcaster.retire(loser, winner, patience);
    }

    /// Logs a failed handshake, and says what it means for dialling.
    fn blame(&self, peer: libp2p::PeerId, error: &HandshakeError) -> LinkOutcome {
        match error {
            HandshakeError::OtherNetwork { theirs } => {
                self.metrics.note(P2pEvent::OtherNetwork);
                let ours = &self.network;
                if let Some(left_out) = self.lines.other_network.due() {
                    tracing::warn!(%peer, %theirs, %ours, left_out, "refused a peer of another network");
                }
                LinkOutcome::Foreign
            }
            HandshakeError::Version(mismatch) => {
                if let Some(left_out) = self.lines.other_version.due() {
                    tracing::info!(%peer, %mismatch, left_out, "refused a peer of another version");
                }
                LinkOutcome::Foreign
            }
            HandshakeError::Io(_) | HandshakeError::Malformed(_) => {
                tracing::debug!(%peer, %error, "gossip handshake failed");
                LinkOutcome::Failed
            }
        }
    }
}

/// The protocols of a first stream, in the order of preference.
pub(crate) fn gossip_protocols(profile: &NetworkProfile) -> Vec<StreamProtocol> {
    let names = [Some(profile.stream_protocol), profile.legacy_stream_protocol];
    names.into_iter().flatten().map(StreamProtocol::new).collect()
}

/// Ends streams that are not needed in an orderly way, so that the peer sees an end and no error.
async fn goodbye(ready: Ready) {
    let Ready { mut stream, second, .. } = ready;
    let close = async {
        // The peer may have ended them first.
        let _ = stream.close().await;
        if let Some(mut second) = second {
            let _ = second.close().await;
        }
    };
    if time::timeout(GOODBYE_LIMIT, close).await.is_err() {
        tracing::debug!("a refused link did not let itself be closed");
    }
}
