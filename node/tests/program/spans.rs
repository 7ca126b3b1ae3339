//! Spans: what a collector that speaks OTLP over HTTP gets from running nodes.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message;

use crate::support::{Node, eventually, finish, run, scratch, tandem};

/// A span as the collector got it.
#[derive(Clone, Debug)]
struct Seen {
    /// The node, by its peer ID.
    node: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    attributes: BTreeMap<String, String>,
    events: Vec<String>,
}

/// A collector on a port of its own.
struct Collector {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let spans = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let spans = Arc::clone(&spans);
                thread::spawn(move || serve(&stream.unwrap(), &spans));
            }
        });
        Self { url, seen }
    }

    /// The spans so far that are as wanted.
    fn seen(&self, is_wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|span| is_wanted(span)).cloned().collect()
    }

    /// The first span that is as wanted.
    fn await_span(&self, what: &str, is_wanted: impl Fn(&Seen) -> bool) -> Seen {
        eventually(what, || self.seen(&is_wanted).into_iter().next())
    }
}

/// Takes what comes over one connection, and answers as a collector that has taken everything.
fn serve(stream: &TcpStream, spans: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        assert!(first.starts_with("POST /v1/traces HTTP/1.1"), "{first}");
        let mut is_protobuf = false;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            is_protobuf |= line == "content-type: application/x-protobuf";
        }
        assert!(is_protobuf);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        spans.lock().unwrap().extend(read(&ExportTraceServiceRequest::decode(&*body).unwrap()));
        let mut writer = stream;
        writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

fn read(request: &ExportTraceServiceRequest) -> Vec<Seen> {
    let mut seen = Vec::new();
    for resource in &request.resource_spans {
        let about = texts(&resource.resource.as_ref().unwrap().attributes);
        assert_eq!(about["service.name"], "tandem");
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
            seen.push(Seen {
                node: about["service.instance.id"].clone(),
                name: span.name.clone(),
                trace: hex::encode(&span.trace_id),
                id: hex::encode(&span.span_id),
                parent: hex::encode(&span.parent_span_id),
                attributes: texts(&span.attributes),
                events: span.events.iter().map(|event| event.name.clone()).collect(),
            });
        }
    }
    seen
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(is_so) => is_so.to_string(),
        other => format!("{other:?}"),
    };
    let value = |pair: &KeyValue| pair.value.as_ref().and_then(|any| any.value.as_ref()).map(text);
    attributes.iter().map(|pair| (pair.key.clone(), value(pair).unwrap_or_default())).collect()
}

// Issue 12, 1.
#[test]
fn a_collector_gets_dials_handshakes_requests_and_the_way_of_messages() {
    let collector = Collector::start();
    let scratches = [scratch(), scratch(), scratch()];
    let more = ["--otlp", &collector.url, "--trace-one-in", "1"];
    let relay = Node::start(scratches[0].path(), &[&more[..], &["--relay", "on"]].concat());
    let ws_args = [&more[..], &["--mode", "ws", "--peer", relay.ws()]].concat();
    let ws = Node::start(scratches[1].path(), &ws_args);
    // One that dials over libp2p, and somebody who is not there.
    let p2p_args = ["--mode", "p2p", "--peer", relay.p2p(), "--peer", NOBODY];
    let p2p = Node::start(scratches[2].path(), &[&more[..], &p2p_args].concat());

    let dial = |transport: &'static str, outcome: &'static str| {
        collector.await_span(&format!("a dial over {transport}: {outcome}"), |span| {
            let is =
                |key: &str, value: &str| span.attributes.get(key).is_some_and(|is| is == value);
            span.name == "dial" && is("transport", transport) && is("outcome", outcome)
        })
    };
    let over_ws = dial("ws", "connected");
    dial("p2p", "connected");
    let failed = dial("p2p", "unreachable");
    assert!(failed.attributes.contains_key("error"), "{failed:?}");
    let handshake = collector.await_span("a handshake within its dial", |span| {
        span.parent == over_ws.id && span.name == "gossip_handshake"
    });
    assert_eq!(handshake.node, over_ws.node);
    for role in ["dialer", "listener"] {
        collector.await_span(role, |span| {
            span.name == "libp2p_handshake" && span.attributes["role"] == role
        });
    }

    let sent = finish(ws.command("send").args(["--tag", "TX", "--json", "in spans"]));
    let sent: serde_json::Value = serde_json::from_str(&sent.stdout).unwrap();
    let digest = sent["digest"].as_str().unwrap();
    let ways = eventually("the message at all three nodes", || {
        let ways =
            collector.seen(|span| span.name == "message TX" && span.attributes["digest"] == digest);
        (ways.len() == 3).then_some(ways)
    });
    assert!(ways.iter().all(|way| way.trace == digest[..32]), "{ways:?}");
    let at = |node: &Node| ways.iter().find(|way| way.node == node.peer_id()).unwrap();
    assert_eq!((at(&ws).parent.as_str(), &at(&ws).events[0]), ("", &"submitted".to_owned()));
    assert_eq!(at(&relay).parent, at(&ws).id);
    assert_eq!(at(&p2p).parent, at(&relay).id);
    assert!(at(&relay).events.iter().any(|event| event == "published"), "{ways:?}");

    // A request in a trace of the caller's, over plain HTTP.
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let header = format!("traceparent: 00-{trace}-{parent}-00");
    let called =
        finish(tandem().args(["http", "--header", &header]).arg(format!("{}/status", relay.ws())));
    assert_eq!(called.code, Some(0), "{called:?}");
    let served = collector.await_span("a request", |span| span.trace == trace);
    assert_eq!((served.parent.as_str(), served.name.as_str()), (parent, "GET"));
    assert_eq!(served.attributes["url.path"], "/status");
    assert_eq!(served.attributes["http.response.status_code"], "200");
    for node in [relay, ws, p2p] {
        let log = node.stop();
        assert!(!log.iter().any(|line| line.contains("aborted")), "{log:?}");
    }
}

/// Nobody listens there.
const NOBODY: &str =
    "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGzBaTGY7HSbEiDGXmkKLFxpBFUS2kQg8JWbUfQEMX5iv";

// Issue 12, 1: a collector that goes must not take anything with it.
#[test]
fn a_node_goes_on_without_its_collector_and_says_so_once() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let dir = scratch();
    let node =
        Node::start(dir.path(), &["--otlp", &url, "--mode", "ws", "--metrics", "127.0.0.1:0"]);
    eventually("the node says that spans are lost", || {
        let health = finish(tandem().arg("http").arg(format!("{}/health", node.ws())));
        health.stdout.contains("spans_not_exported").then_some(())
    });
    assert!(finish(node.command("peers").arg("--json")).code == Some(0));
    drop(node.stop());
}

// Issue 12, 1.
#[test]
fn an_address_that_is_no_collector_is_refused_in_one_line() {
    for wrong in ["127.0.0.1:4318", "ftp://x:1", "http://", "/ip4/127.0.0.1/tcp/1", ""] {
        let dir = scratch();
        let told = finish(run(dir.path()).args(["--otlp", wrong]));
        assert_eq!(told.code, Some(2), "{told:?}");
        assert!(told.stderr.contains("http://127.0.0.1:4318"), "{told:?}");
        assert_eq!(told.stderr.trim().lines().count(), 1, "{told:?}");
    }
}
