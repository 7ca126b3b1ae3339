//! `tandem top` in a pseudo terminal of 80 cells and 24 lines, read as a terminal reads it.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};
use vt100::Parser;

use crate::support::{Node, PATIENCE, eventually, finish, scratch, tandem};

const SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// The program in a terminal of its own.
struct Top {
    process: Child,
    keys: File,
    screen: Arc<Mutex<Parser>>,
    /// The other end of the terminal, whose settings are looked at.
    terminal: OwnedFd,
    /// The settings before the program began.
    before: String,
}

fn settings(terminal: &OwnedFd) -> String {
    let settings = tcgetattr(terminal).unwrap();
    format!("{:?} {:?} {:?}", settings.input_modes, settings.output_modes, settings.local_modes)
}

impl Top {
    fn start(node: &Node) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let path = ptsname(&keys, Vec::new()).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let terminal = OwnedFd::from(open());
        tcsetwinsize(&terminal, SIZE).unwrap();
        let before = settings(&terminal);
        // In a session of its own: else the program may find the terminal of the tester.
        let mut command = Command::new("setsid");
        command.arg(tandem().get_program()).args(["top", "--data-dir"]);
        command.arg(&node.dir).env("TERM", "xterm-256color");
        let process = command.stdin(open()).stdout(open()).stderr(Stdio::null()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(Parser::new(SIZE.ws_row, SIZE.ws_col, 0)));
        let keys = File::from(keys);
        let (mut output, shown) = (keys.try_clone().unwrap(), Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { process, keys, screen, terminal, before }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    #[track_caller]
    fn shows(&self, expected: &str) {
        eventually(expected, || self.text().contains(expected).then_some(()));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end, and looks at the state in which the terminal is left.
    #[track_caller]
    fn ends(mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it goes on: {}", self.text());
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(settings(&self.terminal), self.before);
        eventually("the usual screen", || {
            let screen = self.screen.lock().unwrap();
            let screen = screen.screen();
            (!screen.alternate_screen() && !screen.hide_cursor()).then_some(())
        });
        status
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert_eq!(finish(Command::new("kill").args(["-s", signal, &id])).code, Some(0));
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // It has ended, where the test went well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// Issue 12, 5.
#[test]
fn top_follows_the_peers_and_is_sorted_by_key() {
    let dirs = [scratch(), scratch(), scratch()];
    let node = Node::start(dirs[0].path(), &[]);
    let over_ws = Node::start(dirs[1].path(), &["--mode", "ws", "--peer", node.ws()]);
    let mut top = Top::start(&node);
    top.shows("peers 1: ws 1, p2p 0");
    let over_p2p = Node::start(dirs[2].path(), &["--mode", "p2p", "--peer", node.p2p()]);
    top.shows("peers 2: ws 1, p2p 1");
    // The agent of the second peer, which is described below the table.
    top.press("\u{1b}[B");
    top.shows("tandem/");
    let order = |top: &Top| {
        let text = top.text();
        let rows = text.lines().filter(|line| line.starts_with('#'));
        let over = rows.filter_map(|row| Some(row.split_whitespace().nth(1)?.to_owned()));
        over.filter(|over| over == "ws" || over == "p2p").collect::<Vec<_>>()
    };
    top.press("w");
    eventually("sorted by transport", || (order(&top) == ["p2p", "ws"]).then_some(()));
    top.press("o");
    eventually("turned round", || (order(&top) == ["ws", "p2p"]).then_some(()));
    let text = top.text();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for word in ["priority in ", "bulk     in ", "drops ", "Num", "rTt", "q quit", "serving"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    over_p2p.stop();
    top.shows("peers 1: ws 1, p2p 0");
    top.press("q");
    assert_eq!(top.ends().code(), Some(0));
    over_ws.stop();
    node.stop();
}

// Issue 12, 5.
#[test]
fn top_gives_the_terminal_back_however_it_ends() {
    let dir = scratch();
    let node = Node::start(dir.path(), &["--mode", "ws"]);
    for keys in ["q", "\u{3}", "\u{1b}"] {
        let mut top = Top::start(&node);
        top.shows("peers 0");
        top.press(keys);
        assert_eq!(top.ends().code(), Some(0), "{keys:?}");
    }
    for signal in ["TERM", "INT", "HUP"] {
        let top = Top::start(&node);
        top.shows("peers 0");
        top.signal(signal);
        assert_eq!(top.ends().code(), Some(0), "{signal}");
    }
    let mut top = Top::start(&node);
    top.shows("peers 0");
    node.stop();
    top.shows("no node runs");
    top.press("q");
    assert_eq!(top.ends().code(), Some(0));
}

// Issue 12, 5.
#[test]
fn top_without_a_terminal_or_a_node_says_so_in_one_line() {
    let dir = scratch();
    let told = finish(tandem().args(["top", "--data-dir"]).arg(dir.path()));
    assert_eq!((told.code, told.stderr.lines().count()), (Some(2), 1), "{told:?}");
    assert!(told.stderr.contains("tandem peers"), "{told:?}");
}
