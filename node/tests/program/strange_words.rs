//! Words of strangers with control characters and bytes that are no text: none of them reaches a terminal.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[cfg(test)]
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::support::{Node, eventually, finish, scratch};

/// Turns the text red, clears the screen, sets the title, begins a line of its own, and is no UTF-8 at its end.
const STRANGE: &[u8] = b"\x1b[31m\x1b[2J\x1b]0;owned\x07 \x08\xe2\x80\xae\xc2\x9b31m \xff\xfe";

/// Answers every connection with these bytes behind the request.
fn server(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(&answer);
            // A moment, so that the answer is read before the end.
            thread::sleep(Duration::from_millis(100));
        }
    });
    address
}

fn with(before: &str, after: &str) -> Vec<u8> {
    [before.as_bytes(), STRANGE, after.as_bytes()].concat()
}

#[track_caller]
fn is_plain(what: &str, text: &str) {
    let odd = |each: &char| {
        (each.is_control() && *each != '\n') || matches!(each, '\u{202a}'..='\u{202e}')
    };
    assert!(!text.chars().any(|each| odd(&each)), "{what}: {text:?}");
}

// Issue 10, section 15.1 of the wire facts: no raw bytes of a peer in the log.
#[test]
fn no_control_character_of_a_peer_is_logged_or_shown() {
    let upgraded =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    let servers = [
        server(with("HTTP/1.1 412 ", "\r\nContent-Length: 0\r\n\r\n")),
        server(with("HTTP/1.1 412 Precondition Failed\r\nContent-Length: 20\r\n\r\n", "..")),
        server(with(&format!("{upgraded}Sec-WebSocket-Accept: "), "\r\n\r\n")),
        server(with(&format!("{upgraded}X-Tandem-Genesis: "), "\r\nX-Tandem-Version: 2.2\r\n\r\n")),
        server(STRANGE.to_vec()),
    ];
    let dir = scratch();
    let mut arguments = vec!["--mode", "ws", "--log", "trace"];
    for server in &servers {
        arguments.extend(["--peer", server]);
    }
    let node = Node::start(dir.path(), &arguments);
    let network = "tandem";
    for name in [
        "Location",
        "Telid",
        "Instancename",
        "Genesis",
        "Peer-Features",
        "Identitychallenge",
        "Version",
    ] {
        let address = node.ws().strip_prefix("http://").unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let head = format!(
            "GET /v1/{network}/gossip HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             X-Tandem-Noderandom: //////////////==\r\nX-Tandem-Accept-Version: 2.2\r\nX-Tandem-Version: 2.2\r\n\
             User-Agent: x\r\nX-Tandem-{name}: "
        );
        client.write_all(&with(&head, "\r\n\r\n")).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = client.read(&mut [0; 4096]);
        // A message whose tag is no text, and a close for a strange reason.
        let mut frame = vec![0x82, 0x84, 0, 0, 0, 0, 0x1b, b'[', 7, 0xff];
        let close = [&1000_u16.to_be_bytes()[..], b"\x1b[31m"].concat();
        frame.extend([0x88, 0x80 | u8::try_from(close.len()).unwrap(), 0, 0, 0, 0]);
        frame.extend(close);
        let _ = client.write_all(&frame);
        let _ = client.read(&mut [0; 4096]);
    }
    let failed = || {
        let told = finish(node.command("status").arg("--json"));
        let status: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        let dials = status["dials"].as_array().unwrap().clone();
        dials.iter().all(|dial| dial["last_error"].is_string()).then_some(told.stdout)
    };
    is_plain("tandem status --json", &eventually("every dial was refused", failed));
    for command in ["status", "peers", "metrics"] {
        let told = finish(&mut node.command(command));
        assert_eq!(told.code, Some(0), "{told:?}");
        is_plain(command, &told.stdout);
    }
    let log = node.stop();
    assert!(log.iter().any(|line| line.contains("412")), "{log:?}");
    for line in &log {
        is_plain("the log", line);
    }
    assert!(!log.iter().any(|line| line.contains("owned\u{7}")));
}
