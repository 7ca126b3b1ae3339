//! The swarm task's record of its peers: connections, attempts to link, and which end opens the next stream.
//!
//! # Invariants
//!
//! * This end opens a gossip stream only while no attempt with the peer is in progress and no link is up.
//! * The end with the smaller peer ID opens at once. The other end waits, and then opens only if it dialled.
//!   Source: wire facts 8.3.
//! * This end opens no gossip stream on a connection that was dialled for other streams, until the dial
//!   schedule wants its peer. A gossip stream that the peer opens there is accepted as on any other.
//! * A link over a circuit moves to a direct connection once there is one: this end opens another link there, under the
//!   same rules, and the ledger of links lets the direct one stay.
//! * When the connection of a link ends and another one to the peer remains, the end that opens does so at once.
//! * The record of a peer is removed with its last connection and attempt.

use std::{collections::HashMap, time::Duration};

use broadcaster::{RoundTrip, Ticket};
use gossip::{Direction, Identity, LinkId, LinkPath};
use libp2p::swarm::ConnectionId;
use runtime::time::Instant;
use tokio::sync::oneshot;

use crate::{
    command::LinkOutcome, conventions::GossipKeys, handshake::LaneCount, streams::InboundStream,
};

/// Time that a dialer with the larger peer ID waits for the other end to open the stream.
///
/// Chosen: several round trips on the longest path; existing nodes open within one.
pub(crate) const LATE_OPENING: Duration = Duration::from_secs(5);

/// Shortest delay before a failed opening is tried again; doubles up to [`MAX_REOPENING`]. Chosen: as
/// [`LATE_OPENING`].
pub(crate) const REOPENING: Duration = Duration::from_secs(5);

/// Longest delay before a failed opening is tried again. Chosen: one attempt in 5 minutes costs nothing.
const MAX_REOPENING: Duration = Duration::from_secs(300);

/// The purpose of a connection, as far as this end decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Gossip, and everything else.
    Gossip,
    /// Streams other than gossip. The connection is closed when it is idle.
    Streams,
    /// Streams of the DHT, which has dialled. Gossip is neither opened nor accepted on it, because the mesh loop has not
    /// chosen the peer. Source: wire facts 8.3.
    Dht,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) direction: Direction,
    pub(crate) path: LinkPath,
    pub(crate) purpose: Purpose,
    /// The cell with its round-trip time, which pings set.
    pub(crate) round_trip: RoundTrip,
    /// The order to dial it, if it was for gossip; open until the mesh loop is told that it is connected.
    pub(crate) dialled: Option<Ticket>,
}

/// An attempt to make a link, or the link that it led to.
#[derive(Debug)]
pub(crate) struct Attempted {
    pub(crate) link: LinkId,
    pub(crate) connection: ConnectionId,
    /// The end that opens the stream.
    pub(crate) opener: Direction,
    pub(crate) up: bool,
    /// Hands over the second stream, if the peer opens it.
    pub(crate) second: Option<oneshot::Sender<InboundStream>>,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    pub(crate) connections: Vec<Connection>,
    pub(crate) attempts: Vec<Attempted>,
    /// The number of streams that the next attempt proposes.
    pub(crate) lanes: LaneCount,
    opens: bool,
    /// `true` if gossip streams with this peer are opened and accepted.
    pub(crate) gossips: bool,
    next_opening: Option<Instant>,
    failures: u32,
}

/// All peers.
#[derive(Debug)]
pub(crate) struct Peers {
    local: Identity,
    keys: GossipKeys,
    peers: HashMap<libp2p::PeerId, Peer>,
}

impl Peer {
    fn new(local: &Identity, keys: GossipKeys, identity: Identity) -> Self {
        Self {
            identity,
            connections: Vec::new(),
            attempts: Vec::new(),
            lanes: LaneCount::PerLane,
            opens: local < &identity,
            gossips: keys.include(&identity),
            next_opening: None,
            failures: 0,
        }
    }

