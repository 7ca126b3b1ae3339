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

impl LinkClaim {
    /// The claim of a direct link over WebSocket. `session` names the run of its dialer, which is that of the process at the other
    /// end if that dialled.
    #[must_use]
    pub fn over_web_socket(
        link: LinkId,
        identity: Identity,
        dialer: Identity,
        (session, tie): (u64, [u8; 32]),
    ) -> Self {
        let (session, run) = (Some(session), (dialer == identity).then_some(session));
        let (transport, path) = (Transport::WebSocket, LinkPath::Direct);
        Self { link, identity, transport, path, dialer, session, run, tie }
    }
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
mod tests;
