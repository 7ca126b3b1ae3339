//! The pages of browsers that may use a node.

use net_tcp::origins::PageOrigins;

use super::NodeBuilder;

impl NodeBuilder {
    /// Sets the web origins whose pages may gossip with this node over its WebSockets, those of libp2p included, and call its HTTP
    /// services (CORS). Not in the profile `algorand`. Default: none but pages of this host, if it is named by a number.
    pub fn page_origins(mut self, origins: PageOrigins) -> Self {
        self.page_origins = origins;
        self
    }
}
