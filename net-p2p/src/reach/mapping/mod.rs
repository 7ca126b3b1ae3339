//! Ports of the router that lead to this node, because it has asked for them by NAT-PMP or UPnP.
//!
//! ```text
//!   ports that the node listens on ─▶ PortMapper ──NAT-PMP, UPnP──▶ router
//!                                         └─▶ Observed: candidates ─▶ AutoNAT ─▶ addresses told
//! ```
//!
//! # Invariants
//!
//! * The word of a router is a proposal: an address is told as this node's own only once a peer has reached it there.
//! * At most [`MAX_TOLD`] ports are mapped. Each is renewed when half of its lease is over, and given back when the network
//!   ends, for which the router has [`PARTING`].
//! * Each answer of a router is bounded in time and size (`natpmp.rs`, `http.rs`, `upnp.rs`).

mod http;
mod natpmp;
mod ports;
mod told;
mod upnp;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use rand::Rng;
use runtime::Environment;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use self::told::MappedPorts;
pub(super) use self::told::Teller;
use self::{
    natpmp::NatPmp,
    ports::{Inside, is_usable, wanted},
    upnp::Upnp,
};
pub use self::{
    ports::Carrier,
    told::{MappedPort, MappingProtocol},
};
use super::{MAX_TOLD, observed::Observed};
use crate::{
    levels::{Counted, P2pLevel},
    listening::Bound,
    metrics::{P2pEvent, P2pMetrics},
};

/// Time that is asked for. Chosen: a router that began anew forgets, and is asked again after half of it.
const LEASE: Duration = Duration::from_secs(20 * 60);

/// Shortest time between two rounds, whatever lease a router gives. Chosen.
const SHORTEST: Duration = Duration::from_secs(2);

/// Wait after the first round that failed; it doubles with each one. Chosen.
const MIN_RETRY: Duration = Duration::from_secs(10);

/// Longest such wait. Chosen: a router that answers only now and then is found within ten minutes.
const MAX_RETRY: Duration = Duration::from_secs(600);

/// Time between two looks at the ports that the node listens on. Chosen.
const LOOK: Duration = Duration::from_secs(2);

/// Time in which a router takes ports back at the end. Chosen: leases run out anyway.
const PARTING: Duration = Duration::from_secs(1);

/// Ports that are tried if a router has given the wanted one to somebody else. Chosen.
const TRIES: usize = 4;

/// The reason why a port is not mapped.
#[derive(Debug, thiserror::Error)]
pub(super) enum MappingError {
    #[error("no router answers")]
    Silent,
    #[error("the router gave no answer that can be read")]
    Malformed,
    #[error("the router refused, with code {0}")]
    Refused(u16),
    #[error("the router says that it is {0} on its other side, which no host is")]
    Unusable(Ipv4Addr),
    #[error("the router cannot be asked")]
    Io(#[from] io::Error),
}

/// The places at which a router is looked for.
#[derive(Clone, Copy, Debug)]
struct Places {
    natpmp: Option<SocketAddrV4>,
    upnp: SocketAddrV4,
}

/// A router that maps ports.
#[derive(Debug)]
enum Router {
    NatPmp(NatPmp),
    Upnp(Box<Upnp>),
}

/// A port that a router has mapped.
#[derive(Debug)]
struct Mapped {
    outside: SocketAddrV4,
    protocol: MappingProtocol,
    gateway: Ipv4Addr,
    renew: Instant,
    until: Instant,
    _counted: Counted,
}

/// The router that was found, and the ports that it has mapped.
#[derive(Debug, Default)]
struct Kept {
    router: Option<Router>,
    ports: BTreeMap<Inside, Mapped>,
}

/// The task that has the ports of one swarm mapped.
#[derive(Debug)]
pub(super) struct PortMapper {
    pub(super) by: Environment,
    pub(super) bound: Bound,
    pub(super) observed: Observed,
    pub(super) metrics: P2pMetrics,
    pub(super) teller: Teller,
}

impl Router {
    /// Finds a router, by NAT-PMP if it can be.
    async fn find(places: Places, by: &Environment) -> Result<Self, MappingError> {
        if let Some(at) = places.natpmp {
            match NatPmp::at(at, by).await {
                Ok(found) => return Ok(Self::NatPmp(found)),
                Err(error) => tracing::debug!(%error, router = %at, "no ports by NAT-PMP"),
            }
        }
        Upnp::search(places.upnp, by).await.map(|found| Self::Upnp(Box::new(found)))
    }

    const fn protocol(&self) -> MappingProtocol {
        match self {
            Self::NatPmp(_) => MappingProtocol::NatPmp,
            Self::Upnp(_) => MappingProtocol::Upnp,
        }
    }

    /// The address of the router in the network of this node.
    const fn gateway(&self) -> Ipv4Addr {
        match self {
            Self::NatPmp(router) => router.gateway,
            Self::Upnp(router) => router.gateway,
        }
    }

    /// The address of this node in the network of the router.
    const fn host(&self) -> Ipv4Addr {
        match self {
            Self::NatPmp(router) => router.host,
            Self::Upnp(router) => router.host,
        }
    }

    async fn outside(&self) -> Result<Ipv4Addr, MappingError> {
        let outside = match self {
            Self::NatPmp(router) => router.outside().await?,
            Self::Upnp(router) => router.outside().await?,
        };
        if is_usable(outside) { Ok(outside) } else { Err(MappingError::Unusable(outside)) }
    }

