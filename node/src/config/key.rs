//! Every setting there is: its name, what may stand for it, its default, and what it does.
//!
//! # Invariants
//!
//! * A key is the same word everywhere: `listen_ws` in a file, `--listen-ws`, `TANDEM_LISTEN_WS`.
//!   Only a list has a flag in the singular, which is given once per item.

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use crate::cli::Offered;

use self::{
    Default::{Is, Nothing, UserDataDir},
    Kind::{List, Number, Switch, Text},
};

/// The log filter unless another one is asked for. Chosen: GossipSub logs each message that a full
/// queue makes it drop, body and all, which costs more than the message; Tandem counts them. Kademlia warns of an empty
/// routing table at every start.
const DEFAULT_LOG: &str = "warn,libp2p_gossipsub=error,libp2p_kad=error";

/// The kind of a value in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// An array of strings; a comma separates them in the environment.
    List,
    /// A whole number.
    Number,
    /// `true`, `false`, `"on"` or `"off"`.
    Switch,
}

/// The value of a setting that nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// This text.
    Is(&'static str),
    /// Nothing: the setting is off, or the list is empty.
    Nothing,
    /// The data directory of the user's account.
    UserDataDir,
}

impl Default {
    /// The value as a user would write it.
    pub(crate) const fn text(self) -> Option<&'static str> {
        match self {
            Self::Is(text) => Some(text),
            Self::UserDataDir => Some("~/.local/share/tandem"),
            Self::Nothing => None,
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Profile,
    Network,
    Mode,
    ListenWs,
    ListenP2p,
    Announce,
    SharePort,
    PrivateNetwork,
    Security,
    Topics,
    TagTopics,
    Peers,
    Bootstrap,
    DnsServers,
    Dnssec,
    PeerStore,
    PublicAddress,
    Metrics,
    Otlp,
    TraceOneIn,
    DrainSeconds,
    AdminListen,
    DataDir,
    IdentityFile,
    Relay,
    Interest,
    LearntHosts,
    Mdns,
    Dht,
    DhtProvides,
    Reachability,
    RelayLimits,
    DhtValues,
    Admit,
    VotePacking,
    MaxInbound,
    MaxInboundPerIp,
    PageOrigins,
    MaxInboundPerOrigin,
    BudgetMib,
    Services,
    Uploads,
    PassOnBlocks,
    HttpRate,
    TrustedProxies,
    ProxyProtocol,
    RealIpHeader,
    TlsCert,
    TlsSecret,
    TlsClientCa,
    TlsCa,
    TlsClientCert,
    TlsClientSecret,
    Log,
    LogFormat,
}

/// The fields of a [`Spec`] before its help, in their order.
type Row = (&'static str, &'static str, Kind, Default, &'static str);

/// The description of a setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// Its name in a file.
    pub(crate) name: &'static str,
    /// Its flag, without the dashes.
    pub(crate) flag: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Default,
    /// The name of its value in the help.
    placeholder: &'static str,
    pub(crate) help: &'static str,
}

impl Spec {
    const fn new((name, flag, kind, default, placeholder): Row, help: &'static str) -> Self {
        Self { name, flag, kind, default, placeholder, help }
    }
}

const PROFILE: Spec = Spec::new(
    ("profile", "profile", Text, Is("tandem"), "PROFILE"),
    "Protocol names and numbers to use: tandem or algorand",
);

const NETWORK: Spec = Spec::new(
    ("network", "network", Text, Is("tandem"), "NAME"),
    "Name of the network, for the profile algorand its genesis ID; nodes of other networks are refused",
);

const MODE: Spec =
    Spec::new(("mode", "mode", Text, Is("hybrid"), "MODE"), "Transports to use: hybrid, ws or p2p");

const LISTEN_WS: Spec = Spec::new(
    ("listen_ws", "listen-ws", Text, Is("127.0.0.1:4160"), "HOST:PORT"),
    "Where WebSocket peers connect to; port 0 picks a free one; if a name has several addresses, all of them must be free",
);

const LISTEN_P2P: Spec = Spec::new(
    ("listen_p2p", "listen-p2p", List, Is("/ip4/127.0.0.1/tcp/4190"), "MULTIADDR"),
    "Where libp2p peers connect to, over IPv4 and IPv6, each address with a transport that the build has; /tcp/0 picks a free port",
);

const ANNOUNCE: Spec = Spec::new(
    ("announce", "announce", List, Nothing, "MULTIADDR"),
    "Address that other libp2p nodes are told in place of those of listen_p2p, without /p2p/ID: for a node behind a proxy or a gateway",
);

const SHARE_PORT: Spec = Spec::new(
    ("share_port", "share-port", Switch, Is("off"), "SWITCH"),
    "Serve libp2p over WebSocket (/ws, with a certificate /tls/ws too) on the WebSocket port as well, in the mode hybrid: on or off",
);

const PRIVATE_NETWORK: Spec = Spec::new(
    ("private_network", "private-network", Text, Nothing, "FILE"),
    "File with the key that all nodes of a private libp2p network share (swarm.key of go-libp2p, mode 0600); needs the mode p2p",
);

const SECURITY: Spec = Spec::new(
    ("security", "security", List, Nothing, "PROTOCOL"),
    "Security protocols of libp2p over TCP, the preferred one first: noise, and tls in a program with the feature tls or quic; by default all that this program has",
);

const TOPICS: Spec = Spec::new(
    ("topics", "topic", List, Nothing, "NAME"),
    "A libp2p topic of one's own to subscribe to, with signed messages; NAME=author for messages without a signature, NAME=none for those that name no author either",
);

const TAG_TOPICS: Spec = Spec::new(
    ("tag_topics", "tag-topic", List, Nothing, "TAG"),
    "A tag, such as AV, PP or VB, to carry on a topic between libp2p peers in place of their streams; all nodes of a network have to agree",
);

const PEERS: Spec = Spec::new(
    ("peers", "peer", List, Nothing, "ADDRESS"),
    "A node to stay connected to: host:port, a URL, or a multiaddr with /p2p/ID",
);

const BOOTSTRAP: Spec = Spec::new(
    ("bootstrap", "bootstrap", List, Nothing, "NAME"),
    "A name under which DNS leads to nodes: example.org, /dnsaddr/example.org, or mainnet for a public network of the profile; without one nothing is looked up",
);

const DNS_SERVERS: Spec = Spec::new(
    ("dns_servers", "dns-server", List, Is("system"), "SERVER"),
    "A server to ask for them, in this order: system, or an IP address with or without a port",
);

const DNSSEC: Spec = Spec::new(
    ("dnssec", "dnssec", Switch, Is("off"), "SWITCH"),
    "Believe only answers that DNSSEC proves: on or off",
);

const PEER_STORE: Spec = Spec::new(
    ("peer_store", "peer-store", Switch, Is("on"), "SWITCH"),
    "Keep addresses and bans in the data directory from one run to the next: on or off",
);

const PUBLIC_ADDRESS: Spec = Spec::new(
    ("public_address", "public-address", Text, Nothing, "ADDRESS"),
    "host:port or URL at which others reach this node's WebSocket side",
);

const METRICS: Spec = Spec::new(
    ("metrics", "metrics", Text, Nothing, "HOST:PORT"),
    "Where collectors such as Prometheus read what the node counts, over HTTP at /metrics and without a password",
);

const OTLP: Spec = Spec::new(
    ("otlp", "otlp", Text, Nothing, "URL"),
    "Collector of OpenTelemetry spans, which takes OTLP over HTTP or HTTPS, such as http://127.0.0.1:4318; /v1/traces is added to it",
);

const ADMIN_LISTEN: Spec = Spec::new(
    ("admin_listen", "admin-listen", Text, Nothing, "HOST:PORT"),
    "Where programs that name the token in the data directory reach the admin API, over HTTP",
);

const DATA_DIR: Spec = Spec::new(
    ("data_dir", "data-dir", Text, UserDataDir, "DIR"),
    "Directory of the key, the lock, the admin socket and the peer store",
);

const IDENTITY_FILE: Spec = Spec::new(
    ("key_file", "key-file", Text, Nothing, "FILE"),
    "File of the node's key, if it is not to be in the data directory",
);

const RELAY: Spec = Spec::new(
    ("relay", "relay", Switch, Is("on"), "SWITCH"),
    "Pass on what others send: on or off",
);

const INTEREST: Spec = Spec::new(
    ("interest", "interest", List, Is("usual"), "TAG"),
    "A tag whose messages the peers of a node that does not relay are to send: usual for those that they send unasked (all but SP), listeners for those that `tandem listen` asks for at the time; a relay asks for everything",
);

const LEARNT_HOSTS: Spec = Spec::new(
    ("learnt_hosts", "learnt-hosts", Text, Is("any"), "WHICH"),
    "Hosts to dial at addresses that nobody named: any, or public, which leaves out private and local ones",
);

const MDNS: Spec = Spec::new(
    ("mdns", "mdns", Switch, Is("off"), "SWITCH"),
    "Look for libp2p peers in the local network: on or off",
);

const DHT: Spec = Spec::new(
    ("dht", "dht", Text, Is("off"), "PART"),
    "Part in the DHT, by which libp2p nodes find each other: off, client, server, or auto, a server if it listens",
);

const DHT_PROVIDES: Spec = Spec::new(
    ("dht_provides", "dht-provide", List, Nothing, "NAME"),
    "What a server of the DHT offers to others beside gossip, such as archival",
);

const REACHABILITY: Spec = Spec::new(
    ("reachability", "reachability", List, Nothing, "PART"),
    "A part in making libp2p nodes reachable that others cannot dial: relay carries bytes for them, within limits; autonat has peers try the addresses of this node; auto-relay finds relays for it; hole-punching connects directly after a circuit; port-mapping asks the router for ports, by NAT-PMP or UPnP",
);

const RELAY_LIMITS: Spec = Spec::new(
    ("relay_limits", "relay-limit", List, Nothing, "NAME=NUMBER"),
    "A limit of a relay of circuits: places, places-per-subnet, place-seconds, circuits, circuits-per-peer, circuits-per-subnet, circuit-bytes or circuit-seconds",
);

const DHT_VALUES: Spec = Spec::new(
    ("dht_values", "dht-values", Switch, Is("off"), "SWITCH"),
    "Put, get and store values in the DHT: on or off; never in the profile algorand",
);

const ADMIT: Spec = Spec::new(
    ("admit", "admit", Text, Is("everybody"), "WHO"),
    "Peers to let in and to dial: everybody, or only the members that an application names and the configured peers: members",
);

const VOTE_PACKING: Spec = Spec::new(
    ("vote_packing", "vote-packing", Text, Nothing, "FORM"),
    "Form of votes on links to peers that read it: off, stateless (each vote by itself), or the largest table for packing votes against earlier ones, 16 to 2048 entries [default: 2048 in the profile algorand, off in tandem]",
);

const MAX_INBOUND: Spec = Spec::new(
    ("max_inbound", "max-inbound", Number, Is("2400"), "COUNT"),
    "Most peers that may be connected to this node at one time, over both transports together; lowered to fit the limit on open files",
);

const MAX_INBOUND_PER_IP: Spec = Spec::new(
    ("max_inbound_per_ip", "max-inbound-per-ip", Number, Is("8"), "COUNT"),
    "Most of them from one IP address, over both transports together",
);

const PAGE_ORIGINS: Spec = Spec::new(
    ("page_origins", "page-origin", List, Nothing, "ORIGIN"),
    "A web origin, such as https://app.example, whose pages may gossip with this node over WebSocket and call its HTTP services; * for those of every site; not in the profile algorand",
);

const MAX_INBOUND_PER_ORIGIN: Spec = Spec::new(
    ("max_inbound_per_origin", "max-inbound-per-origin", Number, Is("600"), "COUNT"),
    "Most peers that may be pages of one web origin; the bound on one IP address holds too",
);

const TRACE_ONE_IN: Spec = Spec::new(
    ("trace_one_in", "trace-one-in", Number, Is("1000"), "COUNT"),
    "Keep the way of one message in so many, for tandem trace, the same ones on every node with the same number; 0 for none",
);

const DRAIN_S: Spec = Spec::new(
    ("drain_s", "drain-s", Number, Is("0"), "SECONDS"),
    "Seconds from SIGTERM to the stop, in which the node takes no further peers and /health says so; a second signal ends them",
);

const BUDGET_MIB: Spec = Spec::new(
    ("budget_mib", "budget-mib", Number, Is("192"), "MIB"),
    "Memory for waiting and unfinished messages, in MiB; `tandem config` prints the bounds in addition to it",
);

const SERVICES: Spec = Spec::new(
    ("services", "service", List, Is("status"), "NAME"),
    "A service to offer: status, blocks, files and kv over HTTP; bridge, which passes GET requests for /p2p/ID/PATH on to the libp2p peer of that ID; perf, measurements over libp2p",
);

const UPLOADS: Spec = Spec::new(
    ("uploads", "uploads-from", List, Nothing, "WHO"),
    "A peer that may put files here, by its ID, or anyone; nobody if left out",
);

const PASS_ON_BLOCKS: Spec = Spec::new(
    ("pass_on_blocks", "pass-on-blocks", Switch, Is("on"), "SWITCH"),
    "Ask other peers for blocks that somebody wants and this node does not have: on or off; a request goes through one relay, in the profile tandem through two",
);

const HTTP_RATE: Spec = Spec::new(
    ("http_rate", "http-rate", Number, Is("1000"), "COUNT"),
    "HTTP requests a second that one peer may make; 0 for any number",
);

const TRUSTED_PROXIES: Spec = Spec::new(
    ("trusted_proxies", "trusted-proxy", List, Nothing, "RANGE"),
    "A proxy in front of the WebSocket port, which is believed about its clients: an address, or a range such as 10.0.0.0/8",
);

const PROXY_PROTOCOL: Spec = Spec::new(
    ("proxy_protocol", "proxy-protocol", Switch, Is("off"), "SWITCH"),
    "Connections of trusted proxies begin with the PROXY protocol, version 1 or 2: on or off",
);

const REAL_IP_HEADER: Spec = Spec::new(
    ("real_ip_header", "real-ip-header", Text, Is("x-forwarded-for"), "HEADER"),
    "Header in which trusted proxies tell the client of a request: x-forwarded-for or forwarded",
);

const TLS_CERT: Spec = Spec::new(
    ("tls_cert", "tls-cert", Text, Nothing, "FILE"),
    "File with the certificates for TLS on the WebSocket port and on /tls/ws addresses of listen_p2p, in PEM; all TLS files are read again when they change",
);

const TLS_SECRET: Spec =
    Spec::new(("tls_key", "tls-key", Text, Nothing, "FILE"), "File with the key to them, in PEM");

const TLS_CLIENT_CA: Spec = Spec::new(
    ("tls_client_ca", "tls-client-ca", Text, Nothing, "FILE"),
    "File with the certificate authorities of which every peer and caller of the WebSocket port needs a certificate, in PEM; needs tls_cert; connections without TLS are then refused, except those of trusted proxies that name their clients in a header",
);

const TLS_CA: Spec = Spec::new(
    ("tls_ca", "tls-ca", Text, Nothing, "FILE"),
    "File with certificate authorities to trust besides those of the system, in PEM, for peers over wss and https",
);

const TLS_CLIENT_CERT: Spec = Spec::new(
    ("tls_client_cert", "tls-client-cert", Text, Nothing, "FILE"),
    "File with the certificates to present to peers that ask for one, in PEM",
);

const TLS_CLIENT_SECRET: Spec = Spec::new(
    ("tls_client_key", "tls-client-key", Text, Nothing, "FILE"),
    "File with the key to them, in PEM",
);

const LOG: Spec = Spec::new(
    ("log", "log", Text, Is(DEFAULT_LOG), "FILTER"),
    "What to log on stderr, such as info or tandem_net_ws=debug,warn",
);

const LOG_FORMAT: Spec = Spec::new(
    ("log_format", "log-format", Text, Is("text"), "FORMAT"),
    "How the log is written: text, or json with one object a line",
);

impl Key {
    /// Every key, in the order of the help and of `tandem config`.
    pub(crate) const ALL: [Self; 55] = [
        Self::Profile,
        Self::Network,
        Self::Mode,
        Self::ListenWs,
        Self::ListenP2p,
        Self::Announce,
        Self::SharePort,
        Self::PrivateNetwork,
        Self::Security,
        Self::Topics,
        Self::TagTopics,
        Self::Peers,
        Self::Bootstrap,
        Self::DnsServers,
        Self::Dnssec,
        Self::PeerStore,
        Self::PublicAddress,
        Self::Metrics,
        Self::Otlp,
        Self::TraceOneIn,
        Self::AdminListen,
        Self::DataDir,
        Self::IdentityFile,
        Self::Relay,
        Self::Interest,
        Self::LearntHosts,
        Self::Mdns,
        Self::Dht,
        Self::DhtProvides,
        Self::Reachability,
        Self::RelayLimits,
        Self::DhtValues,
        Self::Admit,
        Self::VotePacking,
        Self::MaxInbound,
        Self::MaxInboundPerIp,
        Self::PageOrigins,
        Self::MaxInboundPerOrigin,
        Self::DrainSeconds,
        Self::BudgetMib,
        Self::Services,
        Self::Uploads,
        Self::PassOnBlocks,
        Self::HttpRate,
        Self::TrustedProxies,
        Self::ProxyProtocol,
        Self::RealIpHeader,
        Self::TlsCert,
        Self::TlsSecret,
        Self::TlsClientCa,
        Self::TlsCa,
        Self::TlsClientCert,
        Self::TlsClientSecret,
        Self::Log,
        Self::LogFormat,
    ];

