//! Signals, for every command that runs for a while.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[cfg(test)]
use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Node, Process, eventually, finish, run, scratch, tandem};

/// Longest time for a command to end after a signal.
const STOP_TIME: Duration = Duration::from_secs(6);

#[track_caller]
fn ends(process: &mut Process, signal: &str, code: i32) {
    process.signal(signal);
    let asked = Instant::now();
    let status = process.wait(2 * STOP_TIME);
    assert!(asked.elapsed() < STOP_TIME, "{signal}: {:?}", asked.elapsed());
    assert_eq!(status.code(), Some(code), "{signal}");
    let errors: Vec<String> = process.stderr.iter().collect();
    assert!(errors.iter().all(|line| !line.contains("panicked")), "{signal}: {errors:?}");
}

// Issue 8, 3.
#[test]
fn every_signal_ends_a_node_and_takes_its_socket_away() {
    for signal in ["HUP", "INT", "TERM"] {
        let dir = scratch();
        let mut node = Node::start(dir.path(), &[]);
        ends(&mut node.process, signal, 0);
        assert!(!dir.path().join("admin.sock").exists(), "{signal}");
    }
}

// Issue 8, 3.
#[test]
fn every_signal_ends_a_listener_a_forward_and_a_request() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[]);
    // Takes a request and never answers.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("http://{}/", mute.local_addr().unwrap());
    for (signal, number) in [("HUP", 1), ("INT", 2), ("TERM", 15)] {
        let mut listener = Process::spawn(&mut node.command("listen"));
        listener.expect_on_stderr("listening");
        ends(&mut listener, signal, 0);
        let mut forward =
            Process::spawn(tandem().args(["forward", "--listen", "127.0.0.1:0", node.ws()]));
        assert!(forward.line().starts_with("forwarding http://"));
        ends(&mut forward, signal, 0);
        let mut request = Process::spawn(tandem().args(["http", &mute]));
        std::thread::sleep(Duration::from_millis(300));
        ends(&mut request, signal, 128 + number);
        // Waits for its standard input, which does not end.
        let mut command = node.command("send");
        let (input, _never_written) = std::io::pipe().unwrap();
        command.args(["--tag", "AV", "-"]).stdin(input);
        let mut sender = Process::spawn(&mut command);
        std::thread::sleep(Duration::from_millis(300));
        ends(&mut sender, signal, 128 + number);
    }
}

/// `true` if this machine lets a process be the first of a container.
fn has_containers() -> bool {
    let tried = container(Path::new("/bin/true")).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// A program as process 1 of a namespace of its own.
fn container(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--"]).arg(program);
    command
}

/// The process that another one has started.
fn child_of(pid: u32) -> u32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    eventually("the container has its process", || {
        std::fs::read_to_string(&path).ok()?.split_whitespace().next()?.parse().ok()
    })
}

// Issue 8, 3. The kernel drops a signal that process 1 of a container does not handle.
#[test]
fn the_first_process_of_a_container_hears_signals() {
    if !has_containers() {
        eprintln!("skipped: this machine makes no PID namespaces");
        return;
    }
    let dir = scratch();
    let node = Node::start(dir.path(), &[]);
    let program = Path::new(env!("CARGO_BIN_EXE_tandem"));
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("http://{}/", mute.local_addr().unwrap());
    let other = scratch();
    let other = other.path().display().to_string();
    let (on, dir) = (node.ws().to_owned(), dir.path().display().to_string());
    let free = ["--listen-ws", "127.0.0.1:0", "--listen-p2p", "/ip4/127.0.0.1/tcp/0"];
    let run = [&["run", "--data-dir", &other], free.as_slice()].concat();
    let commands = [
        run,
        vec!["listen", "--data-dir", &dir],
        vec!["http", &mute],
        vec!["forward", "--listen", "127.0.0.1:0", &on],
        vec!["demo", "--seconds", "60"],
    ];
    for arguments in &commands {
        for signal in ["TERM", "INT", "HUP"] {
            let mut command = container(program);
            let mut outside = Process::spawn(command.args(arguments));
            let pid = child_of(outside.child.id());
            // The handlers are installed at once, yet not before the process runs.
            eventually("the signals are caught", || {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
                let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
                let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
                (caught & 0x4003 == 0x4003).then_some(())
            });
            let sent =
                Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
            assert!(sent.unwrap().success());
            let asked = Instant::now();
            outside.wait(2 * STOP_TIME);
            assert!(asked.elapsed() < STOP_TIME, "{arguments:?} {signal}: {:?}", asked.elapsed());
        }
    }
}

// Issue 8, 3.
#[test]
fn a_node_that_is_told_to_ignore_hangups_does() {
    let dir = scratch();
    let inner = run(dir.path());
    let mut command = Command::new("nohup");
    command.arg(inner.get_program()).args(inner.get_args()).arg("--json");
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut node = Process::spawn(command.stdin(Stdio::null()));
    assert!(node.line().contains("\"ready\""));
    node.signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    let told = finish(tandem().args(["status", "--data-dir"]).arg(dir.path()));
    assert_eq!(told.code, Some(0), "{told:?}");
    ends(&mut node, "TERM", 0);
}
