//! The book the swarm task keeps of its peers: connections, attempts, and whose turn it is to open.
//!
//! # Invariants
//!
//! * This end opens a gossip stream only while no attempt with that peer is under way and none is up.
//! * The end with the smaller peer ID opens at once. The other one waits, and opens late only if it
//!   dialled. Source: wire facts 8.3.
//! * A connection that was dialled for other streams is none to open a gossip stream on, until the
//!   schedule wants its peer. A gossip stream that the peer opens on it is as good as any.
//! * What is known of a peer is forgotten with its last connection and attempt.

use std::{collections::HashMap, time::Duration};

use gossip::{Direction, Identity, LinkId};
use libp2p::swarm::ConnectionId;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    config::PeerAddress, conventions::GossipKeys, handshake::LaneCount, link::LinkOutcome,
    streams::InboundStream,
};

/// How long a dialer with the larger peer ID waits for the stream of the other end.
///
/// Chosen: several round trips on the longest path; existing nodes open within one.
pub(crate) const LATE_OPENING: Duration = Duration::from_secs(5);

/// Shortest time after which a failed opening is tried again; doubles up to [`MAX_REOPENING`].
/// Chosen.
pub(crate) const REOPENING: Duration = Duration::from_secs(5);

/// Longest time after which a failed opening is tried again. Chosen.
const MAX_REOPENING: Duration = Duration::from_secs(300);

/// An address that was dialled for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dialled {
    pub(crate) address: PeerAddress,
    /// Whether the schedule knows that it is connected.
    pub(crate) settled: bool,
}

/// What a connection is there for, as far as this end decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For gossip, and for all else.
    Gossip,
    /// Dialled for streams that are no gossip, or left to them. It ends when it is idle.
    Streams,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) direction: Direction,
    pub(crate) purpose: Purpose,
    pub(crate) dialled: Option<Dialled>,
}

/// One attempt to make a link, or the link it led to.
#[derive(Debug)]
pub(crate) struct Attempted {
    pub(crate) link: LinkId,
    pub(crate) connection: ConnectionId,
    /// Who opened the stream, or will.
    pub(crate) opener: Direction,
    pub(crate) up: bool,
    /// Takes the second stream, if the peer opens one.
    pub(crate) second: Option<oneshot::Sender<InboundStream>>,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    pub(crate) connections: Vec<Connection>,
    pub(crate) attempts: Vec<Attempted>,
    /// Over how many streams a link to it is tried.
    pub(crate) lanes: LaneCount,
    opens: bool,
    /// Whether gossip streams with it are opened and answered.
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

    /// Whether a gossip link is up.
    pub(crate) fn is_linked(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.up)
    }

    /// Handshakes under way on streams that the peer opened.
    pub(crate) fn handshakes(&self) -> usize {
        let inbound = |attempt: &&Attempted| !attempt.up && attempt.opener == Direction::Inbound;
        self.attempts.iter().filter(inbound).count()
    }

    /// Whether a link, or an attempt to make one, uses a connection.
    pub(crate) fn uses(&self, connection: ConnectionId) -> bool {
        self.attempts.iter().any(|attempt| attempt.connection == connection)
    }

    /// Whether this end dialled a connection for gossip.
    pub(crate) fn has_dialled(&self, connection: ConnectionId) -> bool {
        self.for_gossip()
            .any(|known| known.id == connection && known.direction == Direction::Outbound)
    }

    /// What a connection is there for.
    pub(crate) fn purpose(&self, connection: ConnectionId) -> Option<Purpose> {
        let known = self.connections.iter().find(|known| known.id == connection);
        known.map(|known| known.purpose)
    }

    fn for_gossip(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|known| known.purpose == Purpose::Gossip)
    }

    /// Whether this end may open a stream, be it late.
    fn may_open(&self) -> bool {
        self.for_gossip().any(|known| self.opens || known.direction == Direction::Outbound)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.attempts.is_empty() && self.next_opening.is_some_and(|at| at <= now)
    }
}

impl Peers {
    pub(crate) fn new(local: Identity, keys: GossipKeys) -> Self {
        Self { local, keys, peers: HashMap::new() }
    }

    /// The peer, which is new if nothing was known of it.
    pub(crate) fn entry(&mut self, id: libp2p::PeerId, identity: Identity) -> &mut Peer {
        self.peers.entry(id).or_insert_with(|| Peer::new(&self.local, self.keys, identity))
    }

    pub(crate) fn get(&self, id: &libp2p::PeerId) -> Option<&Peer> {
        self.peers.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &libp2p::PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&libp2p::PeerId, &Peer)> {
        self.peers.iter()
    }

    /// Handshakes under way on streams that peers opened.
    pub(crate) fn handshakes(&self) -> usize {
        self.peers.values().map(Peer::handshakes).sum()
    }

    /// A connection is up.
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
            (Purpose::Streams, ..) => None,
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

    /// A connection is gone. Gives the address that was dialled for it.
    pub(crate) fn closed(&mut self, id: libp2p::PeerId, on: ConnectionId) -> Option<Dialled> {
        let peer = self.peers.get_mut(&id)?;
        let index = peer.connections.iter().position(|known| known.id == on)?;
        let dialled = peer.connections.remove(index).dialled;
        self.forget_if_idle(id);
        dialled
    }

    /// The peers with whom it is time to open a gossip stream, each with the connection to open it on.
    pub(crate) fn due(&self, now: Instant) -> Vec<(libp2p::PeerId, ConnectionId)> {
        let due = self.peers.iter().filter(|(_, peer)| peer.is_due(now));
        due.filter_map(|(id, peer)| Some((*id, peer.for_gossip().next()?.id))).collect()
    }

    /// Puts off the next opening.
    pub(crate) fn postpone(&mut self, id: &libp2p::PeerId, until: Instant) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.next_opening = Some(until);
        }
    }

    /// A link is up.
    pub(crate) fn up(&mut self, id: &libp2p::PeerId, link: LinkId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(id)?;
        let attempt = peer.attempts.iter_mut().find(|attempt| attempt.link == link)?;
        (attempt.up, attempt.second) = (true, None);
        peer.failures = 0;
        Some(peer)
    }

    /// An attempt has ended. Says whose it was, and decides when to open again.
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
        Connection { id: ConnectionId::new_unchecked(1), direction, purpose, dialled: None }
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
    async fn the_smaller_one_opens_at_once_whoever_dialled() {
        for direction in [Direction::Inbound, Direction::Outbound] {
            assert!(meet(SMALL, LARGE, direction).is_due(Duration::ZERO));
        }
    }

    #[tokio::test]
    async fn the_larger_one_opens_late_if_it_dialled_and_never_if_it_did_not() {
        let dialled = meet(LARGE, SMALL, Direction::Outbound);
        assert!(!dialled.is_due(LATE_OPENING.saturating_sub(Duration::from_millis(1))));
        assert!(dialled.is_due(LATE_OPENING));
        let listened = meet(LARGE, SMALL, Direction::Inbound);
        assert!(!listened.is_due(Duration::from_secs(3_600)));
    }

    #[tokio::test]
    async fn nobody_opens_on_a_connection_that_was_dialled_for_other_streams() {
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
    async fn nobody_opens_while_an_attempt_is_under_way_or_a_link_is_up() {
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
    async fn failed_openings_come_less_and_less_often() {
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
        assert_eq!(meeting.peers.closed(meeting.them, ConnectionId::new_unchecked(1)), None);
        assert!(meeting.peers.get(&meeting.them).is_none());
    }
}
