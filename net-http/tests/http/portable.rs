//! The same tests as in `main.rs`, on the portable engine.

use tandem_net_http::serve::Engine;

/// The implementation of HTTP/1.1 that the tests run on.
const ENGINE: Engine = Engine::Portable;

mod common;
mod permits;
mod protection;
mod serving;
mod smuggling;
mod vectors;
