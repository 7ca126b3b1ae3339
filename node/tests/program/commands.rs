//! The commands that speak to a running node, and those that need none.

#[cfg(test)]
use std::{
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use crate::support::{self, Node, PATIENCE, Process, finish, finish_with_input, scratch, tandem};
use gossip::{Keypair, Tag, wire::digest::Digest};
use serde_json::Value;
use tandem::DataDir;

/// Two nodes of one transport, connected.
fn pair(transport: &str) -> (tempfile::TempDir, tempfile::TempDir, Node, Node) {
    let (a, b) = (scratch(), scratch());
    let first = Node::start(a.path(), &["--mode", transport]);
    let address = if transport == "ws" { first.ws() } else { first.p2p() };
    let second = Node::start(b.path(), &["--mode", transport, "--peer", address]);
    first.event("peer_connected");
    second.event("peer_connected");
    (a, b, first, second)
}

fn listen(node: &Node, more: &[&str]) -> Process {
    let process = Process::spawn(node.command("listen").arg("--json").args(more));
    process.expect_on_stderr("listening");
    process
}

#[test]
fn a_message_sent_at_one_node_is_heard_at_the_other_once() {
    for transport in ["ws", "p2p"] {
        let (_a, _b, first, second) = pair(transport);
        let mut listener = listen(&first, &["--tags", "AV,VB", "--count", "3"]);
        for (tag, body) in [("AV", "a vote"), ("PP", "not asked for"), ("VB", "a bundle")] {
            let sent = finish(second.command("send").args(["--tag", tag, body]));
            assert_eq!(sent.code, Some(0), "{sent:?}");
            assert!(sent.stdout.starts_with(&format!("sent {tag}, {} bytes", body.len())));
            assert!(sent.stdout.ends_with("to 1 peer"), "{sent:?}");
        }
        let sent = finish(second.command("send").args(["--tag", "AV", "--json", "last"]));
        let sent: Value = serde_json::from_str(&sent.stdout).unwrap();
        assert_eq!((&sent["peers"], &sent["written"]), (&1.into(), &1.into()));
        for (tag, body) in [(Tag::AV, "a vote"), (Tag::VB, "a bundle"), (Tag::AV, "last")] {
            let heard = listener.json();
            assert_eq!(heard["tag"], tag.to_string());
            assert_eq!(heard["size"], body.len());
            assert_eq!(heard["digest"], Digest::of(tag, body.as_bytes()).to_string());
            assert_eq!(heard["transport"], transport);
            assert!(heard["peer"].is_u64(), "{heard}");
        }
        assert!(listener.wait(support::PATIENCE).success());
    }
}

#[test]
fn a_transaction_published_on_a_topic_is_heard() {
    let (_a, _b, first, second) = pair("p2p");
    let listener = listen(&first, &["--tags", "TX"]);
    // The overlay of a topic takes a moment to form, and nothing tells that it has.
    let mut number = 0;
    support::eventually("a transaction is heard", || {
        number += 1;
        let body = format!("transaction {number}");
        let sent = finish(second.command("send").args(["--tag", "TX", &body]));
        assert_eq!(sent.code, Some(0), "{sent:?}");
        listener.stdout.try_recv().ok()
    });
}

#[test]
fn a_sent_message_comes_from_a_file_or_standard_input() {
    let (a, _b, first, second) = pair("ws");
    let listener = listen(&second, &[]);
    let file = a.path().join("body");
    let body = vec![7; 300_000];
    std::fs::write(&file, &body).unwrap();
    let sent = finish(first.command("send").args(["--tag", "PP", "--file"]).arg(&file));
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert_eq!(listener.json()["digest"], Digest::of(Tag::PP, &body).to_string());
    let sent = finish_with_input(first.command("send").args(["--tag", "AV", "-"]), b"\x00\xff");
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert_eq!(listener.json()["digest"], Digest::of(Tag::AV, b"\x00\xff").to_string());
}

#[test]
fn the_peers_of_a_node_are_shown() {
    let (_a, _b, first, second) = pair("ws");
    let peers = finish(second.command("peers").arg("--json"));
    let peers: Value = serde_json::from_str(&peers.stdout).unwrap();
    assert_eq!(peers.as_array().unwrap().len(), 1);
    assert_eq!((&peers[0]["direction"], &peers[0]["transport"]), (&"out".into(), &"ws".into()));
    let table = finish(second.command("peers").args([""; 0]));
    assert!(table.stdout.contains("PEER") && table.stdout.lines().count() == 2, "{table:?}");
    let status = finish(first.command("status").arg("--json"));
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["peer_id"], first.ready["peer_id"]);
    assert_eq!((&status["mode"], &status["peers"]), (&"ws".into(), &1.into()));
}

#[test]
fn a_listener_is_told_when_its_node_stops() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[]);
    let mut listener = listen(&node, &[]);
    node.process.signal("TERM");
    listener.expect_on_stderr("the node stopped");
    assert!(listener.wait(support::PATIENCE).success());
}

#[test]
fn a_new_key_is_written_once_for_its_owner_alone() {
    let dir = scratch();
    let path = dir.path().join("key.pem");
    let made = finish(tandem().arg("keygen").arg("--out").arg(&path));
    assert_eq!(made.code, Some(0), "{made:?}");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let identity = Keypair::from_pem(&text).unwrap().identity().to_string();
    assert_eq!(made.stdout, identity);
    let again = finish(tandem().arg("keygen").arg("--out").arg(&path));
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.starts_with("error: cannot write "), "{again:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "the first key is kept");
    let node = Node::start(&dir.path().join("d"), &["--key-file", path.to_str().unwrap()]);
    assert_eq!(node.ready["peer_id"], identity);
}

