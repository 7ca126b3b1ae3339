//! Follows trees of `dnsaddr` TXT records to the multiaddrs at their leaves.
//!
//! ```text
//!   _dnsaddr.example.org  TXT "dnsaddr=/dnsaddr/eu.example.org"       ─▶ _dnsaddr.eu.example.org
//!                         TXT "dnsaddr=/ip4/192.0.2.1/tcp/4190/p2p/ID" ─▶ an address
//! ```
//!
//! # Invariants
//!
//! * A name is asked for once, so that a circle ends.
//! * Depth, questions, addresses and time are bounded; at a bound the tree is told to be incomplete.
//! * A branch that names an identity leads to addresses of that identity alone.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, stream};
use gossip::NodeAddress;
use hickory_resolver::proto::rr::{RData, RecordType, rdata::TXT};
use tokio::time::Instant;

use crate::{
    limits::DnsLimits,
    name::DnsName,
    resolver::{AskError, Open},
};

/// The start of every record. Source: the multiaddr specification of dnsaddr.
const PREFIX: &str = "dnsaddr=";

/// The label before a name. Source: as above.
const LABEL: &str = "_dnsaddr";

/// Names asked for at one time. Chosen: a level of a usual tree takes a few rounds.
const CONCURRENT: usize = 8;

/// The leaves of a tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    /// Multiaddrs, each once.
    pub(crate) addresses: Vec<NodeAddress>,
    /// Shortest time for which a record is good; `None` if there was none.
    pub(crate) ttl: Option<Duration>,
    /// Reasons why something is missing.
    pub(crate) problems: Vec<AskError>,
    /// Records that cannot be used.
    pub(crate) unusable: usize,
    /// Things left out at a bound.
    pub(crate) cut: usize,
}

/// A name to ask for, and the identity that its addresses must have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Branch {
    name: DnsName,
    identity: Option<String>,
}

/// The meaning of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Record {
    Branch(Branch),
    Leaf(NodeAddress),
}

/// Follows the tree below a name.
pub(crate) async fn follow(servers: &Open, root: &DnsName, deadline: Instant) -> Tree {
    let limits = servers.limits;
    let mut tree = Tree::default();
    let mut known = BTreeSet::from([root.clone()]);
    let mut level = vec![Branch { name: root.clone(), identity: None }];
    let mut asked = 0;
    for _ in 0..limits.depth.get() {
        let room = limits.questions.get() - asked;
        tree.cut += level.len().saturating_sub(room);
        level.truncate(room);
        asked += level.len();
        let answers = stream::iter(std::mem::take(&mut level)).map(|branch| async move {
            let name = branch.name.below(LABEL);
            (branch, servers.ask(&name, RecordType::TXT, deadline).await)
        });
        let mut answers = answers.buffered(CONCURRENT);
        while let Some((branch, answer)) = answers.next().await {
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    tree.problems.push(error);
                    continue;
                }
            };
            tree.ttl = Some(tree.ttl.map_or(answer.ttl, |ttl| ttl.min(answer.ttl)));
            tree.cut += answer.cut;
            for record in &answer.records {
                match read(record, branch.identity.as_deref()) {
                    Some(Record::Branch(next)) if known.insert(next.name.clone()) => {
                        level.push(next);
                    }
                    Some(Record::Branch(_)) => {}
                    Some(Record::Leaf(address)) => tree.add(address, limits),
                    None => tree.unusable += 1,
                }
            }
        }
        if level.is_empty() {
            return tree;
        }
    }
    tree.cut += level.len();
    tree
}

impl Tree {
    fn add(&mut self, address: NodeAddress, limits: DnsLimits) {
        if self.addresses.contains(&address) {
            return;
        }
        if self.addresses.len() < limits.addresses.get() {
            self.addresses.push(address);
        } else {
            self.cut += 1;
        }
    }
}

/// The identity that a multiaddr ends with.
pub(crate) fn identity_of(address: &str) -> Option<&str> {
    let (_, identity) = address.rsplit_once("/p2p/")?;
    (!identity.is_empty() && !identity.contains('/')).then_some(identity)
}

