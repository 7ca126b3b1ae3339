//! The gauges of the mesh loop, counted when they are asked for.
//!
//! # Invariants
//!
//! * A registry keeps no mesh alive: of one that is gone there is nothing to count.
//! * Labels are of closed sets.

use std::fmt;

use mesh::{BookCounts, SourceKind};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};

/// Counts the phonebook, as long as there is one.
type Count = Box<dyn Fn() -> Option<BookCounts> + Send + Sync>;

struct Gauges(Count);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gauges").finish_non_exhaustive()
    }
}

/// Adds `mesh_addresses{state}` and `mesh_phonebook{source}` to a registry.
pub(crate) fn register(count: Count, registry: &mut Registry) {
    registry.register_collector(Box::new(Gauges(count)));
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(counts) = (self.0)() else { return Ok(()) };
        let states = [
            ("dialling", counts.dialling),
            ("linked", counts.linked),
            ("backing_off", counts.backing_off),
            ("worked", counts.worked),
        ];
        let help = "Addresses of the phonebook by their use";
        encode_all(&mut encoder, ("mesh_addresses", help, "state"), &states)?;
        let sources = SourceKind::ALL.map(SourceKind::label).into_iter().zip(counts.listed);
        let help = "Addresses of the phonebook by the sources that list them";
        encode_all(&mut encoder, ("mesh_phonebook", help, "source"), &sources.collect::<Vec<_>>())
    }
}

fn encode_all(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, label): (&str, &str, &'static str),
    counts: &[(&'static str, usize)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, count) in counts {
        let count = ConstGauge::new(i64::try_from(*count).unwrap_or(i64::MAX));
        count.encode(family.encode_family(&[(label, *value)])?)?;
    }
    Ok(())
}
