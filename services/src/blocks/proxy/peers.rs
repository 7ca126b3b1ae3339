//! The order in which peers are asked for a block.
//!
//! # Invariants
//!
//! * Only the blocks that a peer gave count, never its claims.
//! * A peer that is silent or sends something else is left alone for a while, longer each time, so that a
//!   few such peers cannot use up the time of every request.

use std::{collections::HashMap, time::Duration};

use gossip::LinkId;
use tokio::time::Instant;

use crate::blocks::stored::StoredBlock;

/// Pause of a peer after its first failure, and the longest. Chosen: ten seconds outlast the requests of one
/// catch-up; five minutes give a restarted node another chance.
const ASIDE: Duration = Duration::from_secs(10);
const ASIDE_MAX: Duration = Duration::from_secs(300);

/// Peers remembered besides those connected, before they are cleared away.
const SPARE: usize = 64;

/// The outcome of a request to a peer.
#[derive(Debug)]
pub(super) enum Reply {
    /// It gave a block of that round.
    Block(StoredBlock),
    /// It does not have it.
    NoBlock {
        /// The newest round it claims to have.
        latest: Option<u64>,
    },
    /// It answered something else.
    Wrong,
    /// It did not answer in time.
    Silent,
    /// It was not asked: the connection is gone, or full.
    NotAsked,
}

/// Records of peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: HashMap<LinkId, Standing>,
    /// Number of choices made, so that equals are chosen in rotation.
    choices: usize,
}

#[derive(Debug, Default)]
struct Standing {
    rank: Rank,
    /// Requests under way.
    asking: usize,
    /// Failures in a row.
    strikes: u32,
    aside_until: Option<Instant>,
}

/// Standing of a peer by its last outcome; lower ones are asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Gave,
    #[default]
    Unknown,
    Lacked,
}

impl Peers {
    /// Chooses among `connected`, and counts a request to it; `None` when nobody is left.
    pub(super) fn choose(
        &mut self,
        connected: &[LinkId],
        left_out: impl Fn(LinkId) -> bool,
        now: Instant,
    ) -> Option<LinkId> {
        if self.known.len() > 2 * connected.len() + SPARE {
            self.known.retain(|peer, standing| standing.asking > 0 || connected.contains(peer));
        }
        let fresh = Standing::default();
        let open = connected.iter().copied().filter(|&peer| !left_out(peer));
        let open = open.filter_map(|peer| {
            let standing = self.known.get(&peer).unwrap_or(&fresh);
            let aside = standing.aside_until.is_some_and(|until| now < until);
            (!aside).then_some(((standing.rank, standing.asking), peer))
        });
        let open: Vec<_> = open.collect();
        let best = open.iter().map(|&(order, _)| order).min()?;
        let equals: Vec<_> = open.into_iter().filter(|&(order, _)| order == best).collect();
        self.choices = self.choices.wrapping_add(1);
        let &(_, peer) = equals.get(self.choices.checked_rem(equals.len())?)?;
        self.known.entry(peer).or_default().asking += 1;
        Some(peer)
    }

    /// Notes what became of a request.
    pub(super) fn replied(&mut self, peer: LinkId, reply: &Reply, now: Instant) {
        let standing = self.known.entry(peer).or_default();
        match reply {
            Reply::Block(_) => (standing.rank, standing.strikes) = (Rank::Gave, 0),
            Reply::NoBlock { .. } => (standing.rank, standing.strikes) = (Rank::Lacked, 0),
            Reply::Wrong | Reply::Silent => {
                // Several requests that were under way together fail once.
                if standing.aside_until.is_none_or(|until| until <= now) {
                    let aside = ASIDE.saturating_mul(1 << standing.strikes.min(10));
                    standing.aside_until = Some(now + aside.min(ASIDE_MAX));
                    standing.strikes = standing.strikes.saturating_add(1);
                }
            }
            Reply::NotAsked => {}
        }
    }

    /// Notes that a request has ended, answered or dropped.
    pub(super) fn released(&mut self, peer: LinkId) {
        if let Some(standing) = self.known.get_mut(&peer) {
            standing.asking = standing.asking.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);
    const NO_BLOCK: Reply = Reply::NoBlock { latest: Some(u64::MAX) };

    #[test]
    fn a_peer_that_gave_a_block_is_asked_before_one_that_claims_to_have_it() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        peers.replied(A, &NO_BLOCK, now);
        peers.replied(B, &Reply::Block(StoredBlock::default()), now);
        for _ in 0..4 {
            assert_eq!(peers.choose(&[A, B], |_| false, now), Some(B));
            peers.released(B);
        }
        assert_eq!(peers.choose(&[A, B], |peer| peer == B, now), Some(A));
        assert_eq!(peers.choose(&[A, B], |_| true, now), None);
    }

    #[test]
    fn equals_take_turns_and_the_busier_one_waits() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let first = peers.choose(&[A, B], |_| false, now).unwrap();
        let second = peers.choose(&[A, B], |_| false, now).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn a_silent_peer_is_left_alone_longer_each_time() {
        let (mut peers, mut now) = (Peers::default(), Instant::now());
        for aside in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(peers.choose(&[A], |_| false, now), Some(A));
            peers.released(A);
            peers.replied(A, &Reply::Silent, now);
            peers.replied(A, &Reply::Silent, now);
            let almost = now + Duration::from_millis(aside * 1000 - 1);
            assert_eq!(peers.choose(&[A], |_| false, almost), None);
            now += Duration::from_secs(aside);
        }
        assert_eq!(peers.choose(&[A], |_| false, now), Some(A));
    }

    #[test]
    fn peers_that_left_are_forgotten() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        for number in 0..1000 {
            let peer = LinkId(number);
            assert_eq!(peers.choose(&[peer], |_| false, now), Some(peer));
            peers.released(peer);
            peers.replied(peer, &NO_BLOCK, now);
        }
        assert!(peers.known.len() <= SPARE + 4, "{}", peers.known.len());
    }
}
