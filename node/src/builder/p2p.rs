//! The libp2p side of a node: its settings in the builder, and the network that is made from them.

use gossip::{NetworkProfile, NodeAddress};
#[cfg(feature = "dht")]
use net_p2p::DhtConfig;
use net_p2p::{AcceptLimits, Acceptor, GossipStreams, Mdns, Multiaddr, OwnProtocol, P2pConfig};

use super::{NodeBuilder, networks::Lent};
use crate::error::StartError;

/// The settings of the libp2p side.
#[derive(Debug)]
pub(super) struct P2pSide {
    /// Where to listen.
    pub(super) listen: Vec<String>,
    mdns: Mdns,
    gossip: GossipStreams,
    /// The application's own, whose streams are accepted.
    pub(super) protocols: Vec<OwnProtocol>,
    #[cfg(feature = "dht")]
    dht: DhtConfig,
}

impl Default for P2pSide {
    fn default() -> Self {
        let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        let (mdns, gossip) = (Mdns::default(), GossipStreams::default());
        Self {
            listen,
            mdns,
            gossip,
            protocols: Vec::new(),
            #[cfg(feature = "dht")]
            dht: DhtConfig::default(),
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
        let address = |text: &String| {
            net_p2p::parse_listen_address(text)
                .ok_or_else(|| StartError::ListenAddress { address: text.clone() })
        };
        self.listen.iter().map(address).collect()
    }
}

impl NodeBuilder {
    /// Sets the multiaddrs on which libp2p peers connect, each an IP address and a TCP port; `/tcp/0` picks a free port.
    /// Default: `/ip4/127.0.0.1/tcp/0`.
    pub fn listen_p2p(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.p2p.listen = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether the node looks for libp2p peers in the local network by multicast DNS. Default: [`Mdns::Off`].
    pub fn mdns(mut self, mdns: Mdns) -> Self {
        self.p2p.mdns = mdns;
        self
    }

    /// Sets the part that the node takes in the distributed hash table of libp2p: it finds relays and archives there,
    /// and announces what it offers. Default: none.
    #[cfg(feature = "dht")]
    pub fn dht(mut self, dht: DhtConfig) -> Self {
        self.p2p.dht = dht;
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

    /// The configuration of the libp2p network.
    pub(super) fn p2p_config(&self, lent: &Lent) -> Result<P2pConfig, StartError> {
        let multiaddr = |address: &&NodeAddress| matches!(address, NodeAddress::Multiaddr(_));
        let mut config = P2pConfig::new(self.network.clone(), lent.key.clone());
        config.listen = self.p2p.addresses()?;
        config.peers = self.peers.iter().filter(multiaddr).cloned().collect();
        config.mdns = self.p2p.mdns;
        config.door = lent.door.clone();
        config.gossip = self.p2p.gossip;
        config.http_server = lent.http_server.clone();
        config.clients = Some(lent.clients.clone());
        config.protocols = self.p2p.protocols.clone();
        #[cfg(feature = "dht")]
        {
            config.dht = self.p2p.dht.clone();
        }
        Ok(config)
    }
}
