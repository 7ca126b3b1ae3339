//! Honest peers beside hostile ones.
//!
//! ```text
//!   honest WebSocket peer ──votes, transactions──▶ hub ──▶ honest libp2p peer, and back    this process
//!   newcomers ─────────────────────────────────────▶ ▲                                    this process
//!   attack, or a harmless load of the same size ─────┘                 a process each, lowest priority
//! ```
//!
//! # Invariants
//!
//! * Hub, attack and honest peers are processes of their own. Each attack has a new hub.
//! * The cost of attacking is not measured: the attack gets only the processor time that others leave, and the quiet
//!   figure is measured beside a load that takes as much.
//! * Limits are as shipped, but that the addresses of this machine count like any others.

mod attacker;
mod hub;
mod load;
mod turn;

use std::time::Duration;

use testkit::hostile::Attack;
use tokio::runtime::Builder;

pub(crate) use attacker::{AttackerArgs, attack};
pub(crate) use hub::hub;
pub(crate) use load::{LoadArgs, load};
use turn::{Kind, Turn};

use crate::{
    error::Failure,
    row::{Output, Row},
};

/// Largest ratio of vote latencies beside an attack to those without. Source: issue 9, "Shown by".
const MAX_RATIO: f64 = 2.0;

/// A p99 up to which no ratio is asked for. Chosen: with more programs than processors a millisecond or two
/// are the scheduler's.
const FLOOR: Duration = Duration::from_millis(5);

/// Settings of `bench hostile`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Attack; may be given more than once. Default: all, and `held-requests`.
    #[arg(long, value_parser = kind)]
    attack: Vec<Kind>,
    /// Seconds for which each attack is measured, and the quiet beside it.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

fn kind(name: &str) -> Result<Kind, String> {
    let names = || Kind::every().map(Kind::name).collect::<Vec<_>>().join(", ");
    Kind::every().find(|kind| kind.name() == name).ok_or_else(|| format!("one of {}", names()))
}

/// Measures every attack, and fails if an honest peer lost something.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let lasting = Duration::try_from_secs_f64(args.seconds)?;
    let kinds = if args.attack.is_empty() { Kind::every().collect() } else { args.attack.clone() };
    let mut failures = Vec::new();
    for kind in kinds {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let turn = runtime.block_on(turn::measure(kind, lasting));
        runtime.shutdown_timeout(Duration::from_secs(5));
        let turn = turn.map_err(|error| format!("{}: {error}", kind.name()))?;
        failures.extend(turn.faults().into_iter().map(|fault| format!("{}: {fault}", kind.name())));
        output.add(row(kind, &turn))?;
    }
    output.finish()?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n       ").into()) }
}

fn row(kind: Kind, turn: &Turn) -> Row {
    let ms = |delay: Duration| Some(delay.as_secs_f64() * 1e3);
    let (quiet, attacked) = (&turn.quiet.votes, &turn.attacked.votes);
    Row {
        bench: "hostile",
        contender: Some(kind.name()),
        quiet_p50_ms: ms(quiet.quantile(0.5)),
        quiet_p99_ms: ms(quiet.quantile(0.99)),
        p50_ms: ms(attacked.quantile(0.5)),
        p99_ms: ms(attacked.quantile(0.99)),
        p99_ratio_to_alone: Some(turn.ratio()),
        lost: Some(attacked.lost as u64),
        lost_transactions: Some(turn.attacked.transactions.lost as u64),
        newcomers: Some(format!("{}/{}", turn.newcomers.let_in(), turn.newcomers.came)),
        sent_per_s: Some(turn.sent_per_s),
        cut: Some(turn.cut.clone().unwrap_or_else(|| "no".to_owned())),
        peak_mib: Some(turn.peak_mib),
        grown_mib: Some(turn.grown_mib),
        ..Row::default()
    }
}

impl Turn {
    fn ratio(&self) -> f64 {
        let p99 = |measured: &testkit::hostile::Measured| {
            measured.votes.quantile(0.99).as_secs_f64().max(1e-6)
        };
        p99(&self.attacked) / p99(&self.quiet)
    }

    /// The results that count as faults.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (when, measured) in [("attacked", &self.attacked), ("afterwards", &self.quiet)] {
            for (what, heard) in
                [("votes", &measured.votes), ("transactions", &measured.transactions)]
            {
                if heard.lost > 0 {
                    faults.push(format!("{when}: {} of {} {what} lost", heard.lost, heard.sent));
                }
                if heard.doubled > 0 {
                    faults.push(format!("{when}: {} {what} handled twice", heard.doubled));
                }
            }
        }
        if self.ratio() > MAX_RATIO && self.attacked.votes.quantile(0.99) > FLOOR {
            faults.push(format!("p99 is {:.1} times the quiet one", self.ratio()));
        }
        let left_out = self.newcomers.left_out.iter();
        faults.extend(left_out.map(|newcomer| format!("newcomer {newcomer} was not let in")));
        faults.extend(
            self.honest_cut.iter().map(|reason| format!("an honest peer was cut: {reason}")),
        );
        faults
    }
}

impl Kind {
    /// Every attack, and the requests that the honest peer keeps open itself.
    fn every() -> impl Iterator<Item = Self> {
        Attack::ALL.into_iter().map(Self::Attack).chain([Self::HeldRequests])
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Attack(attack) => attack.name(),
            Self::HeldRequests => "held-requests",
        }
    }
}
