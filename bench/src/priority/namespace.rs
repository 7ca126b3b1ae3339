//! A network namespace with a slow loopback, entered by starting the bench a second time.
//!
//! The link is that of the anchors: a token bucket of 200 Mbit/s with bursts of 128 kB and a queue of at most
//! 50 ms. Nothing outside the namespace changes, and it disappears with its last process.

use std::{
    env,
    process::{Command, Stdio},
};

use clap::ValueEnum;

use crate::error::Failure;

/// Shapes the loopback of the namespace, then runs the program given as arguments.
const SHAPE: &str = "ip link set lo up && \
    tc qdisc add dev lo root tbf rate 200mbit burst 128kb latency 50ms && exec \"$@\"";

/// Without and with a user namespace, in which users other than root may create a network namespace.
const FLAGS: [&[&str]; 2] = [&["--net"], &["--net", "--map-root-user"]];

/// States whether this process already runs in the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum InNamespace {
    /// The process runs outside.
    #[default]
    No,
    /// The process runs inside.
    Yes,
}

/// The result of entering the namespace.
#[derive(Debug)]
pub(super) enum Entered {
    /// The bench ran in the namespace and has printed its rows.
    Done,
    /// The system does not allow a namespace.
    Impossible {
        /// The error of the system, in one line.
        reason: String,
    },
}

/// Runs this program with the same arguments in a namespace.
pub(super) fn enter() -> Result<Entered, Failure> {
    let mut reason = String::new();
    for flags in FLAGS {
        let probe = shaped(flags).arg("true").stdin(Stdio::null()).output();
        let said = match probe {
            Ok(output) if output.status.success() => {
                let program = env::current_exe()?;
                let mut inside = shaped(flags);
                inside.arg(program).args(env::args_os().skip(1)).args(["--namespace", "yes"]);
                let status = inside.status()?;
                return if status.success() {
                    Ok(Entered::Done)
                } else {
                    Err("the bench failed in its network namespace".into())
                };
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => format!("unshare: {error}"),
        };
        if reason.is_empty() {
            reason = said.split_whitespace().collect::<Vec<_>>().join(" ");
        }
    }
    Ok(Entered::Impossible { reason })
}

fn shaped(flags: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(flags).args(["--", "sh", "-c", SHAPE, "sh"]);
    command
}
