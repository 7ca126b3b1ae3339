//! The recipes of `docs/proxies.md`, run as they stand there: HTTP services and gossip through nginx and
//! HAProxy, plain and over TLS. A proxy that is not installed is left out, and the test says so; `.ci/run` installs both.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

#[cfg(test)]
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::support::{Node, PATIENCE, Process, eventually, finish, scratch, tandem};
use tempfile::TempDir;

/// Requests that follow each other on one connection.
const IN_A_ROW: usize = 5;

/// Time without any message on a gossip link. Longer than the minute after which a proxy gives up a silent connection.
const IDLE: Duration = Duration::from_secs(66);

/// The blocks of the page with this language.
fn recipes(language: &str) -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/proxies.md");
    let page = fs::read_to_string(page).unwrap();
    let start = format!("```{language}\n");
    let blocks = page.split(&start).skip(1);
    blocks.map(|block| block.split_once("```").unwrap().0.to_owned()).collect()
}

/// Replaces what has to be there.
#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from} in {text}");
    text.replace(from, to)
}

fn is_installed(program: &str) -> bool {
    is_installed_with(program, "-v")
}

fn is_installed_with(program: &str, argument: &str) -> bool {
    let found =
        Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("{program} is not installed: its recipe is not tested");
    }
    found
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A client with one connection.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { stream: BufReader::new(stream) })
    }

    /// The status of one request.
    fn ask(&mut self, method: &str, path: &str) -> Option<u16> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).ok()?;
        let (mut status, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).ok().filter(|count| *count > 0)?;
            let line = line.trim_end().to_ascii_lowercase();
            if status.is_none() {
                status = line.split(' ').nth(1)?.parse().ok();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().ok()?;
            } else if line.is_empty() {
                break;
            }
        }
        let length = if method == "HEAD" { 0 } else { length };
        self.stream.read_exact(&mut vec![0; length]).ok()?;
        status
    }
}

fn ask_once(port: u16, method: &str, path: &str) -> Option<u16> {
    Client::connect(port)?.ask(method, path)
}

#[track_caller]
fn asks_in_a_row(port: u16, count: usize) {
    let mut client = Client::connect(port).unwrap();
    for number in 0..count {
        assert_eq!(client.ask("GET", "/status"), Some(200), "request {number}");
    }
}

/// A certificate for `localhost`, if openssl is there to make one.
struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    both: PathBuf,
}

impl Certificate {
    fn generate(dir: &Path) -> Self {
        let [cert, key, both] = ["cert.pem", "key.pem", "both.pem"].map(|name| dir.join(name));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-nodes", "-days", "2", "-subj", "/CN=localhost"]);
        openssl.args(["-addext", "subjectAltName=DNS:localhost"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        let made = openssl.arg("-keyout").arg(&key).arg("-out").arg(&cert).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let text = [&cert, &key].map(|path| fs::read_to_string(path).unwrap()).concat();
        fs::write(&both, text).unwrap();
        Self { cert, key, both }
    }
}

/// The HTTP requests that have to work through any proxy in front of a node.
fn serves_http(port: u16) {
    eventually("an answer through the proxy", || {
        (ask_once(port, "GET", "/health") == Some(200)).then_some(())
    });
    for path in ["/", "/health", "/status"] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(ask_once(port, method, path), Some(200), "{method} {path}");
        }
    }
    asks_in_a_row(port, IN_A_ROW);
    let load: Vec<_> = (0..8).map(|_| thread::spawn(move || asks_in_a_row(port, 50))).collect();
    asks_in_a_row(port, IN_A_ROW);
    for each in load {
        each.join().unwrap();
    }
}

/// A node that dials another one through a proxy.
struct Dialling {
    _dir: TempDir,
    node: Node,
}

impl Dialling {
    fn start(peer: &str, certificate: &Certificate) -> Self {
        let dir = scratch();
        let ca = certificate.cert.to_str().unwrap();
        let node = Node::start(dir.path(), &["--mode", "ws", "--peer", peer, "--tls-ca", ca]);
        let event = node.event("peer_connected");
        assert_eq!(event["direction"], "out", "{event}");
        Self { _dir: dir, node }
    }
}

/// Sends messages one after the other, and waits until the other node has heard each.
fn exchanges(from: &Node, to: &Node, what: &str) {
    let count = IN_A_ROW.to_string();
    let mut listening = to.command("listen");
    listening.args(["--json", "--tags", "AV", "--count", &count]);
    let mut listening = Process::spawn(&mut listening);
    let told = listening.stderr.recv_timeout(PATIENCE).unwrap();
    assert!(told.contains("listening"), "{told}");
    for number in 0..IN_A_ROW {
        let text = format!("{what} {number}");
        let sent = finish(from.command("send").args(["--tag", "AV", &text]));
        assert_eq!(sent.code, Some(0), "{text}: {sent:?}");
        listening.line();
    }
    assert!(listening.wait(PATIENCE).success(), "{what}");
}