    /// The description of this key.
    pub(crate) const fn spec(self) -> Spec {
        match self {
            Self::Profile => PROFILE,
            Self::Network => NETWORK,
            Self::Mode => MODE,
            Self::ListenWs => LISTEN_WS,
            Self::ListenP2p => LISTEN_P2P,
            Self::Announce => ANNOUNCE,
            Self::SharePort => SHARE_PORT,
            Self::PrivateNetwork => PRIVATE_NETWORK,
            Self::Security => SECURITY,
            Self::Topics => TOPICS,
            Self::TagTopics => TAG_TOPICS,
            Self::Peers => PEERS,
            Self::Bootstrap => BOOTSTRAP,
            Self::DnsServers => DNS_SERVERS,
            Self::Dnssec => DNSSEC,
            Self::PeerStore => PEER_STORE,
            Self::PublicAddress => PUBLIC_ADDRESS,
            Self::Metrics => METRICS,
            Self::Otlp => OTLP,
            Self::TraceOneIn => TRACE_ONE_IN,
            Self::AdminListen => ADMIN_LISTEN,
            Self::DataDir => DATA_DIR,
            Self::IdentityFile => IDENTITY_FILE,
            Self::Relay => RELAY,
            Self::Interest => INTEREST,
            Self::LearntHosts => LEARNT_HOSTS,
            Self::Mdns => MDNS,
            Self::Dht => DHT,
            Self::DhtProvides => DHT_PROVIDES,
            Self::Reachability => REACHABILITY,
            Self::RelayLimits => RELAY_LIMITS,
            Self::DhtValues => DHT_VALUES,
            Self::Admit => ADMIT,
            Self::VotePacking => VOTE_PACKING,
            Self::MaxInbound => MAX_INBOUND,
            Self::MaxInboundPerIp => MAX_INBOUND_PER_IP,
            Self::PageOrigins => PAGE_ORIGINS,
            Self::MaxInboundPerOrigin => MAX_INBOUND_PER_ORIGIN,
            Self::DrainSeconds => DRAIN_S,
            Self::BudgetMib => BUDGET_MIB,
            Self::Services => SERVICES,
            Self::Uploads => UPLOADS,
            Self::PassOnBlocks => PASS_ON_BLOCKS,
            Self::HttpRate => HTTP_RATE,
            Self::TrustedProxies => TRUSTED_PROXIES,
            Self::ProxyProtocol => PROXY_PROTOCOL,
            Self::RealIpHeader => REAL_IP_HEADER,
            Self::TlsCert => TLS_CERT,
            Self::TlsSecret => TLS_SECRET,
            Self::TlsClientCa => TLS_CLIENT_CA,
            Self::TlsCa => TLS_CA,
            Self::TlsClientCert => TLS_CLIENT_CERT,
            Self::TlsClientSecret => TLS_CLIENT_SECRET,
            Self::Log => LOG,
            Self::LogFormat => LOG_FORMAT,
        }
    }

