//! A plain web server is seen at a local port over either transport, and what it is asked and answers arrives whole.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

use crate::process::{PATIENCE, Process};

/// Length of the body that is sent there and back. Chosen: more than any one buffer.
const BYTES: usize = 3_000_000;

/// A web server that answers one request a connection: with its body, or with its path where it has none.
fn web_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let (head, mut body) = head(&mut stream);
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse())?.ok()
                });
                while body.len() < length.unwrap_or(0) {
                    let mut more = [0; 65_536];
                    let count = stream.read(&mut more).unwrap();
                    body.extend_from_slice(&more[..count]);
                }
                if body.is_empty() {
                    body = head.split(' ').nth(1).unwrap().into();
                }
                let status = if body == b"/missing" { "404 Not Found" } else { "200 OK" };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nserver: plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).unwrap();
                stream.write_all(&body).unwrap();
            });
        }
    });
    address
}

/// Reads a head, and what came behind it.
fn head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return (String::from_utf8(read).unwrap(), rest);
        }
        let mut more = [0; 4_096];
        let count = stream.read(&mut more).unwrap();
        assert!(count > 0, "no whole head");
        read.extend_from_slice(&more[..count]);
    }
}

fn ask(local: &str, request: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(local).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: any\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let (head, mut body) = self::head(&mut stream);
    stream.read_to_end(&mut body).unwrap();
    (head, body)
}

fn start(arguments: &[&str]) -> Process {
    Process::spawn(Command::new(env!("CARGO_BIN_EXE_remote_web_server")).args(arguments))
}

// Issue 12, 7.
#[test]
fn a_plain_web_server_is_seen_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let site = web_server();
    let mut offer = start(&["offer", &site, "--data-dir", dir.path().to_str().unwrap()]);
    let address = || offer.line().strip_prefix("listening ").unwrap().to_owned();
    let addresses = [address(), address()];
    assert_eq!(offer.line(), "ready");
    assert_ne!(addresses[0].starts_with('/'), addresses[1].starts_with('/'), "both transports");
    for address in &addresses {
        let mut visit = start(&["visit", address]);
        let line = visit.line();
        let local = line.strip_prefix("forwarding http://").unwrap().split(' ').next().unwrap();
        let (head, body) = ask(local, "GET /page?a=1", b"");
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("Server: plain"), "{head}");
        assert_eq!(body, b"/page?a=1");
        assert!(ask(local, "GET /missing", b"").0.starts_with("HTTP/1.1 404 "));
        let long: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
        assert!(ask(local, "POST /", &long).1 == long);
        visit.signal("INT");
        assert!(visit.wait(PATIENCE).success());
    }
    // The web server may be away: the visitor is told so.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let other = tempfile::tempdir().unwrap();
    let away = start(&["offer", &nobody, "--data-dir", other.path().to_str().unwrap()]);
    let address = away.line().strip_prefix("listening ").unwrap().to_owned();
    let (head, _) = ask(&address, "GET /", b"");
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    offer.signal("INT");
    assert!(offer.wait(PATIENCE).success());
}