    /// Returns `true` while a gossip link is up.
    #[cfg(test)]
    pub(crate) fn is_linked(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.up)
    }

    /// Number of handshakes in progress on streams that the peer opened.
    pub(crate) fn handshakes(&self) -> usize {
        let inbound = |attempt: &&Attempted| !attempt.up && attempt.opener == Direction::Inbound;
        self.attempts.iter().filter(inbound).count()
    }

    /// Returns `true` if a link, or an attempt to make one, uses `connection`.
    pub(crate) fn uses(&self, connection: ConnectionId) -> bool {
        self.attempts.iter().any(|attempt| attempt.connection == connection)
    }

    /// Returns `true` if this end dialled `connection` for gossip.
    pub(crate) fn has_dialled(&self, connection: ConnectionId) -> bool {
        self.for_gossip()
            .any(|known| known.id == connection && known.direction == Direction::Outbound)
    }

    /// Returns `true` if all connections were dialled by the peer, and it has refused gossip on them. It may have dialled
    /// for its part of the DHT alone, and gossips on a connection that this end dials.
    pub(crate) fn refuses(&self) -> bool {
        let is_inbound = |known: &Connection| known.direction == Direction::Inbound;
        self.failures > 0 && self.attempts.is_empty() && self.connections.iter().all(is_inbound)
    }

    /// The connection on which the next link is opened: a direct one before a circuit, and of these one that was dialled
    /// for it before any other.
    fn next_for_gossip(&self) -> Option<&Connection> {
        self.for_gossip().min_by_key(|known| (known.path, known.dialled.is_none()))
    }

    /// The way of a connection; `None` if it is gone.
    pub(crate) fn path(&self, connection: ConnectionId) -> Option<LinkPath> {
        let known = self.connections.iter().find(|known| known.id == connection);
        known.map(|known| known.path)
    }

    /// Returns `true` if a link goes through a relay.
    pub(crate) fn is_relayed(&self, link: LinkId) -> bool {
        let attempt = self.attempts.iter().find(|attempt| attempt.link == link);
        attempt.is_some_and(|attempt| self.path(attempt.connection) == Some(LinkPath::Relayed))
    }

    /// Returns `true` if every link goes through a relay, no other attempt is in progress, and there is a direct
    /// connection to move to.
    fn may_move(&self) -> bool {
        let is_relayed = |attempt: &Attempted| {
            attempt.up && self.path(attempt.connection) == Some(LinkPath::Relayed)
        };
        self.attempts.iter().all(is_relayed)
            && self.for_gossip().any(|known| known.path == LinkPath::Direct)
    }

    /// The purpose of a connection; `None` if it is gone.
    pub(crate) fn purpose(&self, connection: ConnectionId) -> Option<Purpose> {
        let known = self.connections.iter().find(|known| known.id == connection);
        known.map(|known| known.purpose)
    }

    /// The round-trip time of a connection.
    pub(crate) fn round_trip(&self, on: ConnectionId) -> Option<&RoundTrip> {
        self.connections.iter().find(|known| known.id == on).map(|known| &known.round_trip)
    }

    /// Takes the order to dial a circuit over to the direct connection that its link has moved to.
    pub(crate) fn follow(&mut self, to: Option<ConnectionId>) {
        let Some(to) = to.filter(|to| self.path(*to) == Some(LinkPath::Direct)) else { return };
        let mut relayed =
            self.connections.iter_mut().filter(|known| known.path == LinkPath::Relayed);
        let order = relayed.find_map(|known| known.dialled.take_if(|order| order.is_linked()));
        let mut direct = self.connections.iter_mut().filter(|known| known.id == to);
        if let (Some(order), Some(direct)) = (order, direct.next())
            && direct.dialled.is_none()
        {
            direct.dialled = Some(order);
        }
    }

    fn for_gossip(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|known| known.purpose == Purpose::Gossip)
    }

    /// Returns `true` if this end may open a stream at some time.
    fn may_open(&self) -> bool {
        self.for_gossip().any(|known| self.opens || known.direction == Direction::Outbound)
    }

    /// The next opening, if it follows from the end of a connection that another one remains; `None` if none does.
    fn after_connection(&self, now: Instant) -> Option<Instant> {
        let opens = self.gossips && self.opens && self.for_gossip().next().is_some();
        opens.then_some(now)
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_free = self.attempts.is_empty() || self.may_move();
        is_free && self.next_opening.is_some_and(|at| at <= now)
    }
}

