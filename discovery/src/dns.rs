//! Looks for nodes in DNS, again and again.
//!
//! ```text
//!              ┌ relays, archives  SRV at the primary name and its backup, for WebSocket
//!   Bootstrap ─┤                                                                           ─▶ Looked
//!              └ tree              dnsaddr at the same names, for libp2p
//! ```
//!
//! # Invariants
//!
//! * Nothing is asked but the names of the bootstrap and those that their answers lead to.
//! * A look ends within its time, whatever the servers do, and has what came by then.
//! * One list that cannot be had takes nothing from the others.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use gossip::{BoxFuture, DnsService, Durations, NodeAddress};
use hickory_resolver::proto::rr::RecordType;
use mesh::{AddressSource, Listed, Role, SourceError, SourceId, SourceKind};
use runtime::Random;
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    bootstrap::{Bootstrap, Names, merged},
    dnsaddr::{self, Tree},
    kept::{Found, Kept, Pace},
    limits::DnsLimits,
    metrics::DnsMetrics,
    name::DnsName,
    resolver::{AskError, Dnssec, Open, Server, Servers},
    srv,
};

/// The transports for which addresses are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Those of WebSocket: SRV records.
    WebSocket,
    /// Those of libp2p: trees of dnsaddr records.
    Libp2p,
    /// Both.
    #[default]
    Both,
}

/// Settings of a look.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DnsSettings {
    /// Names of the network's services.
    pub service: DnsService,
    /// Transports to look for. Default: both.
    pub wanted: Wanted,
    /// Servers to ask, in their order: the next one is asked if one has no records. Default: those of the system.
    pub servers: Vec<Server>,
    /// The proof that is asked of answers. Default: none.
    pub dnssec: Dnssec,
    /// Bounds.
    pub limits: DnsLimits,
    /// Counters. Default: some that nobody reads.
    pub metrics: DnsMetrics,
}

impl DnsSettings {
    /// The defaults, for the services of a network.
    #[must_use]
    pub fn new(service: DnsService) -> Self {
        Self {
            service,
            wanted: Wanted::default(),
            servers: vec![Server::System],
            dnssec: Dnssec::Off,
            limits: DnsLimits::default(),
            metrics: DnsMetrics::default(),
        }
    }
}

gossip::setters!(DnsSettings {
    with_wanted => wanted: Wanted,
    with_servers => servers: Vec<Server>,
    with_dnssec => dnssec: Dnssec,
    with_limits => limits: DnsLimits,
    with_metrics => metrics: DnsMetrics,
});

/// A list that could not be had, or not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The name that was asked.
    pub name: String,
    /// The reason.
    pub reason: AskError,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// Every reason for which a look found nothing.
#[derive(Debug, thiserror::Error)]
#[error("{}", shown(missing))]
pub struct NothingFound {
    /// The lists that could not be had.
    pub missing: Vec<Missing>,
}

fn shown(missing: &[Missing]) -> String {
    let (first, rest) = match missing {
        [] => return "no record holds an address".to_owned(),
        [first, rest @ ..] => (first, rest.len()),
    };
    if rest == 0 { first.to_string() } else { format!("{first} (and {rest} more)") }
}

/// The result of a look.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Looked {
    /// Every address that is known now, from this look or earlier ones. An address that is listed as relay and as
    /// archive stands here twice.
    pub addresses: Vec<Listed>,
    /// Addresses of this look.
    pub found: usize,
    /// Time until the next look.
    pub next: Duration,
    /// Lists that could not be had.
    pub missing: Vec<Missing>,
    /// Records that hold no address.
    pub unusable: usize,
    /// Records, names and addresses beyond a bound, which were not looked at.
    pub cut: usize,
}

/// Looks for the nodes of one bootstrap in DNS, and keeps what was found.
#[derive(Debug)]
pub struct DnsSource {
    bootstrap: Bootstrap,
    settings: DnsSettings,
    random: Random,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lists: BTreeMap<List, Kept<NodeAddress>>,
    pace: Pace,
    next: Duration,
}

/// A list of a bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum List {
    Relays,
    Archives,
    Tree,
}

/// The answer to the question for one list.
struct Asked {
    list: List,
    found: Found<NodeAddress>,
    ttl: Option<Duration>,
    missing: Vec<Missing>,
    unusable: usize,
    cut: usize,
}