    /// Has a port mapped, `port` if it can be. Returns the port of the router and its lease.
    async fn map(
        &self,
        inside: &Inside,
        port: u16,
        random: &mut (impl Rng + Send),
    ) -> Result<(u16, Duration), MappingError> {
        let lease = u32::try_from(LEASE.as_secs()).unwrap_or(u32::MAX);
        let (port, given) = match self {
            Self::NatPmp(router) => router.map(inside, port, lease).await?,
            Self::Upnp(router) => {
                let (mut port, mut tries) = (port, 1);
                loop {
                    match router.map(inside, port, lease).await {
                        Err(MappingError::Refused(upnp::CONFLICT)) if tries < TRIES => {
                            port = random.random_range(32_768..=u16::MAX);
                            tries += 1;
                        }
                        given => break (port, given?),
                    }
                }
            }
        };
        if port == 0 || given == 0 {
            return Err(MappingError::Malformed);
        }
        Ok((port, Duration::from_secs(given.into()).min(LEASE)))
    }

    async fn unmap(&self, inside: &Inside, port: u16) {
        let given_back = match self {
            Self::NatPmp(router) => router.map(inside, 0, 0).await.map(drop),
            Self::Upnp(router) => router.unmap(inside, port).await,
        };
        if let Err(error) = given_back {
            tracing::debug!(%error, port, "a port was not given back");
        }
    }
}

impl Kept {
    async fn give_back(&mut self, inside: &Inside) {
        if let (Some(router), Some(mapped)) = (&self.router, self.ports.remove(inside)) {
            router.unmap(inside, mapped.outside.port()).await;
        }
    }
}

impl PortMapper {
    /// Keeps the ports mapped until cancelled.
    pub(super) async fn run(self, cancel: CancellationToken) {
        let natpmp = self.by.default_gateway().map(|host| SocketAddrV4::new(host, natpmp::PORT));
        self.run_with(Places { natpmp, upnp: upnp::GROUP }, cancel).await;
    }

    async fn run_with(self, places: Places, cancel: CancellationToken) {
        let mut kept = Kept::default();
        let rounds = async {
            let mut retry = MIN_RETRY;
            loop {
                // A port that is added during the round makes the next one due.
                let known = self.bound.addresses();
                let ended = self.round(places, &mut kept).await;
                let now = Instant::now();
                kept.ports.retain(|_, mapped| mapped.until > now);
                self.publish(&kept);
                let next = match ended {
                    Ok(()) => {
                        retry = MIN_RETRY;
                        let renew = kept.ports.values().map(|mapped| mapped.renew).min();
                        renew.unwrap_or(now + MAX_RETRY).max(now + SHORTEST)
                    }
                    Err(error) => {
                        self.metrics.note(P2pEvent::PortNotMapped);
                        tracing::info!(%error, again_in = ?retry, "the router maps no port");
                        kept.router = None;
                        let next = now + retry;
                        retry = (2 * retry).min(MAX_RETRY);
                        next
                    }
                };
                while Instant::now() < next && self.bound.addresses() == known {
                    time::sleep(LOOK.min(next.duration_since(Instant::now()))).await;
                }
            }
        };
        let _: Option<()> = cancel.run_until_cancelled(rounds).await;
        let all: Vec<_> = kept.ports.keys().copied().collect();
        let parting = async {
            for inside in all {
                kept.give_back(&inside).await;
            }
        };
        // Leases that are not given back run out.
        let _ = time::timeout(PARTING, parting).await;
    }

    /// Has every port mapped that the node listens on, and gives back those that it does not any more.
    async fn round(&self, places: Places, kept: &mut Kept) -> Result<(), MappingError> {
        if self.bound.addresses().is_empty() && kept.ports.is_empty() {
            return Ok(());
        }
        let found = match kept.router.take() {
            Some(router) => router,
            None => Router::find(places, &self.by).await?,
        };
        let router = kept.router.insert(found);
        let mut wanted = wanted(&self.bound.addresses(), router.host());
        wanted.truncate(MAX_TOLD);
        let outside = router.outside().await?;
        let mut random = self.by.random();
        for inside in &wanted {
            let before = kept.ports.get(inside).map(|mapped| mapped.outside);
            let port = before.map_or(inside.address.port(), |before| before.port());
            let (port, lease) = router.map(inside, port, &mut random).await?;
            let (now, outside) = (Instant::now(), SocketAddrV4::new(outside, port));
            if before != Some(outside) {
                self.metrics.note(P2pEvent::PortMapped);
                tracing::info!(inside = %inside.address, %outside, "the router maps a port");
            }
            let counted = self.metrics.levels().count(P2pLevel::PortsMapped);
            let mapped = Mapped {
                outside,
                protocol: router.protocol(),
                gateway: router.gateway(),
                renew: now + lease / 2,
                until: now + lease.max(2 * SHORTEST),
                _counted: counted,
            };
            kept.ports.insert(*inside, mapped);
        }
        let gone: Vec<_> =
            kept.ports.keys().filter(|inside| !wanted.contains(inside)).copied().collect();
        for inside in gone {
            kept.give_back(&inside).await;
        }
        Ok(())
    }

    /// Shows the ports, and proposes the addresses on the other side of the router.
    fn publish(&self, kept: &Kept) {
        let shown = kept.ports.iter().map(|(inside, mapped)| MappedPort {
            carrier: inside.carrier,
            inside: inside.address,
            outside: mapped.outside,
            protocol: mapped.protocol,
            gateway: mapped.gateway,
            until: mapped.until.into_std(),
        });
        self.teller.tell(shown.collect());
        let listen = self.bound.addresses();
        let seen = kept.ports.iter().flat_map(|(inside, mapped)| {
            listen.iter().filter_map(|address| inside.seen_at(address, mapped.outside))
        });
        self.observed.mapped(seen.collect());
    }
}
