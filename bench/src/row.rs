//! What a measurement prints: a JSON object a row, or a table.

use std::io::{self, Write};

use serde::Serialize;

use crate::error::Failure;

/// One result. What a bench does not measure is left out of the JSON and is a dash in the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Name of the bench.
    pub(crate) bench: &'static str,
    /// What carried the messages: `ws`, `p2p`, or the name of a comparison.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) transport: &'static str,
    /// Who served and called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) contender: Option<&'static str>,
    /// Whether connections and streams were used again: `kept` or `fresh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams: Option<&'static str>,
    /// Callers, each with one request at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) callers: Option<usize>,
    /// Receivers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peers: Option<usize>,
    /// Size of a message's body, or of a response's; of a bulk message in the priority bench.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<usize>,
    /// Messages counted at all receivers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deliveries_per_s: Option<f64>,
    /// The same of the raw TCP loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raw_per_s: Option<f64>,
    /// The same of one write per message on the same transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) one_write_per_s: Option<f64>,
    /// The same of a loop written by hand that takes up to 256 messages into one write and flush.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batched_per_s: Option<f64>,
    /// Deliveries relative to the raw TCP loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to_raw: Option<f64>,
    /// Deliveries relative to one write per message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to_one_write: Option<f64>,
    /// Deliveries relative to the batching loop written by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to_batched: Option<f64>,
    /// As `ratio_to_raw`, per second of processor time: little disturbed by other programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio_to_raw: Option<f64>,
    /// As `ratio_to_one_write`, per second of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio_to_one_write: Option<f64>,
    /// As `ratio_to_batched`, per second of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio_to_batched: Option<f64>,
    /// Median latency of priority messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_ms: Option<f64>,
    /// 99th percentile of the latency of priority messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ms: Option<f64>,
    /// Bulk that got through, relative to one raw TCP sender of bulk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goodput_ratio: Option<f64>,
    /// Bulk that got through, in megabytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goodput_mb_per_s: Option<f64>,
    /// Priority messages that were sent and not heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    /// Requests that were answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests_per_s: Option<f64>,
    /// Median time from a request to the end of its response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<f64>,
    /// Requests without the response they should have had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<u64>,
    /// Requests a second relative to hyper on the same bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to_bare: Option<f64>,
    /// As `ratio_to_bare`, per second of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio_to_bare: Option<f64>,
    /// The 99th percentile relative to that without what disturbs: HTTP beside the votes, or a hostile peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ratio_to_alone: Option<f64>,
    /// Why nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
}

