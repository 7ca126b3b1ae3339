//! The server and its layers over byte streams, by a client that writes raw bytes.

use tandem_net_http::serve::Engine;

/// The implementation of HTTP/1.1 that the tests run on. `portable.rs` and `hyper.rs` run them on the others.
const ENGINE: Engine = Engine::Direct;

mod common;
mod engines;
mod permits;
mod protection;
mod serving;
mod smuggling;
mod vectors;