/// The address in one record below a branch; `None` if it leads to another name, or cannot be used.
#[cfg(fuzzing)]
pub(crate) fn leaf(record: &RData, identity: Option<&str>) -> Option<NodeAddress> {
    match read(record, identity) {
        Some(Record::Leaf(address)) => Some(address),
        _ => None,
    }
}

/// Reads one record below a branch; `None` if it cannot be used.
fn read(record: &RData, identity: Option<&str>) -> Option<Record> {
    let RData::TXT(TXT { txt_data, .. }) = record else { return None };
    let text = String::from_utf8(txt_data.concat()).ok()?;
    let text = text.strip_prefix(PREFIX)?;
    let address: NodeAddress = text.parse().ok()?;
    let NodeAddress::Multiaddr(text) = &address else { return None };
    let own = identity_of(text);
    if identity.is_some() && own != identity {
        return None;
    }
    match text.strip_prefix("/dnsaddr/") {
        Some(rest) => {
            let (name, behind) = rest.split_once('/').unwrap_or((rest, ""));
            let is_whole = behind.is_empty() || behind.strip_prefix("p2p/") == own;
            let name = DnsName::new(name).filter(|_| is_whole)?;
            Some(Record::Branch(Branch { name, identity: own.map(str::to_owned) }))
        }
        None => own.is_some().then_some(Record::Leaf(address)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn txt(text: &str) -> RData {
        RData::TXT(TXT::new(vec![text.to_owned()]))
    }

    fn leaf(text: &str) -> Option<Record> {
        Some(Record::Leaf(text.parse().unwrap()))
    }

    fn branch(name: &str, identity: Option<&str>) -> Option<Record> {
        let (name, identity) = (DnsName::new(name).unwrap(), identity.map(str::to_owned));
        Some(Record::Branch(Branch { name, identity }))
    }

    #[test]
    fn a_record_is_an_address_or_leads_to_another_name() {
        let there = "/ip4/192.0.2.1/tcp/4190/p2p/QmA";
        assert_eq!(read(&txt(&format!("dnsaddr={there}")), None), leaf(there));
        assert_eq!(read(&txt(&format!("dnsaddr={there}")), Some("QmA")), leaf(there));
        assert_eq!(read(&txt(&format!("dnsaddr={there}")), Some("QmB")), None);
        assert_eq!(read(&txt("dnsaddr=/dnsaddr/eu.example"), None), branch("eu.example", None));
        let named = "dnsaddr=/dnsaddr/eu.example/p2p/QmA";
        assert_eq!(read(&txt(named), None), branch("eu.example", Some("QmA")));
        assert_eq!(read(&txt(named), Some("QmB")), None);
        for text in [
            "",
            "dnsaddr=",
            "dnsaddr=relay.example:4160",
            "dnsaddr=/ip4/192.0.2.1/tcp/4190",
            "dnsaddr=/ip4/192.0.2.1/tcp/4190/p2p/",
            "dnsaddr=/dnsaddr/a b",
            "dnsaddr=/dnsaddr/a.example/tcp/1/p2p/QmA",
            "v=spf1 -all",
            "DNSADDR=/dnsaddr/a.example",
        ] {
            assert_eq!(read(&txt(text), None), None, "{text}");
        }
        let split = RData::TXT(TXT::new(vec!["dnsaddr=/dnsa".to_owned(), "ddr/a.b".to_owned()]));
        assert_eq!(read(&split, None), branch("a.b", None));
        let bytes = RData::TXT(TXT::from_bytes(vec![b"dnsaddr=/dnsaddr/\xff"]));
        assert_eq!(read(&bytes, None), None);
    }

    proptest! {
        #[test]
        fn arbitrary_records_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&RData::TXT(TXT::from_bytes(vec![&bytes])), Some("QmA"));
        }

        #[test]
        fn arbitrary_texts_never_panic(text in "dnsaddr=/(dnsaddr|ip4|dns)/.{0,60}") {
            if let Some(Record::Leaf(address)) = read(&txt(&text), None) {
                prop_assert!(identity_of(&address.to_string()).is_some());
            }
        }
    }
}
