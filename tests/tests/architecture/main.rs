//! Checks of the architecture, of the documentation of the code, and of circles among its files.

mod circles;
mod docs;
mod rooms;
