//! The group of members: the types that Raft is made with, its settings, and the network that the members are in.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};
use tandem::{
    NodeBuilder,
    gossip::{Lane, NetworkId, ProfileBuilder, Tag, TagRule, http::BoxError},
};

openraft::declare_raft_types!(
    /// A group that agrees on lines of text. A line is answered with its position.
    pub(crate) Group: D = String, R = usize, SnapshotData = std::io::Cursor<Vec<u8>>,
);

/// The tag of news: the number of lines that a member has applied.
pub(crate) const NEWS: Tag = Tag(*b"ln");

/// The settings of Raft. An election takes two seconds at most, and a member that lags further behind than the log
/// reaches gets a snapshot.
pub(crate) fn config(compact_after: u64) -> Result<Arc<Config>, BoxError> {
    let config = Config {
        heartbeat_interval: 250,
        election_timeout_min: 1_000,
        election_timeout_max: 2_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(compact_after),
        max_in_snapshot_log_to_keep: 0,
        max_payload_entries: 64,
        snapshot_max_chunk_size: 256 * 1024,
        ..Config::default()
    };
    Ok(Arc::new(config.validate()?))
}

/// A node of the network that the members are in.
pub(crate) fn builder() -> Result<NodeBuilder, BoxError> {
    let profile = ProfileBuilder::new("replicated-log").tag(TagRule::new(NEWS, Lane::Priority, 32));
    Ok(NodeBuilder::new(NetworkId::new("replicated-log")?).profile(profile.build()?))
}
