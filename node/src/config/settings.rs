//! The checked configuration of a node.
//!
//! # Invariants
//!
//! * A value is read once, here. What cannot be used is refused with its origin and what would be right.

use std::{
    collections::BTreeSet,
    num::{NonZeroU32, NonZeroUsize},
    os::unix::net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use gossip::{
    HelloPlace, Identity, IpRange, NetworkId, NetworkProfile, NodeAddress, Tag,
    wire::features::{MAX_TABLE, MIN_TABLE, VoteCompression},
};
use services::files::Uploads;
use tandem::{
    Admit, Bootstrap, Capability, DataDir, DhtConfig, DhtMode, DhtValues, DnsServer, Dnssec,
    InboundLimits, LearntHosts, Mode, OwnTopic, PageOrigin, PageOrigins, ProxyProtocol, ProxyRules,
    ReachConfig, ReachPart, RealIpHeader, RelayLimits, Relaying, Security, Signing, TlsFiles,
    WantedTags,
};

use super::{
    check::ConfigError,
    key::{Default, Key},
    layers::Layers,
    origin::{Given, Origin, Value},
};
use crate::{
    log::{self, LogFormat},
    spans,
};

/// Largest budget, in MiB. Chosen: a terabyte; more is a slip.
const MAX_BUDGET_MIB: usize = 1024 * 1024;

/// Smallest budget, in MiB. Chosen: a few messages of the largest size.
const MIN_BUDGET_MIB: usize = 32;

/// Longest time for which a node is drained before it stops by itself. Chosen: a day; more is a slip.
pub(crate) const MAX_DRAIN: Duration = Duration::from_secs(86_400);

/// The decisions of an operator, checked.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub(crate) struct Settings {
    pub(crate) profile: &'static NetworkProfile,
    pub(crate) network: NetworkId,
    pub(crate) mode: Mode,
    /// Host and port.
    pub(crate) listen_ws: String,
    /// Multiaddrs.
    pub(crate) listen_p2p: Vec<String>,
    /// `true` if the WebSocket port serves libp2p too.
    pub(crate) shares_port: bool,
    /// File with the key of a private network.
    pub(crate) private_network: Option<PathBuf>,
    /// Multiaddrs that others are told in place of those.
    pub(crate) announce: Vec<String>,
    pub(crate) peers: Vec<NodeAddress>,
    pub(crate) bootstrap: Vec<Bootstrap>,
    pub(crate) dns_servers: Vec<DnsServer>,
    pub(crate) dnssec: Dnssec,
    /// `true` if addresses and bans are kept from one run to the next.
    pub(crate) peer_store: bool,
    pub(crate) public_address: Option<NodeAddress>,
    /// Host and port.
    pub(crate) metrics: Option<String>,
    /// The collector of spans.
    pub(crate) otlp: Option<NodeAddress>,
    /// Host and port.
    pub(crate) admin_listen: Option<String>,
    pub(crate) data_dir: PathBuf,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) relaying: Relaying,
    /// Empty for the default.
    pub(crate) security: Vec<Security>,
    pub(crate) topics: Vec<OwnTopic>,
    pub(crate) tag_topics: Vec<Tag>,
    pub(crate) wanted: WantedTags,
    pub(crate) learnt_hosts: LearntHosts,
    pub(crate) mdns: bool,
    pub(crate) dht: DhtConfig,
    pub(crate) reach: ReachConfig,
    pub(crate) admit: Admit,
    pub(crate) vote_packing: VoteCompression,
    pub(crate) max_inbound: usize,
    pub(crate) max_inbound_per_ip: usize,
    pub(crate) page_origins: PageOrigins,
    pub(crate) max_inbound_per_origin: usize,
    /// Time from SIGTERM to the stop; zero for none.
    pub(crate) drain: Duration,
    pub(crate) budget_bytes: usize,
    /// Zero for none.
    pub(crate) trace_one_in: u64,
    pub(crate) services: BTreeSet<Service>,
    pub(crate) uploads: Uploads,
    pub(crate) pass_on_blocks: bool,
    /// Requests a second that one peer may make.
    pub(crate) http_rate: Option<NonZeroU32>,
    pub(crate) proxies: ProxyRules,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) tls_client_ca: Option<PathBuf>,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) tls_client: Option<TlsFiles>,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
}

