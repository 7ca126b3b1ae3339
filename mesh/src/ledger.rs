//! The rules of links: one gossip link for one logical peer, whatever the transport.
//!
//! Two nodes that can reach each other in several ways end up with several links: both dial, or one
//! dials over two transports. Each end tells its own ledger of every link whose identity it has
//! verified, and the ledger says which link stays.
//!
//! ```text
//!   verified ──claim──▶ Keep            use the link
//!                       Replace{loser}  use the link; move the loser's queue to it; bench the loser
//!                       Refuse{winner}  bench the new link
//!   ended    ──release─▶ if that link held the identity, the best link of the bench takes over
//! ```
//!
//! A benched link is still read and nothing new is written to it, until it is closed. See below for when.
//!
//! # Who closes the loser
//!
//! The dialer of a link verifies it first: it sends the last message of the handshake, and the
//! other end verifies on reading it. So the end that *listened* on the winner is the one that knows
//! that both ends have verified it, and the one that may close the loser first, after
//! [`SETTLE_PATIENCE`]: [`Closer::ThisEnd`]. The end that dialled the winner ([`Closer::Peer`]) stops writing to the
//! loser but goes on reading, and closes it itself only after [`CLOSE_PATIENCE`]. If the winner
//! ends in the meantime, the best of the losers still open takes over. An end that closes at once in either case still settles on one link, but
//! leaves the other end without any until the winner is verified there.
//!
//! A close is a half-close: stop writing, read until the other end has stopped writing too.
//!
//! # Invariants
//!
//! * An identity has at most one holder, and a link holds at most one identity.
//! * Under [`ClaimRule::Ranked`] the holder is the best of the claims made and not released, by an
//!   order that uses only what both ends know (of two runs of a dialer only one is alive, and only
//!   the listener knows both). So two ends that have claimed the same live links have the same
//!   holder, in whatever order they claimed them.
//! * Only the holder's release frees an identity, and only while nobody is on its bench.
//! * A benched link is an open one, so their number is bounded where connections are.
//! * A link whose identity is only claimed, over plain WebSocket, displaces none that proved it. It may make that one
//!   answer a ping: a link that answers stays, and one that does not is dead on its own account.

use std::{cmp::Ordering, collections::HashMap, time::Duration};

use gossip::{ClaimRule, Identity, LinkId, LinkPath, Transport};

/// Time for which the end that dialled the winner waits for the other end to close the loser.
///
/// Chosen: the same 5 s in which a link that holds an identity must answer a ping when a newcomer
/// proves the same key (threats and goals, row 28); far longer than the last handshake message
/// takes.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Time for which the end that listened on the winner goes on reading a link that lost.
///
/// That end may have verified the winner before the other end, since a libp2p handshake ends for both at
/// about the same time; closed at once, the loser would leave the other end without any link until it
/// has caught up. Chosen: a few round trips on the longest path.
pub const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// A link whose identity this end has just verified, as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkClaim {
    /// The link. Numbers must grow in the order in which links are opened or accepted: of two runs
    /// of the dialer, that orders them.
    pub link: LinkId,
    /// The identity at the other end.
    pub identity: Identity,
    /// The transport of the link.
    pub transport: Transport,
    /// The way of the link, which both ends know.
    pub path: LinkPath,
    /// The identity that dialled: this node's own, or the other end's.
    pub dialer: Identity,
    /// Names the run of the dialling process, where known; compared only between links of one
    /// transport and one dialer. A random number made at start will do. A restarted node's new link
    /// thereby replaces its dead one. Under [`ClaimRule::FirstVerified`], of a libp2p link: names the
    /// connection.
    pub session: Option<u64>,
    /// Names the run of the process at the other end, where it announced one; comparable between links of all
    /// transports and dialers. Two links of one identity and two runs are of two nodes with one key, or of one that
    /// restarted.
    pub run: Option<u64>,
    /// Random bytes that both ends know and that differ from link to link, e.g. a hash of the
    /// handshake. They decide between two dials of one run.
    pub tie: [u8; 32],
}

