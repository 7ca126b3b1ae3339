//! Standard output of a command: what it was asked for.
//!
//! # Invariants
//!
//! * A line that cannot be written is a failure. Of these a reader that has gone is told by
//!   [`Failure::is_reader_gone`], and ends the command without a word.
//! * Waiting for a reader is a wait like any other: signals are heard meanwhile.

use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::failure::Failure;

/// Prints a line, and resolves when the system has taken it.
///
/// # Cancel safety
///
/// A dropped future may have printed a part of the line.
pub(crate) async fn print(line: &str) -> Result<(), Failure> {
    let mut out = tokio::io::stdout();
    let written = async {
        out.write_all(format!("{line}\n").as_bytes()).await?;
        out.flush().await
    };
    let failed = |source| Failure::Write { path: "standard output".into(), source };
    written.await.map_err(failed)
}

/// A number of peers, in words.
pub(crate) fn peers(count: usize) -> String {
    if count == 1 { "1 peer".to_owned() } else { format!("{count} peers") }
}

/// A value as JSON, in one line, its fields in their order.
pub(crate) fn json(value: &impl Serialize) -> String {
    // Nothing that is printed has keys that are no strings, or anything else that JSON has not.
    serde_json::to_string(value).unwrap_or_default()
}
