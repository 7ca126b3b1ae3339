//! The configuration of a node: where its values come from, and what they mean.
//!
//! ```text
//!   defaults ─┐
//!   file     ─┤ Layers ──check──▶ Settings ──▶ NodeBuilder
//!   env      ─┤    └────render──▶ `tandem config`
//!   flags    ─┘
//! ```
//!
//! # Invariants
//!
//! * A setting exists in one place, the table in [`key`]: file, environment and flags follow from it.
//! * The origin of every value is known, and every refusal names it.
//! * Nobody after [`Settings`] checks a value again.

mod check;
mod file;
mod key;
mod layers;
mod origin;
mod render;
mod settings;
mod template;
mod words;

pub(crate) use check::{ConfigError, MAX_SLIPS, slips};
pub(crate) use key::{Flags, Key};
pub(crate) use layers::Layers;
pub(crate) use origin::{Given, Value};
pub(crate) use settings::Settings;
pub(crate) use template::{commented, schema};
pub(crate) use words::{MAX_DRAIN, Service};

#[cfg(test)]
mod tests;