/// The ruling about a claim.
#[must_use = "a ruling that is not carried out leaves two links to one peer"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Keep the new link; there is no other.
    Keep,
    /// Keep the new link, move what waits to be written to `loser` over to it, and end `loser`
    /// gracefully. See [`Ledger::closer`] for when.
    Replace {
        /// The older link.
        loser: LinkId,
    },
    /// Bench the new link.
    Refuse {
        /// The link that stays.
        winner: LinkId,
        /// The newcomer's doubt about `winner`, which has to show that it is not dead.
        doubt: Doubt,
        /// The standing of the newcomer: the strength of its proof, compared with that of `winner`.
        standing: Standing,
    },
}

/// A losing newcomer's doubt about the holder of its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The node at the other end may have lost the holder without this end having noticed: the holder has
    /// to answer a ping within [`CLOSE_PATIENCE`], else it ends and the newcomer takes over.
    Pings,
    /// The same, and the newcomer is of another session or run: if the holder answers, two nodes run with one key.
    Rivals,
}

/// The standing of a losing newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has proved its identity as well as the holder.
    Equal,
    /// It has proved less than the holder: over plain WebSocket a third party can pass the exchange on. Such a newcomer
    /// may not ask the holder for a sign of life again and again.
    Lower,
}

/// The end that starts closing a link that lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closer {
    /// This end, at once; also any earlier loser that was left to the peer.
    ThisEnd,
    /// The peer, once it has verified the winner. This end waits [`CLOSE_PATIENCE`] for it.
    Peer,
}

/// The record of which link each identity is reached by. Pure: it does no I/O and reads no clock.
#[derive(Debug)]
pub struct Ledger {
    rule: ClaimRule,
    held: HashMap<Identity, Held>,
    /// Which identity a link holds, or is benched for.
    claimed: HashMap<LinkId, Identity>,
}

/// The links of one identity.
#[derive(Debug)]
struct Held {
    holder: LinkClaim,
    /// Links that lost and are still open, oldest first.
    bench: Vec<LinkClaim>,
}

impl Ledger {
    /// Creates an empty ledger. A node has one, shared by its networks.
    #[must_use]
    pub fn new(rule: ClaimRule) -> Self {
        Self { rule, held: HashMap::new(), claimed: HashMap::new() }
    }

    /// Rules on a link whose identity has been verified, not before.
    ///
    /// Claiming again for the link that holds the identity gives [`Ruling::Keep`].
    pub fn claim(&mut self, claim: LinkClaim) -> Ruling {
        if self.claimed.get(&claim.link).is_some_and(|held| *held != claim.identity) {
            // The successor for its other identity is found when it is next asked for.
            let _ = self.release(claim.link);
        }
        let (link, identity) = (claim.link, claim.identity);
        let rule = self.rule;
        let Some(held) = self.held.get_mut(&identity) else {
            self.claimed.insert(link, identity);
            self.held.insert(identity, Held { holder: claim, bench: Vec::new() });
            return Ruling::Keep;
        };
        if held.holder.link == link {
            held.holder = claim;
            return Ruling::Keep;
        }
        held.bench.retain(|benched| benched.link != link);
        let winner = held.holder.link;
        let (ruling, loser) = if outranks(rule, &claim, &held.holder) {
            (Ruling::Replace { loser: winner }, std::mem::replace(&mut held.holder, claim))
        } else {
            let doubt = doubt(rule, &claim, &held.holder);
            (Ruling::Refuse { winner, doubt, standing: standing(&claim, &held.holder) }, claim)
        };
        self.claimed.insert(link, identity);
        held.bench.push(loser);
        ruling
    }

    /// Forgets a link that ended, or that is about to. If it held an identity, the best link on the bench
    /// holds it from now on, and is returned. Links that claimed nothing are ignored.
    #[must_use = "the link that takes over has to be told"]
    pub fn release(&mut self, link: LinkId) -> Option<LinkId> {
        let identity = self.claimed.remove(&link)?;
        let held = self.held.get_mut(&identity)?;
        if held.holder.link != link {
            held.bench.retain(|benched| benched.link != link);
            return None;
        }
        let rule = self.rule;
        let best = (0..held.bench.len()).reduce(|best, other| {
            if outranks(rule, &held.bench[other], &held.bench[best]) { other } else { best }
        });
        let Some(best) = best else {
            self.held.remove(&identity);
            return None;
        };
        held.holder = held.bench.remove(best);
        Some(held.holder.link)
    }

