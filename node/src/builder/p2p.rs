//! The libp2p side of a node: its settings in the builder, and the network that is made from them.

#[cfg(feature = "private-network")]
use std::path::PathBuf;

use gossip::{NetworkProfile, NodeAddress};
#[cfg(feature = "dht")]
use net_p2p::DhtConfig;
#[cfg(feature = "reachability")]
use net_p2p::ReachConfig;
#[cfg(feature = "websocket")]
use net_p2p::WebConfig;
use net_p2p::{
    AcceptLimits, Acceptor, GossipStreams, Mdns, Multiaddr, OwnProtocol, OwnTopic, P2pConfig,
    Security,
};

use super::{NodeBuilder, networks::Lent};
#[cfg(feature = "webrtc")]
use crate::data_dir::DataDir;
use crate::error::StartError;
#[cfg(any(feature = "private-network", feature = "webrtc"))]
use crate::keys;
#[cfg(any(feature = "websocket", feature = "private-network"))]
use crate::mode::Mode;

/// Interval at which the files of certificates are read again. Source: `WsConfig::tls_reread`.
#[cfg(feature = "websocket")]
const REREAD: std::time::Duration = std::time::Duration::from_secs(10);

/// The file of the certificate for WebRTC, in the data directory.
#[cfg(feature = "webrtc")]
const WEBRTC_CERTIFICATE: &str = "webrtc.pem";

/// The settings of the libp2p side.
#[derive(Debug)]
pub(super) struct P2pSide {
    /// Where to listen.
    pub(super) listen: Vec<String>,
    /// The addresses that others are told in place of it.
    announce: Vec<String>,
    security: Vec<Security>,
    mdns: Mdns,
    gossip: GossipStreams,
    /// The application's own, whose streams are accepted.
    pub(super) protocols: Vec<OwnProtocol>,
    /// The application's own topics.
    topics: Vec<OwnTopic>,
    #[cfg(feature = "dht")]
    dht: DhtConfig,
    #[cfg(feature = "reachability")]
    reach: ReachConfig,
    #[cfg(feature = "webrtc")]
    webrtc_version: net_p2p::WebRtcVersion,
    /// `true` if the WebSocket port serves libp2p too.
    #[cfg(all(feature = "ws", feature = "websocket"))]
    shares_port: bool,
    /// The file with the key of a private network.
    #[cfg(feature = "private-network")]
    private_network: Option<PathBuf>,
}

impl Default for P2pSide {
    fn default() -> Self {
        let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        let (mdns, gossip) = (Mdns::default(), GossipStreams::default());
        Self {
            listen,
            announce: Vec::new(),
            security: Vec::new(),
            mdns,
            gossip,
            protocols: Vec::new(),
            topics: Vec::new(),
            #[cfg(feature = "dht")]
            dht: DhtConfig::default(),
            #[cfg(feature = "reachability")]
            reach: ReachConfig::default(),
            #[cfg(feature = "webrtc")]
            webrtc_version: net_p2p::WebRtcVersion::default(),
            #[cfg(all(feature = "ws", feature = "websocket"))]
            shares_port: false,
            #[cfg(feature = "private-network")]
            private_network: None,
        }
    }
}

impl P2pSide {
    /// Makes a side that neither listens nor gossips.
    pub(super) fn outward(&mut self) {
        self.listen = Vec::new();
        self.gossip = GossipStreams::Off;
    }

    /// Checks that streams of every protocol that was given can be accepted.
    pub(super) fn check_protocols(&self, profile: &NetworkProfile) -> Result<(), StartError> {
        Ok(net_p2p::check_protocols(profile, &self.protocols)?)
    }

    /// Checks that every topic that was given can be served.
    pub(super) fn check_topics(&self, profile: &NetworkProfile) -> Result<(), StartError> {
        Ok(net_p2p::check_topics(profile, &self.topics)?)
    }

    /// Checks that no topic was given, for a node that has none.
    #[cfg(feature = "ws")]
    pub(super) fn check_no_topics(&self) -> Result<(), StartError> {
        match self.topics.first() {
            None => Ok(()),
            Some(topic) => Err(StartError::NoTopics { topic: topic.name().to_owned() }),
        }
    }

    /// Checks that no protocol was given, for a node that has no streams.
    #[cfg(feature = "ws")]
    pub(super) fn check_no_protocols(&self) -> Result<(), StartError> {
        match self.protocols.first() {
            None => Ok(()),
            Some(protocol) => Err(StartError::NoStreams { protocol: protocol.name().to_owned() }),
        }
    }

