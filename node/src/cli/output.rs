//! Standard output.
//!
//! # Invariants
//!
//! * A reader that went away is no failure: what cannot be written is left out.

use std::io::{self, Write};

use serde::Serialize;

/// Prints a line, at once.
pub(crate) fn print(line: &str) {
    let mut out = io::stdout().lock();
    // The reader may have gone away, as `head` does; there is nobody to tell.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Whether standard output is still read; a line is printed to find out.
pub(crate) fn print_if_read(line: &str) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// A value as JSON, in one line, its fields in their order.
pub(crate) fn json(value: &impl Serialize) -> String {
    // Nothing that is printed has keys that are no strings, or anything else that JSON has not.
    serde_json::to_string(value).unwrap_or_default()
}
