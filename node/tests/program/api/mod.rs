//! The admin API of running nodes, against its description and against what the manual says.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]
#![allow(unreachable_pub, reason = "the parts of one test program")]

pub(crate) mod call;
mod schema;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use self::{
    call::{Answer, call, get, head, send},
    schema::fault,
};
use crate::support::{Node, Process, eventually, finish, run, scratch};

fn description() -> Value {
    serde_json::from_str(include_str!("../../../openapi.json")).unwrap()
}

/// The path of the description that a path of a request is.
fn template(path: &str) -> String {
    let path = path.split('?').next().unwrap();
    let named = [("/v1/peers/", "{peer}"), ("/v1/traces/", "{digest}")];
    let named = named.into_iter().find(|(start, _)| path.starts_with(start));
    let Some((start, name)) = named else { return path.to_owned() };
    let behind = path[start.len()..].find('/').map_or("", |at| &path[start.len() + at..]);
    format!("{start}{name}{behind}")
}

/// Calls, and compares the answer with its description.
#[track_caller]
fn described(dir: &Path, method: &str, path: &str, body: &str) -> Answer {
    let (answer, document) = (call(dir, method, path, body), description());
    let operation = &document["paths"][template(path)][method.to_lowercase()];
    assert!(operation.is_object(), "{method} {path} is not described");
    let code = answer.status.to_string();
    let response = match &operation["responses"][&code] {
        Value::Null => &operation["responses"]["default"],
        known => known,
    };
    let kind = answer.kind.split(';').next().unwrap();
    let schema = &response["content"][kind]["schema"];
    assert!(schema.is_object(), "{method} {path}: {kind} is not described for {code}");
    if kind.ends_with("json") {
        let fault = fault(&document, schema, &answer.json(), "answer");
        assert_eq!(fault, None, "{method} {path}: {answer:?}");
    }
    answer
}

/// Two hybrid nodes with a link between them; the second has dialled the first.
fn pair(first: &Path, second: &Path) -> (Node, Node) {
    let listener = Node::start(first, &["--topic", "chat"]);
    let dialler = Node::start(second, &["--peer", listener.p2p(), "--topic", "chat"]);
    eventually("a link", || (get(first, "/v1/peers")["total"] == 1).then_some(()));
    (listener, dialler)
}

/// Paths that every node answers as they stand.
const PLAIN: [&str; 18] = [
    "/v1/openapi.json",
    "/v1/node",
    "/v1/peers",
    "/v1/links",
    "/v1/phonebook",
    "/v1/topics",
    "/v1/http",
    "/v1/dht",
    "/v1/limits",
    "/v1/config",
    "/v1/latency",
    "/v1/traces",
    "/v1/log",
    "/v1/events",
    "/v1/bans",
    "/v1/members",
    "/health",
    "/metrics",
];

