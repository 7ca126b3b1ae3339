//! The error of a measurement. It is a text, because no caller distinguishes kinds of failures.

/// Any error, as it is shown to the user of the bench.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
