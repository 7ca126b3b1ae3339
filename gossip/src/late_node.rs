//! A place for a node that has not started yet.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use crate::node::GossipNode;

/// A place for a node, for handlers and services that ask it back: they are made before the node that they belong to.
///
/// Clones share the place. It does not keep the node alive, so a handler that holds one makes no circle.
#[derive(Clone, Default)]
pub struct LateNode(Arc<OnceLock<Weak<dyn GossipNode>>>);

impl LateNode {
    /// A place without a node.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the node in. The first one stays.
    pub fn fill(&self, node: &Arc<dyn GossipNode>) {
        self.0.get_or_init(|| Arc::downgrade(node));
    }

    /// The node; `None` before it has started, and once nobody holds it any more.
    #[must_use]
    pub fn node(&self) -> Option<Arc<dyn GossipNode>> {
        self.0.get()?.upgrade()
    }
}

impl fmt::Debug for LateNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LateNode").field(&self.0.get().is_some()).finish()
    }
}
