//! The same tests as in `main.rs`, on hyper alone.

use tandem_net_http::serve::Engine;

/// The implementation of HTTP/1.1 that the tests run on.
const ENGINE: Engine = Engine::Hyper;

mod common;
mod permits;
mod protection;
mod serving;
mod smuggling;
mod vectors;