impl DnsSource {
    /// Nothing is known yet, and nothing is asked. `random` spreads the looks of nodes that were started together.
    #[must_use]
    pub fn new(bootstrap: Bootstrap, settings: DnsSettings, random: Random) -> Self {
        let settings = DnsSettings { limits: settings.limits.bounded(), ..settings };
        let state = State { next: settings.limits.soonest, ..State::default() };
        Self { bootstrap, settings, random, state: Mutex::new(state) }
    }

    /// The name under which the addresses of a bootstrap are listed.
    #[must_use]
    pub fn id_of(bootstrap: &Bootstrap) -> SourceId {
        SourceId::named(SourceKind::Dns, &bootstrap.to_string())
    }

    /// Asks for everything once. It is time for the next look after [`Looked::next`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends its questions; what earlier looks found is kept.
    pub async fn look(&self) -> Looked {
        let limits = self.settings.limits;
        let servers = Servers {
            servers: self.settings.servers.clone(),
            dnssec: self.settings.dnssec.clone(),
        };
        let (open, problems) = match spawn_blocking(move || servers.open(limits)).await {
            Ok(opened) => opened,
            Err(error) => {
                let reason = AskError::Failed { reason: error.to_string() };
                (Open::none(limits), vec![reason])
            }
        };
        let deadline = Instant::now() + limits.look_timeout;
        let lists = self.lists().iter();
        let answers = join_all(lists.map(|list| self.ask(&open, *list, deadline))).await;
        let servers = |reason| Missing { name: "the DNS servers".to_owned(), reason };
        let missing = problems.into_iter().map(servers).collect();
        self.take(answers, Looked { missing, ..Looked::default() })
    }

    /// Takes the answers of a look.
    fn take(&self, answers: Vec<Asked>, mut looked: Looked) -> Looked {
        let limits = self.settings.limits;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { lists, pace, next } = &mut *state;
        let mut ttl: Option<Duration> = None;
        for asked in answers {
            let (Found::Whole(found) | Found::Part(found)) = &asked.found;
            if !found.is_empty() {
                looked.found += found.len();
                // A part is asked for again soon.
                let is_part = matches!(asked.found, Found::Part(_));
                let own = if is_part { Some(Duration::ZERO) } else { asked.ttl };
                ttl = ttl.into_iter().chain(own).min();
            }
            looked.missing.extend(asked.missing);
            looked.unusable += asked.unusable;
            looked.cut += asked.cut;
            let kept = lists.entry(asked.list).or_default();
            kept.answered(asked.found, |address| self.key(address), limits, Instant::now());
        }
        for (list, kept) in lists {
            let role = match list {
                List::Archives => Role::archival(),
                List::Relays | List::Tree => Role::relay(),
            };
            let found = kept.addresses().iter().cloned();
            looked.addresses.extend(found.map(|address| Listed::new(address, [role.clone()])));
        }
        *next = pace.pause(ttl, limits, &mut self.random.clone());
        looked.next = *next;
        let Looked { found, missing, unusable, cut, .. } = &looked;
        self.settings.metrics.looked(*found, missing.len(), *unusable, *cut);
        looked
    }

    /// The lists to ask for.
    fn lists(&self) -> &'static [List] {
        match (&self.bootstrap, self.settings.wanted) {
            (Bootstrap::Names(_), Wanted::Both) => &[List::Relays, List::Archives, List::Tree],
            (Bootstrap::Names(_), Wanted::WebSocket) => &[List::Relays, List::Archives],
            (_, Wanted::Libp2p) | (Bootstrap::Tree(_), Wanted::Both) => &[List::Tree],
            (Bootstrap::Tree(_), Wanted::WebSocket) => &[],
        }
    }

    /// The part of an address by which two of the same list are one node.
    fn key(&self, address: &NodeAddress) -> String {
        let backup = match &self.bootstrap {
            Bootstrap::Names(names) => names.backup.as_ref(),
            Bootstrap::Tree(_) => None,
        };
        match (address, backup) {
            (NodeAddress::WebSocket(address), Some(backup)) => backup.key(&address.to_string()),
            (address, _) => address.to_string(),
        }
    }

    async fn ask(&self, open: &Open, list: List, deadline: Instant) -> Asked {
        let mut asked = Asked {
            list,
            found: Found::Part(Vec::new()),
            ttl: None,
            missing: Vec::new(),
            unusable: 0,
            cut: 0,
        };
        let service = &self.settings.service;
        match (&self.bootstrap, list) {
            (Bootstrap::Names(names), List::Relays) => {
                asked.hosts(open, names, service.relays, deadline).await;
            }
            (Bootstrap::Names(names), List::Archives) => {
                asked.hosts(open, names, service.archives, deadline).await;
                // Most networks name none.
                asked.missing.retain(|missing| missing.reason != AskError::NoRecord);
            }
            (Bootstrap::Names(names), List::Tree) => {
                let backup = names.backup.as_ref().map(|backup| &backup.name);
                asked.trees(open, [Some(&names.primary), backup], deadline).await;
            }
            (Bootstrap::Tree(name), _) => {
                asked.trees(open, [Some(name), None], deadline).await;
            }
        }
        asked
    }
}