/// A service that a node may offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    /// The state of the node.
    Status,
    /// The blocks it keeps.
    Blocks,
    /// The files it keeps.
    Files,
    /// A small key-value store.
    Kv,
    /// Requests for libp2p peers, passed on.
    Bridge,
    /// Measurements of throughput, over streams of libp2p.
    Perf,
}

impl Settings {
    /// Returns `true` if the node has certificates, which can be read again.
    pub(crate) const fn has_certificates(&self) -> bool {
        self.tls.is_some() || self.tls_client.is_some()
    }

    /// Checks every value.
    pub(crate) fn check(layers: &Layers) -> Result<Self, ConfigError> {
        let read = Reader(layers);
        let mode = read.mode()?;
        let profile = read.required(Key::Profile, profile)?;
        let network = read.network()?;
        Ok(Self {
            profile,
            bootstrap: read.bootstrap(profile, &network)?,
            dns_servers: read.list(Key::DnsServers, dns_server)?,
            dnssec: read.required(Key::Dnssec, |text| {
                Ok(if switch(text)? { Dnssec::Required } else { Dnssec::Off })
            })?,
            peer_store: read.required(Key::PeerStore, switch)?,
            network,
            mode,
            listen_ws: read.required(Key::ListenWs, host_port)?,
            listen_p2p: read.list(Key::ListenP2p, listen_address)?,
            shares_port: read.required(Key::SharePort, switch)?,
            private_network: read.optional(Key::PrivateNetwork, |text| layers.path(text))?,
            announce: read.list(Key::Announce, announced_address)?,
            peers: read.list(Key::Peers, |text| peer(mode, text))?,
            public_address: read.optional(Key::PublicAddress, web_socket)?,
            metrics: read.optional(Key::Metrics, host_port)?,
            otlp: read.optional(Key::Otlp, collector)?,
            admin_listen: read.optional(Key::AdminListen, host_port)?,
            data_dir: read.data_dir()?,
            key_file: read.optional(Key::IdentityFile, |text| layers.path(text))?,
            relaying: read.relaying()?,
            security: read.security()?,
            topics: read.topics(profile)?,
            tag_topics: read.tag_topics(profile)?,
            wanted: read.wanted(profile)?,
            learnt_hosts: read.required(Key::LearntHosts, learnt_hosts)?,
            mdns: read.required(Key::Mdns, switch)?,
            dht: read.dht()?,
            reach: read.reach()?,
            admit: read.required(Key::Admit, admit)?,
            vote_packing: read.optional(Key::VotePacking, vote_packing)?.unwrap_or(profile.votes),
            max_inbound: read.required(Key::MaxInbound, count)?.get(),
            max_inbound_per_ip: read.required(Key::MaxInboundPerIp, count)?.get(),
            page_origins: read.page_origins(profile)?,
            max_inbound_per_origin: read.required(Key::MaxInboundPerOrigin, count)?.get(),
            drain: read.required(Key::DrainSeconds, drain)?,
            budget_bytes: read.required(Key::BudgetMib, budget_bytes)?,
            trace_one_in: read.required(Key::TraceOneIn, one_in)?,
            services: read.services()?,
            uploads: read.uploads()?,
            pass_on_blocks: read.required(Key::PassOnBlocks, switch)?,
            http_rate: read.required(Key::HttpRate, rate)?,
            proxies: read.proxies()?,
            tls: read.tls_files(Key::TlsCert, Key::TlsSecret)?,
            tls_client_ca: read.tls_client_ca()?,
            tls_ca: read.optional(Key::TlsCa, |text| layers.path(text))?,
            tls_client: read.tls_files(Key::TlsClientCert, Key::TlsClientSecret)?,
            log: read.required(Key::Log, log_filter)?,
            log_format: read.required(Key::LogFormat, log_format)?,
        })
    }

    /// The bounds on what comes in.
    pub(crate) fn inbound(&self) -> InboundLimits {
        InboundLimits::default()
            .with_total(self.max_inbound)
            .with_per_ip(self.max_inbound_per_ip)
            .with_per_origin(self.max_inbound_per_origin)
    }

