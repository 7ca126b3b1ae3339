//! Why a measurement was given up. Nobody recovers from it, so it is a text: one enum per operation
//! would have no reader.

/// Any error, as it is shown to whoever runs the bench.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
