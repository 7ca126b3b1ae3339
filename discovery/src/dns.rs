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

use std::{collections::BTreeMap, fmt, time::Duration};

use futures::future::join_all;
use gossip::{DnsService, NodeAddress};
use hickory_resolver::proto::rr::RecordType;
use rand::Rng;
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    bootstrap::{Backup, Bootstrap, Names, merged},
    dnsaddr::{self, Tree},
    kept::{Found, Kept, Pace},
    limits::DnsLimits,
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

/// The part that a node plays, as DNS says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// It passes on what others send.
    Relay,
    /// It has every block.
    Archive,
}

/// Settings of a look.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DnsSettings {
    /// Entries to look up. Default: none.
    pub bootstrap: Vec<Bootstrap>,
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
}

impl DnsSettings {
    /// Settings with nothing to look up.
    #[must_use]
    pub fn new(service: DnsService) -> Self {
        Self {
            bootstrap: Vec::new(),
            service,
            wanted: Wanted::default(),
            servers: vec![Server::System],
            dnssec: Dnssec::Off,
            limits: DnsLimits::default(),
        }
    }
}

gossip::setters!(DnsSettings {
    with_bootstrap => bootstrap: Vec<Bootstrap>,
    with_wanted => wanted: Wanted,
    with_servers => servers: Vec<Server>,
    with_dnssec => dnssec: Dnssec,
    with_limits => limits: DnsLimits,
});

/// An address that DNS leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAddress {
    /// The address.
    pub address: NodeAddress,
    /// The part of its node.
    pub part: Part,
}

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

/// The result of a look.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Looked {
    /// Every address that is known now, from this look or earlier ones. An address that is listed as relay and as
    /// archive stands here twice.
    pub addresses: Vec<FoundAddress>,
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

/// Looks for nodes in DNS, and keeps what was found.
#[derive(Debug)]
pub struct DnsSource {
    settings: DnsSettings,
    lists: BTreeMap<(usize, List), Kept<NodeAddress>>,
    pace: Pace,
}

/// A list of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum List {
    Relays,
    Archives,
    Tree,
}

/// The answer to the question for one list.
struct Asked {
    entry: usize,
    list: List,
    found: Found<NodeAddress>,
    ttl: Option<Duration>,
    missing: Vec<Missing>,
    unusable: usize,
    cut: usize,
}

impl DnsSource {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(settings: DnsSettings) -> Self {
        let limits = gossip::Durations::bounded(settings.limits);
        let settings = DnsSettings { limits, ..settings };
        Self { settings, lists: BTreeMap::new(), pace: Pace::default() }
    }

    /// Asks for everything once. It is time for the next look after [`Looked::next`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends its questions; what earlier looks found is kept.
    pub async fn look(&mut self, rng: &mut impl Rng) -> Looked {
        let limits = self.settings.limits;
        let servers = Servers {
            servers: self.settings.servers.clone(),
            dnssec: self.settings.dnssec.clone(),
        };
        let mut looked = Looked::default();
        let (open, problems) = match spawn_blocking(move || servers.open(limits)).await {
            Ok(opened) => opened,
            Err(error) => {
                let reason = AskError::Failed { reason: error.to_string() };
                (Open::none(limits), vec![reason])
            }
        };
        let servers = |reason| Missing { name: "the DNS servers".to_owned(), reason };
        looked.missing.extend(problems.into_iter().map(servers));
        let deadline = Instant::now() + limits.look_timeout;
        let answers = join_all(
            self.questions()
                .into_iter()
                .map(|(entry, list)| ask(&self.settings, &open, (entry, list), deadline)),
        );
        let mut ttl: Option<Duration> = None;
        for asked in answers.await {
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
            let backup = backup_of(&self.settings.bootstrap, asked.entry);
            let key = |address: &NodeAddress| key_of(address, backup);
            let kept = self.lists.entry((asked.entry, asked.list)).or_default();
            kept.answered(asked.found, key, limits, Instant::now());
        }
        for ((_, list), kept) in &self.lists {
            let part = if *list == List::Archives { Part::Archive } else { Part::Relay };
            let found = kept.addresses().iter().cloned();
            looked.addresses.extend(found.map(|address| FoundAddress { address, part }));
        }
        looked.next = self.pace.pause(ttl, limits, rng);
        looked
    }

    fn questions(&self) -> Vec<(usize, List)> {
        let wanted = self.settings.wanted;
        let mut questions = Vec::new();
        for (entry, bootstrap) in self.settings.bootstrap.iter().enumerate() {
            if wanted != Wanted::Libp2p && matches!(bootstrap, Bootstrap::Names(_)) {
                questions.extend([(entry, List::Relays), (entry, List::Archives)]);
            }
            if wanted != Wanted::WebSocket {
                questions.push((entry, List::Tree));
            }
        }
        questions
    }
}

fn backup_of(bootstrap: &[Bootstrap], entry: usize) -> Option<&Backup> {
    match bootstrap.get(entry)? {
        Bootstrap::Names(names) => names.backup.as_ref(),
        Bootstrap::Tree(_) => None,
    }
}

/// The part of an address by which two of the same list are one node.
fn key_of(address: &NodeAddress, backup: Option<&Backup>) -> String {
    match (address, backup) {
        (NodeAddress::WebSocket(address), Some(backup)) => backup.key(&address.to_string()),
        (address, _) => address.to_string(),
    }
}

async fn ask(
    settings: &DnsSettings,
    open: &Open,
    (entry, list): (usize, List),
    deadline: Instant,
) -> Asked {
    let mut asked = Asked {
        entry,
        list,
        found: Found::Part(Vec::new()),
        ttl: None,
        missing: Vec::new(),
        unusable: 0,
        cut: 0,
    };
    let Some(bootstrap) = settings.bootstrap.get(entry) else { return asked };
    match (bootstrap, list) {
        (Bootstrap::Names(names), List::Relays) => {
            asked.hosts(open, names, settings.service.relays, deadline).await;
        }
        (Bootstrap::Names(names), List::Archives) => {
            asked.hosts(open, names, settings.service.archives, deadline).await;
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
