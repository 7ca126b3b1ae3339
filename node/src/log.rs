//! Standard error: logs, and what a command has to say beside what it was asked for.
//!
//! # Invariants
//!
//! * Nothing here waits or fails, whatever standard error is: see [`Lines`].

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal, Write},
    panic,
    sync::LazyLock,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::lines::Lines;

/// How long the last lines may take when the program ends. Chosen: well within the time of a stop.
const FLUSH_TIME: Duration = Duration::from_millis(300);

/// Writes to standard error. Nothing if the system has no thread or descriptor for it.
static STDERR: LazyLock<Option<Lines>> = LazyLock::new(|| {
    Lines::to(io::stderr(), |lost| {
        format!("{lost} lines of the log were lost: they could not be written")
    })
    .ok()
});

/// Writes one line to standard error.
pub(crate) fn note(line: &str) {
    offer(format!("{line}\n").as_bytes());
}

/// Lines for standard error that were lost.
pub(crate) fn lost() -> u64 {
    STDERR.as_ref().map_or(0, Lines::lost)
}

/// Gives the last lines a moment to be written.
pub(crate) fn flush() {
    if let Some(lines) = STDERR.as_ref() {
        lines.flush(FLUSH_TIME);
    }
}

/// Logs from now on what the filter lets through.
pub(crate) fn to_stderr(filter: &str) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(ToStderr)
        .with_ansi(io::stderr().is_terminal())
        .finish();
    // Somebody may have installed a log already, which then stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Has panics told like everything else, so that a thread that panics does not wait for a reader.
pub(crate) fn catch_panics() {
    panic::set_hook(Box::new(|panic| {
        let trace = Backtrace::capture();
        match trace.status() {
            BacktraceStatus::Captured => note(&format!("{panic}\n{trace}")),
            _ => note(&panic.to_string()),
        }
    }));
}

fn offer(lines: &[u8]) {
    if let Some(stderr) = STDERR.as_ref() {
        stderr.offer(lines);
    }
}

/// Where the logging library writes its events, each in one call.
#[derive(Clone, Copy, Debug)]
struct ToStderr;

impl Write for ToStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        offer(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for ToStderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}
