//! The signals by which a program is asked to stop.
//!
//! # Invariants
//!
//! * They are handled, not left to the system: what the system does with a signal it does not do to the
//!   first process of a container.
//! * A hangup that the program was started to ignore, as `nohup` does, stays ignored.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// SIGHUP, SIGINT and SIGTERM, caught from when this is made.
#[derive(Debug)]
pub(crate) struct StopSignals {
    /// `None` if the program was started to ignore it.
    hangup: Option<Signal>,
    interrupt: Signal,
    terminate: Signal,
}

/// The hangups of a program that does something else at one than stop.
#[derive(Debug)]
pub(crate) struct Hangups(Signal);

impl Hangups {
    /// Waits for the next one.
    ///
    /// # Cancel safety
    ///
    /// Safe: a hangup that came is told by the next call.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime hears no signals any more, because it ends.
            std::future::pending().await
        }
    }
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caught {
    number: u8,
}

impl Caught {
    /// The exit code of a program that a signal has kept from doing its work. Source: the convention of
    /// shells, 128 and the number of the signal.
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(128 + self.number)
    }

    /// `true` for SIGTERM, by which service managers stop programs.
    pub(crate) const fn is_termination(self) -> bool {
        self.number == 15
    }
}

impl StopSignals {
    /// Catches the signals from now on.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|source| Failure::System { what: "a signal handler", source })
        };
        let hangup = SignalKind::hangup();
        Ok(Self {
            hangup: if is_ignored(hangup) { None } else { Some(catch(hangup)?) },
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// Hangups are no longer among the signals, but told separately. `None` if they are ignored.
    pub(crate) fn take_hangups(&mut self) -> Option<Hangups> {
        self.hangup.take().map(Hangups)
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    ///
    /// Safe: a signal that came is told by the next call.
    pub(crate) async fn next(&mut self) -> Caught {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hung_up => Caught { number: 1 },
            _ = self.interrupt.recv() => Caught { number: 2 },
            _ = self.terminate.recv() => Caught { number: 15 },
        }
    }
}

/// `true` if the program was started to ignore a signal; `false` where the system does not tell.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored & (1 << (kind.as_raw_value() - 1)) != 0
}
