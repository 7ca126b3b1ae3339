//! Output of the results: one JSON object per row, or a table.

use std::io::{self, Write};

use serde::Serialize;

use crate::error::Failure;

/// One result. A figure that a bench does not measure is left out of the JSON, and is a dash in the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Name of the bench.
    pub(crate) bench: &'static str,
    /// The transport: `ws` or `p2p`, or the name of a baseline.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) transport: &'static str,
    /// The contender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) contender: Option<&'static str>,
    /// The use of connections and streams: `kept` or `fresh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams: Option<&'static str>,
    /// Number of callers, each with one request at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) callers: Option<usize>,
    /// Number of receivers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peers: Option<usize>,
    /// Size of a message's body, of a response's body, or of a bulk message, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<usize>,
    /// Deliveries per second at all receivers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deliveries_per_s: Option<f64>,
    /// Deliveries per second of the raw TCP loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raw_per_s: Option<f64>,
    /// Deliveries per second of one write per message on the same transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) one_write_per_s: Option<f64>,
    /// Deliveries per second of a loop written by hand with up to 256 messages per write and flush.
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
    /// As `ratio_to_raw`, per second of processor time, which other programs disturb little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio_to_raw: Option<f64>,
    /// As `ratio_to_one_write`, per second of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio_to_one_write: Option<f64>,
    /// As `ratio_to_batched`, per second of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio_to_batched: Option<f64>,
    /// Median latency of priority messages, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_ms: Option<f64>,
    /// 99th percentile of the latency of priority messages, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ms: Option<f64>,
    /// Goodput of bulk relative to one raw TCP sender of bulk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goodput_ratio: Option<f64>,
    /// Goodput of bulk, in megabytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goodput_mb_per_s: Option<f64>,
    /// Number of priority messages that were sent and did not arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    /// Answered requests per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests_per_s: Option<f64>,
    /// Median time from a request to the end of its response, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile of that time, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<f64>,
    /// Number of requests without the right response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<u64>,
    /// Requests per second relative to hyper on the same bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to_bare: Option<f64>,
    /// As `ratio_to_bare`, per second of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio_to_bare: Option<f64>,
    /// The 99th percentile relative to that without disturbance: without HTTP beside the votes, or without a
    /// hostile peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ratio_to_alone: Option<f64>,
    /// Median latency of votes while nobody attacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quiet_p50_ms: Option<f64>,
    /// 99th percentile of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quiet_p99_ms: Option<f64>,
    /// Transactions that were sent and not heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost_transactions: Option<u64>,
    /// Honest hosts that were let in, of those that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) newcomers: Option<String>,
    /// Messages of the attacker that the system took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent_per_s: Option<f64>,
    /// Why and when an attacker was cut first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cut: Option<String>,
    /// The most memory that the attacked node has occupied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peak_mib: Option<f64>,
    /// The memory by which its most grew beyond that of the honest peers alone, under an attack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grown_mib: Option<f64>,
    /// Processor time of a relay for one vote to all its peers, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us_per_vote: Option<f64>,
    /// The same relative to votes that are not packed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio_to_plain: Option<f64>,
    /// Deliveries per second of a node's processor time, relative to a node that nobody looks at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio_to_unobserved: Option<f64>,
    /// Memory of a node for one idle connection, in KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kib_per_connection: Option<f64>,
    /// Memory of a node without connections, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base_mib: Option<f64>,
    /// The reason why nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
}

/// Heading and cell of each column of the table.
type Column = (&'static str, fn(&Row) -> Option<String>);

const COLUMNS: [Column; 41] = [
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
    ("quiet p50 ms", |row| row.quiet_p50_ms.map(|ms| format!("{ms:.1}"))),
    ("quiet p99 ms", |row| row.quiet_p99_ms.map(|ms| format!("{ms:.1}"))),
    ("p50 ms", |row| row.p50_ms.map(|ms| format!("{ms:.1}"))),
    ("p99 ms", |row| row.p99_ms.map(|ms| format!("{ms:.1}"))),
    ("goodput", |row| row.goodput_ratio.map(|ratio| format!("{ratio:.3}"))),
    ("lost", |row| row.lost.map(|lost| lost.to_string())),
    ("tx lost", |row| row.lost_transactions.map(|lost| lost.to_string())),
    ("newcomers", |row| row.newcomers.clone()),
    ("sent/s", |row| row.sent_per_s.map(|rate| format!("{rate:.0}"))),
    ("cut", |row| row.cut.clone()),
    ("peak MiB", |row| row.peak_mib.map(|mib| format!("{mib:.0}"))),
    ("grown MiB", |row| row.grown_mib.map(|mib| format!("{mib:.0}"))),
    ("base MiB", |row| row.base_mib.map(|mib| format!("{mib:.0}"))),
    ("KiB/connection", |row| row.kib_per_connection.map(|kib| format!("{kib:.1}"))),
    ("requests/s", |row| row.requests_per_s.map(|rate| format!("{rate:.0}"))),
    ("p50 us", |row| row.p50_us.map(|us| format!("{us:.0}"))),
    ("p99 us", |row| row.p99_us.map(|us| format!("{us:.0}"))),
    ("failed", |row| row.failed.map(|failed| failed.to_string())),
    ("of bare", |row| row.ratio_to_bare.map(|ratio| format!("{ratio:.3}"))),
    ("p99 of alone", |row| row.p99_ratio_to_alone.map(|ratio| format!("{ratio:.2}"))),
    ("cpu us/vote", |row| row.cpu_us_per_vote.map(|us| format!("{us:.2}"))),
    ("of plain, cpu", |row| row.cpu_ratio_to_plain.map(|ratio| format!("{ratio:.3}"))),
    ("of unobserved, cpu", |row| row.cpu_ratio_to_unobserved.map(|ratio| format!("{ratio:.3}"))),
    ("of bare, cpu", |row| row.cpu_ratio_to_bare.map(|ratio| format!("{ratio:.3}"))),
];

/// The destination of rows.
#[derive(Debug)]
pub(crate) enum Output {
    /// One JSON object per line, printed at once.
    Json,
    /// One table, printed at the end.
    Table(Vec<Row>),
}

impl Output {
    /// Prints one JSON object per row.
    pub(crate) fn json() -> Self {
        Self::Json
    }

    /// Prints a table.
    pub(crate) fn table() -> Self {
        Self::Table(Vec::new())
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, row: Row) -> Result<(), Failure> {
        match self {
            Self::Json => writeln!(io::stdout(), "{}", serde_json::to_string(&row)?)?,
            Self::Table(rows) => rows.push(row),
        }
        Ok(())
    }

    /// Adds a row for a bench that could not run, to the JSON; in table mode stderr has the message already.
    pub(crate) fn skip(&mut self, bench: &'static str, reason: String) -> Result<(), Failure> {
        match self {
            Self::Json => self.add(Row { bench, skipped: Some(reason), ..Row::default() }),
            Self::Table(_) => Ok(()),
        }
    }

    /// Prints the table, if there is one.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        if let Self::Table(rows) = self {
            io::stdout().write_all(table(&std::mem::take(rows)).as_bytes())?;
        }
        Ok(())
    }
}

/// Formats rows in columns of equal width, without columns that are empty in every row.
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
    fn a_row_contains_the_measured_figures_only() {
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
