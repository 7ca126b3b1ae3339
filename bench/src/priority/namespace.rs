//! A network namespace of its own with a slow loopback, entered by starting the bench again.
//!
//! The link is that of the anchors: a token bucket of 200 Mbit/s with 128 kB at once and at most 50 ms
//! of queue. Nothing outside the namespace is touched, and it is gone when its last process ends.

use std::{
    env,
    process::{Command, Stdio},
};

use clap::ValueEnum;

use crate::error::Failure;

/// Shapes the loopback of the namespace, then becomes the program of its arguments.
const SHAPE: &str = "ip link set lo up && \
    tc qdisc add dev lo root tbf rate 200mbit burst 128kb latency 50ms && exec \"$@\"";

/// Without and with a namespace of users, which lets others than root have one of networks.
const FLAGS: [&[&str]; 2] = [&["--net"], &["--net", "--map-root-user"]];

/// Whether this process is in the namespace already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum InNamespace {
    /// It is not.
    #[default]
    No,
    /// It is.
    Yes,
}

/// What came of entering.
#[derive(Debug)]
pub(super) enum Entered {
    /// The bench ran in the namespace, and has printed its rows.
    Done,
    /// There can be no namespace here.
    Impossible {
        /// What the system said, in one line.
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