impl AddressSource for DnsSource {
    fn id(&self) -> SourceId {
        Self::id_of(&self.bootstrap)
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Vec<Listed>, SourceError>> {
        Box::pin(async move {
            let looked = self.look().await;
            let Looked { found, missing, unusable, cut, .. } = &looked;
            let name = &self.bootstrap;
            tracing::debug!(%name, found, unusable, cut, ?missing, "DNS was asked for nodes");
            if looked.found > 0 {
                return Ok(looked.addresses);
            }
            let cause = Box::new(NothingFound { missing: looked.missing });
            Err(SourceError { source_id: self.id(), cause })
        })
    }

    fn refresh(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).next
    }
}

impl Asked {
    /// Asks the name and its backup for the SRV records of a service.
    async fn hosts(&mut self, open: &Open, names: &Names, service: &str, deadline: Instant) {
        let backup = names.backup.as_ref();
        let asked = std::iter::once(&names.primary).chain(backup.map(|backup| &backup.name));
        let asked: Vec<String> = asked.map(|name| name.below(service)).collect();
        let answers = asked.iter().map(|name| open.ask(name, RecordType::SRV, deadline));
        let mut lists = Vec::new();
        for (name, answer) in asked.iter().zip(join_all(answers).await) {
            match answer {
                Ok(answer) => {
                    self.ttl = self.ttl.into_iter().chain([answer.ttl]).min();
                    self.cut += answer.cut;
                    let (addresses, unusable) = srv::addresses(&answer.records);
                    self.unusable += unusable;
                    lists.push(addresses);
                }
                Err(reason) => self.missing.push(Missing { name: name.clone(), reason }),
            }
        }
        let mut lists = lists.into_iter();
        let (first, second) = (lists.next().unwrap_or_default(), lists.next().unwrap_or_default());
        let addresses = match backup {
            Some(backup) => merged(first, second, backup),
            None => first,
        };
        let mut addresses: Vec<NodeAddress> =
            addresses.iter().filter_map(|address| address.parse().ok()).collect();
        self.cut += addresses.len().saturating_sub(open.limits.addresses.get());
        addresses.truncate(open.limits.addresses.get());
        self.found = if self.is_whole() { Found::Whole(addresses) } else { Found::Part(addresses) };
    }

    /// Follows the trees of a name and its backup. The backup's addresses of a node count. Source: wire facts 8.8.
    async fn trees(&mut self, open: &Open, names: [Option<&DnsName>; 2], deadline: Instant) {
        let names = names.into_iter().flatten();
        let trees =
            names.map(|name| async move { (name, dnsaddr::follow(open, name, deadline).await) });
        let mut nodes: BTreeMap<String, Vec<NodeAddress>> = BTreeMap::new();
        for (name, tree) in join_all(trees).await {
            let Tree { addresses, ttl, problems, unusable, cut } = tree;
            self.ttl = self.ttl.into_iter().chain(ttl).min();
            self.unusable += unusable;
            self.cut += cut;
            let missing = |reason| Missing { name: format!("/dnsaddr/{name}"), reason };
            self.missing.extend(problems.into_iter().map(missing));
            let mut own: BTreeMap<String, Vec<NodeAddress>> = BTreeMap::new();
            for address in addresses {
                let identity = dnsaddr::identity_of(&address.phonebook_entry()).map(str::to_owned);
                own.entry(identity.unwrap_or_default()).or_default().push(address);
            }
            nodes.extend(own);
        }
        let mut addresses: Vec<_> = nodes.into_values().flatten().collect();
        self.cut += addresses.len().saturating_sub(open.limits.addresses.get());
        addresses.truncate(open.limits.addresses.get());
        self.found = if self.is_whole() { Found::Whole(addresses) } else { Found::Part(addresses) };
    }

    /// Returns `true` if every name was answered, if only by saying that it has no records.
    fn is_whole(&self) -> bool {
        self.missing.iter().all(|missing| missing.reason == AskError::NoRecord)
    }
}
