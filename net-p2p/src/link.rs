//! The life of one gossip link, as one task.
//!
//! ```text
//!   open, or accepted ─▶ handshake ─▶ second lane ─▶ claim ─▶ attach ─▶ runs ─▶ notice
//!   └───────────── within HANDSHAKE_LIMIT ────────┘
//! ```
//!
//! # Invariants
//!
//! * A link is attached with a claim to its peer's identity, and the claim ends with the link.
//! * The swarm task gets exactly one notice of the end of every attempt.
//! * A stream whose handshake fails is reset; its connection stays open.

use std::{
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broadcaster::{
    Attached, Broadcaster, Claim, LaneSinks, Link, LinkGuard, LinkHooks, LinkInfo, PipeGauge,
    RoundTrip,
};
use bytes::Bytes;
use futures::{
    AsyncReadExt, AsyncWriteExt,
    io::{ReadHalf, WriteHalf},
};
use gossip::{
    BoxFuture, Direction, DisconnectReason, Identity, LinkId, NetworkId, NetworkProfile,
    NodeAddress, Roles, Tag, Transport,
};
#[cfg(feature = "quic")]
use libp2p::multiaddr::Protocol;
use libp2p::{Stream, StreamProtocol, swarm::ConnectionId};
use mesh::{ConfiguredAddress, Door, LinkClaim, Merit, Ruling};
use rand::Rng;
use runtime::{
    KeyedHasher, Rarely,
    time::{self, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    abouts::Abouts,
    address::{PeerAddress, identity_of, path_of},
    command::{Command, LinkOutcome, Notice, Senders, open_stream},
    config::P2pConfig,
    conventions::{Conventions, LinkEnd},
    gathering::Gathered,
    handshake::{self, Form, HandshakeError, LaneCount, Met, Ours},
    metrics::{P2pEvent, P2pMetrics},
    sink::StreamSink,
    source::{StreamSource, stream_source},
    streams::{About, InboundStream, OpenError, Turn},
    topic_scores::TopicScores,
};

/// The ping protocol: the peer echoes what is written, 32 bytes at a time. Source: libp2p specification, ping.
pub(crate) const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// Longest time from the stream request to the end of the handshake. Existing nodes have no such limit.
/// Source: threats and goals, row 1.
pub(crate) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Time after which a ping is tried again, if this node opens too many streams. Chosen: a small part of the time that the
/// peer has for its answer.
const PING_AGAIN: Duration = Duration::from_millis(100);

/// Longest wait for the second stream of a link. Chosen: a few round trips on the longest path.
const SECOND_LANE_LIMIT: Duration = Duration::from_secs(2);

/// Longest time for the orderly end of a refused link. Chosen: one round trip on the longest path.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// State shared by every link of a network.
#[derive(Debug)]
pub(crate) struct LinkContext {
    pub(crate) broadcaster: Broadcaster,
    pub(crate) network: NetworkId,
    pub(crate) local: Identity,
    /// Keyed with a random key of this run of the process; numbers dials and links.
    pub(crate) run: KeyedHasher,
    pub(crate) metrics: P2pMetrics,
    /// The configured addresses, by which the state of a peer's dials is found.
    pub(crate) configured: Mutex<Vec<PeerAddress>>,
    pub(crate) door: Door,
    pub(crate) scores: TopicScores,
    pub(crate) abouts: Abouts,
    #[cfg(feature = "quic")]
    pub(crate) gauges: crate::gauges::Gauges,
    #[cfg(feature = "reachability")]
    pub(crate) mapped: crate::reach::MappedPorts,
    pub(crate) lines: StrangersLines,
}

/// Log lines that unknown peers can cause, each limited in rate.
#[derive(Debug, Default)]
pub(crate) struct StrangersLines {
    /// A connection could not be accepted.
    pub(crate) listener: Rarely,
    /// A peer of another network was refused.
    pub(crate) other_network: Rarely,
    /// A peer of another version was refused.
    pub(crate) other_version: Rarely,
    /// A peer did not answer pings.
    pub(crate) silent: Rarely,
    /// A peer is not served on topics.
    pub(crate) muted: Rarely,
}

/// The origin of a link's first stream.
#[derive(Debug)]
pub(crate) enum Start {
    /// The peer opened it.
    Accepted(Box<InboundStream>),
    /// It must be opened on this connection.
    Open(ConnectionId),
}

/// An attempt to make a link.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) peer: libp2p::PeerId,
    pub(crate) identity: Identity,
    pub(crate) link: LinkId,
    pub(crate) start: Start,
    /// The number of streams that this end proposes.
    pub(crate) lanes: LaneCount,
    /// Yields the second stream, if the peer opens it.
    pub(crate) second: oneshot::Receiver<InboundStream>,
    /// The round-trip time of the connection.
    pub(crate) round_trip: RoundTrip,
}

/// A stream that has completed its handshake.
struct Ready {
    about: About,
    stream: Stream,
    met: Met,
    second: Option<Stream>,
    round_trip: RoundTrip,
}

impl Attempt {
    /// Makes the link, waits for its end, and reports it.
    pub(crate) async fn run(
        self,
        context: Arc<LinkContext>,
        senders: Senders,
        cancel: CancellationToken,
    ) {
        let (peer, link) = (self.peer, self.link);
        // Boxed, so that a link does not hold the memory of its handshake.
        let outcome = match Box::pin(self.join(&context, &senders, &cancel)).await {
            Ok(attached) => live(attached, (peer, link), &context, &senders, &cancel).await,
            Err(outcome) => outcome,
        };
        tracing::debug!(%peer, %link, ?outcome, "gossip link ended");
        let notice = Notice::LinkEnded { peer, link, outcome };
        // The send fails only if the swarm has ended, and then its record of links is gone too.
        let _ = senders.notices.send(notice).await;
    }

    /// Makes the link.
    async fn join(
        self,
        context: &LinkContext,
        senders: &Senders,
        cancel: &CancellationToken,
    ) -> Result<Attached, LinkOutcome> {
        let (identity, link) = (self.identity, self.link);
        let deadline = Instant::now() + HANDSHAKE_LIMIT;
        let prepare = time::timeout_at(deadline, self.prepare(context, senders, deadline));
        let ready = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(LinkOutcome::Stopping),
            ready = prepare => ready.unwrap_or(Err(LinkOutcome::Failed)),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(outcome) => {
                context.metrics.note(P2pEvent::HandshakeFailed);
                return Err(outcome);
            }
        };
        let claim = context.claim(link, identity, &ready);
        if let Ruling::Refuse { winner, .. } = claim.ruling() {
            context.metrics.note(P2pEvent::DuplicateLink);
            let prevails = cancel.run_until_cancelled(context.broadcaster.prevails(&claim)).await;
            match prevails {
                None => return Err(LinkOutcome::Stopping),
                Some(true) => {}
                Some(false) => {
                    goodbye(ready).await;
                    return Err(LinkOutcome::Duplicate { winner });
                }
            }
        }
        context.attach(claim, senders, ready).ok_or(LinkOutcome::Stopping)
    }

    /// Opens the stream if necessary, and performs every step before the claim.
    async fn prepare(
        self,
        context: &LinkContext,
        senders: &Senders,
        deadline: Instant,
    ) -> Result<Ready, LinkOutcome> {
        let profile = context.broadcaster.profile();
        let (about, protocol, mut stream, opened) = match self.start {
            Start::Accepted(inbound) => (inbound.about, inbound.protocol, inbound.stream, false),
            Start::Open(on) => {
                let protocols = gossip_protocols(profile);
                open_stream(
                    &senders.commands,
                    (self.peer, Some(on)),
                    protocols,
                    (deadline, Turn::Urgent),
                )
                .await
                .map(|opened| (opened.about, opened.protocol, opened.stream, true))
                .map_err(|error| match error {
                    OpenError::Unsupported => LinkOutcome::Unsupported,
                    _ => LinkOutcome::Failed,
                })?
            }
        };
        let form = if protocol == profile.stream_protocol { Form::Headers } else { Form::Legacy };
        let network = context.network.clone();
        let mut random = context.broadcaster.environment().random();
        let (dial, link) = (context.run.hash_one(about.connection), random.random());
        let features = context.broadcaster.features();
        let (lanes, node_random) = (self.lanes, context.broadcaster.node_random());
        let ours = Ours { profile, network, features, dial, link, node_random, lanes };
        let span = tracing::debug_span!(
            "gossip_handshake",
            transport = "p2p",
            peer_id = %self.peer,
            direction = about.direction.label(),
        );
        let met = handshake::exchange(&mut stream, form, about.direction, &ours)
            .instrument(span)
            .await
            .map_err(|error| context.blame(self.peer, &error))?;
        let second = match (met.lanes, profile.bulk_stream_protocol) {
            (LaneCount::PerLane, Some(protocol)) => {
                let (peer, on) = (self.peer, about.connection);
                let second = async {
                    if opened {
                        let deadline = Instant::now() + SECOND_LANE_LIMIT;
                        let protocols = vec![StreamProtocol::new(protocol)];
                        let open = open_stream(
                            &senders.commands,
                            (peer, Some(on)),
                            protocols,
                            (deadline, Turn::Urgent),
                        );
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
        Ok(Ready { about, stream, met, second, round_trip: self.round_trip })
    }
}

/// Reports that the link is up, and waits for its end.
async fn live(
    mut attached: Attached,
    (peer, link): (libp2p::PeerId, LinkId),
    context: &LinkContext,
    senders: &Senders,
    cancel: &CancellationToken,
) -> LinkOutcome {
    let _guard = LinkGuard::new(&context.broadcaster, link);
    tracing::info!(%peer, %link, "gossip link up");
    // The send fails only if the swarm has ended, and then the link ends below.
    let _ = senders.notices.send(Notice::LinkUp { peer, link }).await;
    tokio::select! {
        biased;
        reason = attached.ended() => return LinkOutcome::Ended(reason),
        () = cancel.cancelled() => {}
    }
    context.broadcaster.disconnect(link, DisconnectReason::LocalShutdown);
    LinkOutcome::Ended(attached.ended().await)
}

impl LinkContext {
    /// The state of a network without links.
    pub(crate) fn new(
        broadcaster: Broadcaster,
        config: &P2pConfig,
        configured: Vec<PeerAddress>,
        door: Door,
    ) -> Self {
        Self {
            run: broadcaster.environment().hasher(),
            broadcaster,
            network: config.network.clone(),
            local: config.key.identity(),
            metrics: P2pMetrics::default(),
            configured: Mutex::new(configured),
            door,
            scores: TopicScores::default(),
            abouts: Abouts::default(),
            #[cfg(feature = "quic")]
            gauges: crate::gauges::Gauges::default(),
            #[cfg(feature = "reachability")]
            mapped: crate::reach::MappedPorts::default(),
            lines: StrangersLines::default(),
        }
    }

    fn claim(&self, link: LinkId, identity: Identity, ready: &Ready) -> Claim {
        let dialer = match ready.about.direction {
            Direction::Outbound => self.local,
            Direction::Inbound => identity,
        };
        let Met { session, ref node_random, tie, .. } = ready.met;
        let run = node_random.as_deref().map(|text| self.broadcaster.run_of(text));
        let session = match Conventions::of(self.broadcaster.profile()).link_end {
            LinkEnd::Streams => session,
            LinkEnd::Connection => Some(self.run.hash_one(ready.about.connection)),
        };
        let (transport, path) = (Transport::Libp2p, path_of(&ready.about.address));
        self.broadcaster.claim(LinkClaim {
            link,
            identity,
            transport,
            path,
            dialer,
            session,
            run,
            tie,
        })
    }

    /// The configured address of a peer: the one that was dialled, if it has several.
    fn configured_address(&self, about: &About) -> Option<ConfiguredAddress> {
        let configured = self.configured.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = configured.iter().filter(|known| known.peer == about.peer);
        let found = of_peer.max_by_key(|known| known.address == about.address)?;
        Some(self.broadcaster.mesh().configured(&found.node_address()))
    }

    /// Hands the link to the broadcaster; `None` if the node is stopping.
    fn attach(&self, claim: Claim, senders: &Senders, ready: Ready) -> Option<Attached> {
        let Ready { about, stream, met, second, round_trip } = ready;
        let hooks = Hooks {
            peer: about.peer,
            connection: about.connection,
            commands: senders.commands.clone(),
            merit: identity_of(&about.peer).and_then(|identity| self.door.merit_of(&identity)),
        };
        let gathered = Gathered::of(&about.address);
        let (source, sink) = self.halves(stream, gathered);
        let (sinks, sources) = match second {
            None => (LaneSinks::Shared(sink), vec![source]),
            Some(second) => {
                let (bulk_source, bulk) = self.halves(second, gathered);
                (LaneSinks::PerLane { priority: sink, bulk }, vec![source, bulk_source])
            }
        };
        let mut info = LinkInfo::new(Transport::Libp2p, about.direction, about.address.to_string());
        info.path = path_of(&about.address);
        info.http_address = Some(NodeAddress::Multiaddr(format!("/p2p/{}", about.peer)));
        info.round_trip = round_trip;
        info.features = met.features;
        info.configured = self.configured_address(&about);
        info.conduct =
            identity_of(&about.peer).and_then(|identity| self.door.conduct_of(&identity));
        if info.configured.is_some() {
            info.roles = Roles::CONFIGURED;
        }
        let greeting = Vec::new();
        let made = Link {
            about: info,
            sinks,
            sources,
            greeting,
            hooks: Some(Arc::new(hooks)),
            codec: self.broadcaster.link_codec(met.features),
            gauge: self.gauge(&about),
        };
        self.broadcaster.attach_claimed(claim, made).ok()
    }

    /// The gauge of the connection below a link, which only those over QUIC have.
    #[cfg(feature = "quic")]
    fn gauge(&self, about: &About) -> Option<Arc<dyn PipeGauge>> {
        let is_quic = about.address.iter().any(|part| part == Protocol::QuicV1);
        if is_quic { self.gauges.of(&about.peer, about.direction) } else { None }
    }

    /// No connection has a gauge.
    #[cfg(not(feature = "quic"))]
    const fn gauge(&self, _: &About) -> Option<Arc<dyn PipeGauge>> {
        None
    }

    fn halves(
        &self,
        stream: Stream,
        gathered: Gathered,
    ) -> (StreamSource<ReadHalf<Stream>>, StreamSink<WriteHalf<Stream>>) {
        let (read, write) = stream.split();
        (stream_source(read, self.broadcaster.assembly()), StreamSink::new(write, gathered))
    }

    /// Logs a failed handshake, and returns its meaning for the dial schedule.
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

/// Callbacks of the broadcaster for an attached link.
struct Hooks {
    peer: libp2p::PeerId,
    connection: ConnectionId,
    commands: mpsc::Sender<Command>,
    /// Of the peer's place with the door, if it has one.
    merit: Option<Merit>,
}

impl LinkHooks for Hooks {
    /// This node asks neither for proofs of stake nor for packed votes, so control messages are ignored.
    fn control(&self, _: LinkId, _: Tag, _: &Bytes) -> Result<(), DisconnectReason> {
        Ok(())
    }

    fn delivered(&self) {
        if let Some(merit) = &self.merit {
            merit.delivered(time::into_std(Instant::now()));
        }
    }

    /// Pings on a stream of its own, because the library's pings cannot be triggered.
    fn sign_of_life(&self) -> BoxFuture<'static, ()> {
        let (peer, on, commands) = (self.peer, self.connection, self.commands.clone());
        Box::pin(async move {
            let (protocols, deadline) = (vec![PING], Instant::now() + HANDSHAKE_LIMIT);
            let answered = loop {
                let protocols = protocols.clone();
                match open_stream(&commands, (peer, Some(on)), protocols, (deadline, Turn::Urgent))
                    .await
                {
                    Ok(opened) => break echo(opened.stream).await.is_ok(),
                    // A refusal of the protocol is an answer too.
                    Err(OpenError::Unsupported) => break true,
                    // This node opens too many streams, which is not held against the peer.
                    Err(OpenError::Busy) => time::sleep(PING_AGAIN).await,
                    Err(_) => break false,
                }
            };
            if !answered {
                std::future::pending().await
            }
        })
    }
}

async fn echo(mut stream: Stream) -> std::io::Result<()> {
    let mut bytes = [7; 32];
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    stream.read_exact(&mut bytes).await
}

/// The protocols of a link's first stream, in order of preference.
pub(crate) fn gossip_protocols(profile: &NetworkProfile) -> Vec<StreamProtocol> {
    let names = [Some(profile.stream_protocol), profile.legacy_stream_protocol];
    names.into_iter().flatten().map(StreamProtocol::new).collect()
}

/// Closes streams that are not needed, so that the peer reads an end and not an error.
async fn goodbye(ready: Ready) {
    let Ready { mut stream, second, .. } = ready;
    let close = async {
        // The close fails only if the peer has closed or reset the stream already.
        let _ = stream.close().await;
        if let Some(mut second) = second {
            let _ = second.close().await;
        }
    };
    if time::timeout(GOODBYE_LIMIT, close).await.is_err() {
        tracing::debug!("a refused link did not let itself be closed");
    }
}
