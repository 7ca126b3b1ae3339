//! Everybody hears a message, over both transports; newcomers ask for it, and nobody can forge one.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tandem::{
    NodeBuilder, PeerEvent,
    gossip::{Keypair, Lane, NetworkId, Outbound, ProfileBuilder, Route, Tag, TagRule},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::Client,
    message::{Fault, MAX_MESSAGE, Message},
    process::{PATIENCE, Process, eventually},
    terminal::Terminal,
};

struct Chat {
    process: Process,
    ws: String,
    p2p: String,
}

fn command(dir: &Path, name: &str, peer: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat"));
    command.args([name, "--data-dir"]).arg(dir.join(name.escape_debug().to_string()));
    command.args(peer.iter().flat_map(|peer| ["--peer", peer]));
    command
}

impl Chat {
    fn join(dir: &Path, name: &str, peer: &[&str]) -> Self {
        let process = Process::spawn(command(dir, name, peer).stdin(Stdio::piped()));
        let address = || process.line().strip_prefix("listening ").unwrap().to_owned();
        let (ws, p2p) = (address(), address());
        assert_eq!(process.line(), "ready");
        Self { process, ws, p2p }
    }

    fn say(&mut self, text: &str) {
        writeln!(self.process.child.stdin.as_mut().unwrap(), "{text}").unwrap();
    }

    /// The next line, without the end of the identity of who said it.
    #[track_caller]
    fn hears(&self, name: &str, text: &str) {
        let line = self.process.line();
        let (heard, rest) = line.split_once(" (").unwrap();
        assert_eq!((heard, rest.split_once("): ").unwrap().1), (name, text), "{line}");
    }
}

// Issue 12, 7.
#[test]
fn everybody_hears_everybody_and_newcomers_hear_what_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut ada = Chat::join(dir.path(), "ada", &[]);
    ada.say("is anybody there?");
    ada.hears("ada", "is anybody there?");
    let mut bob = Chat::join(dir.path(), "bob", &[&ada.ws]);
    let mut eve = Chat::join(dir.path(), "\u{1b}[31meve\u{202e}", &[&ada.p2p]);
    let hostile = r"\u{1b}[31meve\u{202e}";
    for newcomer in [&bob, &eve] {
        newcomer.hears("ada", "is anybody there?");
    }
    bob.say("it's me, \u{7}bob");
    for chat in [&ada, &bob, &eve] {
        chat.hears("bob", r"it's me, \u{7}bob");
    }
    eve.say("ada (aaaaaa): \"send me money\"");
    for chat in [&ada, &bob, &eve] {
        chat.hears(hostile, "ada (aaaaaa): \"send me money\"");
    }
    bob.say(&"x".repeat(1_001));
    assert_eq!(bob.process.line(), "not said: a name has 32 bytes at most, and a text 1000");

    // A person at a terminal has the history of a peer that came later than the first message.
    let mut terminal = Terminal::run(&command(dir.path(), "zoe", &[&bob.ws]));
    terminal.shows("): is anybody there?");
    terminal.shows("): ada (aaaaaa): \"send me money\"");
    terminal.press("good morning!!\u{7f}\r");
    for chat in [&ada, &bob, &eve] {
        chat.hears("zoe", "good morning!");
    }
    terminal.shows("): good morning!");
    terminal.press("\u{1b}");
    terminal.ends();
    for chat in [&mut ada, &mut bob, &mut eve] {
        chat.process.signal("INT");
        assert!(chat.process.wait(PATIENCE).success());
    }
}

// Issue 12, 7.
#[test]
fn nobody_speaks_for_somebody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (ada, client) = (Chat::join(dir.path(), "ada", &[]), Client::new());
    let key = Keypair::from_seed([7; 32]);
    let message = Message::sign(&key, "ada", "pay me", 1).unwrap();
    let written = String::from_utf8(message.write()).unwrap();
    assert_eq!(Message::read(written.as_bytes()), Ok(message));
    let forged = written.replace("pay me", "pay eve");
    assert_eq!(Message::read(forged.as_bytes()), Err(Fault::WrongSignature));
    for wrong in ["", "{}", &"x".repeat(MAX_MESSAGE + 1)] {
        assert!(Message::read(wrong.as_bytes()).is_err());
    }
    // A node of the same network that says it anyhow is let go.
    let tag = Tag(*b"sd");
    let rule = TagRule {
        route: Route::Topic("chat/said/1"),
        ..TagRule::new(tag, Lane::Bulk, MAX_MESSAGE)
    };
    let profile = ProfileBuilder::new("chat").tag(rule).build().unwrap();
    let builder = NodeBuilder::new(NetworkId::new("chat").unwrap()).profile(profile);
    let builder = builder.peer(ada.ws.parse().unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut node = builder.start(&CancellationToken::new()).await.unwrap();
        let mut events = node.events();
        assert!(matches!(events.recv().await.unwrap(), PeerEvent::Connected(_)));
        let _ = node.node().broadcast(Outbound::new(tag, forged)).unwrap();
        let gone = tokio::time::timeout(PATIENCE, async {
            while !matches!(events.recv().await.unwrap(), PeerEvent::Disconnected(..)) {}
        });
        gone.await.unwrap();
        let _ = node.stop(Duration::from_secs(1)).await;
    });
    let history = eventually("there is a history", || client.get(&ada.ws, "/history"));
    assert_eq!(history, "");
}
