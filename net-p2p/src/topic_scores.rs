//! The standings of peers on topics as the swarm task last saw them, for status pages.
//!
//! # Invariants
//!
//! * There is an entry for each peer that is connected, and for no other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gossip::{Identity, Instant, Tag};

/// Time for which most peers must have been muted before the node reports it. Chosen: a penalty of a moment's load
/// is forgotten by then.
const LASTING: Duration = Duration::from_secs(60);

/// The standing of a peer on topics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicScore {
    /// Its score, as GossipSub keeps it. It begins at about nought; below -1,000 the peer is sent nothing, and
    /// below -2,500 nothing of it is heard.
    pub score: f64,
    /// `true` if the score is too low for the peer to be served.
    pub is_muted: bool,
}

/// A topic of this node, and the peers that it exchanges whole messages with there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicMesh {
    /// The tag whose messages go over the topic; `None` for a topic of the application.
    pub tag: Option<Tag>,
    /// The name of the topic.
    pub topic: String,
    /// Connected peers that are subscribed.
    pub subscribed: usize,
    /// Those of them in the mesh.
    pub mesh: Vec<Identity>,
}

/// The scores of the peers of one network, a second old at most. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicScores {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    scores: HashMap<Identity, TopicScore>,
    meshes: Vec<TopicMesh>,
    /// Since when most of the peers have been muted.
    mostly_muted: Option<Instant>,
}

impl TopicScores {
    /// Notes the scores of all connected peers, and the meshes.
    pub(crate) fn set(
        &self,
        scores: HashMap<Identity, TopicScore>,
        meshes: Vec<TopicMesh>,
        now: Instant,
    ) {
        let muted = scores.values().filter(|score| score.is_muted).count();
        let mut state = self.state();
        let before = state.mostly_muted;
        state.mostly_muted = (2 * muted > scores.len()).then(|| before.unwrap_or(now));
        (state.scores, state.meshes) = (scores, meshes);
    }

    /// The topics and their meshes.
    pub(crate) fn meshes(&self) -> Vec<TopicMesh> {
        self.state().meshes.clone()
    }

    /// The score of a peer; `None` if it is not connected.
    pub(crate) fn of(&self, peer: &Identity) -> Option<TopicScore> {
        self.state().scores.get(peer).copied()
    }

    /// Returns `true` if most of the connected peers have been muted for [`LASTING`].
    pub(crate) fn are_mostly_muted(&self, now: Instant) -> bool {
        let since = self.state().mostly_muted;
        since.is_some_and(|since| now.saturating_duration_since(since) >= LASTING)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(muted: u8, served: u8) -> HashMap<Identity, TopicScore> {
        let of = |number: u8| {
            let is_muted = number < muted;
            let score = if is_muted { -1_500.0 } else { 0.5 };
            (Identity::from_ed25519([number; 32]), TopicScore { score, is_muted })
        };
        (0..muted + served).map(of).collect()
    }

    // Issue 8, 30: a graylist, and nobody was told.
    #[test]
    fn most_peers_have_to_be_muted_for_a_minute_without_a_pause() {
        let (known, start) = (TopicScores::default(), Instant::now());
        let second = Duration::from_secs(1);
        known.set(scores(0, 0), Vec::new(), start);
        assert!(!known.are_mostly_muted(start + LASTING), "nobody is there");
        known.set(scores(2, 1), Vec::new(), start);
        assert!(!known.are_mostly_muted(start + LASTING - second));
        assert!(known.are_mostly_muted(start + LASTING));
        known.set(scores(1, 1), Vec::new(), start + LASTING);
        assert!(!known.are_mostly_muted(start + LASTING), "half of them is not most");
        known.set(scores(2, 1), Vec::new(), start + LASTING + second);
        assert!(!known.are_mostly_muted(start + LASTING + 2 * second));
        assert!(known.of(&Identity::from_ed25519([0; 32])).is_some_and(|score| score.is_muted));
        assert_eq!(known.of(&Identity::from_ed25519([9; 32])), None);
    }
}
