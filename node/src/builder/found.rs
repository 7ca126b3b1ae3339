//! The part of a builder that decides where addresses of other nodes come from, beside the configuration.
//!
//! ```text
//!   bootstrap ──▶ DnsSource ──diallable ones──▶ mesh loop ◀──records, bans── peer store in the data directory
//! ```
//!
//! # Invariants
//!
//! * No name is looked up unless the builder was told it, or an address names it, and never over the sockets of a network in memory.
//! * A peer store that cannot be used is told in one line, and the node starts without it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ::discovery::{
    Bootstrap, DnsLimits, DnsMetrics, DnsSettings, DnsSource, Dnssec, MAX_ENTRIES, PEER_FILE,
    PeerStore, Server, Wanted,
};
use broadcaster::Mesh;
use gossip::{BoxFuture, Durations, NetworkId, NetworkProfile};
use mesh::{AddressSource, Listed, SourceError, SourceId, SourceKind};
use runtime::Environment;

use super::NodeBuilder;
use crate::{error::StartError, keeper::Keeper, mode::Mode};

/// Where addresses come from.
#[derive(Debug)]
pub(super) struct Found {
    bootstrap: Vec<Bootstrap>,
    servers: Vec<Server>,
    dnssec: Dnssec,
    limits: DnsLimits,
    metrics: DnsMetrics,
    is_kept: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            servers: vec![Server::System],
            dnssec: Dnssec::Off,
            limits: DnsLimits::default(),
            metrics: DnsMetrics::default(),
            is_kept: true,
        }
    }
}

impl NodeBuilder {
    /// Adds a name under which DNS leads to nodes of the network. Default: none, and nothing is looked up.
    pub fn bootstrap(mut self, bootstrap: Bootstrap) -> Self {
        self.found.bootstrap.push(bootstrap);
        self
    }

    /// Sets the DNS servers that are asked for names of a bootstrap, in their order: the next one is asked if one has no
    /// records. Default: those of the system.
    pub fn dns_servers(mut self, servers: Vec<Server>) -> Self {
        self.found.servers = servers;
        self
    }

    /// Sets the proof that is asked of their answers. Default: none.
    pub fn dnssec(mut self, dnssec: Dnssec) -> Self {
        self.found.dnssec = dnssec;
        self
    }

    /// Sets the bounds of what DNS is asked and of what is believed of it. Default: [`DnsLimits::default`].
    pub fn dns_limits(mut self, limits: DnsLimits) -> Self {
        self.found.limits = limits;
        self
    }

    /// Keeps no addresses and bans from one run to the next. Without this a node with a data directory keeps them there,
    /// in `peers.redb`.
    pub fn no_peer_store(mut self) -> Self {
        self.found.is_kept = false;
        self
    }
}

impl Found {
    /// Checks what can be judged without a start.
    pub(super) fn check(&self, environment: &Environment) -> Result<(), StartError> {
        self.limits.check()?;
        let count = self.bootstrap.len();
        if count > MAX_ENTRIES {
            return Err(StartError::TooManyBootstraps { count });
        }
        if !self.bootstrap.is_empty() && environment.is_in_memory() {
            return Err(StartError::BootstrapInMemory);
        }
        Ok(())
    }

    /// The counters of looks into DNS.
    pub(super) fn metrics(&self) -> DnsMetrics {
        self.metrics.clone()
    }

    /// Gives the mesh what is known from earlier runs, and asks the sources from now on. What is learnt is kept by the
    /// result, if there is a place for it.
    pub(super) async fn begin(&self, mesh: &Mesh, node: Described<'_>) -> Option<Keeper> {
        let keeper = match node.dir.filter(|_| self.is_kept) {
            Some(dir) => self.restore(mesh, dir, node.network).await,
            None => None,
        };
        let wanted = wanted(node.mode);
        for bootstrap in &self.bootstrap {
            let settings = self.settings(node.profile).with_wanted(wanted);
            let source = DnsSource::new(bootstrap.clone(), settings, node.environment.random());
            let source = Diallable { source, mode: node.mode, failures: AtomicU32::new(0) };
            if let Err(error) = mesh.add_source(Arc::new(source)) {
                tracing::warn!(%error, name = %bootstrap, "DNS is not asked for nodes");
            }
        }
        keeper
    }

