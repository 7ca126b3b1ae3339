//! The counters of packed votes.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::Label;

/// The form in which a vote travels.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoteForm {
    /// Packed by itself.
    Stateless,
    /// Packed against the earlier votes of its link.
    Stateful,
}

impl VoteForm {
    const ALL: [Self; 2] = [Self::Stateless, Self::Stateful];

    /// Returns the value of the `form` label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stateless => "stateless",
            Self::Stateful => "stateful",
        }
    }
}

/// The end of a link that asked for votes not to be packed against earlier ones any more.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AbortedBy {
    /// This node, which could not read a vote.
    Us,
    /// The peer.
    Peer,
}

impl AbortedBy {
    const ALL: [Self; 2] = [Self::Us, Self::Peer];

    const fn label(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Peer => "peer",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FormLabels {
    form: Label,
    direction: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AbortLabels {
    by: Label,
}

/// Votes of one direction, and what packing them has saved, by form.
#[derive(Clone, Debug)]
pub(crate) struct PackedTraffic {
    votes: [Counter; 2],
    saved: [Counter; 2],
}

/// Votes of a batch, to be counted with one addition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PackedSum {
    votes: u64,
    saved: u64,
}

impl PackedSum {
    /// Adds a vote whose two lengths these are.
    pub(crate) fn add(&mut self, plain: usize, packed: usize) {
        self.votes += 1;
        // Both forms are bounded, and the packed one is shorter.
        self.saved += plain.saturating_sub(packed) as u64;
    }
}

impl PackedTraffic {
    /// Counts votes of one form.
    pub(crate) fn count(&self, form: VoteForm, sum: PackedSum) {
        if sum.votes > 0 {
            self.votes[form as usize].inc_by(sum.votes);
            self.saved[form as usize].inc_by(sum.saved);
        }
    }
}

/// The counters of packed votes. Clones share them.
#[derive(Clone, Debug)]
pub struct VoteMetrics {
    votes: Family<FormLabels, Counter>,
    saved: Family<FormLabels, Counter>,
    aborts: Family<AbortLabels, Counter>,
    sent: PackedTraffic,
    received: PackedTraffic,
    aborted: [Counter; 2],
}

impl Default for VoteMetrics {
    fn default() -> Self {
        let (votes, saved) = (Family::default(), Family::default());
        let aborts = Family::<AbortLabels, Counter>::default();
        let of = |family: &Family<FormLabels, Counter>, direction| {
            VoteForm::ALL.map(|form| {
                let labels = FormLabels { form: Label(form.label()), direction: Label(direction) };
                family.get_or_create(&labels).clone()
            })
        };
        let traffic = |direction| PackedTraffic {
            votes: of(&votes, direction),
            saved: of(&saved, direction),
        };
        let (sent, received) = (traffic("sent"), traffic("received"));
        let aborted = AbortedBy::ALL
            .map(|by| aborts.get_or_create(&AbortLabels { by: Label(by.label()) }).clone());
        Self { votes, saved, aborts, sent, received, aborted }
    }
}

impl VoteMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let votes = "Votes that travelled packed";
        registry.register("packed_votes", votes, self.votes.clone());
        let saved = "Bytes that packing votes has saved";
        registry.register("packed_votes_saved_bytes", saved, self.saved.clone());
        let aborts = "Links on which packing votes against earlier ones ended";
        registry.register("packed_votes_aborted", aborts, self.aborts.clone());
    }

    pub(crate) fn sent(&self) -> &PackedTraffic {
        &self.sent
    }

    pub(crate) fn received(&self) -> &PackedTraffic {
        &self.received
    }

    pub(crate) fn aborted_by(&self, by: AbortedBy) {
        self.aborted[by as usize].inc();
    }

    /// The number of votes that were sent in a form.
    #[must_use]
    pub fn votes_sent(&self, form: VoteForm) -> u64 {
        self.sent.votes[form as usize].get()
    }

    /// The number of votes that came in a form.
    #[must_use]
    pub fn votes_received(&self, form: VoteForm) -> u64 {
        self.received.votes[form as usize].get()
    }

    /// The bytes by which the votes sent in a form were shorter than plain ones.
    #[must_use]
    pub fn bytes_saved(&self, form: VoteForm) -> u64 {
        self.sent.saved[form as usize].get()
    }

    /// The number of links on which packing against earlier votes ended, at the wish of an end.
    #[must_use]
    pub fn aborts(&self, by: AbortedBy) -> u64 {
        self.aborted[by as usize].get()
    }
}
