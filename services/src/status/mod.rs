//! Whether a node is alive and what it is.
