//! State shared by every task of the network.
//!
//! # Invariants
//!
//! * A lock is held for a few lines, and never across a call that can call back.

use std::{sync::Arc, time::Duration};

use broadcaster::Broadcaster;
use gossip::{
    HelloPlace, IdentityRule, NetworkId, NetworkProfile, Transport,
    wire::{
        hello::{self, Hello},
        identity::Keypair,
    },
};
use mesh::Door;
use net_http::HttpServer;
use net_tcp::{hand_over::HandOver, origins::PageOrigins};
use rand::Rng;
use runtime::Environment;

use crate::{
    config::{GossipService, Libp2pIdentity, StartError, WsConfig},
    metrics::WsMetrics,
    priority::Priority,
    proxy::ProxyRules,
    tls::{TlsIdentity, Trust},
};

/// State shared by every task of the network.
pub(crate) struct Context {
    pub(crate) profile: &'static NetworkProfile,
    pub(crate) network: NetworkId,
    pub(crate) broadcaster: Broadcaster,
    pub(crate) exchange: Exchange,
    /// The headers with which this node introduces itself, without the identity exchange.
    pub(crate) hello: Hello,
    pub(crate) user_agent: String,
    pub(crate) gossip_service: GossipService,
    pub(crate) http_server: HttpServer,
    pub(crate) metrics: WsMetrics,
    /// The certificate for inbound TLS connections.
    pub(crate) tls: Option<TlsIdentity>,
    /// Verifies the servers that this node dials or calls over TLS.
    pub(crate) trust: Arc<Trust>,
    pub(crate) dial_timeout: Duration,
    /// Admits or refuses inbound connections, for all networks of the node together.
    pub(crate) door: Door,
    /// Ranks those that dialled this node; `None` if it does not.
    pub(crate) priority: Option<Arc<Priority>>,
    pub(crate) proxies: ProxyRules,
    /// The origins whose pages are let in.
    pub(crate) page_origins: PageOrigins,
    /// Takes the WebSockets that are no gossip.
    pub(crate) hand_over: Option<HandOver>,
}

/// This node's part in the identity exchange.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// None: it neither challenges nor answers.
    Off,
    /// It challenges the peers it dials, and answers challenges.
    On {
        /// Signs this node's side.
        key: Arc<Keypair>,
        /// The challenges that it answers.
        answers: Answers,
    },
}

/// The challenges that this node answers.
#[derive(Debug)]
pub(crate) enum Answers {
    /// All of them, because the node may be known under names that it does not know itself.
    Every,
    /// Those addressed to one of these lower-case names.
    Naming(Vec<String>),
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Context {
    /// Checks the texts of `config`. `own_url` is the address this node listens on, if it listens.
    pub(crate) fn new(
        config: WsConfig,
        broadcaster: Broadcaster,
        own_url: Option<String>,
    ) -> Result<Self, StartError> {
        let profile = broadcaster.profile();
        if profile.hello == HelloPlace::Headers && !config.page_origins.is_empty() {
            return Err(StartError::NoPages { profile: profile.name });
        }
        let environment = broadcaster.environment().clone();
        let mut random = environment.random();
        let exchange = Exchange::new(profile, &config, &mut random);
        let node_random = config.node_random.unwrap_or_else(|| broadcaster.node_random());
        let node_random = hello::node_random(node_random);
        let location = config.public_address.or(own_url);
        for (setting, text) in [
            ("instance name", &config.instance),
            ("telemetry id", &config.telemetry_id),
            ("user agent", &config.user_agent),
            ("public address", location.as_ref().unwrap_or(&String::new())),
        ] {
            if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                return Err(StartError::BadText { setting, text: text.clone() });
            }
        }
        let hello = Hello {
            telemetry_id: config.telemetry_id,
            instance: config.instance,
            location,
            node_random: Some(node_random),
            genesis: config.network.as_str().to_owned(),
            features: broadcaster.features().to_header(),
            version: profile.version.to_owned(),
            identity_challenge: None,
            priority_challenge: None,
        };
        let own = config.identity.as_ref().map(|key| key.identity());
        broadcaster.mesh().guard(&config.door, own);
        Ok(Self {
            profile,
            network: config.network,
            broadcaster,
            exchange,
            hello,
            user_agent: config.user_agent,
            gossip_service: config.gossip_service,
            metrics: WsMetrics::default(),
            http_server: config.http_server.unwrap_or_else(HttpServer::without_service),
            tls: config.tls,
            trust: Arc::new(Trust::new(config.tls_roots, config.tls_client)),
            dial_timeout: config.dial_timeout,
            door: config.door.over(Transport::WebSocket),
            priority: config.priority.map(Priority::new).map(Arc::new),
            proxies: config.proxies,
            page_origins: config.page_origins,
            hand_over: config.hand_over,
        })
    }

    /// The certificates of this node: that of its listener, and that for servers which ask for one.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &TlsIdentity> {
        self.tls.iter().chain(self.trust.client())
    }

    /// Clock, random numbers, tasks and sockets of the node.
    pub(crate) fn environment(&self) -> &Environment {
        self.broadcaster.environment()
    }

    /// The random text by which this node recognizes itself when it dials its own address.
    pub(crate) fn node_random(&self) -> &str {
        self.hello.node_random.as_deref().unwrap_or_default()
    }

    /// Returns the number of a dialer's run, derived from the random text that the dialer drew at its start.
    pub(crate) fn session(&self, node_random: &str) -> u64 {
        self.broadcaster.run_of(node_random)
    }
}

impl Exchange {
    fn new(profile: &NetworkProfile, config: &WsConfig, random: &mut impl Rng) -> Self {
        let key = config.identity.clone();
        let own_peer_id = match config.libp2p_identity {
            Libp2pIdentity::Shared => key.as_ref().map(|key| key.identity().to_string()),
            Libp2pIdentity::Separate => None,
        };
        let public_address = config.public_address.as_ref().map(|name| name.to_lowercase());
        let names: Vec<String> = public_address.into_iter().chain(own_peer_id).collect();
        let answers = match profile.identity {
            IdentityRule::Always => Answers::Every,
            IdentityRule::WhenNamed if names.is_empty() => return Self::Off,
            IdentityRule::WhenNamed => Answers::Naming(names),
        };
        let key = key.unwrap_or_else(|| Arc::new(Keypair::from_seed(random.random())));
        Self::On { key, answers }
    }
}