    /// `true` if the node is to be a part of a network that others have made, and looks for none of its nodes. In a
    /// network of one's own the first node has nobody to look for.
    pub(crate) fn joins_nobody(&self) -> bool {
        let own = Default::Is(self.profile.name) == Key::Profile.spec().default;
        !own && self.peers.is_empty() && self.bootstrap.is_empty() && !self.mdns
    }

    /// Checks the data directory alone: all that a client of a running node needs.
    pub(crate) fn data_dir(layers: &Layers) -> Result<PathBuf, ConfigError> {
        Reader(layers).data_dir()
    }
}

struct Reader<'a>(&'a Layers);

impl Reader<'_> {
    fn mode(&self) -> Result<Mode, ConfigError> {
        self.required(Key::Mode, |text| match text {
            "hybrid" => Ok(Mode::Hybrid),
            "ws" => Ok(Mode::WebSocket),
            "p2p" => Ok(Mode::Libp2p),
            other => Err(format!("{other:?} is no mode: write hybrid, ws or p2p")),
        })
    }

    /// The network, which has a default only in the default profile: a node under the names of another one that
    /// nobody told the name of the network would join none.
    fn network(&self) -> Result<NetworkId, ConfigError> {
        let is_set =
            |key| self.0.get(key).map(|given| &given.origin).filter(|at| **at != Origin::Default);
        let profile = self.required(Key::Profile, profile)?.name;
        if let (None, Some(at)) = (is_set(Key::Network), is_set(Key::Profile))
            && Default::Is(profile) != Key::Profile.spec().default
        {
            let problem = format!(
                "{profile} needs the name of a network: set `network` to its genesis ID, as in --network testnet-v1.0"
            );
            return Err(ConfigError::Value { at: at.clone(), key: Key::Profile, problem });
        }
        self.required(Key::Network, |text| NetworkId::new(text).map_err(|error| error.to_string()))
    }

    /// Every entry of every list.
    fn bootstrap(
        &self,
        profile: &NetworkProfile,
        network: &NetworkId,
    ) -> Result<Vec<Bootstrap>, ConfigError> {
        let lists = self.list(Key::Bootstrap, |text| {
            let list = Bootstrap::parse(text, network, &profile.dns);
            list.map_err(|error| error.to_string())
        })?;
        Ok(lists.into_iter().flatten().collect())
    }

    fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        self.optional(Key::DataDir, |text| data_dir(self.0.path(text)?))?
            .ok_or(ConfigError::NoDataDir)
    }

    /// The peers that may put files here.
    fn uploads(&self) -> Result<Uploads, ConfigError> {
        let who = self.list(Key::Uploads, uploader)?;
        Ok(if who.is_empty() {
            Uploads::Off
        } else if who.contains(&None) {
            Uploads::Anyone
        } else {
            Uploads::FromPeers(who.into_iter().flatten().collect())
        })
    }

    fn relaying(&self) -> Result<Relaying, ConfigError> {
        self.required(Key::Relay, |text| {
            Ok(if switch(text)? { Relaying::Accepted } else { Relaying::Off })
        })
    }

    /// The messages that the node asks its peers for, if it is no relay.
    fn wanted(&self, profile: &NetworkProfile) -> Result<WantedTags, ConfigError> {
        let refused = |problem: String| {
            let at =
                self.0.get(Key::Interest).map_or(Origin::Default, |given| given.origin.clone());
            ConfigError::Value { at, key: Key::Interest, problem }
        };
        let words = self.list(Key::Interest, |text| Ok(text.to_owned()))?;
        let wanted = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] | ["usual"] => return Ok(WantedTags::Usual),
            ["listeners"] => WantedTags::Only(Vec::new()),
            _ => WantedTags::Only(self.list(Key::Interest, |text| {
                text.parse::<Tag>().map_err(|_no_tag| {
                    format!("{text:?} is no tag: write tags, or usual or listeners alone")
                })
            })?),
        };
        wanted.check(&profile.tags).map_err(|error| {
            let (table, gossip) = (&profile.tags, profile.tags.gossip());
            let known: Vec<String> = gossip.tags(table).map(|tag| tag.to_string()).collect();
            refused(format!("{error}: use some of {}", known.join(", ")))
        })?;
        if self.relaying()? != Relaying::Off {
            return Err(refused("a relay asks for everything: set `relay` to off".to_owned()));
        }
        Ok(wanted)
    }

    /// The part that the node takes in the DHT.
    fn dht(&self) -> Result<DhtConfig, ConfigError> {
        let mode = self.required(Key::Dht, dht_mode)?;
        let provides = self.list(Key::DhtProvides, |text| {
            text.parse::<Capability>().map_err(|error| error.to_string())
        })?;
        if mode != DhtMode::Off && self.mode()? == Mode::WebSocket {
            let problem = "the DHT is a part of libp2p, which the mode ws leaves out";
            return Err(self.refused(Key::Dht, problem));
        }
        if matches!(mode, DhtMode::Off | DhtMode::Client) && !provides.is_empty() {
            let problem = "only a server of the DHT offers something: set `dht` to server or auto";
            return Err(self.refused(Key::DhtProvides, problem));
        }
        let values = match self.required(Key::DhtValues, switch)? {
            true => DhtValues::On,
            false => DhtValues::Off,
        };
        let is_existing =
            self.required(Key::Profile, profile)?.name == NetworkProfile::ALGORAND.name;
        if values == DhtValues::On && (mode == DhtMode::Off || is_existing) {
            let problem = match mode {
                DhtMode::Off => "there are values in the DHT alone: set `dht` too",
                _ => "the nodes of the profile algorand have no values in their DHT",
            };
            return Err(self.refused(Key::DhtValues, problem));
        }
        Ok(DhtConfig::default().with_mode(mode).with_provides(provides).with_values(values))
    }

    /// The parts that the node takes in making nodes reachable.
    fn reach(&self) -> Result<ReachConfig, ConfigError> {
        let parts = self.list(Key::Reachability, |text| {
            ReachPart::named(text).ok_or_else(|| {
                let names: Vec<_> = ReachPart::ALL.iter().map(|part| part.name()).collect();
                format!("{text:?} is no part in it: write {}", names.join(", "))
            })
        })?;
        if !parts.is_empty() && self.mode()? == Mode::WebSocket {
            let problem = "it is a part of libp2p, which the mode ws leaves out";
            return Err(self.refused(Key::Reachability, problem));
        }
        let is_relay = parts.contains(&ReachPart::Relay);
        let mut reach = parts.into_iter().fold(ReachConfig::default(), ReachConfig::with);
        for (name, value) in self.list(Key::RelayLimits, relay_limit)? {
            if !is_relay {
                let problem = "only a relay has them: set `reachability` to relay too";
                return Err(self.refused(Key::RelayLimits, problem));
            }
            reach.limits = reach.limits.with_named(&name, value).unwrap_or(reach.limits);
        }
        Ok(reach)
    }

    /// The web origins whose pages are let in.
    fn page_origins(&self, profile: &NetworkProfile) -> Result<PageOrigins, ConfigError> {
        let listed = self.list(Key::PageOrigins, |text| match text {
            "*" => Ok(None),
            text => text.parse::<PageOrigin>().map(Some).map_err(|error| error.to_string()),
        })?;
        if !listed.is_empty() && profile.hello == HelloPlace::Headers {
            let problem = "pages have no way into a network of this profile";
            return Err(self.refused(Key::PageOrigins, problem));
        }
        if !listed.is_empty() && self.mode()? == Mode::Libp2p {
            let problem = "pages come over WebSocket, which the mode p2p leaves out";
            return Err(self.refused(Key::PageOrigins, problem));
        }
        Ok(match listed.contains(&None) {
            true => PageOrigins::any(),
            false => listed.into_iter().flatten().fold(PageOrigins::default(), PageOrigins::with),
        })
    }

    /// The proxies in front of the node.
    fn proxies(&self) -> Result<ProxyRules, ConfigError> {
        let trusted = self.list(Key::TrustedProxies, |text| {
            text.parse::<IpRange>().map_err(|error| error.to_string())
        })?;
        let protocol = match self.required(Key::ProxyProtocol, switch)? {
            true if trusted.is_empty() => {
                return Err(self.lonely(Key::ProxyProtocol, Key::TrustedProxies));
            }
            true => ProxyProtocol::On,
            false => ProxyProtocol::Off,
        };
        let header = self.required(Key::RealIpHeader, real_ip_header)?;
        Ok(ProxyRules::default().with_trusted(trusted).with_protocol(protocol).with_header(header))
    }

    /// The error for a setting that needs another one.
    fn lonely(&self, key: Key, other: Key) -> ConfigError {
        self.refused(key, format!("`{}` is needed with it", other.spec().name))
    }

    /// The error for a setting that cannot be used beside the others.
    fn refused(&self, key: Key, problem: impl Into<String>) -> ConfigError {
        let at = self.0.get(key).map_or(Origin::Default, |given| given.origin.clone());
        ConfigError::Value { at, key, problem: problem.into() }
    }

    /// The services that the node offers.
    fn services(&self) -> Result<BTreeSet<Service>, ConfigError> {
        let services: BTreeSet<_> = self.list(Key::Services, service)?.into_iter().collect();
        if services.contains(&Service::Perf) && self.mode()? == Mode::WebSocket {
            let problem = "perf is measured over libp2p, which the mode ws leaves out";
            return Err(self.refused(Key::Services, problem));
        }
        Ok(services)
    }

    /// The authorities of client certificates, which say nothing without a certificate of the node itself.
    fn tls_client_ca(&self) -> Result<Option<PathBuf>, ConfigError> {
        let file = self.optional(Key::TlsClientCa, |text| self.0.path(text))?;
        if file.is_some() && self.0.get(Key::TlsCert).is_none() {
            return Err(self.lonely(Key::TlsClientCa, Key::TlsCert));
        }
        Ok(file)
    }

    /// The topics of one's own.
    fn topics(&self, profile: &NetworkProfile) -> Result<Vec<OwnTopic>, ConfigError> {
        let topics = self.list(Key::Topics, topic)?;
        if !topics.is_empty() && self.mode()? == Mode::WebSocket {
            let problem = "topics are a part of libp2p, which the mode ws leaves out";
            return Err(self.refused(Key::Topics, problem));
        }
        tandem::check_topics(profile, &topics)
            .map_err(|error| self.refused(Key::Topics, error.to_string()))?;
        Ok(topics)
    }

    /// The tags that go over topics.
    fn tag_topics(&self, profile: &NetworkProfile) -> Result<Vec<Tag>, ConfigError> {
        let tags = self
            .list(Key::TagTopics, |text| text.parse::<Tag>().map_err(|error| error.to_string()))?;
        if !tags.is_empty() && self.mode()? == Mode::WebSocket {
            let problem = "topics are a part of libp2p, which the mode ws leaves out";
            return Err(self.refused(Key::TagTopics, problem));
        }
        profile
            .check_on_topics(&tags)
            .map_err(|error| self.refused(Key::TagTopics, error.to_string()))?;
        Ok(tags)
    }

    /// The security protocols of libp2p, each once.
    fn security(&self) -> Result<Vec<Security>, ConfigError> {
        let mut order = Vec::new();
        for security in self.list(Key::Security, security)? {
            if !order.contains(&security) {
                order.push(security);
            }
        }
        Ok(order)
    }

    /// The files of a certificate and its key: both or neither.
    fn tls_files(&self, cert: Key, key: Key) -> Result<Option<TlsFiles>, ConfigError> {
        let file = |key| self.optional(key, |text| self.0.path(text));
        match (file(cert)?, file(key)?) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
            (Some(_), None) => Err(self.lonely(cert, key)),
            (None, Some(_)) => Err(self.lonely(key, cert)),
        }
    }

    /// A value that always has a default.
    fn required<T>(
        &self,
        key: Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let missing = || ConfigError::Value {
            at: Origin::Default,
            key,
            problem: "a value is needed".to_owned(),
        };
        self.optional(key, parse)?.ok_or_else(missing)
    }

    fn optional<T>(
        &self,
        key: Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        Ok(self.list(key, parse)?.pop())
    }

    fn list<T>(
        &self,
        key: Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(Given { value, origin }) = self.0.get(key) else { return Ok(Vec::new()) };
        let texts = match value {
            Value::One(text) => std::slice::from_ref(text),
            Value::Many(texts) => texts,
        };
        let refused = |problem| ConfigError::Value { at: origin.clone(), key, problem };
        texts.iter().map(|text| parse(text).map_err(refused)).collect()
    }
}

