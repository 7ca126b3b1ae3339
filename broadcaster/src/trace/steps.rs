//! The steps of one message.
//!
//! # Invariants
//!
//! * A step takes one lock of the message's own, for a few lines.
//! * Steps and peers are bounded; what is beyond is counted.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use gossip::{Identity, LinkId, Tag, Transport, wire::digest::Digest};
use runtime::time::Instant;

use crate::metrics::DropReason;

/// Steps of one message. Chosen: a node with 60 peers queues and writes a message to each, and gets copies of half.
const MAX_STEPS: usize = 256;

/// Peers that are named in them. Chosen: as many as have two steps each.
const MAX_PEERS: usize = 128;

/// One thing that happened to a message in a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEvent {
    /// The application of this node sent it.
    Submitted,
    /// A copy came over a connection.
    Came,
    /// A copy came on a topic.
    Heard,
    /// A validator accepted it, or nobody was to judge it.
    Accepted,
    /// Its handler was done with it.
    Handled,
    /// It was published on the topic of its tag.
    Published,
    /// It was queued for a peer.
    Queued,
    /// It was written to a peer's connection.
    Written,
    /// It went no further, or not to one peer.
    Dropped(DropReason),
}

impl TraceEvent {
    /// Its name for programs. Why a message was dropped is a name of its own: [`DropReason::label`].
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Came => "came",
            Self::Heard => "heard",
            Self::Accepted => "accepted",
            Self::Handled => "handled",
            Self::Published => "published",
            Self::Queued => "queued",
            Self::Written => "written",
            Self::Dropped(_) => "dropped",
        }
    }
}

/// A peer that a step names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracePeer {
    /// Its link; `None` for a node that passed a message on in a topic and is no gossip peer.
    pub link: Option<LinkId>,
    /// Its identity, if one was proved.
    pub identity: Option<Identity>,
    /// The transport.
    pub transport: Transport,
}

/// One step of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceStep {
    /// Time since the first step.
    pub after: Duration,
    /// The thing that happened.
    pub event: TraceEvent,
    /// The peer that it happened with.
    pub peer: Option<TracePeer>,
}

/// The way of one message through this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// The name of the message.
    pub digest: Digest,
    /// Its tag.
    pub tag: Tag,
    /// Length of its body.
    pub bytes: usize,
    /// Time of the first step, since the Unix epoch, by this node's clock.
    pub began: Duration,
    /// The steps in their order.
    pub steps: Vec<TraceStep>,
    /// Steps that found no room.
    pub left_out: u64,
}

/// A peer as it is kept.
pub(crate) type Party = TracePeer;

/// A message whose way is kept, shared by whoever has it in hand.
#[derive(Debug)]
pub(crate) struct Traced {
    tag: Tag,
    bytes: usize,
    digest: Digest,
    began: Instant,
    began_at: SystemTime,
    /// `None` once the message is forgotten.
    steps: Mutex<Option<Steps>>,
}

#[derive(Debug, Default)]
struct Steps {
    steps: Vec<Step>,
    peers: Vec<Party>,
    left_out: u64,
}

/// A step as it is kept: in 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Step {
    after_us: u32,
    peer: Option<u16>,
    event: TraceEvent,
}

impl Steps {
    fn note(&mut self, after: Duration, event: TraceEvent, peer: Option<Party>) {
        let peer = match peer.map(|peer| self.place_of(peer)) {
            None => None,
            Some(Some(place)) => Some(place),
            Some(None) => return self.left_out += 1,
        };
        if self.steps.len() >= MAX_STEPS {
            self.left_out += 1;
            return;
        }
        let after_us = u32::try_from(after.as_micros()).unwrap_or(u32::MAX);
        self.steps.push(Step { after_us, peer, event });
    }

    fn place_of(&mut self, peer: Party) -> Option<u16> {
        let known = self.peers.iter().position(|known| *known == peer);
        let place = match known {
            Some(place) => place,
            None if self.peers.len() < MAX_PEERS => {
                self.peers.push(peer);
                self.peers.len() - 1
            }
            None => return None,
        };
        u16::try_from(place).ok()
    }
}

impl Traced {
    pub(crate) fn new(
        (tag, bytes, digest): (Tag, usize, Digest),
        (began, began_at): (Instant, SystemTime),
    ) -> Self {
        Self { tag, bytes, digest, began, began_at, steps: Mutex::new(Some(Steps::default())) }
    }

    pub(crate) const fn digest(&self) -> Digest {
        self.digest
    }

    /// Notes what happens now.
    pub(crate) fn note(&self, event: TraceEvent, peer: Option<Party>) {
        let after = self.began.elapsed();
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(steps) = &mut *steps {
            steps.note(after, event, peer);
        }
    }

    /// Lets go of the steps, and takes no further ones.
    pub(super) fn forget(&self) {
        *self.steps.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The way so far.
    pub(super) fn trace(&self) -> Trace {
        let (mut shown, mut left_out) = (Vec::new(), 0);
        if let Some(steps) = &*self.steps.lock().unwrap_or_else(PoisonError::into_inner) {
            shown.extend(steps.steps.iter().map(|step| TraceStep {
                after: Duration::from_micros(u64::from(step.after_us)),
                event: step.event,
                peer: step.peer.and_then(|place| steps.peers.get(usize::from(place)).copied()),
            }));
            left_out = steps.left_out;
        }
        Trace {
            digest: self.digest,
            tag: self.tag,
            bytes: self.bytes,
            began: super::since_epoch(self.began_at),
            steps: shown,
            left_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 12, 3.
    #[test]
    fn the_steps_of_a_message_are_bounded() {
        let traced =
            Traced::new((Tag::TX, 1, Digest([1; 32])), (Instant::now(), SystemTime::UNIX_EPOCH));
        let peer = |number| Party {
            link: Some(LinkId(number)),
            identity: None,
            transport: Transport::Memory,
        };
        for number in 0..1_000 {
            traced.note(TraceEvent::Came, Some(peer(number)));
        }
        for _ in 0..1_000 {
            traced.note(TraceEvent::Handled, None);
        }
        let trace = traced.trace();
        assert_eq!((trace.steps.len(), trace.left_out), (MAX_STEPS, 2_000 - MAX_STEPS as u64));
        assert!(
            size_of::<Step>() <= 16 && size_of::<Party>() <= 72,
            "256 messages stay within 3 MiB"
        );
        traced.forget();
        traced.note(TraceEvent::Handled, None);
        assert_eq!(traced.trace().steps, []);
    }
}
