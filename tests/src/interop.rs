//! The exchanges with programs of other implementations (`tests/interop`).

mod cells;
mod half_open;

pub use cells::{Cell, cells, offering};
pub use half_open::{Among, ping_among_half_open};
