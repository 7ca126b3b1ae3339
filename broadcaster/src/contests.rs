//! Identities that several nodes seem to have: each new link of one of them ends that of the other, or is refused, for
//! ever.
//!
//! # Invariants
//!
//! * One event is no contest: a node that restarts, or comes back on a new connection, makes one.
//! * The number of identities that are followed is bounded, since strangers make as many as they like.
//! * However many identities are contested, one line comes in a while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use gossip::Identity;
use runtime::{Rarely, time::Instant};

/// Events of one identity within [`WINDOW`] from which on it is called contested. Chosen: two nodes with one
/// key make more of them in two minutes, since each redials within 30 s; one node on a poor path makes fewer.
const CONTESTED: u32 = 5;
/// Window over which events are added up. Chosen: twenty times the longest delay of a redial.
const WINDOW: Duration = Duration::from_secs(600);
/// Identities that are followed at a time. Chosen: some kilobytes, and far more than are ever contested in an
/// honest network.
const MAX_FOLLOWED: usize = 256;

/// The take-overs and refusals of late, by identity.
#[derive(Debug, Default)]
pub(crate) struct Contests {
    followed: Mutex<HashMap<Identity, Events>>,
    lines: Rarely,
}

#[derive(Debug)]
struct Events {
    since: Instant,
    count: u32,
}

/// The figures of a complaint about a contested identity.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// Take-overs and refusals of the identity within the last ten minutes.
    pub(crate) contests: u32,
    /// Complaints that were left out since the last one.
    pub(crate) left_out: u64,
}

impl Contests {
    /// Notes that a link of another session contested an identity, and says whether to complain about it.
    pub(crate) fn note(&self, identity: Identity, now: Instant) -> Option<Complaint> {
        let contests = self.count(identity, now)?;
        if contests < CONTESTED {
            return None;
        }
        self.lines.due().map(|left_out| Complaint { contests, left_out })
    }

    /// Returns `true` if an identity is contested now.
    pub(crate) fn is_any(&self, now: Instant) -> bool {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed
            .values()
            .any(|events| events.count >= CONTESTED && now.duration_since(events.since) < WINDOW)
    }

    /// Adds an event up; `None` if there is no room to follow the identity.
    fn count(&self, identity: Identity, now: Instant) -> Option<u32> {
        let is_recent = |contests: &Events| now.duration_since(contests.since) < WINDOW;
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.len() >= MAX_FOLLOWED && !followed.contains_key(&identity) {
            followed.retain(|_, contests| is_recent(contests));
            if followed.len() >= MAX_FOLLOWED {
                return None;
            }
        }
        let contests = followed.entry(identity).or_insert(Events { since: now, count: 0 });
        if !is_recent(contests) {
            *contests = Events { since: now, count: 0 };
        }
        contests.count = contests.count.saturating_add(1);
        Some(contests.count)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    fn identity(number: u32) -> Identity {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        Identity::from_ed25519(key)
    }

    // Issue 8, 8.
    #[tokio::test(start_paused = true)]
    async fn an_identity_that_is_taken_over_again_and_again_is_complained_about_rarely() {
        let contests = Contests::default();
        let takeover = || contests.note(identity(1), Instant::now());
        for _ in 1..CONTESTED {
            assert_eq!(takeover(), None);
        }
        assert_eq!(takeover(), Some(Complaint { contests: CONTESTED, left_out: 0 }));
        assert_eq!([takeover(), takeover()], [None, None]);
        time::advance(Rarely::PERIOD).await;
        let again = Complaint { contests: CONTESTED + 3, left_out: 2 };
        assert_eq!(takeover(), Some(again));
    }

    // Issue 8, 8.
    #[tokio::test(start_paused = true)]
    async fn a_node_that_restarts_now_and_then_is_not_complained_about() {
        let contests = Contests::default();
        for _ in 0..100 {
            assert_eq!(contests.note(identity(1), Instant::now()), None);
            time::advance(WINDOW / (CONTESTED - 1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_identities_that_are_followed_are_bounded_and_make_way_when_they_are_old() {
        let contests = Contests::default();
        let followed = || contests.followed.lock().unwrap().len();
        for number in 0..1_000 {
            assert_eq!(contests.note(identity(number), Instant::now()), None);
        }
        assert_eq!(followed(), MAX_FOLLOWED);
        time::advance(WINDOW).await;
        for _ in 1..CONTESTED {
            assert_eq!(contests.note(identity(5_000), Instant::now()), None);
        }
        assert!(contests.note(identity(5_000), Instant::now()).is_some());
        assert_eq!(followed(), 1);
    }
}