    /// The key of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.spec().name == name)
    }

    /// The words that may stand for it, where they are few: for shells to complete.
    pub(super) const fn words(self) -> &'static [&'static str] {
        match self {
            Self::Profile => &["tandem", "algorand"],
            Self::Mode => &["hybrid", "ws", "p2p"],
            Self::Relay
            | Self::Mdns
            | Self::DhtValues
            | Self::PassOnBlocks
            | Self::ProxyProtocol
            | Self::SharePort
            | Self::Dnssec
            | Self::PeerStore => &["on", "off"],
            Self::Admit => &["everybody", "members"],
            Self::Interest => &["usual", "listeners", "AV", "PP", "SP", "TX", "VB"],
            Self::TagTopics => &["AV", "PP", "SP", "VB"],
            Self::LearntHosts => &["any", "public"],
            Self::DnsServers => &["system"],
            Self::Services => &["status", "blocks", "files", "kv", "bridge", "perf"],
            Self::Uploads => &["anyone"],
            Self::Security => &["noise", "tls"],
            Self::Dht => &["off", "auto", "client", "server"],
            Self::DhtProvides => &["archival"],
            Self::Reachability => {
                &["relay", "autonat", "auto-relay", "hole-punching", "port-mapping"]
            }
            Self::VotePacking => &["off", "stateless"],
            Self::RealIpHeader => &["x-forwarded-for", "forwarded"],
            Self::Log => &["error", "warn", "info", "debug", "trace"],
            Self::LogFormat => &["text", "json"],
            _ => &[],
        }
    }

    /// The kind of thing that a shell completes for it otherwise.
    const fn hint(self) -> ValueHint {
        match self {
            Self::DataDir => ValueHint::DirPath,
            Self::IdentityFile
            | Self::PrivateNetwork
            | Self::TlsCert
            | Self::TlsSecret
            | Self::TlsClientCa
            | Self::TlsCa
            | Self::TlsClientCert
            | Self::TlsClientSecret => ValueHint::FilePath,
            _ => ValueHint::Other,
        }
    }

    /// Its environment variable.
    pub(crate) fn variable(self) -> String {
        format!("TANDEM_{}", self.spec().name.to_ascii_uppercase())
    }
}

