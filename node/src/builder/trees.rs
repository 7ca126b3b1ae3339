//! Looks up `/dnsaddr/NAME/p2p/ID` for the libp2p side, in the way in which a bootstrap is looked up.
//!
//! # Invariants
//!
//! * The bounds are those of a bootstrap: depth, questions, addresses and time.

use ::discovery::{Bootstrap, DnsName, DnsSettings, DnsSource};
use gossip::{BoxFuture, Identity, NodeAddress};
use net_p2p::{ResolveTree, TreeError};
use runtime::Environment;

/// Asks the DNS servers of the node.
#[derive(Debug)]
pub(super) struct DnsTrees {
    settings: DnsSettings,
    environment: Environment,
}

impl DnsTrees {
    pub(super) const fn new(settings: DnsSettings, environment: Environment) -> Self {
        Self { settings, environment }
    }
}

impl ResolveTree for DnsTrees {
    fn resolve(
        &self,
        name: String,
        peer: Identity,
    ) -> BoxFuture<'static, Result<Vec<NodeAddress>, TreeError>> {
        let (settings, random) = (self.settings.clone(), self.environment.random());
        Box::pin(async move {
            let Some(tree) = DnsName::new(&name) else { return Err(TreeError::BadName { name }) };
            let source = DnsSource::new(Bootstrap::Tree(tree), settings, random);
            let looked = source.look().await;
            let end = format!("/p2p/{peer}");
            let found = looked.addresses.into_iter().map(|listed| listed.address);
            let found: Vec<_> =
                found.filter(|address| address.to_string().ends_with(&end)).collect();
            match (found.is_empty(), looked.missing.first()) {
                (true, cause) => {
                    let cause = cause.map(ToString::to_string);
                    Err(TreeError::NothingFound { name, cause })
                }
                (false, _) => Ok(found),
            }
        })
    }
}
