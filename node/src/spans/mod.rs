//! Spans of what the node does, for a collector that speaks OTLP.
//!
//! ```text
//!   tracing ──▶ layer ──┐
//!                       ├──▶ queue ──▶ exporter ──▶ collector
//!   traced messages ────┘
//! ```
//!
//! # Invariants
//!
//! * Nothing in the node waits for the collector: a full queue drops the span and counts it.
//! * A build without the feature `otlp` refuses the setting; nothing else of it differs.

#[cfg(feature = "otlp")]
mod collector;
mod counts;
#[cfg(feature = "otlp")]
mod export;
#[cfg(not(feature = "otlp"))]
mod left_out;
#[cfg(feature = "otlp")]
mod messages;
#[cfg(feature = "otlp")]
mod queue;
#[cfg(feature = "otlp")]
mod start;

pub(crate) use self::counts::SpanCounts;
#[cfg(not(feature = "otlp"))]
pub(crate) use self::left_out::{Exporting, SpanError, Spans};
#[cfg(feature = "otlp")]
pub(crate) use self::start::{Exporting, SpanError, Spans};

/// `true` if this build exports spans.
pub(crate) const IS_BUILT: bool = cfg!(feature = "otlp");