/// Heading and cell of each column of the table.
type Column = (&'static str, fn(&Row) -> Option<String>);

const COLUMNS: [Column; 28] = [
    ("bench", |row| Some(row.bench.to_owned())),
    ("transport", |row| Some(row.transport.to_owned())),
    ("contender", |row| row.contender.map(str::to_owned)),
    ("streams", |row| row.streams.map(str::to_owned)),
    ("callers", |row| row.callers.map(|callers| callers.to_string())),
    ("peers", |row| row.peers.map(|peers| peers.to_string())),
    ("bytes", |row| row.bytes.map(|bytes| bytes.to_string())),
    ("deliveries/s", |row| row.deliveries_per_s.map(|rate| format!("{rate:.0}"))),
    ("raw/s", |row| row.raw_per_s.map(|rate| format!("{rate:.0}"))),
    ("one write/s", |row| row.one_write_per_s.map(|rate| format!("{rate:.0}"))),
    ("batched/s", |row| row.batched_per_s.map(|rate| format!("{rate:.0}"))),
    ("of raw", |row| row.ratio_to_raw.map(|ratio| format!("{ratio:.2}"))),
    ("of one write", |row| row.ratio_to_one_write.map(|ratio| format!("{ratio:.1}"))),
    ("of batched", |row| row.ratio_to_batched.map(|ratio| format!("{ratio:.2}"))),
    ("of raw, cpu", |row| row.cpu_ratio_to_raw.map(|ratio| format!("{ratio:.2}"))),
    ("of one write, cpu", |row| row.cpu_ratio_to_one_write.map(|ratio| format!("{ratio:.1}"))),
    ("of batched, cpu", |row| row.cpu_ratio_to_batched.map(|ratio| format!("{ratio:.2}"))),
    ("p50 ms", |row| row.p50_ms.map(|ms| format!("{ms:.1}"))),
    ("p99 ms", |row| row.p99_ms.map(|ms| format!("{ms:.1}"))),
    ("goodput", |row| row.goodput_ratio.map(|ratio| format!("{ratio:.3}"))),
    ("lost", |row| row.lost.map(|lost| lost.to_string())),
    ("requests/s", |row| row.requests_per_s.map(|rate| format!("{rate:.0}"))),
    ("p50 us", |row| row.p50_us.map(|us| format!("{us:.0}"))),
    ("p99 us", |row| row.p99_us.map(|us| format!("{us:.0}"))),
    ("failed", |row| row.failed.map(|failed| failed.to_string())),
    ("of bare", |row| row.ratio_to_bare.map(|ratio| format!("{ratio:.3}"))),
    ("p99 of alone", |row| row.p99_ratio_to_alone.map(|ratio| format!("{ratio:.2}"))),
    ("of bare, cpu", |row| row.cpu_ratio_to_bare.map(|ratio| format!("{ratio:.3}"))),
];

/// Where rows go: as they come, or all at the end.
#[derive(Debug)]
pub(crate) enum Output {
    /// One JSON object a line, as soon as it is known.
    Json,
    /// One table, at the end.
    Table(Vec<Row>),
}

impl Output {
    /// One JSON object a row.
    pub(crate) fn json() -> Self {
        Self::Json
    }

    /// A table.
    pub(crate) fn table() -> Self {
        Self::Table(Vec::new())
    }

    /// Takes the next row.
    pub(crate) fn add(&mut self, row: Row) -> Result<(), Failure> {
        match self {
            Self::Json => writeln!(io::stdout(), "{}", serde_json::to_string(&row)?)?,
            Self::Table(rows) => rows.push(row),
        }
        Ok(())
    }

    /// Says for programs that a bench could not run; people read it on stderr.
    pub(crate) fn skip(&mut self, bench: &'static str, reason: String) -> Result<(), Failure> {
        match self {
            Self::Json => self.add(Row { bench, skipped: Some(reason), ..Row::default() }),
            Self::Table(_) => Ok(()),
        }
    }

    /// Prints what was kept.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        if let Self::Table(rows) = self {
            io::stdout().write_all(table(&std::mem::take(rows)).as_bytes())?;
        }
        Ok(())
    }
}

/// The rows in columns of equal width, without the columns that no row has.
fn table(rows: &[Row]) -> String {
    let mut lines = vec![String::new(); rows.len() + 1];
    for (heading, cell) in COLUMNS {
        let cells: Vec<Option<String>> = rows.iter().map(cell).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
        let column: Vec<String> = std::iter::once(heading.to_owned()).chain(cells).collect();
        let width = column.iter().map(String::len).max().unwrap_or(0);
        for (line, cell) in lines.iter_mut().zip(column) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            line.push_str(&format!("{cell:>width$}"));
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_was_measured_and_nothing_else() {
        let row = Row {
            bench: "fanout",
            transport: "ws",
            peers: Some(50),
            bytes: Some(200),
            deliveries_per_s: Some(1e6),
            ratio_to_raw: Some(0.5),
            ratio_to_one_write: Some(6.25),
            ..Row::default()
        };
        let expected = concat!(
            r#"{"bench":"fanout","transport":"ws","peers":50,"bytes":200,"#,
            r#""deliveries_per_s":1000000.0,"ratio_to_raw":0.5,"ratio_to_one_write":6.25}"#
        );
        assert_eq!(serde_json::to_string(&row).unwrap(), expected);
    }

    #[test]
    fn a_table_has_the_columns_that_some_row_has() {
        let row = |transport, p99_ms| Row { bench: "b", transport, p99_ms, ..Row::default() };
        let text = table(&[row("ws", Some(1.25)), row("raw", None)]);
        assert_eq!(
            text,
            "bench  transport  p99 ms\n    b         ws     1.2\n    b        raw       -\n"
        );
    }
}