#[test]
fn a_key_without_a_file_is_printed() {
    let made = finish(tandem().arg("keygen"));
    let key = Keypair::from_pem(&format!("{}\n", made.stdout)).unwrap();
    assert_eq!(made.stderr, key.identity().to_string());
}

#[test]
fn the_configuration_is_printed_with_the_origin_of_each_value() {
    let dir = scratch();
    let file = dir.path().join("tandem.toml");
    std::fs::write(&file, "\nnetwork = \"mine\"\n").unwrap();
    let mut command = tandem();
    command.arg("config").arg("--config").arg(&file).args(["--mode", "ws"]);
    let printed = finish(command.env("TANDEM_RELAY", "off").env("HOME", "/home/me"));
    assert_eq!(printed.code, Some(0), "{printed:?}");
    for line in [
        &format!("network = \"mine\" # {}:2", file.display()),
        "mode = \"ws\" # flag --mode",
        "relay = \"off\" # env TANDEM_RELAY",
        "listen_ws = \"127.0.0.1:4160\" # default",
        "data_dir = \"/home/me/.local/share/tandem\" # default",
    ] {
        assert!(printed.stdout.lines().any(|printed| printed == line), "{line}: {printed:?}");
    }
}

#[test]
fn the_version_and_completions_are_printed() {
    let version = finish(tandem().arg("--version"));
    assert_eq!(version.stdout, concat!("tandem ", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let script = finish(tandem().args(["completions", shell]));
        assert_eq!(script.code, Some(0));
        assert!(script.stdout.contains("tandem"), "{shell}");
        assert!(!script.stdout.contains("demo-node,") || shell != "bash", "{shell}");
        // Issue 8, 17: the words that may stand for a value, not the files that lie about.
        for words in ["hybrid ws p2p", "AV PP SP TX VB", "tandem algorand"] {
            let words: Vec<&str> = words.split(' ').collect();
            let listed = script.stdout.contains(&words.join(" "));
            let in_lines = words.iter().all(|word| script.stdout.contains(&format!("{word}\\t")));
            assert!(listed || in_lines, "{shell}: {words:?}");
        }
    }
    let help = finish(tandem().arg("help"));
    assert_eq!((help.code, help.stdout.contains("Usage: tandem")), (Some(0), true), "{help:?}");
    let help = finish(tandem().args(["help", "send"]));
    assert_eq!((help.code, help.stdout.contains("--tag <TAG>")), (Some(0), true), "{help:?}");
    let nothing = finish(&mut tandem());
    assert_eq!((nothing.code, nothing.stderr.contains("Usage: tandem")), (Some(2), true));
}

/// Accepts one connection on the admin socket of a directory, and does to it as told.
fn instead_of_a_node(dir: &Path, does: impl FnOnce(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(DataDir::admin_socket(dir)).expect("the path is free");
    std::thread::spawn(move || does(listener.accept().expect("it is called").0));
}

/// The behaviour of the other end in place of a node; `None` if there is no other end.
type OtherEnd = Option<fn(UnixStream)>;

// Found beside issue 8: `tandem peers` once printed nothing at all beside a flood. The line is on standard error, and the
// exit code tells.
#[test]
fn a_command_that_cannot_reach_its_node_says_so_and_fails() {
    let cases: [(&str, OtherEnd); 5] = [
        ("no node runs on the data directory", None),
        ("the connection to the node broke", Some(drop)),
        (
            "the connection to the node broke",
            Some(|mut stream| {
                let _request = stream.read(&mut [0; 1_000]).expect("the request comes");
            }),
        ),
        (
            "the node's answer cannot be read",
            Some(|mut stream| {
                let _request = stream.read(&mut [0; 1_000]).expect("the request comes");
                let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[";
                stream.write_all(half).expect("it is read");
            }),
        ),
        // The time of an answer is 20 s.
        (
            "the node did not answer within 20 s",
            Some(|stream| {
                std::thread::sleep(PATIENCE);
                drop(stream);
            }),
        ),
    ];
    let waits = cases.map(|(expected, does)| {
        std::thread::spawn(move || {
            let dir = scratch();
            if let Some(does) = does {
                instead_of_a_node(dir.path(), does);
            }
            for json in [&["--json"][..], &[]].into_iter().take(1 + usize::from(does.is_none())) {
                let ended =
                    finish(tandem().arg("peers").arg("--data-dir").arg(dir.path()).args(json));
                assert!(ended.code.is_some_and(|code| code > 0), "{expected}: {ended:?}");
                assert_eq!(ended.stdout, "", "{expected}: {ended:?}");
                assert!(ended.stderr.contains(expected), "{expected}: {ended:?}");
            }
        })
    });
    for wait in waits {
        wait.join().expect("the command does as it should");
    }
}

// Issue 12, 9.
#[test]
fn every_command_has_a_manual_page() {
    let printed = finish(tandem().arg("man"));
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let dir = scratch();
    let out = dir.path().join("man1");
    let written = finish(tandem().arg("man").arg("--out").arg(&out));
    assert_eq!((written.code, written.stdout.as_str()), (Some(0), ""), "{written:?}");
    let page = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(page("tandem.1").trim_end(), printed.stdout.trim_end());
    assert!(page("tandem-run.1").contains("listen\\-ws"));
    assert!(page("tandem-peer-ban.1").contains("length of the ban"));
    assert!(!out.join("tandem-demo-node.1").exists(), "a hidden command has no page");

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = finish(tandem().arg("man").arg("--out").arg(&file));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("cannot write"), "{refused:?}");
}
