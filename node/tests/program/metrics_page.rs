//! The metrics as they are documented, as collectors read them, and as the dashboard and the alert rules ask for them.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[cfg(test)]
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
};

use crate::support::{Node, eventually, finish, scratch, tandem};

/// Set to write the page anew instead of comparing it.
const WRITE: &str = "TANDEM_WRITE_METRICS_PAGE";

/// The part of the page above the table.
const HEAD: &str = include_str!("metrics_head.md");

/// One metric, as a collector sees it.
#[derive(Debug, Default)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    /// Labels and values of each sample.
    samples: Vec<BTreeMap<String, String>>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Asks over HTTP, and returns the head and the body of the answer.
fn ask(url: &str, method: &str) -> (String, String) {
    let (host, path) = url.strip_prefix("http://").and_then(|url| url.split_once('/')).unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    assert!(!is_chunked, "{head}");
    (head.to_owned(), body.to_owned())
}

/// Reads the text format, in which no label value has an escape.
fn parse(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        let words = |prefix| line.strip_prefix(prefix).and_then(|rest: &str| rest.split_once(' '));
        if let Some((name, help)) = words("# HELP ") {
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = words("# TYPE ") {
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if !line.starts_with('#') {
            let (sample, _value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let metric = metric_of(&mut metrics, name).expect(line);
            let pairs =
                labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
            let pairs: BTreeMap<_, _> = pairs
                .map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned()))
                .collect();
            metric.labels.extend(pairs.keys().cloned());
            metric.samples.push(pairs);
        }
    }
    metrics
}

/// The metric that a sample belongs to.
fn metric_of<'a>(
    metrics: &'a mut BTreeMap<String, Metric>,
    sample: &str,
) -> Option<&'a mut Metric> {
    let ends = ["_total", "_bucket", "_count", "_sum", ""];
    let name = ends
        .iter()
        .find_map(|end| sample.strip_suffix(end).filter(|name| metrics.contains_key(*name)))?;
    metrics.get_mut(name)
}

/// The name under which a metric is asked for.
fn queried(name: &str, metric: &Metric) -> String {
    if metric.kind == "counter" { format!("{name}_total") } else { name.to_owned() }
}

/// Prefix of what libp2p counts itself. It shows a metric only once something was counted.
const OF_LIBP2P: &str = "tandem_libp2p_";

/// The metrics of libp2p on a page that was written before.
fn known_of_libp2p(page: &str) -> BTreeMap<String, Metric> {
    let rows = page.lines().filter(|line| line.starts_with(&format!("| `{OF_LIBP2P}")));
    let known = rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split('|').map(str::trim).collect();
        let [name, kind, labels, help] = cells[..] else { panic!("{row}") };
        let name = name.trim_matches('`');
        let name = if kind == "counter" { name.trim_end_matches("_total") } else { name };
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        let (kind, help) = (kind.to_owned(), help.to_owned());
        (name.to_owned(), Metric { kind, help, labels, samples: Vec::new() })
    });
    known.collect()
}

/// Adds what libp2p counts in other nodes, and what the page has: each of its metrics appears only once there was something to
/// count, so a row of the page that no node has now may still be true.
fn add_of_libp2p(metrics: &mut BTreeMap<String, Metric>, more: BTreeMap<String, Metric>) {
    for (name, metric) in more {
        if name.starts_with(OF_LIBP2P) {
            let known = metrics.entry(name).or_default();
            known.labels.extend(metric.labels);
            (known.kind, known.help) = (metric.kind, metric.help);
        }
    }
}

/// The page, from what a node told.
fn page(metrics: &BTreeMap<String, Metric>) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for (name, metric) in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let help = metric.help.trim_end_matches('.');
        let (name, labels) = (queried(name, metric), labels.join(", "));
        writeln!(page, "| `{name}` | {} | {labels} | {help} |", metric.kind).unwrap();
    }
    page
}

/// A node with everything that counts, which has handled a message.
fn node_that_heard(dirs: &[tempfile::TempDir; 3]) -> [Node; 3] {
    let services = ["status", "blocks", "files", "kv"];
    let mut flags = vec!["--metrics", "127.0.0.1:0"];
    flags.extend(services.iter().flat_map(|service| ["--service", *service]));
    flags.extend(["--dht", "server", "--dht-provide", "archival"]);
    let hub = Node::start(dirs[0].path(), &flags);
    let ws = hub.ws().trim_start_matches("http://").to_owned();
    let other = Node::start(dirs[1].path(), &["--mode", "ws", "--peer", &ws]);
    // Libp2p shows nothing before there is a peer.
    let third =
        Node::start(dirs[2].path(), &["--mode", "p2p", "--dht", "client", "--peer", hub.p2p()]);
    let mut number = 0;
    eventually("a message is handled", || {
        number += 1;
        let body = format!("message {number}");
        finish(other.command("send").args(["--tag", "TX", &body]));
        let metrics = finish(&mut hub.command("metrics")).stdout;
        metrics.contains("tandem_received_total{lane=\"bulk\",transport=\"ws\"} 1").then_some(())
    });
    eventually("libp2p counts", || {
        let metrics = finish(&mut hub.command("metrics")).stdout;
        let counted =
            ["kad_inbound_requests_total", "gossipsub_mesh_peer_counts", "ping_rtt_seconds"];
        counted.iter().all(|name| metrics.contains(&format!("{OF_LIBP2P}{name}"))).then_some(())
    });
    [hub, other, third]
}