/// The addresses of the peers of a node, sorted.
fn addresses(node: &Node) -> Vec<String> {
    let told = finish(node.command("peers").arg("--json"));
    let peers: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    let address = |peer: &serde_json::Value| peer["address"].as_str().unwrap().to_owned();
    let mut addresses: Vec<_> = peers.as_array().unwrap().iter().map(address).collect();
    addresses.sort();
    addresses
}

/// A client from another address of this machine that upgrades a connection through the proxy. It lives as long as the
/// stream.
fn foreign_peer(port: u16) -> tokio::net::TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let upgrading = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.9.9.9:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
        let request = "GET /v1/tandem/gossip HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\nX-Tandem-Noderandom: //////////////==\r\n\
            X-Tandem-Version: 2.2\r\nX-Tandem-Accept-Version: 2.2\r\n\
            X-Forwarded-For: 127.1.1.1\r\nForwarded: for=127.1.1.1\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut got = vec![0; 4096];
        let count = stream.read(&mut got).await.unwrap();
        let answer = String::from_utf8_lossy(&got[..count]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        stream
    };
    runtime.block_on(upgrading)
}

/// The gossip that has to work through any proxy in front of a node: on links to each of these addresses, before and
/// after a pause.
fn serves_gossip(
    node: &Node,
    port: u16,
    (peers, pause): (&[String], Duration),
    certificate: &Certificate,
) {
    let dialling: Vec<_> = peers.iter().map(|peer| Dialling::start(peer, certificate)).collect();
    let each = |what: &str| {
        for (peer, Dialling { node: other, .. }) in peers.iter().zip(&dialling) {
            exchanges(other, node, &format!("{peer} {what}, out"));
            exchanges(node, other, &format!("{peer} {what}, back"));
        }
    };
    each("at first");
    let foreign = foreign_peer(port);
    // The real client, and not what it tells of itself.
    let seen = addresses(node);
    let is_foreign = |address: &String| address.split(':').next() == Some("127.9.9.9");
    assert!(seen.iter().any(is_foreign), "{seen:?}");
    assert_eq!(seen.len(), peers.len() + 1, "{seen:?}");
    drop(foreign);
    thread::sleep(pause);
    each("after a pause");
    for Dialling { node, .. } in &dialling {
        let told: Vec<_> = node.process.stdout.try_iter().collect();
        assert!(!told.iter().any(|line| line.contains("peer_disconnected")), "{told:?}");
    }
    let metrics = finish(&mut node.command("metrics")).stdout;
    let closed =
        metrics.lines().filter(|line| line.contains("proxy_faults_total{reason=\"preamble"));
    assert!(
        closed.clone().count() == 4 && closed.clone().all(|line| line.ends_with(" 0")),
        "{metrics}"
    );
}

/// A node behind a proxy on this machine, and the address of its port.
fn node(dir: &Path, more: &[&str]) -> (Node, String) {
    let flags = [&["--mode", "ws", "--trusted-proxy", "127.0.0.1"], more].concat();
    let node = Node::start(dir, &flags);
    let address = node.ws().strip_prefix("http://").unwrap().to_owned();
    (node, address)
}

// Issue 8, 14; issue 10, 6.
#[test]
fn the_recipe_for_nginx_serves_http_and_gossip() {
    if !is_installed("nginx") || !is_installed_with("openssl", "version") {
        return;
    }
    let (dir, home) = (scratch(), scratch());
    let (node, address) = node(dir.path(), &[]);
    let (port, secure) = (free_port(), free_port());
    let home = home.path();
    let certificate = Certificate::generate(home);
    let site = replaced(&recipes("nginx")[0], "127.0.0.1:4160", &address);
    let site = replaced(&site, "listen 8080", &format!("listen 127.0.0.1:{port}"));
    let site = replaced(&site, "listen 8443", &format!("listen 127.0.0.1:{secure}"));
    let site = replaced(&site, "/etc/ssl/tandem/cert.pem", certificate.cert.to_str().unwrap());
    let site = replaced(&site, "/etc/ssl/tandem/key.pem", certificate.key.to_str().unwrap());
    let home = home.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {home}/{kind};\n"))
        .concat();
    let config = format!(
        "daemon off;\nworker_processes 1;\npid {home}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{site}}}\n"
    );
    let file = format!("{home}/nginx.conf");
    fs::write(&file, config).unwrap();
    let _proxy = Process::spawn(Command::new("nginx").args(["-e", "stderr", "-c", &file]));
    serves_http(port);
    let peers = [format!("127.0.0.1:{port}"), format!("wss://localhost:{secure}")];
    serves_gossip(&node, port, (&peers, IDLE), &certificate);
    // Beside gossip links, too.
    asks_in_a_row(port, IN_A_ROW);
}

