//! The checked configuration of a node.
//!
//! # Invariants
//!
//! * A value is read once, here. What cannot be used is refused with its origin and what would be right.

use std::{collections::BTreeSet, num::NonZeroU32, path::PathBuf, time::Duration};

use gossip::{
    HelloPlace, IpRange, NetworkId, NetworkProfile, NodeAddress, Tag,
    wire::features::VoteCompression,
};
use services::files::Uploads;
use tandem::{
    Admit, Bootstrap, Capability, DhtConfig, DhtMode, DhtValues, DnsServer, Dnssec, InboundLimits,
    LearntHosts, Mode, OwnTopic, PageOrigin, PageOrigins, ProxyProtocol, ProxyRules, ReachConfig,
    ReachPart, Relaying, Security, TlsFiles, WantedTags,
};

use super::{
    check::ConfigError,
    key::{Default, Key},
    layers::Layers,
    origin::{Given, Origin, Value},
    words::{self, Service},
};
use crate::log::LogFormat;

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

impl Settings {
    /// Returns `true` if the node has certificates, which can be read again.
    pub(crate) const fn has_certificates(&self) -> bool {
        self.tls.is_some() || self.tls_client.is_some()
    }

    /// Checks every value.
    pub(crate) fn check(layers: &Layers) -> Result<Self, ConfigError> {
        let read = Reader(layers);
        let mode = read.mode()?;
        let profile = read.required(Key::Profile, words::profile)?;
        let network = read.network()?;
        Ok(Self {
            profile,
            bootstrap: read.bootstrap(profile, &network)?,
            dns_servers: read.list(Key::DnsServers, words::dns_server)?,
            dnssec: read.required(Key::Dnssec, |text| {
                Ok(if words::switch(text)? { Dnssec::Required } else { Dnssec::Off })
            })?,
            peer_store: read.required(Key::PeerStore, words::switch)?,
            network,
            mode,
            listen_ws: read.required(Key::ListenWs, words::host_port)?,
            listen_p2p: read.list(Key::ListenP2p, words::listen_address)?,
            shares_port: read.required(Key::SharePort, words::switch)?,
            private_network: read.optional(Key::PrivateNetwork, |text| layers.path(text))?,
            announce: read.list(Key::Announce, words::announced_address)?,
            peers: read.list(Key::Peers, |text| words::peer(mode, text))?,
            public_address: read.optional(Key::PublicAddress, words::web_socket)?,
            metrics: read.optional(Key::Metrics, words::host_port)?,
            otlp: read.optional(Key::Otlp, words::collector)?,
            admin_listen: read.optional(Key::AdminListen, words::host_port)?,
            data_dir: read.data_dir()?,
            key_file: read.optional(Key::IdentityFile, |text| layers.path(text))?,
            relaying: read.relaying()?,
            security: read.security()?,
            topics: read.topics(profile)?,
            tag_topics: read.tag_topics(profile)?,
            wanted: read.wanted(profile)?,
            learnt_hosts: read.required(Key::LearntHosts, words::learnt_hosts)?,
            mdns: read.required(Key::Mdns, words::switch)?,
            dht: read.dht()?,
            reach: read.reach()?,
            admit: read.required(Key::Admit, words::admit)?,
            vote_packing: read
                .optional(Key::VotePacking, words::vote_packing)?
                .unwrap_or(profile.votes),
            max_inbound: read.required(Key::MaxInbound, words::count)?.get(),
            max_inbound_per_ip: read.required(Key::MaxInboundPerIp, words::count)?.get(),
            page_origins: read.page_origins(profile)?,
            max_inbound_per_origin: read.required(Key::MaxInboundPerOrigin, words::count)?.get(),
            drain: read.required(Key::DrainSeconds, words::drain)?,
            budget_bytes: read.required(Key::BudgetMib, words::budget_bytes)?,
            trace_one_in: read.required(Key::TraceOneIn, words::one_in)?,
            services: read.services()?,
            uploads: read.uploads()?,
            pass_on_blocks: read.required(Key::PassOnBlocks, words::switch)?,
            http_rate: read.required(Key::HttpRate, words::rate)?,
            proxies: read.proxies()?,
            tls: read.tls_files(Key::TlsCert, Key::TlsSecret)?,
            tls_client_ca: read.tls_client_ca()?,
            tls_ca: read.optional(Key::TlsCa, |text| layers.path(text))?,
            tls_client: read.tls_files(Key::TlsClientCert, Key::TlsClientSecret)?,
            log: read.required(Key::Log, words::log_filter)?,
            log_format: read.required(Key::LogFormat, words::log_format)?,
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
        let profile = self.required(Key::Profile, words::profile)?.name;
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
        self.optional(Key::DataDir, |text| words::data_dir(self.0.path(text)?))?
            .ok_or(ConfigError::NoDataDir)
    }

    /// The peers that may put files here.
    fn uploads(&self) -> Result<Uploads, ConfigError> {
        let who = self.list(Key::Uploads, words::uploader)?;
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
            Ok(if words::switch(text)? { Relaying::Accepted } else { Relaying::Off })
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
        let mode = self.required(Key::Dht, words::dht_mode)?;
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
        let values = match self.required(Key::DhtValues, words::switch)? {
            true => DhtValues::On,
            false => DhtValues::Off,
        };
        let is_existing =
            self.required(Key::Profile, words::profile)?.name == NetworkProfile::ALGORAND.name;
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
        for (name, value) in self.list(Key::RelayLimits, words::relay_limit)? {
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
        let protocol = match self.required(Key::ProxyProtocol, words::switch)? {
            true if trusted.is_empty() => {
                return Err(self.lonely(Key::ProxyProtocol, Key::TrustedProxies));
            }
            true => ProxyProtocol::On,
            false => ProxyProtocol::Off,
        };
        let header = self.required(Key::RealIpHeader, words::real_ip_header)?;
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
        let services: BTreeSet<_> = self.list(Key::Services, words::service)?.into_iter().collect();
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
        let topics = self.list(Key::Topics, words::topic)?;
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
        for security in self.list(Key::Security, words::security)? {
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
