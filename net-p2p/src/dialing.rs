//! Dials for the mesh loop and for stream requests, and their results.
//!
//! # Invariants
//!
//! * Every order of the mesh loop gets a result: connected, or failed for a reason. One that is dropped with a swarm
//!   that died gets its result by that.
//! * Dials for stream requests bypass the mesh loop: they do not count against its bounds, and their failure
//!   goes to the callers that wait for the stream.
//! * A dial counts as connected once its gossip link is up, or once the link was refused in favour of one
//!   over another transport. Until then its address counts as being dialled.

#[cfg(feature = "reachability")]
use std::collections::HashSet;
use std::{collections::HashMap, sync::Arc};

use broadcaster::{Dialer, Mesh, Ticket};
use gossip::Identity;
use libp2p::{
    Multiaddr, PeerId, TransportError,
    multiaddr::Protocol,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use mesh::{DialFailure, LearntHosts, Listed, SourceId, SourceKind};

#[cfg(feature = "reachability")]
use crate::reach::{Meet, Reservations};
use crate::{
    address::PeerAddress,
    behaviour::NodeSwarm,
    dial_hosts::DialHosts,
    local_network,
    metrics::{P2pEvent, P2pMetrics},
    streams::OpenError,
    trees::{Looked, TreeError, Trees},
};
#[cfg(feature = "reachability")]
use libp2p::core::Endpoint;

/// The error shown for a configured address that is this node's own.
pub(crate) const OURSELVES: &str = "it is this node";

/// The purpose of a dial in progress.
#[derive(Debug)]
pub(crate) enum Dial {
    /// A gossip link, as the mesh loop ordered.
    Gossip(Ticket),
    /// Streams to the peer of this address.
    Streams(PeerAddress),
    /// A direct connection beside a circuit. Gets `true` if there is one.
    #[cfg(feature = "reachability")]
    Direct(tokio::sync::oneshot::Sender<bool>),
}

/// Something that the swarm task has to dial.
#[derive(Debug)]
pub(crate) enum Work {
    /// An order of the mesh loop.
    Ordered(Ticket),
    /// The addresses below a name.
    LookedUp(Box<Looked<Dial>>),
}

/// The orders of the mesh loop, and the dials in progress.
#[derive(Debug)]
pub(crate) struct Dialing {
    /// `None` if this network does not gossip.
    dialer: Option<Dialer>,
    /// Dials in progress, by the ID of the connection they will make.
    pending: HashMap<ConnectionId, Dial>,
    /// Names to dial that DNS is asked for first.
    trees: Trees<Dial>,
    local: Identity,
    /// The relays that this node asks for places, which are dialled from the port that it listens on: a translating router
    /// then shows them the port that it uses for others too. `None` unless others are met that way.
    #[cfg(feature = "reachability")]
    relays: Option<Reservations>,
    /// The connections that were dialled so.
    #[cfg(feature = "reachability")]
    from_listening_port: HashSet<ConnectionId>,
    /// The hosts to which the next dial may lead.
    hosts: DialHosts,
    metrics: P2pMetrics,
}

impl Dialing {
    /// Takes the orders of `dialer` in a node with the identity `local`.
    pub(crate) fn new(
        dialer: Option<Dialer>,
        trees: Trees<Dial>,
        hosts: DialHosts,
        (local, metrics): (Identity, P2pMetrics),
    ) -> Self {
        Self {
            dialer,
            pending: HashMap::new(),
            trees,
            local,
            #[cfg(feature = "reachability")]
            relays: None,
            #[cfg(feature = "reachability")]
            from_listening_port: HashSet::new(),
            hosts,
            metrics,
        }
    }

    /// Dials relays from the port that the node listens on.
    #[cfg(feature = "reachability")]
    pub(crate) fn show_port_to(&mut self, relays: Reservations) {
        self.relays = Some(relays);
    }

    /// Returns `true` if a connection was dialled from the port that the node listens on.
    #[cfg(feature = "reachability")]
    pub(crate) fn is_from_listening_port(&self, connection: ConnectionId) -> bool {
        self.from_listening_port.contains(&connection)
    }

    /// Forgets a connection that has ended.
    #[cfg(feature = "reachability")]
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.from_listening_port.remove(&connection);
    }

    /// Dials a peer at the moment at which it dials this node.
    #[cfg(feature = "reachability")]
    pub(crate) fn meet(&mut self, swarm: &mut NodeSwarm, meet: Meet) {
        let Meet { peer, addresses, part, reply } = meet;
        let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses);
        let options = match part {
            Endpoint::Dialer => options.build(),
            Endpoint::Listener => options.override_role().build(),
        };
        let connection = options.connection_id();
        self.pending.insert(connection, Dial::Direct(reply));
        if let Err(error) = self.hosts.showing_port(|| swarm.dial(options)) {
            self.dial_failed(swarm, connection, error);
        }
    }

    /// Dials the addresses that DNS listed.
    pub(crate) fn on_looked_up(&mut self, swarm: &mut NodeSwarm, looked: Looked<Dial>) {
        let Looked { dial, to, found } = looked;
        match found {
            Ok(addresses) => self.dial(swarm, to.peer, addresses, dial),
            Err(error) => self.not_found(swarm, dial, &to, &error),
        }
    }

    fn not_found(&self, swarm: &mut NodeSwarm, dial: Dial, to: &PeerAddress, error: &TreeError) {
        self.metrics.note(P2pEvent::Unresolved);
        tracing::debug!(address = %to.address, %error, "a name leads to no address");
        match dial {
            Dial::Gossip(ticket) => ticket.failed(DialFailure::Unreachable, &error.to_string()),
            Dial::Streams(address) => {
                swarm.behaviour_mut().streams.not_reached(&address, || OpenError::Unresolved);
            }
            // Only numbered addresses are dialled so.
            #[cfg(feature = "reachability")]
            Dial::Direct(_) => {}
        }
    }

    /// Waits for the next order of the mesh loop, or for a name that has been looked up; `None` if there is neither.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<Work> {
        let Self { dialer, trees, .. } = self;
        let ordered = async { dialer.as_mut()?.next().await };
        tokio::select! {
            biased;
            Some(looked) = trees.next() => Some(Work::LookedUp(Box::new(looked))),
            Some(ticket) = ordered => Some(Work::Ordered(ticket)),
            else => None,
        }
    }

    /// Records that a dial has led to a connection, and returns the dial.
    pub(crate) fn arrived(&mut self, connection: ConnectionId) -> Option<Dial> {
        self.pending.remove(&connection)
    }

    /// Dials an address for a stream request.
    pub(crate) fn dial_for_streams(&mut self, swarm: &mut NodeSwarm, address: PeerAddress) {
        if address.identity == self.local {
            let streams = &mut swarm.behaviour_mut().streams;
            return streams.not_reached(&address, || OpenError::Ourselves);
        }
        self.reach(swarm, &address.clone(), Dial::Streams(address));
    }

    /// Dials an address for the mesh loop.
    pub(crate) fn dial_for_gossip(
        &mut self,
        swarm: &mut NodeSwarm,
        address: PeerAddress,
        ticket: Ticket,
    ) {
        self.reach(swarm, &address, Dial::Gossip(ticket));
    }

    fn reach(&mut self, swarm: &mut NodeSwarm, address: &PeerAddress, dial: Dial) {
        let Some(name) = address.tree() else {
            return self.dial(swarm, address.peer, vec![address.address.clone()], dial);
        };
        if let Some(failed) = self.trees.look(name, address.clone(), dial) {
            self.on_looked_up(swarm, failed);
        }
    }

    fn dial(&mut self, swarm: &mut NodeSwarm, peer: PeerId, addresses: Vec<Multiaddr>, dial: Dial) {
        let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses);
        #[cfg(feature = "reachability")]
        if let (Dial::Streams(_), Some(relays)) = (&dial, &self.relays)
            && relays.asks(&peer)
        {
            return self.dial_relay(swarm, options.build(), dial);
        }
        // A new port, as for every other dial: the port that a peer sees of this node is none that it listens on.
        let options = options.allocate_new_port().build();
        let connection = options.connection_id();
        let hosts = match &dial {
            Dial::Gossip(ticket) => ticket.hosts(),
            // An application named the address.
            Dial::Streams(_) => LearntHosts::Any,
            #[cfg(feature = "reachability")]
            Dial::Direct(_) => LearntHosts::Public,
        };
        self.pending.insert(connection, dial);
        if let Err(error) = self.hosts.within(hosts, || swarm.dial(options)) {
            self.dial_failed(swarm, connection, error);
        }
    }

    #[cfg(feature = "reachability")]
    fn dial_relay(&mut self, swarm: &mut NodeSwarm, options: DialOpts, dial: Dial) {
        let connection = options.connection_id();
        self.pending.insert(connection, dial);
        let dialled =
            self.hosts.showing_port(|| self.hosts.within(LearntHosts::Any, || swarm.dial(options)));
        match dialled {
            Ok(()) => drop(self.from_listening_port.insert(connection)),
            Err(error) => self.dial_failed(swarm, connection, error),
        }
    }

    /// Records that a dial failed, and reports it to the mesh loop or to the waiting callers.
    pub(crate) fn dial_failed(
        &mut self,
        swarm: &mut NodeSwarm,
        connection: ConnectionId,
        error: DialError,
    ) {
        let Some(dial) = self.pending.remove(&connection) else { return };
        let is_unresolved = is_unresolved(&error);
        if is_unresolved {
            self.metrics.note(P2pEvent::Unresolved);
        }
        #[cfg(feature = "reachability")]
        self.from_listening_port.remove(&connection);
        let address = match dial {
            Dial::Streams(address) => address,
            #[cfg(feature = "reachability")]
            Dial::Direct(reply) => {
                tracing::debug!(%error, "a peer was not met");
                // The send fails only if nobody waits any more.
                let _ = reply.send(false);
                return;
            }
            Dial::Gossip(ticket) => {
                let why = match error {
                    DialError::LocalPeerId { .. } => DialFailure::Ourselves,
                    DialError::Denied { .. } => DialFailure::Refused,
                    _ => DialFailure::Unreachable,
                };
                return ticket.failed(why, &cause_of(&error));
            }
        };
        tracing::debug!(address = %address.address, %error, "dial for a stream came to nothing");
        let error = Arc::new(error);
        swarm.behaviour_mut().streams.not_reached(&address, || match &*error {
            DialError::WrongPeerId { obtained, .. } => OpenError::WrongPeer { obtained: *obtained },
            _ if is_unresolved => OpenError::Unresolved,
            _ => OpenError::Dial(Arc::clone(&error)),
        });
    }

    /// Lists the addresses that mDNS has found on the local network, and takes back those that have expired. Whoever is on
    /// that network can announce anything, so an address elsewhere, or a name, is none of it. Source: threats and goals,
    /// row 25.
    pub(crate) fn on_mdns(&self, mesh: &Mesh, event: local_network::Event) {
        let source = SourceId::of(SourceKind::Local);
        let [found, gone] = local_network::found_and_gone(event);
        let parse = |(peer, address): (PeerId, Multiaddr)| {
            let address = PeerAddress::new(address.with_p2p(peer).ok()?).ok()?;
            let is_other = address.identity != self.local;
            (is_other && is_local(&address.address)).then(|| address.node_address())
        };
        for address in found.into_iter().filter_map(parse) {
            // If the local network has all of its places, there are enough other addresses to dial.
            let _ = mesh.list(Listed::new(address, []), &source);
        }
        for address in gone.into_iter().filter_map(parse) {
            mesh.unlist(&address, &source);
        }
    }
}

