//! The progress of a file on its way.

/// The progress of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes that are there: sent, or received and verified.
    pub bytes: u64,
    /// Bytes of the whole file, once known.
    pub of: Option<u64>,
}