    /// Returns `true` if a claim is of another run, or another session, than the link that holds its identity, where
    /// these can be compared: both links name their runs; or both are of one transport and one dialer, and name their
    /// sessions.
    #[must_use]
    pub fn is_of_another_session(&self, claim: &LinkClaim) -> bool {
        let held = self.held.get(&claim.identity);
        held.is_some_and(|held| {
            are_of_two_runs(claim, &held.holder)
                .unwrap_or_else(|| are_of_two_sessions(claim, &held.holder))
        })
    }

    /// Returns the link that holds `identity`; `None` if no link does.
    #[must_use]
    pub fn holder(&self, identity: &Identity) -> Option<LinkId> {
        self.held.get(identity).map(|held| held.holder.link)
    }

    /// The links to `identity` that lost and are still open, oldest first.
    #[must_use]
    pub fn benched(&self, identity: &Identity) -> Vec<LinkId> {
        let held = self.held.get(identity);
        held.into_iter().flat_map(|held| &held.bench).map(|claim| claim.link).collect()
    }

    /// Which end starts closing links to `identity` that lost against its holder; `None` without
    /// one.
    ///
    /// Under [`ClaimRule::FirstVerified`] always this end, as existing nodes do.
    #[must_use]
    pub fn closer(&self, identity: &Identity) -> Option<Closer> {
        let winner = &self.held.get(identity)?.holder;
        Some(match self.rule {
            ClaimRule::Ranked if winner.dialer != *identity => Closer::Peer,
            ClaimRule::Ranked | ClaimRule::FirstVerified => Closer::ThisEnd,
        })
    }

    /// The time for which this end goes on reading a link to `identity` that lost, before it closes it.
    ///
    /// Under [`ClaimRule::FirstVerified`] that is none, as in existing nodes, but for a circuit that lost against a direct
    /// link: the other end may not have verified that one yet, and would have no link until then.
    #[must_use]
    pub fn patience(&self, identity: &Identity) -> Duration {
        let has_moved = |held: &Held| held.bench.iter().any(|lost| lost.path > held.holder.path);
        match (self.rule, self.closer(identity)) {
            (_, None) => Duration::ZERO,
            (ClaimRule::FirstVerified, Some(_)) => {
                let has_moved = self.held.get(identity).is_some_and(has_moved);
                if has_moved { SETTLE_PATIENCE } else { Duration::ZERO }
            }
            (ClaimRule::Ranked, Some(Closer::ThisEnd)) => SETTLE_PATIENCE,
            (ClaimRule::Ranked, Some(Closer::Peer)) => CLOSE_PATIENCE,
        }
    }

