//! What every task of the network shares.
//!
//! # Invariants
//!
//! * Locks here are held for a few lines and never while anything is called that can call back.

use std::{hash::BuildHasher, sync::Arc, time::Duration};

use broadcaster::{Broadcaster, Relaying};
use bytes::Bytes;
use gossip::{
    IdentityRule, NetworkId, NetworkProfile, Tag,
    wire::{
        features::Features,
        hello::{self, Hello},
        identity::Keypair,
        interest,
    },
};
use mesh::Door;
use net_http::HttpServer;
use rand::Rng;
use runtime::{Environment, KeyedHasher};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::{GossipService, Libp2pIdentity, StartError, WsConfig},
    metrics::WsMetrics,
    tls::TlsIdentity,
};

/// What every task of the network shares.
pub(crate) struct Context {
    pub(crate) profile: &'static NetworkProfile,
    pub(crate) network: NetworkId,
    pub(crate) broadcaster: Broadcaster,
    pub(crate) exchange: Exchange,
    /// What this node says of itself on every connection, without a message of the identity exchange.
    pub(crate) hello: Hello,
    pub(crate) user_agent: String,
    pub(crate) gossip_service: GossipService,
    pub(crate) http_server: HttpServer,
    pub(crate) metrics: WsMetrics,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) dial_timeout: Duration,
    /// Lets connections in, over all networks of the node together.
    pub(crate) door: Door,
    /// Tells two runs of a dialer apart; the same for all links of this network.
    sessions: KeyedHasher,
}

/// Whether and how this node takes part in the identity exchange.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// It does not.
    Off,
    /// It challenges whom it dials, and answers challenges.
    On {
        /// Signs this node's side.
        key: Arc<Keypair>,
        /// Whose challenges it answers.
        answers: Answers,
    },
}

/// Which challenges are answered.
#[derive(Debug)]
pub(crate) enum Answers {
    /// All: the node may be known under names that it does not know itself.
    Every,
    /// Those to one of these names, lower-case.
    Naming(Vec<String>),
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Context {
    /// Checks the texts of `config` and puts together what is shared. `own_url` is where this node
    /// listens.
    pub(crate) fn new(
        config: WsConfig,
        broadcaster: Broadcaster,
        own_url: Option<String>,
    ) -> Result<Self, StartError> {
        let profile = broadcaster.profile();
        let environment = broadcaster.environment().clone();
        let mut random = environment.random();
        let exchange = Exchange::new(profile, &config, &mut random);
        let node_random = config.node_random.unwrap_or_else(|| random.random());
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
            features: Features::ours().to_header(),
            version: profile.version.to_owned(),
            identity_challenge: None,
        };
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
            tls: config.tls.as_ref().map(TlsIdentity::acceptor),
            dial_timeout: config.dial_timeout,
            door: config.door,
            sessions: environment.hasher(),
        })
    }

    /// Where clock, random numbers, names and sockets come from.
    pub(crate) fn environment(&self) -> &Environment {
        self.broadcaster.environment()
    }

    /// The random text by which this process knows itself again.
    pub(crate) fn node_random(&self) -> &str {
        self.hello.node_random.as_deref().unwrap_or_default()
    }

    /// Names the run of a dialer by the random text it made at its start.
    pub(crate) fn session(&self, node_random: &str) -> u64 {
        self.sessions.hash_one(node_random)
    }

    /// The message of interest that a relay sends first on every connection. Source: wire facts 3.3.
    pub(crate) fn interest(&self) -> Option<(Tag, Bytes)> {
        if self.broadcaster.relaying() == Relaying::Off {
            return None;
        }
        let table = &self.profile.tags;
        Some((Tag::MI, interest::encode(table.relay_interest(), table)))
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
