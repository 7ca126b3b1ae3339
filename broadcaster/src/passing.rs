//! The pace at which a node passes on what others send.
//!
//! ```text
//!   share of sender A ──┐                      ┌─ within the pace ─▶ queues of the peers
//!   share of sender B ──┼─ in turn ─▶ router ──┤
//!                     ──┘                      └─ beyond it: the router waits, and full shares are shed
//! ```
//!
//! A node accepts a certain rate of each peer. What this node passes on comes from many peers, so it could be a flood
//! for the next node although none of them is one for this node.
//!
//! # Invariants
//!
//! * Forwarded messages are fewer than the next node accepts of one peer. This node's own messages are not held back,
//!   unless they wait behind forwarded ones in turn.
//! * While the router waits, a message of a sender with more than a fair share is handled but not passed on, counted,
//!   and passed on when another copy comes. Other senders wait for room in their share, and lose nothing.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gossip::Lane;
use runtime::time::Instant;

use crate::{inbound::rate::Bucket, intake::Job, limits::Rate};

/// The part of the pace that a sender may have while the router waits without being shed. Chosen: a single sender that
/// floods is shed, and so are a few; many that send less are read more slowly.
const FAIR_PART: u64 = 4;

/// Lead over the pace at which the router waits. Chosen: a timer's grain.
const SLACK: Duration = Duration::from_millis(1);

/// The lanes in which the router waits, because it has passed on as much as it may.
#[derive(Debug, Default)]
pub(crate) struct HeldBack([AtomicBool; 2]);

impl HeldBack {
    /// Returns `true` while the router takes nothing from this lane.
    pub(crate) fn is(&self, lane: Lane) -> bool {
        self.0[lane.index()].load(Ordering::Relaxed)
    }

    fn set(&self, lane: Lane, is: bool) {
        self.0[lane.index()].store(is, Ordering::Relaxed);
    }
}

/// The router's pace in one lane.
#[derive(Debug)]
pub(crate) struct Passing {
    lane: Lane,
    passed: Bucket,
    rate: Rate,
    /// Until when nothing is taken.
    until: Option<Instant>,
}

impl Passing {
    pub(crate) fn new(lane: Lane, rate: Rate, now: Instant) -> Self {
        Self { lane, passed: Bucket::new(now), rate, until: None }
    }

    /// Until when the router takes nothing from the lane.
    pub(crate) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Notes what the router has taken from the lane.
    pub(crate) fn note(&mut self, jobs: &[Job], held_back: &HeldBack, now: Instant) {
        let forwarded = jobs.iter().filter(|job| job.is_forwarded()).count();
        let over = self.passed.fill(forwarded as u64, self.rate, now);
        self.until = (over >= SLACK).then(|| now + over);
        // It stays set between two pauses, and ends when the sum of all senders is within the pace.
        held_back.set(self.lane, !over.is_zero());
    }
}

/// The messages of one sender that were passed on or shed of late, by lane.
#[derive(Debug)]
pub(crate) struct Passed([Mutex<Bucket>; 2]);

impl Passed {
    pub(crate) fn new(now: Instant) -> Self {
        Self([Mutex::new(Bucket::new(now)), Mutex::new(Bucket::new(now))])
    }

    /// Notes `messages`, and says whether the sender has more than a fair share of `rate`.
    pub(crate) fn is_beyond_fair(&self, lane: Lane, messages: u64, rate: Rate) -> bool {
        let fair = Rate { per_second: rate.per_second / FAIR_PART, burst: rate.burst / FAIR_PART };
        let mut passed = self.0[lane.index()].lock().unwrap_or_else(PoisonError::into_inner);
        !passed.fill(messages, fair, Instant::now()).is_zero()
    }
}