    /// Returns the number of identities that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Returns `true` if no identity is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// A refused newcomer's doubt about the link that holds its identity.
fn doubt(rule: ClaimRule, newcomer: &LinkClaim, holder: &LinkClaim) -> Doubt {
    match (rule, are_of_two_runs(newcomer, holder)) {
        (_, Some(true)) => Doubt::Rivals,
        (ClaimRule::FirstVerified, None) if are_of_two_sessions(newcomer, holder) => Doubt::Rivals,
        // A link of an earlier session that is verified late is refused by its rank.
        (ClaimRule::FirstVerified | ClaimRule::Ranked, _) => Doubt::Pings,
    }
}

/// A refused newcomer's standing towards the link that holds its identity.
fn standing(newcomer: &LinkClaim, holder: &LinkClaim) -> Standing {
    if is_proven(holder.transport) && !is_proven(newcomer.transport) {
        Standing::Lower
    } else {
        Standing::Equal
    }
}

/// Returns `true` if two links are of different runs; `None` if one of them does not name its run.
fn are_of_two_runs(one: &LinkClaim, other: &LinkClaim) -> Option<bool> {
    one.run.zip(other.run).map(|(one, other)| one != other)
}

/// Returns `true` if two links are of different sessions, where sessions can be compared.
fn are_of_two_sessions(one: &LinkClaim, other: &LinkClaim) -> bool {
    let is_comparable = (one.transport, one.dialer) == (other.transport, other.dialer);
    is_comparable && one.session.zip(other.session).is_some_and(|(one, other)| one != other)
}

/// Returns `true` if a new link pushes out the one that holds its identity.
fn outranks(rule: ClaimRule, new: &LinkClaim, holder: &LinkClaim) -> bool {
    match rule {
        // A peer that comes back on another connection would be refused until its old one is found dead.
        // Existing nodes replace it, and its key is proven. Source: wire facts 8.3.
        ClaimRule::FirstVerified => {
            let both = (new.transport, holder.transport) == (Transport::Libp2p, Transport::Libp2p);
            // A circuit pushes out no direct link: the peer would not have come back on the worse way alone.
            let is_worse = new.path > holder.path;
            both && !is_worse && new.session.is_some() && new.session != holder.session
        }
        ClaimRule::Ranked => ranked(new, holder) == Ordering::Greater,
    }
}

/// Returns `true` if a transport proves the identity at the other end. The exchange over WebSocket is not bound to the
/// channel: somebody in the middle can pass it on, and so claim to be somebody else.
const fn is_proven(transport: Transport) -> bool {
    match transport {
        Transport::Libp2p | Transport::Memory => true,
        // One that is not known here has to show first that it does.
        _ => false,
    }
}

/// Compares two links to one identity; the greater one stays.
fn ranked(a: &LinkClaim, b: &LinkClaim) -> Ordering {
    preference(a.transport)
        .cmp(&preference(b.transport))
        // The direct one stays: a relay's limits end the other one sooner or later.
        .then_with(|| b.path.cmp(&a.path))
        .then_with(|| b.dialer.cmp(&a.dialer))
        .then_with(|| match (a.session, b.session) {
            // Only the listener can see two runs of a dialer, and one of them is over. Going by the
            // order of the claims instead would let a link of the old run, verified late, push out
            // the living one.
            (Some(one), Some(other)) if one != other => a.link.cmp(&b.link),
            _ => b.tie.cmp(&a.tie),
        })
}

/// Libp2p before WebSocket before memory. Source: threats and goals, row 6.
fn preference(transport: Transport) -> u8 {
    match transport {
        Transport::Libp2p => 2,
        Transport::WebSocket => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: Identity = Identity::from_ed25519([1; 32]);
    const THEM: Identity = Identity::from_ed25519([2; 32]);

    fn link(number: u64, transport: Transport, dialer: Identity) -> LinkClaim {
        let (link, tie) = (LinkId(number), [0; 32]);
        let path = LinkPath::Direct;
        LinkClaim { link, identity: THEM, transport, path, dialer, session: None, run: None, tie }
    }

    /// Claims both links, in both orders, and checks that `better` holds the identity.
    #[track_caller]
    fn wins(better: &LinkClaim, worse: &LinkClaim) {
        let mut ledger = Ledger::new(ClaimRule::Ranked);
        assert_eq!(ledger.claim(worse.clone()), Ruling::Keep);
        assert_eq!(ledger.claim(better.clone()), Ruling::Replace { loser: worse.link });
        assert_eq!(ledger.holder(&THEM), Some(better.link));

        let mut ledger = Ledger::new(ClaimRule::Ranked);
        assert_eq!(ledger.claim(better.clone()), Ruling::Keep);
        let refused = ledger.claim(worse.clone());
        assert!(matches!(refused, Ruling::Refuse { winner, .. } if winner == better.link));
        assert_eq!(ledger.holder(&THEM), Some(better.link));
    }

    #[test]
    fn libp2p_beats_websocket_beats_memory_whoever_dialled() {
        for dialer in [US, THEM] {
            let websocket = link(2, Transport::WebSocket, dialer);
            wins(&link(1, Transport::Libp2p, THEM), &websocket);
            wins(&websocket, &link(3, Transport::Memory, US));
        }
    }

    // Issue 11, 2.
    #[test]
    fn of_one_transport_the_direct_link_stays_whoever_dialled() {
        for dialer in [US, THEM] {
            let circuit = LinkClaim { path: LinkPath::Relayed, ..link(1, Transport::Libp2p, US) };
            wins(&link(2, Transport::Libp2p, dialer), &circuit);
            wins(&circuit, &link(3, Transport::WebSocket, dialer));
        }
    }

    // Issue 11, 2.
    #[test]
    fn first_verified_moves_from_a_circuit_to_a_direct_link_and_not_back() {
        let direct = LinkClaim { session: Some(1), ..link(1, Transport::Libp2p, US) };
        let circuit = LinkClaim {
            path: LinkPath::Relayed,
            session: Some(2),
            ..link(2, Transport::Libp2p, US)
        };
        let mut ledger = Ledger::new(ClaimRule::FirstVerified);
        assert_eq!(ledger.claim(circuit.clone()), Ruling::Keep);
        assert_eq!(ledger.claim(direct.clone()), Ruling::Replace { loser: circuit.link });
        assert_eq!(ledger.patience(&THEM), SETTLE_PATIENCE);
        let mut ledger = Ledger::new(ClaimRule::FirstVerified);
        assert_eq!(ledger.claim(direct), Ruling::Keep);
        assert!(matches!(ledger.claim(circuit), Ruling::Refuse { .. }));
    }

    #[test]
    fn of_one_transport_the_link_dialled_by_the_smaller_key_stays() {
        for transport in [Transport::Libp2p, Transport::WebSocket] {
            wins(&link(1, transport, US), &link(2, transport, THEM));
        }
    }

    #[test]
    fn a_restarted_dialer_replaces_its_old_link_and_a_late_claim_of_the_old_one_is_refused() {
        let run = |number, session, tie| LinkClaim {
            session,
            tie: [tie; 32],
            ..link(number, Transport::WebSocket, THEM)
        };
        wins(&run(8, Some(3), 9), &run(7, Some(5), 0));
        wins(&run(8, Some(5), 9), &run(7, Some(3), 0));
    }

    #[test]
    fn between_two_dials_of_one_run_or_of_unknown_runs_the_smaller_tie_stays() {
        for (one, other) in [(None, None), (Some(3), None), (None, Some(3)), (Some(3), Some(3))] {
            let base = link(1, Transport::Libp2p, US);
            let better = LinkClaim { session: one, tie: [4; 32], ..base.clone() };
            let worse = LinkClaim { link: LinkId(2), session: other, tie: [5; 32], ..base };
            wins(&better, &worse);
        }
    }

    #[test]
    fn first_verified_keeps_the_first_until_it_is_released() {
        let mut ledger = Ledger::new(ClaimRule::FirstVerified);
        let (first, second) = (link(1, Transport::Memory, THEM), link(2, Transport::Libp2p, US));
        assert_eq!(ledger.claim(first), Ruling::Keep);
        let (winner, doubt, standing) = (LinkId(1), Doubt::Pings, Standing::Equal);
        let refused = Ruling::Refuse { winner, doubt, standing };
        assert_eq!(ledger.claim(second.clone()), refused);
        assert_eq!(ledger.release(LinkId(2)), None);
        assert_eq!(ledger.holder(&THEM), Some(LinkId(1)));
        assert_eq!(ledger.release(LinkId(1)), None);
        assert_eq!(ledger.claim(second), Ruling::Keep);
        assert_eq!(ledger.closer(&THEM), Some(Closer::ThisEnd));
    }

    #[test]
    fn first_verified_lets_a_peer_come_back_on_another_libp2p_connection() {
        let mut ledger = Ledger::new(ClaimRule::FirstVerified);
        let on = |number, connection, transport| LinkClaim {
            session: Some(connection),
            ..link(number, transport, THEM)
        };
        assert_eq!(ledger.claim(on(1, 1, Transport::Libp2p)), Ruling::Keep);
        let refused = |winner, standing| Ruling::Refuse { winner, doubt: Doubt::Pings, standing };
        let same = ledger.claim(on(2, 1, Transport::Libp2p));
        assert_eq!(same, refused(LinkId(1), Standing::Equal));
        let other = ledger.claim(on(3, 2, Transport::Libp2p));
        assert_eq!(other, Ruling::Replace { loser: LinkId(1) });
        let claimed = ledger.claim(on(4, 3, Transport::WebSocket));
        assert_eq!(claimed, refused(LinkId(3), Standing::Lower));
    }

    #[test]
    fn the_release_of_a_replaced_link_does_not_free_the_identity() {
        let mut ledger = Ledger::new(ClaimRule::Ranked);
        assert_eq!(ledger.claim(link(1, Transport::WebSocket, US)), Ruling::Keep);
        let ruling = ledger.claim(link(2, Transport::Libp2p, US));
        assert_eq!(ruling, Ruling::Replace { loser: LinkId(1) });
        assert_eq!(ledger.release(LinkId(1)), None);
        assert_eq!((ledger.holder(&THEM), ledger.len()), (Some(LinkId(2)), 1));
    }

    #[test]
    fn a_loser_that_is_still_open_takes_over_when_the_winner_is_released() {
        let mut ledger = Ledger::new(ClaimRule::Ranked);
        assert_eq!(ledger.claim(link(1, Transport::WebSocket, US)), Ruling::Keep);
        let ruling = ledger.claim(link(2, Transport::Libp2p, US));
        assert_eq!(ruling, Ruling::Replace { loser: LinkId(1) });
        assert_eq!(ledger.release(LinkId(2)), Some(LinkId(1)));
        assert_eq!((ledger.holder(&THEM), ledger.benched(&THEM)), (Some(LinkId(1)), vec![]));
        assert_eq!(ledger.release(LinkId(1)), None);
        assert!(ledger.is_empty());
        assert_eq!((ledger.holder(&THEM), ledger.closer(&THEM)), (None, None));
    }

    #[test]
    fn the_best_of_the_losers_takes_over() {
        let mut ledger = Ledger::new(ClaimRule::Ranked);
        assert_eq!(ledger.claim(link(1, Transport::Libp2p, US)), Ruling::Keep);
        for number in 2..=5 {
            let tie = [9 - number as u8; 32];
            let claim = LinkClaim { tie, ..link(number, Transport::WebSocket, THEM) };
            assert!(matches!(ledger.claim(claim), Ruling::Refuse { .. }));
        }
        assert_eq!(ledger.benched(&THEM), [2, 3, 4, 5].map(LinkId));
        assert_eq!(ledger.release(LinkId(1)), Some(LinkId(5)), "the smallest tie");
        assert_eq!(ledger.release(LinkId(3)), None);
        assert_eq!(ledger.release(LinkId(5)), Some(LinkId(4)));
    }

    #[test]
    fn a_claim_over_plain_websocket_has_a_lower_standing_than_a_proven_identity() {
        use Transport::{Libp2p, WebSocket};
        for rule in [ClaimRule::Ranked, ClaimRule::FirstVerified] {
            for (holder, newcomer, expected) in [
                (Libp2p, WebSocket, Standing::Lower),
                (WebSocket, WebSocket, Standing::Equal),
                (Libp2p, Libp2p, Standing::Equal),
            ] {
                let mut ledger = Ledger::new(rule);
                assert_eq!(ledger.claim(link(1, holder, US)), Ruling::Keep);
                let newcomer = LinkClaim { tie: [9; 32], ..link(2, newcomer, THEM) };
                let (winner, doubt, standing) = (LinkId(1), Doubt::Pings, expected);
                let refused = Ruling::Refuse { winner, doubt, standing };
                assert_eq!(ledger.claim(newcomer), refused);
            }
        }
    }

    // Issue 8, 8.
    #[test]
    fn a_newcomer_of_another_session_is_a_rival_where_the_first_link_stays() {
        let of = |number, session, dialer| LinkClaim {
            session: Some(session),
            ..link(number, Transport::WebSocket, dialer)
        };
        let mut ledger = Ledger::new(ClaimRule::FirstVerified);
        assert_eq!(ledger.claim(of(1, 1, THEM)), Ruling::Keep);
        for (claim, doubt) in [
            (of(2, 2, THEM), Doubt::Rivals),
            (of(3, 1, THEM), Doubt::Pings),
            (of(4, 2, US), Doubt::Pings),
        ] {
            let (winner, standing) = (LinkId(1), Standing::Equal);
            assert_eq!(ledger.claim(claim), Ruling::Refuse { winner, doubt, standing });
        }
    }

    // Issue 8, 8. Before, two nodes with one key on different transports shadowed each other in silence.
    #[test]
    fn runs_are_compared_over_all_transports_and_dialers_where_both_are_known() {
        use Transport::{Libp2p, WebSocket};
        let of = |number, transport, dialer, run, session| LinkClaim {
            run,
            session: Some(session),
            ..link(number, transport, dialer)
        };
        for (rule, newcomer, expected) in [
            (ClaimRule::Ranked, of(2, WebSocket, THEM, Some(2), 0), Doubt::Rivals),
            (ClaimRule::Ranked, of(2, WebSocket, US, Some(2), 0), Doubt::Rivals),
            (ClaimRule::Ranked, of(2, WebSocket, THEM, Some(1), 0), Doubt::Pings),
            (ClaimRule::Ranked, of(2, WebSocket, THEM, None, 0), Doubt::Pings),
            (ClaimRule::FirstVerified, of(2, WebSocket, THEM, Some(2), 0), Doubt::Rivals),
            (ClaimRule::FirstVerified, of(2, WebSocket, US, None, 7), Doubt::Pings),
        ] {
            let mut ledger = Ledger::new(rule);
            assert_eq!(ledger.claim(of(1, Libp2p, THEM, Some(1), 0)), Ruling::Keep);
            let is_other = expected == Doubt::Rivals;
            assert_eq!(ledger.is_of_another_session(&newcomer), is_other, "{newcomer:?}");
            let ruling = ledger.claim(newcomer.clone());
            assert!(
                matches!(ruling, Ruling::Refuse { doubt, .. } if doubt == expected),
                "{ruling:?}"
            );
        }
        // A dialer that dials again within its run has no rival, although its dials are numbered.
        let mut ledger = Ledger::new(ClaimRule::Ranked);
        assert_eq!(ledger.claim(of(1, Libp2p, THEM, Some(1), 1)), Ruling::Keep);
        assert!(!ledger.is_of_another_session(&of(2, Libp2p, THEM, Some(1), 2)));
    }

    // Issue 8, 8.
    #[test]
    fn sessions_are_compared_where_both_links_are_of_one_transport_and_one_dialer() {
        let of = |session, transport, dialer| LinkClaim { session, ..link(2, transport, dialer) };
        let mut ledger = Ledger::new(ClaimRule::Ranked);
        let holder = of(Some(1), Transport::Libp2p, THEM);
        assert!(!ledger.is_of_another_session(&holder), "nobody holds it");
        assert_eq!(ledger.claim(holder), Ruling::Keep);
        for (claim, expected) in [
            (of(Some(2), Transport::Libp2p, THEM), true),
            (of(Some(1), Transport::Libp2p, THEM), false),
            (of(None, Transport::Libp2p, THEM), false),
            (of(Some(2), Transport::WebSocket, THEM), false),
            (of(Some(2), Transport::Libp2p, US), false),
        ] {
            assert_eq!(ledger.is_of_another_session(&claim), expected, "{claim:?}");
        }
    }

    #[test]
    fn claiming_twice_for_one_link_changes_nothing() {
        let mut ledger = Ledger::new(ClaimRule::Ranked);
        for _ in 0..2 {
            assert_eq!(ledger.claim(link(1, Transport::WebSocket, US)), Ruling::Keep);
        }
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn a_link_holds_one_identity_only() {
        let mut ledger = Ledger::new(ClaimRule::Ranked);
        let claim = link(1, Transport::WebSocket, US);
        assert_eq!(ledger.claim(claim.clone()), Ruling::Keep);
        let other = Identity::from_ed25519([3; 32]);
        assert_eq!(ledger.claim(LinkClaim { identity: other, ..claim }), Ruling::Keep);
        assert_eq!((ledger.holder(&THEM), ledger.holder(&other)), (None, Some(LinkId(1))));
    }

    #[test]
    fn the_end_that_listened_on_the_winner_closes_the_loser() {
        let mut ledger = Ledger::new(ClaimRule::Ranked);
        assert_eq!(ledger.claim(link(1, Transport::WebSocket, THEM)), Ruling::Keep);
        assert_eq!(ledger.closer(&THEM), Some(Closer::ThisEnd));
        let ruling = ledger.claim(link(2, Transport::Libp2p, US));
        assert_eq!(ruling, Ruling::Replace { loser: LinkId(1) });
        assert_eq!(ledger.closer(&THEM), Some(Closer::Peer));
    }

    fn claims() -> impl Strategy<Value = Vec<LinkClaim>> {
        let transport = prop_oneof![
            Just(Transport::Libp2p),
            Just(Transport::WebSocket),
            Just(Transport::Memory)
        ];
        let claim = (transport, prop_oneof![Just(US), Just(THEM)], any::<[u8; 32]>());
        proptest::collection::vec(claim, 1..8).prop_map(|claims| {
            let number = |(at, (transport, dialer, tie)): (usize, _)| LinkClaim {
                tie,
                ..link(at as u64, transport, dialer)
            };
            claims.into_iter().enumerate().map(number).collect()
        })
    }

    proptest! {
        #[test]
        fn the_holder_does_not_depend_on_the_order_of_the_claims(
            (sorted, shuffled) in claims()
                .prop_flat_map(|claims| (Just(claims.clone()), Just(claims).prop_shuffle())),
        ) {
            let holder = |claims: Vec<LinkClaim>| {
                let mut ledger = Ledger::new(ClaimRule::Ranked);
                for claim in claims {
                    // Only where they end up matters here.
                    let _ = ledger.claim(claim);
                }
                ledger.holder(&THEM)
            };
            prop_assert_eq!(holder(sorted), holder(shuffled));
        }

        #[test]
        fn an_identity_is_held_exactly_until_the_last_of_its_links_is_released(
            steps in proptest::collection::vec((0_u64..6, any::<bool>()), 0..40),
            rule in prop_oneof![Just(ClaimRule::Ranked), Just(ClaimRule::FirstVerified)],
        ) {
            let mut ledger = Ledger::new(rule);
            let mut expected = None;
            for (number, claims) in steps {
                if claims {
                    let tie = [number as u8; 32];
                    let claim = LinkClaim { tie, ..link(number, Transport::Libp2p, US) };
                    match ledger.claim(claim) {
                        Ruling::Keep => {
                            prop_assert!(expected.is_none() || expected == Some(LinkId(number)));
                            expected = Some(LinkId(number));
                        }
                        Ruling::Replace { loser } => {
                            prop_assert_eq!(expected, Some(loser));
                            expected = Some(LinkId(number));
                        }
                        Ruling::Refuse { winner, .. } => prop_assert_eq!(expected, Some(winner)),
                    }
                } else {
                    let successor = ledger.release(LinkId(number));
                    if expected == Some(LinkId(number)) {
                        expected = successor;
                    } else {
                        prop_assert_eq!(successor, None);
                    }
                }
                prop_assert_eq!(ledger.holder(&THEM), expected);
                prop_assert_eq!(ledger.len(), usize::from(expected.is_some()));
                let benched = ledger.benched(&THEM).len();
                prop_assert!(benched == 0 || expected.is_some());
                prop_assert_eq!(ledger.held.len() + benched, ledger.claimed.len());
            }
        }
    }
}