impl Peers {
    pub(crate) fn new(local: Identity, keys: GossipKeys) -> Self {
        Self { local, keys, peers: HashMap::new() }
    }

    /// The record of a peer, created if there is none.
    pub(crate) fn entry(&mut self, id: libp2p::PeerId, identity: Identity) -> &mut Peer {
        self.peers.entry(id).or_insert_with(|| Peer::new(&self.local, self.keys, identity))
    }

    pub(crate) fn get(&self, id: &libp2p::PeerId) -> Option<&Peer> {
        self.peers.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &libp2p::PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id)
    }

    /// Number of handshakes in progress on streams that peers opened.
    pub(crate) fn handshakes(&self) -> usize {
        self.peers.values().map(Peer::handshakes).sum()
    }

    /// Records a new connection.
    pub(crate) fn connected(
        &mut self,
        id: libp2p::PeerId,
        identity: Identity,
        connection: Connection,
        now: Instant,
    ) {
        let peer = self.entry(id, identity);
        let opening = match (connection.purpose, peer.opens, connection.direction) {
            _ if !peer.gossips => None,
            (Purpose::Streams | Purpose::Dht, ..) => None,
            (Purpose::Gossip, true, _) => Some(now),
            (Purpose::Gossip, false, Direction::Outbound) => Some(now + LATE_OPENING),
            (Purpose::Gossip, false, Direction::Inbound) => None,
        };
        peer.connections.push(connection);
        peer.next_opening = match (peer.next_opening, opening) {
            (Some(known), Some(new)) => Some(known.min(new)),
            (known, new) => known.or(new),
        };
    }

    /// Removes a connection. Returns the order to dial it.
    pub(crate) fn closed(
        &mut self,
        id: libp2p::PeerId,
        on: ConnectionId,
        now: Instant,
    ) -> Option<Ticket> {
        let peer = self.peers.get_mut(&id)?;
        let index = peer.connections.iter().position(|known| known.id == on)?;
        let dialled = peer.connections.remove(index).dialled;
        peer.next_opening = peer.after_connection(now).or(peer.next_opening);
        self.forget_if_idle(id);
        dialled
    }

    /// The peers with which a gossip stream must be opened now, each with the connection to use.
    pub(crate) fn due(&self, now: Instant) -> Vec<(libp2p::PeerId, ConnectionId)> {
        let due = self.peers.iter().filter(|(_, peer)| peer.is_due(now));
        due.filter_map(|(id, peer)| Some((*id, peer.next_for_gossip()?.id))).collect()
    }

    /// Delays the next opening until `until`.
    pub(crate) fn postpone(&mut self, id: &libp2p::PeerId, until: Instant) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.next_opening = Some(until);
        }
    }

    /// Records that a link is up.
    pub(crate) fn up(&mut self, id: &libp2p::PeerId, link: LinkId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(id)?;
        let attempt = peer.attempts.iter_mut().find(|attempt| attempt.link == link)?;
        (attempt.up, attempt.second) = (true, None);
        peer.failures = 0;
        Some(peer)
    }

    /// Removes an attempt that has ended, schedules the next opening, and returns the attempt.
    pub(crate) fn ended(
        &mut self,
        id: libp2p::PeerId,
        link: LinkId,
        outcome: LinkOutcome,
        now: Instant,
    ) -> Option<Attempted> {
        let peer = self.peers.get_mut(&id)?;
        let index = peer.attempts.iter().position(|attempt| attempt.link == link)?;
        let attempted = peer.attempts.remove(index);
        let again = match outcome {
            LinkOutcome::Unsupported | LinkOutcome::Stopping => None,
            LinkOutcome::NoSecondLane => {
                peer.lanes = LaneCount::One;
                Some(now)
            }
            LinkOutcome::Ended(_) if peer.purpose(attempted.connection).is_none() => {
                Some(peer.after_connection(now).unwrap_or(now + REOPENING))
            }
            LinkOutcome::Ended(_) | LinkOutcome::Duplicate { .. } => Some(now + REOPENING),
            LinkOutcome::Failed | LinkOutcome::Foreign => {
                let delay = REOPENING.saturating_mul(2_u32.saturating_pow(peer.failures));
                peer.failures = peer.failures.saturating_add(1);
                Some(now + delay.min(MAX_REOPENING))
            }
        };
        peer.next_opening = again.filter(|_| peer.may_open());
        self.forget_if_idle(id);
        Some(attempted)
    }

    fn forget_if_idle(&mut self, id: libp2p::PeerId) {
        let idle = |peer: &Peer| peer.connections.is_empty() && peer.attempts.is_empty();
        if self.peers.get(&id).is_some_and(idle) {
            self.peers.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Identity = Identity::from_ed25519([1; 32]);
    const LARGE: Identity = Identity::from_ed25519([2; 32]);
    const LINK: LinkId = LinkId(1);

    struct Meeting {
        peers: Peers,
        them: libp2p::PeerId,
        began: Instant,
    }

    fn meet(us: Identity, them: Identity, direction: Direction) -> Meeting {
        let id = libp2p::PeerId::random();
        let (mut peers, began) = (Peers::new(us, GossipKeys::Any), Instant::now());
        let connection = connection(direction, Purpose::Gossip);
        peers.connected(id, them, connection, began);
        Meeting { peers, them: id, began }
    }

    fn connection(direction: Direction, purpose: Purpose) -> Connection {
        let (id, round_trip) = (ConnectionId::new_unchecked(1), RoundTrip::default());
        let path = LinkPath::Direct;
        Connection { id, direction, path, purpose, round_trip, dialled: None }
    }

    impl Meeting {
        fn begin(&mut self, opener: Direction) {
            let attempted = Attempted {
                link: LINK,
                connection: ConnectionId::new_unchecked(1),
                opener,
                up: false,
                second: None,
            };
            self.peers.get_mut(&self.them).unwrap().attempts.push(attempted);
        }

        fn is_due(&self, after: Duration) -> bool {
            !self.peers.due(self.began + after).is_empty()
        }
    }

    #[tokio::test]
    async fn the_end_with_the_smaller_id_opens_at_once_whichever_dialled() {
        for direction in [Direction::Inbound, Direction::Outbound] {
            assert!(meet(SMALL, LARGE, direction).is_due(Duration::ZERO));
        }
    }

    #[tokio::test]
    async fn the_end_with_the_larger_id_opens_late_and_only_if_it_dialled() {
        let dialled = meet(LARGE, SMALL, Direction::Outbound);
        assert!(!dialled.is_due(LATE_OPENING.saturating_sub(Duration::from_millis(1))));
        assert!(dialled.is_due(LATE_OPENING));
        let listened = meet(LARGE, SMALL, Direction::Inbound);
        assert!(!listened.is_due(Duration::from_secs(3_600)));
    }

    #[tokio::test]
    async fn no_gossip_stream_is_opened_on_a_connection_dialled_for_other_streams() {
        for (us, them) in [(SMALL, LARGE), (LARGE, SMALL)] {
            let (id, began) = (libp2p::PeerId::random(), Instant::now());
            let mut peers = Peers::new(us, GossipKeys::Any);
            let made = connection(Direction::Outbound, Purpose::Streams);
            peers.connected(id, them, made, began);
            assert!(peers.due(began + 2 * LATE_OPENING).is_empty());
            assert!(!peers.get(&id).unwrap().has_dialled(ConnectionId::new_unchecked(1)));
        }
    }

    #[tokio::test]
    async fn no_gossip_stream_is_opened_during_an_attempt_or_beside_a_link() {
        let mut meeting = meet(SMALL, LARGE, Direction::Inbound);
        meeting.begin(Direction::Inbound);
        assert!(!meeting.is_due(LATE_OPENING));
        assert!(meeting.peers.up(&meeting.them, LINK).unwrap().is_linked());
        assert!(!meeting.is_due(LATE_OPENING));
        let ended = LinkOutcome::Ended(gossip::DisconnectReason::RemoteClosed);
        meeting.peers.ended(meeting.them, LINK, ended, meeting.began).unwrap();
        assert!(meeting.is_due(REOPENING));
    }

    #[tokio::test]
    async fn failed_openings_are_retried_less_and_less_often() {
        let mut meeting = meet(SMALL, LARGE, Direction::Inbound);
        for expected in [5, 10, 20, 40, 80, 160, 300, 300] {
            meeting.begin(Direction::Outbound);
            let (them, began) = (meeting.them, meeting.began);
            meeting.peers.ended(them, LINK, LinkOutcome::Failed, began).unwrap();
            assert!(!meeting.is_due(Duration::from_secs(expected - 1)));
            assert!(meeting.is_due(Duration::from_secs(expected)));
        }
        meeting.begin(Direction::Outbound);
        let (them, began) = (meeting.them, meeting.began);
        meeting.peers.ended(them, LINK, LinkOutcome::Unsupported, began).unwrap();
        assert!(!meeting.is_due(Duration::from_secs(3_600)), "the peer speaks no gossip");
    }

    #[tokio::test]
    async fn a_failed_second_lane_leads_to_a_link_without_one_at_once() {
        let mut meeting = meet(SMALL, LARGE, Direction::Inbound);
        meeting.begin(Direction::Outbound);
        let (them, began) = (meeting.them, meeting.began);
        meeting.peers.ended(them, LINK, LinkOutcome::NoSecondLane, began).unwrap();
        assert!(meeting.is_due(Duration::ZERO));
        assert_eq!(meeting.peers.get(&them).unwrap().lanes, LaneCount::One);
    }

    #[tokio::test]
    async fn a_peer_is_forgotten_with_its_last_connection() {
        let mut meeting = meet(SMALL, LARGE, Direction::Inbound);
        let (them, began) = (meeting.them, meeting.began);
        assert!(meeting.peers.closed(them, ConnectionId::new_unchecked(1), began).is_none());
        assert!(meeting.peers.get(&meeting.them).is_none());
    }

    // Before, a node that a peer had dialled for the DHT had no link to it while that connection lasted.
    #[test]
    fn a_peer_that_refuses_gossip_on_its_own_connection_is_dialled_and_that_connection_is_used() {
        let mut meeting = meet(SMALL, LARGE, Direction::Inbound);
        assert!(!meeting.peers.get(&meeting.them).unwrap().refuses());
        meeting.begin(Direction::Outbound);
        let (them, now) = (meeting.them, meeting.began);
        meeting.peers.ended(them, LINK, LinkOutcome::Failed, now);
        assert!(meeting.peers.get(&them).unwrap().refuses());
        let second = ConnectionId::new_unchecked(2);
        let made = Connection { id: second, ..connection(Direction::Outbound, Purpose::Dht) };
        meeting.peers.connected(them, LARGE, made, now);
        assert!(
            !meeting.peers.get(&them).unwrap().refuses(),
            "this end has a connection of its own"
        );
    }
}
