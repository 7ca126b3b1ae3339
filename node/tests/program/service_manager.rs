//! A node under a service manager, whose place this test takes: notes over `NOTIFY_SOCKET`, and a stop with a grace.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{Process, eventually, finish, run, scratch, tandem};

/// Longest time for what a node does at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// The socket of a manager, and the notes that came.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn new(dir: &Path) -> Self {
        let socket = UnixDatagram::bind(dir.join("manager.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// The next note, a line for each of its assignments.
    fn note(&self) -> String {
        let mut note = [0; 1_024];
        let len = self.socket.recv(&mut note).expect("a note comes in time");
        String::from_utf8(note[..len].to_vec()).unwrap()
    }

    /// The next note with this assignment.
    fn expect(&self, assignment: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let note = self.note();
            if note.lines().any(|line| line == assignment) {
                return note;
            }
            assert!(Instant::now() < until, "no {assignment}");
        }
    }
}

fn managed(dir: &Path, more: &[&str]) -> Command {
    let mut command = run(dir);
    command.env("NOTIFY_SOCKET", dir.join("manager.sock")).env("WATCHDOG_USEC", "400000");
    command.args(more);
    command
}

/// The state that `/health` tells, and its status.
fn health(ws: &str) -> (Option<i32>, String) {
    let ended = finish(tandem().args(["http", &format!("http://{ws}/health")]));
    (ended.code, ended.stdout + &ended.stderr)
}

/// The next line that the node logs.
fn warning(node: &Process) -> String {
    node.stderr.recv_timeout(PATIENCE).expect("the node warns")
}

// Issue 12, 8.
#[test]
fn a_manager_hears_that_the_node_is_ready_lives_and_stops() {
    let dir = scratch();
    let manager = Manager::new(dir.path());
    let mut node = Process::spawn(&mut managed(dir.path(), &[]));
    assert!(manager.expect("READY=1").contains("STATUS=running"));
    for _ in 0..3 {
        manager.expect("WATCHDOG=1");
    }
    node.signal("TERM");
    manager.expect("STOPPING=1");
    assert_eq!(node.wait(PATIENCE).code(), Some(0));
}

// Issue 12, 8.
#[test]
fn a_node_with_a_grace_drains_at_sigterm_and_stops_at_the_next_signal_or_the_end() {
    let dir = scratch();
    for (grace, signals) in [("60", 2), ("2", 1)] {
        let manager = Manager::new(dir.path());
        let mut node = Process::spawn(&mut managed(dir.path(), &["--drain-s", grace]));
        manager.expect("READY=1");
        let ws = eventually("the node says where it listens", || {
            node.line().strip_prefix("listening ws http://").map(str::to_owned)
        });
        assert_eq!(health(&ws).0, Some(0));
        let asked = Instant::now();
        node.signal("TERM");
        let note = manager.expect("STATUS=draining");
        assert!(note.contains("EXTEND_TIMEOUT_USEC="), "{note}");
        let (_, says) = health(&ws);
        assert!(says.contains("draining"), "{says}");
        manager.expect("WATCHDOG=1");
        if signals == 2 {
            node.signal("TERM");
        }
        manager.expect("STOPPING=1");
        assert_eq!(node.wait(PATIENCE).code(), Some(0));
        assert_eq!(asked.elapsed() < Duration::from_secs(2), signals == 2, "{:?}", asked.elapsed());
        std::fs::remove_file(dir.path().join("manager.sock")).unwrap();
    }
}

// Issue 12, 8, and issue 8, 2.
#[test]
fn a_manager_that_is_not_there_or_does_not_read_delays_nothing() {
    let dir = scratch();
    let mut node = Process::spawn(&mut managed(dir.path(), &[]));
    assert!(warning(&node).contains("the service manager cannot be told"));
    node.signal("TERM");
    assert_eq!(node.wait(PATIENCE).code(), Some(0));
    let manager = Manager::new(dir.path());
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"full", dir.path().join("manager.sock")).is_ok() {}
    let mut node = Process::spawn(&mut managed(dir.path(), &[]));
    assert!(warning(&node).contains("it does not read"));
    node.signal("TERM");
    let asked = Instant::now();
    assert_eq!(node.wait(PATIENCE).code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    drop(manager);
}
