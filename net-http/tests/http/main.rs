//! The server and its layers over byte streams, by a client that writes raw bytes.

mod common;
mod permits;
mod protection;
mod serving;
mod smuggling;
mod vectors;
