//! The type of a moment, for all rooms that take one.

/// A moment on a clock that never goes back: the standard library's, or a browser's, where that has none.
#[cfg(not(target_family = "wasm"))]
pub use std::time::Instant;

/// A moment on a clock that never goes back: the standard library's, or a browser's, where that has none.
#[cfg(target_family = "wasm")]
pub use web_time::Instant;