/// The flags of the settings: one entry for each that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) given: Vec<(Key, Vec<String>)>,
}

impl Flags {
    /// The flag of the data directory alone, as commands have it that speak to a running node.
    pub(crate) fn data_dir(dir: Option<&String>) -> Self {
        Self { given: dir.map(|dir| (Key::DataDir, vec![dir.clone()])).into_iter().collect() }
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Key::ALL.into_iter().filter_map(|key| {
            let values = matches.get_many::<String>(key.spec().name)?;
            Some((key, values.cloned().collect()))
        });
        Ok(Self { given: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.next_help_heading("Settings").args(Key::ALL.map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The flag of a key.
fn argument(key: Key) -> Arg {
    let spec = key.spec();
    let default = spec.default.text().map_or(String::new(), |text| format!(" [default: {text}]"));
    let often = if spec.kind == Kind::List { "; may be given several times" } else { "" };
    let help = format!("{}{often}{default} [env: {}]", spec.help, key.variable());
    let argument = Arg::new(spec.name).long(spec.flag).value_name(spec.placeholder).help(help);
    let argument = match key.words() {
        [] => argument.value_hint(key.hint()),
        words => argument.value_parser(Offered(words)).hide_possible_values(true),
    };
    match spec.kind {
        Kind::List => argument.action(ArgAction::Append),
        Kind::Text | Kind::Number | Kind::Switch => argument.action(ArgAction::Set),
    }
}