// Issue 8, 14; issue 10, 6.
#[test]
fn the_recipe_for_haproxy_serves_http_and_gossip() {
    if !is_installed("haproxy") || !is_installed_with("openssl", "version") {
        return;
    }
    let (dir, home) = (scratch(), scratch());
    let (node, address) = node(dir.path(), &[]);
    let (port, secure, stats) = (free_port(), free_port(), free_port());
    let certificate = Certificate::generate(home.path());
    let config = replaced(&recipes("haproxy")[0], "127.0.0.1:4160", &address);
    let config = replaced(&config, "bind :8080", &format!("bind 127.0.0.1:{port}"));
    let config = replaced(&config, "bind :8443", &format!("bind 127.0.0.1:{secure}"));
    let both = certificate.both.to_str().unwrap();
    let config = replaced(&config, "/etc/haproxy/tandem.pem", both);
    // So that the test sees what the checks found.
    let config = format!(
        "{config}\nfrontend stats\n    bind 127.0.0.1:{stats}\n    stats enable\n    stats uri /\n"
    );
    let file = home.path().join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let _proxy = Process::spawn(Command::new("haproxy").arg("-db").arg("-f").arg(&file));
    let row = eventually("a first check", || {
        let mut stream = TcpStream::connect(("127.0.0.1", stats)).ok()?;
        stream.write_all(b"GET /;csv HTTP/1.0\r\n\r\n").ok()?;
        let mut table = String::new();
        stream.read_to_string(&mut table).ok()?;
        let row = table.lines().find(|line| line.starts_with("tandem,node,"))?.to_owned();
        row.contains(",L").then_some(row)
    });
    assert!(row.contains(",L7OK,200,"), "{row}");
    serves_http(port);
    let peers = [format!("127.0.0.1:{port}"), format!("wss://localhost:{secure}")];
    serves_gossip(&node, port, (&peers, IDLE), &certificate);
    asks_in_a_row(port, IN_A_ROW);
}

/// The recipe with the PROXY protocol, whose second version is replaced by `version`.
fn serves_with_preambles(version: &str) {
    if !is_installed("haproxy") || !is_installed_with("openssl", "version") {
        return;
    }
    let (dir, home) = (scratch(), scratch());
    let certificate = Certificate::generate(home.path());
    let [cert, key] = [&certificate.cert, &certificate.key].map(|path| path.to_str().unwrap());
    let more = ["--proxy-protocol", "on", "--tls-cert", cert, "--tls-key", key];
    let (node, address) = node(&dir.path().join("d"), &more);
    let port = free_port();
    let config = replaced(&recipes("haproxy")[1], "127.0.0.1:4160", &address);
    let config = replaced(&config, "bind :8080", &format!("bind 127.0.0.1:{port}"));
    let config = replaced(&config, "send-proxy-v2", version);
    let file = home.path().join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let _proxy = Process::spawn(Command::new("haproxy").arg("-db").arg("-f").arg(&file));
    serves_http(port);
    // One port for both: the node tells TLS from plain connections behind the preamble.
    let peers = [format!("127.0.0.1:{port}"), format!("wss://localhost:{port}")];
    serves_gossip(&node, port, (&peers, Duration::ZERO), &certificate);
    // Without a preamble the trusted address is refused.
    let direct: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    assert_eq!(ask_once(direct, "GET", "/health"), None);
}

// Issue 10, 6.
#[test]
fn the_recipe_with_the_proxy_protocol_serves_http_and_gossip() {
    serves_with_preambles("send-proxy-v2");
}

// Issue 10, 6.
#[test]
fn the_first_version_of_the_proxy_protocol_serves_too() {
    serves_with_preambles("send-proxy");
}

#[test]
fn a_trusted_proxy_is_shown_in_the_configuration_with_its_source() {
    let shown = finish(tandem().args(["config", "--trusted-proxy", "10.0.0.0/8"]));
    let line = "trusted_proxies = [\"10.0.0.0/8\"] # flag --trusted-proxy";
    assert!(shown.stdout.lines().any(|shown| shown == line), "{shown:?}");
}
