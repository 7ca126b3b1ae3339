//! The commands of the manual run as they are pasted.
//!
//! They run in a namespace with a network and a `/tmp` of its own, so the default ports and the paths of the
//! manual are free whatever else this machine does.

#[cfg(test)]
mod support;

use std::{path::Path, process::Command, time::Duration};

use support::Process;

/// How a block is run.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// To its end, which must be a success.
    Command,
    /// In the background, until it says that it is ready.
    Node,
    /// Not at all, for this reason.
    NotHere(&'static str),
}

/// What begins as the first column says is run as the second says, the first match counts; everything else is
/// a command.
const KINDS: [(&str, Kind); 2] = [
    ("tandem run --profile algorand", Kind::NotHere("it needs a relay of another network")),
    ("tandem run", Kind::Node),
];

/// The blocks of shell in a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// One script of all the blocks of a page.
fn script(page: &str) -> String {
    let mut script = "set -eu; mount -t tmpfs none /tmp; ip link set lo up\n\
        trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
        .to_owned();
    for (number, block) in blocks(page).iter().enumerate() {
        let kind = KINDS.iter().find(|(start, _)| block.starts_with(start));
        script.push_str(&match kind.map_or(Kind::Command, |(_, kind)| *kind) {
            Kind::NotHere(reason) => format!("echo 'not run: {reason}'\n"),
            // A subshell, so that a `wait` in it waits for what it has started alone.
            Kind::Command => format!("(\n{block})\n"),
            Kind::Node => format!(
                "(\n{block}) > /tmp/block-{number} &\n\
                 until grep -q ready /tmp/block-{number}; do sleep 0.1; done; sleep 1\n"
            ),
        });
    }
    script.push_str("echo; echo all blocks ran\n");
    script
}

/// Whether this machine lets a program have a network and a `/tmp` of its own.
fn namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "--", "bash", "-c", script]);
    let program = Path::new(env!("CARGO_BIN_EXE_tandem"));
    let folder = program.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    command.env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap_or_default()));
    command
}

// Issue 8, 21.
#[test]
fn every_command_of_the_page_on_running_runs_as_pasted() {
    let tried =
        namespace("mount -t tmpfs none /tmp && ip link set lo up && openssl version").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: this machine makes no namespaces, or has no openssl");
        return;
    }
    let page = include_str!("../../docs/running.md");
    assert!(blocks(page).len() >= 7);
    let mut process = Process::spawn(&mut namespace(&script(page)));
    let status = process.wait(Duration::from_secs(120));
    let (out, err): (Vec<String>, Vec<String>) =
        (process.stdout.iter().collect(), process.stderr.iter().collect());
    assert!(status.success(), "{out:?}\n{err:?}");
    assert_eq!(out.last().map(String::as_str), Some("all blocks ran"), "{out:?}\n{err:?}");
    assert!(out.iter().any(|line| line.starts_with("TX 5 bytes, digest ")), "{out:?}");
}
