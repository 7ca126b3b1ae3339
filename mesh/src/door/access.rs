//! The access list: those whom the door keeps out, and those for whom it keeps places.
//!
//! # Invariants
//!
//! * A list never changes: whoever decides makes a new one, with a higher version, and the door forgets the old one.
//! * A ban in it ends by itself, at its time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use gossip::{Host, Identity, Instant, IpRange, NodeAddress, PeerInfo};

use crate::{
    bans::{BanSubject, Bans, ip_in, ip_of},
    members::{Admit, Members},
    phonebook::identity_in,
};

/// The bans and members of a node, as its door asks for them.
#[derive(Clone, Debug, Default)]
pub struct AccessList {
    version: u64,
    networks: Vec<(IpRange, Instant)>,
    identities: BTreeMap<Identity, Instant>,
    addresses: BTreeMap<NodeAddress, Instant>,
    members: BTreeSet<Identity>,
    /// Hosts that the addresses of members name by number.
    member_hosts: BTreeSet<Host>,
    admit: Admit,
}

impl AccessList {
    /// The bans by operators and the members at the moment `now`. A node that is banned by an address which names its
    /// identity is banned by that identity.
    #[must_use]
    pub fn new(
        version: u64,
        bans: &Bans,
        (members, admit): (&Members, Admit),
        now: Instant,
    ) -> Self {
        let hosts = members.addresses().filter_map(|(_, address)| ip_of(address));
        let mut list = Self {
            version,
            members: members.identities().collect(),
            member_hosts: hosts.map(Host::of).collect(),
            admit,
            ..Self::default()
        };
        for (subject, until) in bans.shut_out(now) {
            match subject {
                BanSubject::Network(range) => list.networks.push((*range, until)),
                BanSubject::Identity(identity) => list.ban(*identity, until),
                BanSubject::Address(address) => {
                    if let Some(identity) = identity_in(address) {
                        list.ban(identity, until);
                    }
                    list.addresses.insert(address.clone(), until);
                }
            }
        }
        list
    }

    fn ban(&mut self, identity: Identity, until: Instant) {
        let known = self.identities.entry(identity).or_insert(until);
        *known = until.max(*known);
    }

    /// Lists with a higher version take the place of those with a lower one.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns `true` if nobody who comes from there is let in.
    #[must_use]
    pub fn bans_host(&self, ip: IpAddr, now: Instant) -> bool {
        self.networks.iter().any(|(range, until)| *until > now && range.contains(ip))
    }

    /// Returns `true` if the node of this identity is not let in.
    #[must_use]
    pub fn bans_identity(&self, identity: &Identity, now: Instant) -> bool {
        self.identities.get(identity).is_some_and(|until| *until > now)
    }

    /// Returns `true` if a node that announces this address as its own is not let in.
    #[must_use]
    pub fn bans_address(&self, address: &NodeAddress, now: Instant) -> bool {
        self.addresses.get(address).is_some_and(|until| *until > now)
    }

    /// Returns `true` if a peer is banned by its identity, the host at the other end, or the address at which it listens.
    #[must_use]
    pub fn bans_peer(&self, peer: &PeerInfo, now: Instant) -> bool {
        peer.identity.is_some_and(|identity| self.bans_identity(&identity, now))
            || peer.http_address.as_ref().is_some_and(|at| self.bans_address(at, now))
            || ip_in(&peer.address).is_some_and(|ip| self.bans_host(ip, now))
    }

    /// Returns `true` if the node of this identity is a member.
    #[must_use]
    pub fn has_member(&self, identity: &Identity) -> bool {
        self.members.contains(identity)
    }

    /// Returns `true` if an address of a member names this host by number.
    pub(super) fn has_member_at(&self, host: Host) -> bool {
        self.member_hosts.contains(&host)
    }

    /// Number of members.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The nodes that are let in besides members.
    #[must_use]
    pub const fn admit(&self) -> Admit {
        self.admit
    }
}
