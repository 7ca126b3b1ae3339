//! The wire format, as pure functions on bytes.

pub mod topics;
