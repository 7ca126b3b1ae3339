//! Families of metrics, read from the text of a registry.
//!
//! # Invariants
//!
//! * A family that was read and encoded again has the same samples.
//! * The text is of a registry of this process. A line that is not understood is left out.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Labels of a sample, in order.
type Labels = Vec<(String, String)>;

/// One family with its samples.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Family {
    pub(crate) name: String,
    help: String,
    values: Values,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    Counters(Vec<(Labels, u64)>),
    Gauges(Vec<(Labels, f64)>),
    Histograms(Vec<(Labels, Observed)>),
}

/// The observations of one histogram.
#[derive(Clone, Debug, Default, PartialEq)]
struct Observed {
    sum: f64,
    count: u64,
    /// Upper bounds, and the number of observations below each, those of lower buckets included.
    buckets: Vec<(f64, u64)>,
}

/// Reads families from the text of a registry.
#[derive(Debug)]
pub(crate) struct Families;

impl Families {
    /// The families, in the order of the text.
    pub(crate) fn of(text: &str) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        let mut heading = None;
        for line in text.lines() {
            if let Some((name, help)) = words(line, "# HELP ") {
                heading = Some((name, help));
            } else if let Some((name, kind)) = words(line, "# TYPE ") {
                let help = heading.take().filter(|(known, _)| *known == name);
                let help = help.map_or("", |(_, help)| help).to_owned();
                let values = match kind {
                    "counter" => Values::Counters(Vec::new()),
                    "gauge" => Values::Gauges(Vec::new()),
                    _ => Values::Histograms(Vec::new()),
                };
                families.push(Family { name: name.to_owned(), help, values });
            } else if let Some(family) = families.last_mut() {
                // As the invariant says.
                let _ = family.read(line);
            }
        }
        families
    }
}

/// The name behind a prefix, and the rest of the line.
fn words<'a>(line: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(prefix)?.split_once(' ')
}

impl Family {
    /// Multiplies what a histogram observed, for example to have other units.
    pub(crate) fn scale(&mut self, factor: f64) {
        let Values::Histograms(histograms) = &mut self.values else { return };
        for (_, observed) in histograms {
            observed.sum *= factor;
            observed.buckets.iter_mut().for_each(|(bound, _)| *bound *= factor);
        }
    }

    /// Keeps every third bucket of histograms, and the last one. Counts are those up to a bound, so they stay true.
    pub(crate) fn thin(&mut self) {
        let Values::Histograms(histograms) = &mut self.values else { return };
        for (_, observed) in histograms {
            let mut at = 0;
            observed.buckets.retain(|(bound, _)| {
                at += 1;
                at % 3 == 0 || bound.is_infinite()
            });
        }
    }

    /// Takes a sample.
    fn read(&mut self, line: &str) -> Option<()> {
        let (sample, value) = line.rsplit_once(' ')?;
        let (name, mut labels) = match sample.split_once('{') {
            Some((name, labels)) => (name, labels_of(labels.strip_suffix('}')?)?),
            None => (sample, Labels::new()),
        };
        let end = name.strip_prefix(&self.name)?;
        match &mut self.values {
            Values::Counters(counters) => counters.push((labels, value.parse().ok()?)),
            Values::Gauges(gauges) => gauges.push((labels, value.parse().ok()?)),
            Values::Histograms(histograms) => {
                let at = labels.iter().position(|(label, _)| label == "le");
                let bound = at.map(|at| labels.remove(at).1);
                if histograms.last().is_none_or(|(known, _)| *known != labels) {
                    histograms.push((labels, Observed::default()));
                }
                let (_, observed) = histograms.last_mut()?;
                match end {
                    "_sum" => observed.sum = value.parse().ok()?,
                    "_count" => observed.count = value.parse().ok()?,
                    _ => observed.buckets.push((bound?.parse().ok()?, value.parse().ok()?)),
                }
            }
        }
        Some(())
    }