// Issue 12, 1.
#[test]
fn every_metric_is_documented_and_every_query_finds_what_it_asks_for() {
    let dirs = [scratch(), scratch(), scratch()];
    let [hub, other, third] = node_that_heard(&dirs);
    let url = hub.ready["metrics"].as_str().expect("a URL").to_owned();
    let (head, text) = ask(&url, "GET");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let openmetrics = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.to_lowercase().contains(openmetrics), "{head}");
    assert!(text.ends_with("# EOF\n"));
    let metrics = parse(&text);
    for (name, metric) in &metrics {
        assert!(name.starts_with("tandem_"), "{name}");
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
            "{name}"
        );
        assert!(!name.ends_with("_ms") && !name.contains("_kib"), "{name}: base units only");
        assert!(!metric.help.is_empty() && !metric.kind.is_empty(), "{name}");
    }
    let series: usize = metrics.values().map(|metric| metric.samples.len()).sum();
    assert!(series < 1_000, "{series} series of one node");
    let path = repository().join("docs/metrics.md");
    let mut documented = parse(&text);
    let told = [&other, &third].map(|node| finish(&mut node.command("metrics")).stdout);
    told.iter().for_each(|told| add_of_libp2p(&mut documented, parse(told)));
    add_of_libp2p(&mut documented, known_of_libp2p(&fs::read_to_string(&path).unwrap()));
    let page = page(&documented);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &page).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap();
    assert_eq!(known, page, "run this test once with {WRITE}=1, and look at what changed");
    // A node that does something else counts nothing that is not on the page.
    for name in told.iter().flat_map(|told| parse(told).into_keys()) {
        assert!(documented.contains_key(&name), "{name} is not on the page");
    }
    for file in ["deploy/grafana/tandem.json", "deploy/prometheus/tandem.rules.yml"] {
        let text = fs::read_to_string(repository().join(file)).unwrap();
        check_queries(file, &text, &metrics);
    }
}

/// Checks that each metric which a text names is there, with the labels and values that are asked for.
fn check_queries(file: &str, text: &str, metrics: &BTreeMap<String, Metric>) {
    let known: BTreeMap<String, &Metric> =
        metrics.iter().map(|(name, metric)| (queried(name, metric), metric)).collect();
    let mut count = 0;
    for (at, _) in text.match_indices("tandem_") {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_');
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let metric = known.get(name).unwrap_or_else(|| panic!("{file}: no node has {name}"));
        count += 1;
        let Some(matchers) = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()) else {
            continue;
        };
        for matcher in matchers.split(',').filter(|matcher| !matcher.is_empty()) {
            let (label, value) = matcher.split_once('=').unwrap();
            let value = value.trim_start_matches('~').trim_matches(['"', '\\']);
            if label == "job" || label == "instance" {
                continue;
            }
            for value in value.split('|') {
                let has =
                    |sample: &BTreeMap<_, _>| sample.get(label).is_some_and(|known| known == value);
                assert!(metric.samples.iter().any(has), "{file}: no {name} has {label}={value}");
            }
        }
    }
    assert!(count > 5, "{file} asks for nothing");
}

// Issue 12, 1: bad input at the port for collectors.
#[test]
fn the_port_for_collectors_has_one_path_and_is_closed_unless_asked_for() {
    let (dir, other) = (scratch(), scratch());
    let node = Node::start(dir.path(), &["--metrics", "127.0.0.1:0"]);
    let url = node.ready["metrics"].as_str().expect("a URL").to_owned();
    let root = url.trim_end_matches("metrics");
    for (path, method, status) in [
        ("metrics", "HEAD", "200"),
        ("metrics", "POST", "405"),
        ("", "GET", "404"),
        ("peers", "GET", "404"),
        ("send?tag=TX", "POST", "404"),
        ("metrics/../status", "GET", "404"),
    ] {
        let (head, _) = ask(&format!("{root}{path}"), method);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {head}");
    }
    let taken = root.trim_start_matches("http://").trim_end_matches('/');
    let quiet = Node::start(other.path(), &[]);
    assert!(quiet.ready.get("metrics").is_none(), "{}", quiet.ready);
    quiet.stop();
    let refused = finish(
        tandem()
            .args(["run", "--listen-ws", "127.0.0.1:0", "--listen-p2p", "/ip4/127.0.0.1/tcp/0"])
            .args(["--metrics", taken, "--data-dir"])
            .arg(other.path()),
    );
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.stderr.contains(&format!("cannot listen on {taken} for `metrics`")),
        "{refused:?}"
    );
}
