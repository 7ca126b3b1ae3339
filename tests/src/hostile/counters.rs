//! Counters of a node by their names, which say where lost messages went.

use std::collections::BTreeMap;

use prometheus_client::{encoding::text, registry::Registry};
use tandem::Running;

/// Values of a node's counters by name and labels.
pub type Counters = BTreeMap<String, u64>;

/// Counters of what went well, and gauges: they explain no loss.
const OF_NO_INTEREST: [&str; 7] =
    ["sent", "received", "handled", "peers", "door_taken", "http", "libp2p"];

/// Every counter of a node that tells of a drop, a refusal or an end.
#[must_use]
pub fn counters(node: &Running) -> Counters {
    let (mut registry, mut encoded) = (Registry::default(), String::new());
    node.register_metrics(&mut registry);
    if text::encode(&mut encoded, &registry).is_err() {
        // A string takes everything.
        return Counters::new();
    }
    let lines = encoded.lines().filter(|line| !line.starts_with('#'));
    let counted = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let is_of_interest = !OF_NO_INTEREST.iter().any(|prefix| name.starts_with(prefix));
        is_of_interest.then_some((name.to_owned(), value.parse().ok()?))
    });
    counted.collect()
}

/// The counters that have grown, and by how much.
#[must_use]
pub fn growth(before: &Counters, after: &Counters) -> Counters {
    let grown = after.iter().filter_map(|(name, value)| {
        let grown = value.saturating_sub(before.get(name).copied().unwrap_or(0));
        (grown > 0).then(|| (name.clone(), grown))
    });
    grown.collect()
}
