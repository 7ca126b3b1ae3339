//! The reading of DNS answers, for fuzz targets; compiled for them alone.

use gossip::NodeAddress;
use hickory_resolver::proto::{op::Message, rr::RData};

use crate::{dnsaddr, srv};

/// The addresses in an answer, in the form in which it comes over the network: those of SRV records as text, and those at
/// the leaves of a tree. No more addresses than records.
#[must_use]
pub fn addresses(answer: &[u8]) -> (Vec<String>, Vec<NodeAddress>) {
    let Ok(message) = Message::from_vec(answer) else { return (Vec::new(), Vec::new()) };
    let records: Vec<RData> = message.answers.iter().map(|record| record.data.clone()).collect();
    let (hosts, unusable) = srv::addresses(&records);
    assert!(hosts.len() + unusable <= records.len());
    let leaves = records.iter().filter_map(|record| dnsaddr::leaf(record, None)).collect();
    (hosts, leaves)
}
