//! The recipes of `docs/proxies.md`, run as they stand there: HTTP services and gossip through nginx and
//! HAProxy. A proxy that is not installed is left out, and the test says so; `.ci/run` installs both.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

#[cfg(test)]
mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
};

use support::{Node, PATIENCE, Process, eventually, scratch};

/// Requests that follow each other on one connection.
const IN_A_ROW: usize = 5;

/// The first block of the page with this language.
fn recipe(language: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/proxies.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, block) = page.split_once(&format!("```{language}\n")).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// Replaces what has to be there.
#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from} in {text}");
    text.replace(from, to)
}

fn is_installed(program: &str) -> bool {
    let found =
        Command::new(program).arg("-v").output().is_ok_and(|output| output.status.success());
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

/// The requests and the gossip that have to work through any proxy in front of a node.
fn serves(port: u16) {
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
    let dir = scratch();
    let mut dialling = support::run(dir.path());
    let address = format!("127.0.0.1:{port}");
    let dialling = Process::spawn(dialling.args(["--json", "--mode", "ws", "--peer", &address]));
    eventually("a gossip link through the proxy", || {
        (dialling.json()["event"] == "peer_connected").then_some(())
    });
    // Beside a gossip link, too.
    asks_in_a_row(port, IN_A_ROW);
}

fn node(dir: &Path) -> (Node, String) {
    let node = Node::start(dir, &["--mode", "ws"]);
    let address = node.ws().strip_prefix("http://").unwrap().to_owned();
    (node, address)
}

// Issue 8, 14.
#[test]
fn the_recipe_for_nginx_serves_http_and_gossip() {
    if !is_installed("nginx") {
        return;
    }
    let (dir, home) = (scratch(), scratch());
    let (_node, address) = node(dir.path());
    let port = free_port();
    let site = replaced(&recipe("nginx"), "127.0.0.1:4160", &address);
    let site = replaced(&site, "listen 8080", &format!("listen 127.0.0.1:{port}"));
    let home = home.path().display();
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
    serves(port);
}

// Issue 8, 14.
#[test]
fn the_recipe_for_haproxy_serves_http_and_gossip() {
    if !is_installed("haproxy") {
        return;
    }
    let (dir, home) = (scratch(), scratch());
    let (_node, address) = node(dir.path());
    let (port, stats) = (free_port(), free_port());
    let config = replaced(&recipe("haproxy"), "127.0.0.1:4160", &address);
    let config = replaced(&config, "bind :8080", &format!("bind 127.0.0.1:{port}"));
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
    serves(port);
}
