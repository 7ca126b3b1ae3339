//! `tandem send --topic` and `tandem listen --topic` between nodes, and everything that can be wrong with them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;

use crate::support::{Node, Process, eventually, finish, run, scratch};

/// Sends on a topic until a peer is subscribed.
fn send(node: &Node, topic: &str, text: &str) -> String {
    eventually("a peer is subscribed", || {
        let sent = finish(node.command("send").args(["--topic", topic, text]));
        (sent.code == Some(0)).then_some(sent.stdout)
    })
}

fn listen(node: &Node, topic: &str, more: &[&str]) -> Process {
    let mut command = node.command("listen");
    let listener = Process::spawn(command.args(["--topic", topic, "--count", "1"]).args(more));
    listener.expect_on_stderr("listening");
    listener
}

// Issue 11, 3.
#[test]
fn a_text_on_a_topic_reaches_the_listener_at_another_node() {
    let (one, other) = (scratch(), scratch());
    let topics = ["--topic", "chat", "--topic", "/prices/1=none"];
    let first = Node::start(one.path(), &topics);
    let second = Node::start(other.path(), &[&["--peer", first.p2p()], &topics[..]].concat());
    let mut plain = listen(&second, "chat", &[]);
    let sent = send(&first, "chat", "hello \u{1b}[31m there");
    assert_eq!(sent, "published on chat, 17 bytes, to 1 peer");
    let id = first.p2p().rsplit('/').next().unwrap();
    let expected = format!(r"chat 17 bytes, by {id}: hello \u{{1b}}[31m there");
    assert_eq!(plain.line(), expected);
    assert!(plain.wait(crate::support::PATIENCE).success());
    let nameless = listen(&second, "/prices/1", &["--json"]);
    send(&first, "/prices/1", "7");
    let heard: Value = nameless.json();
    assert_eq!((&heard["topic"], &heard["size"]), (&"/prices/1".into(), &1.into()));
    assert_eq!((&heard["author"], &heard["sequence"]), (&Value::Null, &Value::Null));
    assert_eq!((&heard["from"], &heard["text"]), (&id.into(), &"7".into()));
    first.stop();
    second.stop();
}

// Issue 11, 3.
#[test]
fn a_topic_that_does_not_work_says_why() {
    let folder = scratch();
    let node = Node::start(folder.path(), &["--topic", "chat"]);
    for (arguments, code, told) in [
        (&["send", "--topic", "chat", "hello"][..], 1, "no peer is subscribed to chat"),
        (
            &["send", "--topic", "cat", "hello"],
            2,
            "\"cat\" is no topic of this node: use one of chat",
        ),
        (&["listen", "--topic", "cat"], 2, "\"cat\" is no topic of this node: use one of chat"),
        (&["send", "--topic", "chat", ""], 2, "a message on a topic has one byte or more"),
        (&["send", "--topic", "chat", "--tag", "TX", "a"], 2, "cannot be used with"),
        (&["send", "hello"], 2, "--tag"),
    ] {
        let ended = finish(node.command(arguments[0]).args(&arguments[1..]));
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(told), "{arguments:?}: {ended:?}");
    }
    node.stop();
    for (arguments, told) in [
        (
            &["--mode", "ws", "--topic", "chat"][..],
            "topics are a part of libp2p, which the mode ws leaves out",
        ),
        (&["--topic", "tandem/tx/1"], "is a topic of the network itself"),
        (&["--topic", "chat", "--topic", "chat=none"], "is given twice"),
        (&["--topic", "chat=loud"], "has no rule of signatures behind its ="),
        (&["--topic", ""], "is no name of a topic"),
    ] {
        let ended = finish(run(folder.path()).args(arguments));
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(told), "{arguments:?}: {ended:?}");
    }
}

// Issue 11, 3: a hybrid is not to be taken for a node whose WebSocket peers get everything.
#[test]
fn a_hybrid_says_that_its_topics_go_over_libp2p_only() {
    let folder = scratch();
    let node = Process::spawn(run(folder.path()).args(["--mode", "hybrid", "--topic", "chat"]));
    node.expect_on_stderr(
        "topics go over libp2p only: peers over WebSocket do not get their messages",
    );
}
