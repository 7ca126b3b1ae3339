//! The ground a node stands on.
//!
//! # Invariants
//!
//! * Every task has an owner that joins it: [`TaskSet`] is the only door to spawn.

mod tasks;

pub use tasks::{Fault, FaultKind, Opening, Shutdown, TaskSet};