    /// The way in which DNS is asked.
    fn settings(&self, profile: &NetworkProfile) -> DnsSettings {
        DnsSettings::new(profile.dns)
            .with_servers(self.servers.clone())
            .with_dnssec(self.dnssec.clone())
            .with_limits(self.limits)
            .with_metrics(self.metrics.clone())
    }

    /// Looks up the names of peers that are given as `/dnsaddr/NAME/p2p/ID`; `None` in a network in memory.
    #[cfg(feature = "p2p")]
    pub(super) fn resolver(
        &self,
        profile: &NetworkProfile,
        environment: &Environment,
    ) -> Option<Arc<dyn net_p2p::ResolveTree>> {
        let settings = self.settings(profile).with_wanted(Wanted::Libp2p);
        let is_asked = !environment.is_in_memory();
        is_asked.then(|| Arc::new(super::trees::DnsTrees::new(settings, environment.clone())) as _)
    }

    async fn restore(&self, mesh: &Mesh, dir: &Path, network: &NetworkId) -> Option<Keeper> {
        let path = dir.join(PEER_FILE);
        let (store, loaded, aside) = match PeerStore::open(path, network.clone()).await {
            Ok(opened) => opened,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the node runs without a peer store");
                return None;
            }
        };
        if let Some(aside) = aside {
            let path = aside.path.display();
            tracing::warn!(reason = aside.reason, "the peer store was put aside as {path}");
        }
        let names: Vec<SourceId> = self.bootstrap.iter().map(DnsSource::id_of).collect();
        let (bans, mut records) = (loaded.bans, loaded.records);
        for record in &mut records {
            // A name that is looked up no more lists nothing.
            record
                .listings
                .retain(|(source, _)| source.kind() != SourceKind::Dns || names.contains(source));
            if record.listings.is_empty() && record.worked {
                let own = SourceId::of(SourceKind::Store);
                record.listings.push((own, Default::default()));
            }
        }
        records.retain(|record| !record.listings.is_empty());
        if loaded.unreadable > 0 {
            let rows = loaded.unreadable;
            tracing::warn!(rows, "a part of the peer store could not be read and is left out");
        }
        let (peers, bans) = (mesh.restore(records), mesh.restore_bans(bans));
        tracing::debug!(peers, bans, "the peer store was read");
        Some(Keeper::new(store, mesh.clone()))
    }
}

/// The node for which addresses are looked for.
#[derive(Clone, Copy)]
pub(super) struct Described<'a> {
    pub(super) network: &'a NetworkId,
    pub(super) profile: &'a NetworkProfile,
    pub(super) mode: Mode,
    pub(super) environment: &'a Environment,
    pub(super) dir: Option<&'a Path>,
}

const fn wanted(mode: Mode) -> Wanted {
    match mode {
        #[cfg(all(feature = "ws", feature = "p2p"))]
        Mode::Hybrid => Wanted::Both,
        #[cfg(feature = "ws")]
        Mode::WebSocket => Wanted::WebSocket,
        #[cfg(feature = "p2p")]
        Mode::Libp2p => Wanted::Libp2p,
    }
}

/// The addresses of a source that the node can dial.
struct Diallable {
    source: DnsSource,
    mode: Mode,
    /// Looks without an address, in a row.
    failures: AtomicU32,
}

impl Diallable {
    /// Tells an operator that a name leads nowhere: at once, and then each time it has failed twice as often.
    fn note_failure(&self, error: &SourceError) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures.is_power_of_two() {
            let (source, reason) = (self.id(), &error.cause);
            tracing::warn!(%source, %reason, failures, "DNS leads to no node");
        }
    }
}

impl AddressSource for Diallable {
    fn id(&self) -> SourceId {
        self.source.id()
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Vec<Listed>, SourceError>> {
        Box::pin(async move {
            let mut listed =
                self.source.fetch().await.inspect_err(|error| self.note_failure(error))?;
            self.failures.store(0, Ordering::Relaxed);
            let all = listed.len();
            listed.retain(|listed| self.mode.check_peer(&listed.address).is_ok());
            let left_out = all - listed.len();
            if left_out > 0 {
                tracing::debug!(source = %self.id(), left_out, "addresses that this node cannot dial");
            }
            Ok(listed)
        })
    }

    fn refresh(&self) -> Duration {
        self.source.refresh()
    }
}