// Issue 12, 2.
#[test]
fn live_answers_are_as_they_are_described() {
    let (one, other) = (scratch(), scratch());
    let (listener, dialler) = pair(one.path(), other.path());
    let dir = one.path();
    eventually("the peer's own words and score", || {
        let peers = get(dir, "/v1/peers");
        let peer = &peers["peers"][0];
        (peer["agent"].is_string() && peer["topic_score"].is_number()).then_some(())
    });
    finish(dialler.command("send").args(["--tag", "TX", "hello"]));
    let id = get(dir, "/v1/peers")["peers"][0]["peer"].clone();
    for path in PLAIN {
        assert_eq!(described(dir, "GET", path, "").status, 200, "{path}");
        assert_eq!(described(other.path(), "GET", path, "").status, 200, "{path}");
    }
    assert_eq!(described(dir, "GET", &format!("/v1/peers/{id}"), "").status, 200);
    let sent = r#""a traced transaction""#;
    let dry = finish(listener.command("send").args(["--tag", "TX", "--dry-run", sent]));
    let traced = dry.stdout.trim();
    let orders = [
        (
            "POST",
            "/v1/bans",
            json!({"subject": "192.0.2.1", "for_s": 60, "reason": "\u{1b}[31m<b>"}),
            200,
        ),
        ("GET", "/v1/bans", Value::Null, 200),
        ("DELETE", "/v1/bans?subject=192.0.2.1", Value::Null, 200),
        ("POST", "/v1/phonebook", json!({"addresses": ["192.0.2.1:4160"], "roles": []}), 200),
        ("GET", "/v1/phonebook", Value::Null, 200),
        ("DELETE", "/v1/phonebook?address=192.0.2.1:4160", Value::Null, 200),
        ("POST", "/v1/send?tag=TX", json!("a transaction"), 200),
        ("POST", "/v1/topics/publish?topic=chat", json!("a message"), 200),
        ("POST", "/v1/topics/publish?topic=other", json!("a message"), 400),
        ("PUT", "/v1/traces", json!({"one_in": 1}), 200),
        ("POST", "/v1/send?tag=TX", json!("a traced transaction"), 200),
        ("GET", "/v1/traces", Value::Null, 200),
        ("GET", &*format!("/v1/traces/{traced}"), Value::Null, 200),
        ("GET", &*format!("/v1/traces/{}", "0".repeat(64)), Value::Null, 404),
        ("GET", "/v1/traces?tag=TX&limit=1&offset=1", Value::Null, 200),
        ("POST", &*format!("/v1/traces/{traced}/tree"), json!({"nodes": [other.path()]}), 200),
        ("POST", &*format!("/v1/traces/{}/tree", "0".repeat(64)), json!({"nodes": []}), 404),
        ("POST", "/v1/traces", json!({"digest": "ab".repeat(32)}), 200),
        ("POST", "/v1/traces", json!({"digest": "ab".repeat(32), "wait_s": 60}), 200),
        ("PUT", "/v1/log", json!({"filter": "error"}), 200),
        ("POST", "/v1/reload", Value::Null, 200),
        ("GET", "/v1/dht/providers?capability=gossip&count=1", Value::Null, 400),
        ("POST", "/v1/dht/providers", json!({"capability": "archival"}), 400),
        ("GET", "/v1/dht/peers", Value::Null, 400),
        ("GET", "/v1/dht/values?key=/content/x", Value::Null, 400),
        ("POST", "/v1/dht/values", json!({"content_hex": "00"}), 400),
        ("POST", "/v1/members", json!({"epoch": 1, "members": []}), 200),
        ("GET", "/v1/members", Value::Null, 200),
        ("POST", "/v1/peers", json!({"address": "127.0.0.1:1"}), 200),
        ("DELETE", "/v1/peers?address=127.0.0.1:1", Value::Null, 200),
        ("DELETE", &*format!("/v1/peers/{id}"), Value::Null, 200),
        ("GET", "/v1/events", Value::Null, 200),
        ("POST", "/v1/drain", json!({"grace_s": null}), 200),
        ("GET", "/health", Value::Null, 503),
    ];
    for (method, path, body, status) in orders {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = described(dir, method, path, &body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    dialler.stop();
    listener.stop();
}

// Issue 12, 2 and "bad input".
#[test]
fn wrong_requests_are_told_in_problem_json_what_is_wrong() {
    let dir = scratch();
    let node = Node::start(dir.path(), &["--mode", "ws"]);
    let long = "x".repeat(20_000);
    let long_wait = json!({"digest": "ab".repeat(32), "wait_s": 3_601}).to_string();
    let tree = format!("/v1/traces/{}/tree", "ab".repeat(32));
    let many_nodes = json!({"nodes": vec!["/x"; 33]}).to_string();
    let cases = [
        ("GET", "/status", "", 404, "/v1/openapi.json"),
        ("GET", "/peers", "", 404, "/v1/openapi.json"),
        ("DELETE", "/v1/node", "", 405, "method"),
        ("GET", "/v1/peers?limit=0", "", 400, "1 to 1024"),
        ("GET", "/v1/peers?limit=1025", "", 400, "1 to 1024"),
        ("GET", "/v1/peers?limit=-1", "", 400, "limit"),
        ("GET", "/v1/peers?offset=18446744073709551616", "", 400, "offset"),
        ("GET", "/v1/peers?sort=address", "", 400, "rtt_us"),
        ("GET", "/v1/peers?sort=drops.nothing", "", 400, "rtt_us"),
        ("GET", "/v1/peers?sort=rtt_us&order=up", "", 400, "desc"),
        ("GET", "/v1/peers?transport=tcp", "", 400, "ws or p2p"),
        ("GET", "/v1/peers?colour=red", "", 400, "colour"),
        ("GET", "/v1/peers/x", "", 400, "no number of a peer"),
        ("GET", "/v1/peers/7", "", 404, "no peer"),
        ("DELETE", "/v1/peers/7", "", 404, "no peer"),
        ("DELETE", "/v1/peers/%FF", "", 400, ""),
        ("POST", "/v1/peers", "{}", 400, "address"),
        ("POST", "/v1/peers", r#"{"address": "/dns4/x"}"#, 400, ""),
        ("POST", "/v1/peers", &long, 413, "longer than 16384 bytes"),
        ("PUT", "/v1/log", r#"{"filter": "info,a=b=c"}"#, 400, r#"because of "a=b=c""#),
        ("PUT", "/v1/log", r#"{"level": "info"}"#, 400, "level"),
        ("PUT", "/v1/traces", r#"{"one_in": -1}"#, 400, "-1"),
        ("POST", "/v1/traces", r#"{"digest": "xyz"}"#, 400, "64 hexadecimal digits"),
        ("POST", "/v1/traces", &long_wait, 400, "1 to 3600 s"),
        ("GET", "/v1/traces/12", "", 400, "64 hexadecimal digits"),
        ("GET", "/v1/traces?limit=257", "", 400, "1 to 256"),
        ("GET", "/v1/traces?tag=XXX", "", 400, "tag"),
        ("GET", "/v1/traces?colour=red", "", 400, "colour"),
        ("POST", "/v1/traces/12/tree", r#"{"nodes": []}"#, 400, "64 hexadecimal digits"),
        ("POST", &tree, r#"{"nodes": ["http://x/#token=secret"]}"#, 400, "data directory"),
        ("POST", &tree, &many_nodes, 400, "at most 32"),
        ("POST", &tree, r#"{"nodes": [], "more": 1}"#, 400, "more"),
        ("POST", "/v1/drain", r#"{"grace_s": 1000000}"#, 400, "86400"),
        ("POST", "/v1/drain", r#"{"grace_s": -1}"#, 400, "-1"),
        ("POST", "/v1/bans", r#"{"subject": "x", "for_s": 1, "reason": ""}"#, 400, ""),
        (
            "POST",
            "/v1/bans",
            r#"{"subject": "192.0.2.1", "for_s": 0, "reason": ""}"#,
            400,
            "a second",
        ),
        ("GET", "/v1/events?after=x", "", 400, "after"),
        ("GET", "/v1/events?limit=0", "", 400, "1 to 1024"),
        ("POST", "/v1/send?tag=XXX", "x", 400, "tag"),
    ];
    for (method, path, body, status, says) in cases {
        let answer = call(dir.path(), method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.kind.trim(), "application/problem+json", "{method} {path}");
        let told = answer.json();
        assert_eq!(told["status"], status, "{told}");
        assert!(told["detail"].as_str().unwrap().contains(says), "{method} {path}: {told}");
    }
    let header = ("last-event-id: seven\r\n", "");
    let answer = Answer::read(send(dir.path(), "GET", "/v1/events/stream", header));
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(get(dir.path(), "/v1/node")["state"], "serving");
    node.stop();
}

// Issue 12, 2.
#[test]
fn peers_are_sorted_by_any_number_and_paged() {
    let dirs: Vec<_> = (0..4).map(|_| scratch()).collect();
    let hub = Node::start(dirs[0].path(), &[]);
    let addresses = [hub.ws(), hub.p2p(), hub.ws()];
    let spokes: Vec<Node> = (1..4)
        .map(|number| Node::start(dirs[number].path(), &["--peer", addresses[number - 1]]))
        .collect();
    let dir = dirs[0].path();
    eventually("three peers", || (get(dir, "/v1/peers")["total"] == 3).then_some(()));
    // Each sends another number of messages.
    for (number, spoke) in spokes.iter().enumerate() {
        for message in 0..=number {
            let text = format!("{number} {message}");
            let sent = finish(spoke.command("send").args(["--tag", "TX", &text]));
            assert_eq!(sent.code, Some(0), "{sent:?}");
        }
    }
    let numbers = |path: &str| -> Vec<u64> {
        let page = get(dir, path);
        let peers = page["peers"].as_array().unwrap().iter();
        peers.map(|peer| peer["peer"].as_u64().unwrap()).collect()
    };
    let in_order = numbers("/v1/peers");
    assert!(in_order.is_sorted() && in_order.len() == 3);
    for field in ["peer", "connected_ms", "lanes.bulk.received_bytes", "rtt_us", "drops.duplicate"]
    {
        let pointer = format!("/{}", field.replace('.', "/"));
        let page = get(dir, &format!("/v1/peers?sort={field}"));
        let peers = page["peers"].as_array().unwrap();
        let values: Vec<Option<f64>> =
            peers.iter().map(|peer| peer.pointer(&pointer).and_then(Value::as_f64)).collect();
        assert!(values.is_sorted_by(|one, other| one >= other), "{field}: {values:?}");
    }
    let mut by_number = numbers("/v1/peers?sort=peer&order=asc");
    assert_eq!(by_number, in_order);
    by_number.reverse();
    assert_eq!(numbers("/v1/peers?sort=peer"), by_number);
    assert_eq!(numbers("/v1/peers?sort=peer&limit=1&offset=1"), [by_number[1]]);
    assert_eq!(numbers("/v1/peers?offset=3"), [0; 0]);
    assert_eq!(numbers("/v1/peers?transport=ws").len(), 2);
    let over_p2p = get(dir, "/v1/peers?transport=p2p");
    assert_eq!(
        (&over_p2p["total"], &over_p2p["peers"][0]["transport"]),
        (&json!(1), &json!("p2p"))
    );
    assert!(over_p2p["peers"][0]["protocols"].as_array().unwrap().len() > 2, "{over_p2p}");
    let received = eventually("counts of every peer", || {
        let page = get(dir, "/v1/peers?sort=lanes.bulk.received_messages&order=asc");
        let peers = page["peers"].as_array().unwrap().iter();
        let counts: Vec<u64> = peers
            .map(|peer| peer.pointer("/lanes/bulk/received_messages").unwrap().as_u64().unwrap())
            .collect();
        // Over libp2p a transaction may come on a topic instead.
        (counts.iter().filter(|count| **count > 0).count() >= 2).then_some(counts)
    });
    assert!(received.is_sorted(), "{received:?}");
    spokes.into_iter().for_each(|spoke| drop(spoke.stop()));
    hub.stop();
}

/// The next event of a stream: its number and its data.
fn next(lines: &mut impl Iterator<Item = String>) -> (Option<u64>, Value) {
    let (mut id, mut data) = (None, None);
    for line in lines.by_ref() {
        match line.split_once(": ") {
            Some(("id", number)) => id = Some(number.parse().unwrap()),
            Some(("data", text)) => data = Some(serde_json::from_str(text).unwrap()),
            _ if line.is_empty() && data.is_some() => break,
            _ => {}
        }
    }
    (id, data.expect("the stream goes on"))
}

fn stream(dir: &Path, path: &str, header: &str) -> impl Iterator<Item = String> + use<> {
    let (head, rest) = head(BufReader::new(send(dir, "GET", path, (header, ""))));
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    // Chunks begin with a line of their own, which is no field of an event.
    rest.lines().map_while(Result::ok)
}

// Issue 12, 2.
#[test]
fn events_are_streamed_from_the_one_that_was_read_last() {
    let (one, other) = (scratch(), scratch());
    let listener = Node::start(one.path(), &["--mode", "ws"]);
    let mut live = stream(one.path(), "/v1/events/stream", "");
    let dialler = Node::start(other.path(), &["--mode", "ws", "--peer", listener.ws()]);
    let (first, connected) = next(&mut live);
    assert_eq!(connected["event"], "peer_connected", "{connected}");
    dialler.stop();
    let gone = loop {
        let (_, event) = next(&mut live);
        if event["event"] == "peer_disconnected" {
            break event;
        }
    };
    assert_eq!(gone["peer"], connected["peer"]);
    let page = get(one.path(), "/v1/events");
    let last = page["last"].as_u64().unwrap();
    assert!(page["events"].as_array().unwrap().contains(&connected), "{page}");
    // A reader that comes back reads what it has missed, then what follows.
    let header = format!("Last-Event-ID: {}\r\n", first.unwrap());
    let mut again = stream(one.path(), "/v1/events/stream?after=0", &header);
    let mut after = first.unwrap();
    while after < last {
        let (id, event) = next(&mut again);
        assert_eq!((id, &event["seq"]), (Some(after + 1), &json!(after + 1)));
        after += 1;
    }
    call(one.path(), "PUT", "/v1/log", r#"{"filter": "info"}"#);
    assert_eq!(next(&mut again).1["filter"], "info");
    listener.stop();
}

// Issue 12, 2.
#[test]
fn the_log_changes_while_the_node_runs() {
    let dir = scratch();
    let node = Node::start(dir.path(), &["--mode", "ws", "--log", "error"]);
    assert_eq!(get(dir.path(), "/v1/log"), json!({"filter": "error"}));
    let told = call(dir.path(), "PUT", "/v1/log", r#"{"filter": "info"}"#);
    assert_eq!(told.json(), json!({"filter": "info"}));
    let other = scratch();
    let dialler = Node::start(other.path(), &["--mode", "ws", "--peer", node.ws()]);
    let mut log =
        std::iter::from_fn(|| node.process.stderr.recv_timeout(crate::support::PATIENCE).ok());
    assert!(log.any(|line| line.contains("a peer connected")));
    dialler.stop();
    node.stop();
}

// Issue 12, 2 and 8.
#[test]
fn a_drained_node_takes_no_further_peers_and_stops_when_the_grace_has_ended() {
    let (one, other, third) = (scratch(), scratch(), scratch());
    let (mut listener, dialler) = pair(one.path(), other.path());
    let order = call(one.path(), "POST", "/v1/drain", "{}");
    assert_eq!(order.json(), json!({"peers": 1, "stops_in_ms": null}), "{order:?}");
    let health = call(one.path(), "GET", "/health", "");
    assert_eq!((health.status, &health.json()["reasons"]), (503, &json!(["draining"])));
    let late = Node::start(third.path(), &["--mode", "ws", "--peer", listener.ws()]);
    let refused = "tandem_door_refused_total{reason=\"draining\",transport=\"ws\"} ";
    eventually("a refusal", || {
        let told = finish(&mut listener.command("metrics")).stdout;
        let line = told.lines().find_map(|line| line.strip_prefix(refused))?;
        (line != "0").then_some(())
    });
    assert_eq!(get(one.path(), "/v1/peers")["total"], 1, "the peer that was there stays");
    call(one.path(), "POST", "/v1/drain", r#"{"grace_s": 0}"#);
    assert_eq!(listener.process.wait(crate::support::PATIENCE).code(), Some(0));
    late.stop();
    dialler.stop();
}

// Issue 12, 6.
#[test]
fn a_changed_file_is_put_into_force_or_refused_as_a_whole() {
    let (one, other) = (scratch(), scratch());
    let friend = Node::start(other.path(), &["--mode", "ws"]);
    let file = one.path().join("tandem.toml");
    let dir = one.path().join("d");
    std::fs::write(&file, "mode = \"ws\"\nlog = \"error\"\n").unwrap();
    let mut process = Process::spawn(run(&dir).arg("--config").arg(&file));
    eventually("a node", || dir.join("admin.sock").exists().then_some(()));
    let text = format!(
        "mode = \"ws\"\nlog = \"info\"\nmax_inbound = 7\ntrace_one_in = 9\nbudget_mib = 99\npeers = [\"{}\"]\n",
        friend.ws()
    );
    std::fs::write(&file, &text).unwrap();
    let told = call(&dir, "POST", "/v1/reload", "").json();
    assert_eq!(
        (&told["changed"], &told["needs_restart"]),
        (&json!(["peers", "trace_one_in", "max_inbound", "log"]), &json!(["budget_mib"]))
    );
    eventually("the new peer", || (get(&dir, "/v1/peers")["total"] == 1).then_some(()));
    assert_eq!(get(&dir, "/v1/log")["filter"], "info");
    let setting = |name: &str| {
        let config = get(&dir, "/v1/config");
        let all = config["settings"].as_array().unwrap();
        all.iter().find(|setting| setting["key"] == name).unwrap().clone()
    };
    assert_eq!(setting("log")["origin"], format!("{}:2", file.display()));
    assert_eq!(setting("max_inbound")["value"], json!(["7"]));
    assert_eq!(get(&dir, "/v1/limits")["door"]["peers"], 7);
    assert_eq!(get(&dir, "/v1/traces")["one_in"], 9);
    assert_ne!(setting("budget_mib")["value"], json!(["99"]), "until a restart");

    std::fs::write(&file, text.replace("log", "lgo").replace("peers = [", "peers = [] # "))
        .unwrap();
    let refused = call(&dir, "POST", "/v1/reload", "");
    assert_eq!(refused.status, 500, "{refused:?}");
    assert!(refused.json()["detail"].as_str().unwrap().contains("log"), "{refused:?}");
    assert_eq!(get(&dir, "/v1/peers")["total"], 1, "everything stays");

    std::fs::write(&file, "mode = \"ws\"\n").unwrap();
    process.signal("HUP");
    eventually("no peer", || (get(&dir, "/v1/peers")["total"] == 0).then_some(()));
    let events = get(&dir, "/v1/events");
    assert!(events.to_string().contains("\"reloaded\""), "{events}");
    process.signal("TERM");
    assert_eq!(process.wait(crate::support::PATIENCE).code(), Some(0));
    friend.stop();
}

/// Calls the admin port, with what stands in the header of the token.
fn over_tcp(url: &str, path: &str, authorization: &str) -> Answer {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\n{authorization}\r\n").unwrap();
    Answer::read(stream)
}

// Issue 12, 2.
#[test]
fn the_admin_port_is_there_only_if_asked_for_and_opens_to_the_token() {
    let bare = scratch();
    let node = Node::start(bare.path(), &["--mode", "ws"]);
    assert!(node.ready.get("admin").is_none() && !bare.path().join("admin.token").exists());
    node.stop();

    let dir = scratch();
    let node = Node::start(dir.path(), &["--mode", "ws", "--admin-listen", "127.0.0.1:0"]);
    let url = node.ready["admin"].as_str().unwrap().to_owned();
    let file = dir.path().join("admin.token");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = fs::read_to_string(&file).unwrap();
    let right = format!("authorization: Bearer {}\r\n", token.trim());
    for path in ["/v1/node", "/v1/config", "/health", "/metrics", "/nothing", "/v1/openapi.json"] {
        let refused = over_tcp(&url, path, "");
        assert_eq!((refused.status, refused.kind.trim()), (401, "application/problem+json"));
        assert!(!refused.body.contains(token.trim()));
    }
    assert_eq!(over_tcp(&url, "/v1/node", "authorization: Bearer 00\r\n").status, 401);
    let config = over_tcp(&url, "/v1/config", &right);
    assert_eq!(config.status, 200, "{config:?}");
    assert!(!config.body.contains(token.trim()), "no secrets");
    for _ in 0..20 {
        over_tcp(&url, "/v1/node", "authorization: Bearer 00\r\n");
    }
    assert_eq!(over_tcp(&url, "/v1/node", &right).status, 429, "a host that guesses");
    let counted = finish(&mut node.command("metrics")).stdout;
    assert!(counted.contains("tandem_admin_refused_total{reason=\"token\"} 10"), "{counted}");
    let log = node.stop();
    assert!(log.iter().all(|line| !line.contains(token.trim())), "{log:?}");

    // The same token opens the next run; a file that others can read opens nothing.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let flags = ["--mode", "ws", "--admin-listen", "127.0.0.1:0"];
    let refused = finish(run(dir.path()).args(flags));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("chmod 600"), "{refused:?}");
}

// Issue 12, 4. `tests/dashboard/check` looks at it in a browser.
#[test]
fn the_dashboard_is_served_without_the_token_and_holds_nothing_of_the_node() {
    let dir = scratch();
    let node = Node::start(dir.path(), &["--mode", "ws", "--admin-listen", "127.0.0.1:0"]);
    let url = node.ready["admin"].as_str().unwrap().to_owned();
    let page = finish(node.command("dashboard").arg("--no-open")).stdout;
    let (address, token) = page.trim().split_once("/#token=").unwrap();
    assert_eq!(address, url);
    assert_eq!(token, fs::read_to_string(dir.path().join("admin.token")).unwrap().trim());
    let kinds =
        [("/", "text/html"), ("/dashboard.css", "text/css"), ("/dashboard.js", "text/javascript")];
    for (path, kind) in kinds {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: node\r\n\r\n").unwrap();
        let (head, mut rest) = head(BufReader::new(stream));
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains(&format!("content-type: {kind}; charset=utf-8\r\n")), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"));
        let mut body = String::new();
        rest.read_to_string(&mut body).unwrap();
        let id = node.ready["peer_id"].as_str().unwrap();
        assert!(!body.contains(id) && !body.contains(token), "{path}");
        // The policy forbids both.
        assert!(!body.contains(" style=") && !body.contains(" onclick="), "{path}");
    }
    node.stop();

    // A node without an admin port has no dashboard, and says what is missing.
    let node = Node::start(dir.path(), &["--mode", "ws"]);
    let refused = finish(&mut node.command("dashboard"));
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
    assert!(refused.stderr.contains("--admin-listen"), "{refused:?}");
}

// Issue 12, "bad input": strangers who say nothing held all 64 places of the admin port for ten seconds at a time.
#[test]
fn strangers_who_say_nothing_keep_nobody_with_the_token_out() {
    let dir = scratch();
    let node = Node::start(dir.path(), &["--mode", "ws", "--admin-listen", "127.0.0.1:0"]);
    let page = finish(node.command("dashboard").arg("--no-open")).stdout;
    let (_, token) = page.trim().split_once("/#token=").unwrap();
    let address = node.ready["admin"].as_str().unwrap().strip_prefix("http://").unwrap();
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let head = format!("authorization: Bearer {token}\r\nhost: node\r\n\r\n");
    write!(stream, "GET /v1/node HTTP/1.1\r\n{head}").unwrap();
    assert_eq!(Answer::read(stream).status, 200);
    // A place would be free by itself after ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let told = finish(&mut node.command("metrics")).stdout;
    let evicted = "tandem_admin_crowded_total{reason=\"evicted\"} ";
    let evicted = told.lines().find_map(|line| line.strip_prefix(evicted)).unwrap();
    assert!(evicted.parse::<u64>().unwrap() >= 200 - 64, "{evicted}");
    drop(silent);
    node.stop();
}

// Issue 12, "bad input": a port that is taken.
#[test]
fn an_admin_port_that_is_taken_is_named() {
    let (dir, taken) = (scratch(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = taken.local_addr().unwrap().to_string();
    let refused = finish(run(dir.path()).args(["--mode", "ws", "--admin-listen", &address]));
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.contains(&address) && refused.stderr.contains("admin_listen"));
}

/// Set to write the page anew instead of comparing it.
const WRITE: &str = "TANDEM_WRITE_API_PAGE";

/// The fields of an object by their names, whatever order the parser keeps them in.
fn by_name(object: &Value) -> BTreeMap<&str, &Value> {
    object.as_object().unwrap().iter().map(|(name, field)| (name.as_str(), field)).collect()
}

/// The page as the description makes it.
fn page() -> String {
    let document = description();
    let mut page = include_str!("head.md").to_owned();
    page.push_str("| request | parameters | what it does |\n| --- | --- | --- |\n");
    for (path, methods) in by_name(&document["paths"]) {
        for (method, operation) in by_name(methods) {
            let names = operation["parameters"].as_array().into_iter().flatten();
            let mut parameters: Vec<String> =
                names.map(|of| format!("`{}`", of["name"].as_str().unwrap())).collect();
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            if let Some(reference) = body.as_str() {
                let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
                let fields = by_name(&schema["properties"]).into_keys();
                let fields: Vec<String> = fields.map(|field| format!("`{field}`")).collect();
                parameters.push(format!("body: {}", fields.join(", ")));
            }
            let summary = operation["summary"].as_str().unwrap();
            let (method, parameters) = (method.to_uppercase(), parameters.join(", "));
            page.push_str(&format!("| `{method} {path}` | {parameters} | {summary} |\n"));
        }
    }
    page
}

// Issue 12, 2 and 9.
#[test]
fn the_page_of_the_api_says_what_the_description_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&file, page()).unwrap();
    }
    let known = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(known, page(), "run this test once with {WRITE}=1, and look at what changed");
}
