//! Valid readings spread over TCP and WebSockets, and a peer that sends others is soon not heard any more.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::process::{PATIENCE, Process};

struct Sensor {
    process: Process,
    addresses: Vec<String>,
}

impl Sensor {
    fn start(peer: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_publish_subscribe"));
        command.args(peer.into_iter().flat_map(|peer| ["--peer", peer])).stdin(Stdio::piped());
        let (process, mut addresses) = (Process::spawn(&mut command), Vec::new());
        loop {
            let line = process.line();
            let Some(address) = line.strip_prefix("listening ") else { break };
            addresses.push(address.to_owned());
        }
        Self { process, addresses }
    }

    fn address(&self, is_websocket: bool) -> &str {
        self.addresses.iter().find(|address| address.contains("/ws/") == is_websocket).unwrap()
    }

    fn identity(&self) -> &str {
        self.addresses[0].rsplit('/').next().unwrap()
    }

    #[track_caller]
    fn publishes(&mut self, line: &str) {
        writeln!(self.process.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        let published = format!("published {}", line.escape_debug());
        self.prints(|line| line == published);
    }

    /// Reads on to a line.
    #[track_caller]
    fn prints(&self, is_it: impl Fn(&str) -> bool) {
        while !is_it(&self.process.line()) {}
    }
}

// Issue 12, 7.
#[test]
fn a_peer_that_sends_what_the_validator_rejects_loses_its_standing() {
    let subscriber = Sensor::start(None);
    let mut over_tcp = Sensor::start(Some(subscriber.address(false)));
    let mut over_ws = Sensor::start(Some(subscriber.address(true)));
    for (sensor, line) in [(&mut over_tcp, "kitchen 21.5"), (&mut over_ws, "cellar 9")] {
        sensor.publishes(line);
        let expected = format!("{} °C, by {}", line.replacen(' ', ": ", 1), sensor.identity());
        subscriber.prints(|line| line == expected);
    }
    for line in ["cellar 900", "cellar", "cellar cold", "\u{1b}[31m 9", "cellar NaN", "c 1000"] {
        over_ws.publishes(line);
        subscriber.prints(|line| line.starts_with("refused: "));
    }
    let id = over_ws.identity();
    subscriber.prints(|line| {
        line.starts_with(&format!("6 refused, {id} has the score -"))
            && line.ends_with("muted: true")
    });
    over_ws.publishes("cellar 8");
    over_tcp.publishes("kitchen 22");
    loop {
        let line = subscriber.process.line();
        assert!(!line.starts_with("cellar"), "{line}");
        if line.starts_with("kitchen: 22 ") {
            break;
        }
    }
    for mut sensor in [subscriber, over_tcp, over_ws] {
        sensor.process.signal("INT");
        assert!(sensor.process.wait(PATIENCE).success());
    }
}