/// Returns `true` if a dial failed because a name has no address.
fn is_unresolved(error: &DialError) -> bool {
    let DialError::Transport(failures) = error else { return false };
    failures.iter().any(|(_, failure)| match failure {
        TransportError::Other(error) => is_look_up(error),
        TransportError::MultiaddrNotSupported(_) => false,
    })
}

fn is_look_up(error: &std::io::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<runtime::DialError>() {
            return matches!(
                error,
                runtime::DialError::Unresolved { .. } | runtime::DialError::LookUpTimedOut { .. }
            );
        }
        cause = error.source();
    }
    false
}

/// Returns `true` if an address is one of this machine or of a private network.
fn is_local(address: &Multiaddr) -> bool {
    let ip = match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return false,
    };
    !LearntHosts::Public.allow(ip)
}

/// The cause of a failed dial in one line; the library's text has one line per address tried.
fn cause_of(error: &DialError) -> String {
    let DialError::Transport(tried) = error else {
        return match error {
            DialError::WrongPeerId { obtained, .. } => format!("{obtained} answers there instead"),
            DialError::LocalPeerId { .. } => OURSELVES.to_owned(),
            other => other.to_string(),
        };
    };
    let innermost = |error: &TransportError<std::io::Error>| {
        let mut innermost: &dyn std::error::Error = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        innermost.to_string()
    };
    let mut causes: Vec<String> = tried.iter().map(|(_, error)| innermost(error)).collect();
    causes.dedup();
    causes.join("; ")
}
