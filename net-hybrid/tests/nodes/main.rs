//! Whole hybrid nodes.

mod one_door;
mod one_link;
mod shared_port;
