//! Dials to names below which DNS lists the addresses of a peer: `/dnsaddr/NAME/p2p/ID`.
//!
//! # Invariants
//!
//! * At most [`MAX_LOOKS`] names are looked up at a time, each for at most [`LOOK_LIMIT`].
//! * Of the addresses below a name only those of the wanted peer are dialled, at most [`MAX_ADDRESSES`].

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use gossip::{BoxFuture, Identity, NodeAddress};
use libp2p::Multiaddr;
use runtime::time;

use crate::address::PeerAddress;

/// Largest number of names that are looked up at a time. Chosen: as many dials as the mesh loop has under way, and as
/// many for streams.
const MAX_LOOKS: usize = 64;

/// Longest time for one name. Source: `DnsLimits::look_timeout` of the rooms that ask DNS, 20 s, which are not known
/// here; a dial is to fail sooner.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Largest number of addresses that are dialled for one name. Chosen: a host has a few for each of its transports, and
/// the swarm dials eight at a time.
const MAX_ADDRESSES: usize = 16;

/// Asks DNS for the addresses below a name.
pub trait ResolveTree: std::fmt::Debug + Send + Sync + 'static {
    /// Lists the addresses of `peer` below `name`. The network drops the future when it takes too long.
    fn resolve(
        &self,
        name: String,
        peer: Identity,
    ) -> BoxFuture<'static, Result<Vec<NodeAddress>, TreeError>>;
}

/// The reason why a name leads to no address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The text is no name of DNS.
    #[error("{name:?} is no DNS name")]
    BadName {
        /// The name as given.
        name: String,
    },
    /// DNS knows no address of the peer below the name.
    #[error("DNS lists no address of the peer below {name} that this build dials{}", because(cause.as_deref()))]
    NothingFound {
        /// The name.
        name: String,
        /// The error of the servers, if one was the reason.
        cause: Option<String>,
    },
    /// DNS did not answer in time.
    #[error("DNS did not list what is below {name} in time")]
    TimedOut {
        /// The name.
        name: String,
    },
    /// Too many names are being looked up.
    #[error("too many names are being looked up")]
    Busy,
    /// This node asks DNS for nothing of this kind.
    #[error("this build does not look up /dnsaddr: it lacks the feature `discovery`")]
    Off,
}

fn because(cause: Option<&str>) -> String {
    cause.map(|cause| format!(": {cause}")).unwrap_or_default()
}

/// The end of a look-up: the dial for which it was made, and what was found.
#[derive(Debug)]
pub(crate) struct Looked<D> {
    pub(crate) dial: D,
    pub(crate) to: PeerAddress,
    pub(crate) found: Result<Vec<Multiaddr>, TreeError>,
}

/// The names that are being looked up.
#[derive(Debug)]
pub(crate) struct Trees<D> {
    resolver: Option<Arc<dyn ResolveTree>>,
    looks: FuturesUnordered<BoxFuture<'static, Looked<D>>>,
}

impl<D: Send + 'static> Trees<D> {
    pub(crate) fn new(resolver: Option<Arc<dyn ResolveTree>>) -> Self {
        Self { resolver, looks: FuturesUnordered::new() }
    }

    /// Looks the name of an address up. Returns the failure if that cannot begin.
    pub(crate) fn look(&self, name: String, to: PeerAddress, dial: D) -> Option<Looked<D>> {
        let Some(resolver) = &self.resolver else {
            return Some(Looked { dial, to, found: Err(TreeError::Off) });
        };
        if self.looks.len() >= MAX_LOOKS {
            return Some(Looked { dial, to, found: Err(TreeError::Busy) });
        }
        let asked = resolver.resolve(name.clone(), to.identity);
        self.looks.push(Box::pin(async move {
            let found = match time::timeout(LOOK_LIMIT, asked).await {
                Ok(found) => found.and_then(|found| diallable(&to, found, name)),
                Err(_elapsed) => Err(TreeError::TimedOut { name }),
            };
            Looked { dial, to, found }
        }));
        None
    }

    /// Waits for the next look-up to end; `None` while nothing is looked up.
    ///
    /// # Cancel safety
    ///
    /// Safe: no result is lost.
    pub(crate) async fn next(&mut self) -> Option<Looked<D>> {
        self.looks.next().await
    }
}

/// The addresses of the wanted peer that this build dials.
fn diallable(
    to: &PeerAddress,
    found: Vec<NodeAddress>,
    name: String,
) -> Result<Vec<Multiaddr>, TreeError> {
    let parsed = found.iter().filter_map(|address| PeerAddress::parse(address).ok());
    let of_the_peer = parsed.filter(|address| address.peer == to.peer && address.tree().is_none());
    let addresses: Vec<_> =
        of_the_peer.map(|address| address.address).take(MAX_ADDRESSES).collect();
    match addresses.is_empty() {
        true => Err(TreeError::NothingFound { name, cause: None }),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn only_addresses_of_the_wanted_peer_are_dialled() {
        let parsed = |text: &str| text.parse::<NodeAddress>().unwrap();
        let to = PeerAddress::parse(&parsed(&format!("/dnsaddr/h.example/p2p/{ID}"))).unwrap();
        assert_eq!(to.tree().as_deref(), Some("h.example"));
        let of = |found: &[String]| {
            diallable(&to, found.iter().map(|text| parsed(text)).collect(), "h.example".to_owned())
        };
        let other = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        let good = format!("/ip4/192.0.2.1/tcp/4190/p2p/{ID}");
        let found = [
            format!("/ip4/192.0.2.1/tcp/4190/p2p/{other}"),
            good.clone(),
            format!("/ip4/192.0.2.1/udp/4190/webrtc-direct/p2p/{ID}"),
            format!("/dnsaddr/deeper.example/p2p/{ID}"),
        ];
        assert_eq!(of(&found).unwrap(), [good.parse().unwrap()]);
        let said = of(&found[2..]).unwrap_err().to_string();
        assert_eq!(said, "DNS lists no address of the peer below h.example that this build dials");
        let many: Vec<_> =
            (1..100).map(|port| format!("/ip4/192.0.2.1/tcp/{port}/p2p/{ID}")).collect();
        assert_eq!(of(&many).unwrap().len(), MAX_ADDRESSES);
    }
}