fn profile(text: &str) -> Result<&'static NetworkProfile, String> {
    NetworkProfile::named(text)
        .ok_or_else(|| format!("{text:?} is no profile: write tandem or algorand"))
}

/// Host and port, neither of them left out.
fn host_port(text: &str) -> Result<String, String> {
    let bare = !text.contains('/') && text.rsplit_once(':').is_some();
    let address = bare.then(|| text.parse::<NodeAddress>().ok()).flatten();
    match address.and_then(|address| address.host_port()) {
        Some(address) if address == text => Ok(address),
        _ => Err(format!("{text:?} is not HOST:PORT: write for example 127.0.0.1:4160")),
    }
}

fn collector(text: &str) -> Result<NodeAddress, String> {
    if !spans::IS_BUILT {
        return Err("this build exports no spans: build it with the feature otlp".to_owned());
    }
    let is_url = text.starts_with("http://") || text.starts_with("https://");
    let address = is_url.then(|| text.parse::<NodeAddress>().ok()).flatten();
    address.filter(|address| address.host_port().is_some()).ok_or_else(|| {
        format!("{text:?} is no URL of a collector: write for example http://127.0.0.1:4318")
    })
}

fn listen_address(text: &str) -> Result<String, String> {
    let parsed = tandem::parse_listen_address(text);
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn announced_address(text: &str) -> Result<String, String> {
    let parsed = tandem::parse_announced_address(text);
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A limit of a relay, whose name is one of [`RelayLimits::NAMES`].
fn relay_limit(text: &str) -> Result<(String, u32), String> {
    let names = || RelayLimits::NAMES.join(", ");
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is no limit: write NAME=NUMBER, with {}", names()))?;
    if !RelayLimits::NAMES.contains(&name) {
        return Err(format!("{name:?} is no limit of a relay: write {}", names()));
    }
    let value =
        value.parse().map_err(|_| format!("{value:?} is no number from 0 to {}", u32::MAX))?;
    Ok((name.to_owned(), value))
}

fn security(text: &str) -> Result<Security, String> {
    Security::named(text).ok_or_else(|| {
        let names: Vec<_> = Security::ALL.iter().map(|security| security.name()).collect();
        format!("{text:?} is no security protocol of this program: write {}", names.join(" or "))
    })
}

/// A topic, with its rule of signatures behind an equals sign.
fn topic(text: &str) -> Result<OwnTopic, String> {
    let (name, rule) = text.rsplit_once('=').unwrap_or((text, "strict"));
    let signing = match rule {
        "strict" => Signing::Strict,
        "author" => Signing::Author,
        "none" => Signing::None,
        _ => {
            return Err(format!(
                "{text:?} has no rule of signatures behind its =: write NAME, NAME=strict, NAME=author or NAME=none"
            ));
        }
    };
    Ok(OwnTopic::new(name).with_signing(signing))
}

fn address(text: &str) -> Result<NodeAddress, String> {
    text.parse().map_err(|error: gossip::AddressError| error.to_string())
}

/// A peer that this mode can dial.
fn peer(mode: Mode, text: &str) -> Result<NodeAddress, String> {
    let address = address(text)?;
    match (mode, &address) {
        (Mode::WebSocket, NodeAddress::Multiaddr(_)) => {
            Err(format!("{text:?} is a multiaddr, which `mode` ws cannot dial: use hybrid or p2p"))
        }
        (Mode::Libp2p, NodeAddress::WebSocket(_)) => Err(format!(
            "{text:?} is no multiaddr, and `mode` p2p dials no other: use hybrid or ws"
        )),
        _ => match mode.check_peer(&address) {
            Ok(()) => Ok(address),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn web_socket(text: &str) -> Result<NodeAddress, String> {
    match address(text)? {
        address @ NodeAddress::WebSocket(_) => Ok(address),
        NodeAddress::Multiaddr(_) => {
            Err(format!("{text:?} is a multiaddr: write host:port or a URL"))
        }
    }
}

/// A directory short enough for the address of the admin socket in it.
fn data_dir(path: PathBuf) -> Result<PathBuf, String> {
    match SocketAddr::from_pathname(DataDir::admin_socket(&path)) {
        Ok(_) => Ok(path),
        Err(_) => Err(format!(
            "the path has {} bytes, too many for the admin socket in it: choose a shorter one",
            path.as_os_str().len()
        )),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        other => Err(format!("{other:?} is neither on nor off")),
    }
}

fn admit(text: &str) -> Result<Admit, String> {
    match text {
        "everybody" => Ok(Admit::Everybody),
        "members" => Ok(Admit::MembersOnly),
        other => Err(format!("{other:?} is neither everybody nor members")),
    }
}

fn learnt_hosts(text: &str) -> Result<LearntHosts, String> {
    match text {
        "any" => Ok(LearntHosts::Any),
        "public" => Ok(LearntHosts::Public),
        other => Err(format!("{other:?} is neither any nor public")),
    }
}

fn dns_server(text: &str) -> Result<DnsServer, String> {
    text.parse().map_err(|error: tandem::DnsServerError| error.to_string())
}

fn dht_mode(text: &str) -> Result<DhtMode, String> {
    match text {
        "off" => Ok(DhtMode::Off),
        "auto" => Ok(DhtMode::Auto),
        "client" => Ok(DhtMode::Client),
        "server" => Ok(DhtMode::Server),
        _ => Err(format!("{text:?} is none of off, auto, client and server")),
    }
}

fn vote_packing(text: &str) -> Result<VoteCompression, String> {
    let table = MIN_TABLE.into()..=MAX_TABLE.into();
    match (text, text.parse()) {
        ("off", _) => Ok(VoteCompression::Off),
        ("stateless", _) => Ok(VoteCompression::Stateless),
        (_, Ok(entries)) if table.contains(&entries) => Ok(VoteCompression::Stateful(entries)),
        _ => Err(format!(
            "{text:?} is neither off nor stateless, nor a number of entries from {MIN_TABLE} to {MAX_TABLE}"
        )),
    }
}

fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number from 1"))
}

fn budget_bytes(text: &str) -> Result<usize, String> {
    let mib = count(text)?.get();
    if (MIN_BUDGET_MIB..=MAX_BUDGET_MIB).contains(&mib) {
        Ok(mib * 1024 * 1024)
    } else {
        Err(format!("{mib} is not between {MIN_BUDGET_MIB} and {MAX_BUDGET_MIB}"))
    }
}

fn drain(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_DRAIN.as_secs());
    let no = || format!("{text:?} is no whole number of seconds from 0 to {}", MAX_DRAIN.as_secs());
    seconds.map(Duration::from_secs).ok_or_else(no)
}

fn one_in(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no whole number"))
}

fn service(text: &str) -> Result<Service, String> {
    match text {
        "status" => Ok(Service::Status),
        "blocks" => Ok(Service::Blocks),
        "files" => Ok(Service::Files),
        "kv" => Ok(Service::Kv),
        "bridge" => Ok(Service::Bridge),
        "perf" => Ok(Service::Perf),
        other => {
            Err(format!("{other:?} is no service: write status, blocks, files, kv, bridge or perf"))
        }
    }
}

/// A peer that may put files here; `None` for anyone.
fn uploader(text: &str) -> Result<Option<Identity>, String> {
    match text {
        "anyone" => Ok(None),
        id => id.parse().map(Some).map_err(|_| format!("{id:?} is neither a peer ID nor anyone")),
    }
}

/// Requests a second; `None` for any number.
fn rate(text: &str) -> Result<Option<NonZeroU32>, String> {
    let rate = text.parse().map(NonZeroU32::new);
    rate.map_err(|_| format!("{text:?} is not a whole number from 0"))
}

fn real_ip_header(text: &str) -> Result<RealIpHeader, String> {
    match text.to_ascii_lowercase().as_str() {
        "x-forwarded-for" => Ok(RealIpHeader::XForwardedFor),
        "forwarded" => Ok(RealIpHeader::Forwarded),
        _ => Err(format!("{text:?} is no such header: write x-forwarded-for or forwarded")),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is no form of the log: write text or json")),
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    log::parse_filter(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}
