//! The things that every part of a broadcaster uses.

use std::sync::Arc;

use gossip::{
    Lane, ProposalRule, Tag, TagTable,
    wire::{
        features::Features,
        vote::{MarkKey, VotePackers},
    },
};

use crate::{
    budget::ByteBudget,
    encode,
    frame::Frame,
    limits::Limits,
    metrics::{DropReason, Metrics},
    passing::HeldBack,
    peer::Peer,
    performance::Performance,
    registry::Registry,
    trace::{TraceEvent, Tracer},
};

pub(crate) struct Context {
    pub(crate) tags: TagTable,
    pub(crate) proposals: ProposalRule,
    pub(crate) limits: Limits,
    pub(crate) budget: ByteBudget,
    /// Memory for the tables of links that pack votes against earlier ones.
    pub(crate) vote_tables: ByteBudget,
    /// The key of the marks by which links recognize the values of votes.
    pub(crate) mark_key: Arc<MarkKey>,
    /// Makes the packers of links with packed votes.
    pub(crate) vote_packers: VotePackers,
    /// The features that the node announces to its peers.
    pub(crate) features: Features,
    pub(crate) metrics: Metrics,
    pub(crate) registry: Arc<Registry>,
    pub(crate) held_back: HeldBack,
    pub(crate) performance: Performance,
    pub(crate) tracer: Tracer,
}

impl Context {
    /// Counts a message of a peer, or for one, that goes no further: among all, and among the peer's.
    pub(crate) fn dropped_of(&self, peer: &Peer, reason: DropReason, lane: Lane) {
        self.metrics.dropped(reason, lane);
        peer.tally.dropped(reason);
    }

    /// Counts a frame for a peer that does not get it.
    pub(crate) fn withheld_from(&self, peer: &Peer, reason: DropReason, frame: &Frame) {
        self.dropped_of(peer, reason, frame.lane());
        peer.trace(frame, TraceEvent::Dropped(reason));
    }

    /// A message of one connection, charged to the budget; `None`, and counted, if it is too large or there is
    /// no room for it.
    pub(crate) fn direct(&self, tag: Tag, payload: &[u8]) -> Option<Frame> {
        let rule = self.tags.rule(tag)?;
        let framed = encode::direct(rule, payload, &self.budget);
        framed.map_err(|reason| self.metrics.dropped(reason, rule.lane)).ok()
    }
}