    /// The multiaddrs to listen on.
    pub(super) fn addresses(&self) -> Result<Vec<Multiaddr>, StartError> {
        let address = |text: &String| Ok(net_p2p::parse_listen_address(text)?);
        self.listen.iter().map(address).collect()
    }

    /// Connects the two halves of a hybrid by a queue of WebSockets, if the builder was told so.
    #[cfg(all(feature = "ws", feature = "websocket"))]
    pub(super) fn share_port(
        &self,
        mut ws: net_ws::WsConfig,
        mut p2p: P2pConfig,
    ) -> (net_ws::WsConfig, P2pConfig) {
        if self.shares_port && ws.listen.is_some() {
            let port = net_tcp::hand_over::HandOver::default();
            (ws.hand_over, p2p.web.port) = (Some(port.clone()), Some(port));
        }
        (ws, p2p)
    }

    /// The multiaddrs that others are told.
    pub(super) fn announced(&self) -> Result<Vec<Multiaddr>, StartError> {
        let address = |text: &String| Ok(net_p2p::parse_announced_address(text)?);
        self.announce.iter().map(address).collect()
    }
}

impl NodeBuilder {
    /// Sets the multiaddrs on which libp2p peers connect, each an IP address and a TCP port; `/tcp/0` picks a free port.
    /// Default: `/ip4/127.0.0.1/tcp/0`.
    pub fn listen_p2p(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.p2p.listen = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the multiaddrs that other nodes are told in place of those that the node listens on, without `/p2p/ID`: for a
    /// node behind a proxy or a gateway. Default: none, others are told where it listens.
    pub fn announce(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.p2p.announce = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the security protocols of libp2p over TCP, the preferred one first. Default, and for an empty list: every one of
    /// this build, Noise first.
    pub fn security(mut self, order: impl IntoIterator<Item = Security>) -> Self {
        self.p2p.security = order.into_iter().collect();
        self
    }

    /// Sets the version of WebRTC Direct's handshake that the node dials with. Default: the first, which every implementation
    /// has. Those that dial this node have either.
    #[cfg(feature = "webrtc")]
    pub fn webrtc_version(mut self, version: net_p2p::WebRtcVersion) -> Self {
        self.p2p.webrtc_version = version;
        self
    }

    /// Sets whether the node looks for libp2p peers in the local network by multicast DNS. Default: [`Mdns::Off`].
    pub fn mdns(mut self, mdns: Mdns) -> Self {
        self.p2p.mdns = mdns;
        self
    }

    /// Serves libp2p over WebSocket on the WebSocket port of a hybrid too: requests of `/` for an upgrade to WebSocket are
    /// taken for libp2p, and everything else is as without. Default: it serves gossip and HTTP alone.
    #[cfg(all(feature = "ws", feature = "websocket"))]
    pub fn share_port(mut self) -> Self {
        self.p2p.shares_port = true;
        self
    }

    /// Sets the file with the key of a private network, in the format of go-libp2p's `swarm.key`: libp2p connections to and
    /// from nodes without the key fail. Default: none, the node is in no private network. The start fails if others than
    /// its owner can read the file, and in a mode with a WebSocket side, which the key does not protect.
    #[cfg(feature = "private-network")]
    pub fn private_network(mut self, file: impl Into<PathBuf>) -> Self {
        self.p2p.private_network = Some(file.into());
        self
    }

    /// Checks that the node can listen on its addresses with the certificates that it has.
    #[cfg(feature = "websocket")]
    pub(super) fn check_listeners(&self) -> Result<(), StartError> {
        let addresses = self.p2p.addresses()?;
        match addresses.iter().find(|address| net_p2p::needs_certificate(address)) {
            Some(address) if !self.tls.has_own() => {
                Err(StartError::NoCertificate { address: address.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Checks that everything the node does is inside of its private network.
    #[cfg(feature = "private-network")]
    pub(super) fn check_private_network(&self) -> Result<(), StartError> {
        let Some(file) = &self.p2p.private_network else { return Ok(()) };
        if self.mode != Mode::Libp2p {
            return Err(StartError::PrivateNetworkMode { mode: self.mode.name() });
        }
        let listened = self.p2p.listen.iter().cloned();
        let mut addresses = listened.chain(self.peers.iter().map(ToString::to_string));
        if let Some(address) = addresses.find(|address| !net_p2p::is_private(address)) {
            return Err(StartError::PrivateNetworkAddress { address });
        }
        keys::load_network_key(file).map(drop)?;
        Ok(())
    }

    /// Sets the part that the node takes in the distributed hash table of libp2p: it finds relays and archives there,
    /// and announces what it offers. Default: none.
    #[cfg(feature = "dht")]
    pub fn dht(mut self, dht: DhtConfig) -> Self {
        self.p2p.dht = dht;
        self
    }

    /// Sets the part that the node takes in making nodes reachable that others cannot dial: it may relay circuits for
    /// them. Default: none. Circuits to others are dialled all the same, and [`NodeBuilder::listen_p2p`] takes the address
    /// of a relay with `/p2p-circuit` at its end.
    #[cfg(feature = "reachability")]
    pub fn reachability(mut self, reach: ReachConfig) -> Self {
        self.p2p.reach = reach;
        self
    }

    /// Accepts streams of a protocol of the application's own, over libp2p, within the default
    /// [`AcceptLimits`]. Its name begins with a slash and usually ends with a version: `/my-chain/sync/1`.
    /// [`Running::streams`](crate::Running::streams) opens such streams.
    pub fn accept(self, protocol: impl Into<String>, acceptor: impl Acceptor) -> Self {
        self.accept_with(protocol, AcceptLimits::default(), acceptor)
    }

    /// Accepts streams as [`NodeBuilder::accept`] does, within other limits.
    pub fn accept_with(
        mut self,
        protocol: impl Into<String>,
        limits: AcceptLimits,
        acceptor: impl Acceptor,
    ) -> Self {
        self.p2p.protocols.push(OwnProtocol::new(protocol, limits, acceptor));
        self
    }

    /// Adds a topic of the application's own, which the node subscribes to: its handler gets the messages that others publish
    /// there, and [`GossipNode::publish`](gossip::GossipNode::publish) publishes on it. A topic goes over libp2p only: in the
    /// mode [`Mode::Hybrid`](crate::Mode::Hybrid) WebSocket peers do not get its messages, and the start fails in a mode without libp2p. All nodes of
    /// a topic need the same rules of signatures and IDs.
    pub fn topic(mut self, topic: OwnTopic) -> Self {
        self.p2p.topics.push(topic);
        self
    }

    /// The certificate for WebRTC, of a node that listens on it and keeps files. Others have a new one at each start.
    #[cfg(feature = "webrtc")]
    pub(super) fn webrtc_certificate(
        &self,
        dir: Option<&DataDir>,
    ) -> Result<Option<net_p2p::WebRtcCertificate>, StartError> {
        let listens = self.p2p.listen.iter().any(|address| address.contains("/webrtc-direct"));
        let Some(dir) = dir.filter(|_| listens) else { return Ok(None) };
        let certificate = keys::load_or_create_certificate(&dir.path().join(WEBRTC_CERTIFICATE))?;
        Ok(Some(certificate))
    }

    /// The configuration of the libp2p network.
    pub(super) fn p2p_config(&self, lent: &Lent) -> Result<P2pConfig, StartError> {
        let multiaddr = |address: &&NodeAddress| matches!(address, NodeAddress::Multiaddr(_));
        let mut config = P2pConfig::new(self.network.clone(), lent.key.clone());
        config.listen = self.p2p.addresses()?;
        config.announce = self.p2p.announced()?;
        #[cfg(feature = "discovery")]
        {
            config.resolver = self.found.resolver(self.profile, &self.environment);
        }
        config.peers = self.peers.iter().filter(multiaddr).cloned().collect();
        if !self.p2p.security.is_empty() {
            config.security.clone_from(&self.p2p.security);
        }
        config.mdns = self.p2p.mdns;
        config.door = lent.door.clone();
        config.gossip = self.p2p.gossip;
        config.http_server = lent.http_server.clone();
        config.clients = Some(lent.clients.clone());
        config.protocols = self.p2p.protocols.clone();
        config.topics.clone_from(&self.p2p.topics);
        #[cfg(feature = "dht")]
        {
            config.dht = self.p2p.dht.clone();
        }
        #[cfg(feature = "reachability")]
        {
            config.reach = self.p2p.reach.clone();
        }
        #[cfg(feature = "websocket")]
        {
            let super::tls::Certificates { own, client, roots } = lent.certificates.clone();
            config.web = WebConfig::default().with_roots(roots, client);
            config.web.identity = own;
            config.web.page_origins = self.page_origins.clone();
            // In other modes the WebSocket side reads the files again.
            config.web.reread = (self.mode == Mode::Libp2p).then_some(REREAD);
        }
        #[cfg(feature = "webrtc")]
        {
            config.webrtc_certificate.clone_from(&lent.webrtc_certificate);
            config.webrtc_version = self.p2p.webrtc_version;
        }
        #[cfg(feature = "private-network")]
        {
            let key = self.p2p.private_network.as_ref().map(|file| keys::load_network_key(file));
            config.private_network = key.transpose()?;
        }
        Ok(config)
    }
}