    /// Writes the family.
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match &self.values {
            Values::Counters(_) => MetricType::Counter,
            Values::Gauges(_) => MetricType::Gauge,
            Values::Histograms(_) => MetricType::Histogram,
        };
        let mut family = encoder.encode_descriptor(&self.name, &self.help, None, kind)?;
        match &self.values {
            Values::Counters(counters) => {
                for (labels, value) in counters {
                    sample(&mut family, labels, |encoder| {
                        encoder.encode_counter::<NoLabelSet, _, u64>(value, None)
                    })?;
                }
            }
            Values::Gauges(gauges) => {
                for (labels, value) in gauges {
                    sample(&mut family, labels, |encoder| encoder.encode_gauge(value))?;
                }
            }
            Values::Histograms(histograms) => {
                for (labels, observed) in histograms {
                    sample(&mut family, labels, |encoder| observed.encode(encoder))?;
                }
            }
        }
        Ok(())
    }
}

impl Observed {
    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        let mut below = 0;
        let apart = self.buckets.iter().map(|(bound, upto)| {
            let inside = upto.saturating_sub(below);
            below = *upto;
            (*bound, inside)
        });
        let apart: Vec<_> = apart.collect();
        encoder.encode_histogram::<NoLabelSet>(self.sum, self.count, &apart, None)
    }
}

/// Writes a sample with its labels, if it has any.
fn sample(
    family: &mut MetricEncoder<'_>,
    labels: &Labels,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() { write(family) } else { write(&mut family.encode_family(labels)?) }
}

/// Reads `a="1",b="2"`, in which `\\`, `\"` and `\n` stand for a backslash, a quote and the end of a line.
fn labels_of(mut text: &str) -> Option<Labels> {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (label, rest) = text.split_once("=\"")?;
        let (mut value, mut rest) = (String::new(), rest.chars());
        loop {
            match rest.next()? {
                '"' => break,
                '\\' => value.push(match rest.next()? {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        labels.push((label.to_owned(), value));
        text = rest.as_str().trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use prometheus_client::{
        collector::Collector,
        encoding::text,
        metrics::{counter::Counter, family, gauge::Gauge, histogram::Histogram},
        registry::Registry,
    };

    use super::*;

    #[derive(Debug)]
    struct Again(Vec<Family>);

    impl Collector for Again {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            self.0.iter().try_for_each(|family| family.encode(&mut encoder))
        }
    }

    fn text_of(registry: &Registry) -> String {
        let mut text = String::new();
        text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_family_that_is_read_and_written_again_is_the_same() {
        let mut registry = Registry::default();
        let counters = family::Family::<Labels, Counter>::default();
        for value in ["plain", "a \"quoted\" \\ one, with {braces}=\"", "two\nlines"] {
            let labels = vec![("a".to_owned(), value.to_owned()), ("b".to_owned(), "x".to_owned())];
            counters.get_or_create(&labels).inc_by(u64::MAX);
        }
        registry.register("counted", "Help with a \"quote\"", counters);
        let (gauge, histogram) = (Gauge::<i64>::default(), Histogram::new([0.1, 2.5]));
        gauge.set(-7);
        registry.register("level", "A level", gauge);
        [0.05, 0.05, 1.0, 7.0].into_iter().for_each(|value| histogram.observe(value));
        registry.register("seen", "What was seen", histogram);
        let mut again = Registry::default();
        let text = text_of(&registry);
        again.register_collector(Box::new(Again(Families::of(&text))));
        let normal = |text: String| text.replace("-7.0", "-7");
        assert_eq!(normal(text_of(&again)), text);
    }

    #[test]
    fn a_thinner_histogram_tells_the_same() {
        let mut thinned = Families::of(
            "# TYPE a histogram\na_bucket{le=\"1.0\"} 1\na_bucket{le=\"2.0\"} 2\na_bucket{le=\"3.0\"} 5\na_bucket{le=\"+Inf\"} 6\n",
        );
        thinned[0].thin();
        let Values::Histograms(histograms) = &thinned[0].values else { panic!("{thinned:?}") };
        assert_eq!(histograms[0].1.buckets, [(3.0, 5), (f64::INFINITY, 6)]);
    }
}
