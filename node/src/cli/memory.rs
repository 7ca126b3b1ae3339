//! The sum of all bounds on the memory of a node.

use std::fmt;

use gossip::wire::features::VoteCompression;
use net_p2p::MemoryBounds;

use tandem::Mode;

use super::run;
use crate::{config::Settings, lines};

/// Memory that no bound counts, in bytes: the program itself, its allocator, and its peers. Chosen: the remainder of
/// 512 MiB; an idle node has 16 MiB. Thousands of peers need more.
const REST_BYTES: usize = 44 * 1024 * 1024;

/// Threads that write lines: the log and the events.
const LINE_WRITERS: usize = 2;

/// The bounds on memory of one node, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    budget: usize,
    remembered: usize,
    /// Tables of links that pack votes.
    votes: usize,
    /// Connections, publishing and message IDs of libp2p.
    p2p: usize,
    lines: usize,
}

impl Bounds {
    /// The bounds that follow from the settings.
    pub(super) fn of(settings: &Settings) -> Self {
        let limits = run::limits(settings);
        let p2p = match settings.mode {
            Mode::WebSocket => 0,
            Mode::Libp2p | Mode::Hybrid => MemoryBounds::beside(limits.budget_bytes).total(),
        };
        Self {
            budget: limits.budget_bytes,
            remembered: limits.remembered_bytes,
            votes: match settings.vote_packing {
                VoteCompression::Off | VoteCompression::Stateless => 0,
                VoteCompression::Stateful(_) => limits.vote_tables_bytes,
            },
            p2p,
            lines: LINE_WRITERS * lines::MAX_WAITING_BYTES,
        }
    }

    /// The memory of the process at most, in bytes.
    const fn total(&self) -> usize {
        self.budget
            .saturating_add(self.remembered)
            .saturating_add(self.votes)
            .saturating_add(self.p2p)
            .saturating_add(self.lines)
            .saturating_add(REST_BYTES)
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes >> 20;
        write!(
            f,
            "memory: {} MiB at most: {} budget, {} duplicate filter, {} vote tables, {} libp2p, {} output, {} for the rest",
            mib(self.total()),
            mib(self.budget),
            mib(self.remembered),
            mib(self.votes),
            mib(self.p2p),
            mib(self.lines),
            mib(REST_BYTES),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Layers};

    /// The bounds of a node without any setting.
    fn by_default() -> Bounds {
        let home = |name: &str| (name == "HOME").then(|| "/home/somebody".into());
        let layers = Layers::gather_from(None, &Flags::data_dir(None), std::iter::empty(), home);
        Bounds::of(&Settings::check(&layers.unwrap()).unwrap())
    }

    // Issue 8, 23. Before, the bounds added up to 616 MiB.
    #[test]
    fn all_bounds_of_a_default_node_fit_into_512_mib() {
        let bounds = by_default();
        assert!(bounds.total() <= 512 << 20, "{bounds}");
    }
}
