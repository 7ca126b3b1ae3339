//! The attack, in a process of its own.

use std::{io::Write, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use testkit::hostile::{Attack, Tally, Target};
use tokio::{io::AsyncReadExt, runtime::Builder, time};

use crate::error::Failure;

/// Between two reports.
const REPORT: Duration = Duration::from_millis(100);

/// Most connections, if the system allows so many: a few files are for other uses.
const SPARE_FILES: u16 = 64;

/// Counts of the attack so far.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(super) struct Done {
    pub(super) opened: u64,
    pub(super) refused: u64,
    pub(super) cut: u64,
    pub(super) sent: u64,
    pub(super) first_cut_ms: Option<u64>,
}

/// Settings of the attack.
#[derive(Debug, clap::Args)]
pub(crate) struct AttackerArgs {
    /// Its name.
    name: String,
    /// The WebSocket port of the hub.
    ws: SocketAddr,
    /// Its libp2p port.
    p2p: String,
    /// Most connections at one time.
    most: u16,
}

/// Most connections of an attack, and whether that is fewer than it wants.
pub(super) fn most_connections(attack: Attack) -> u16 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = files.and_then(|files| files.split_whitespace().nth(1)?.parse::<u64>().ok());
    let files = u16::try_from(hard.unwrap_or(u64::MAX)).unwrap_or(u16::MAX);
    attack.connections().min(files.saturating_sub(SPARE_FILES))
}

/// Attacks until standard input ends.
pub(crate) fn attack(args: &AttackerArgs) -> Result<(), Failure> {
    let attack = Attack::named(&args.name).ok_or("there is no such attack")?;
    let (target, tally) = (Target::new(args.ws, args.p2p.clone()), Tally::default());
    let run = async {
        let (mut stdin, mut nothing) = (tokio::io::stdin(), [0; 1]);
        tokio::select! {
            () = attack.run(&target, args.most, &tally) => Err("the attack has ended".into()),
            told = report(&tally) => told,
            read = stdin.read(&mut nothing) => { read?; Ok(()) }
        }
    };
    Builder::new_current_thread().enable_all().build()?.block_on(run)
}

async fn report(tally: &Tally) -> Result<(), Failure> {
    loop {
        time::sleep(REPORT).await;
        let counts = tally.counts();
        let first_cut = counts.first_cut.map(|after| after.as_millis());
        let done = Done {
            opened: counts.opened,
            refused: counts.refused,
            cut: counts.cut,
            sent: counts.sent,
            first_cut_ms: first_cut.and_then(|ms| u64::try_from(ms).ok()),
        };
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&done)?)?;
    }
}
