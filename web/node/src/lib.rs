//! A Tandem node in WebAssembly: what `tandem.js` stands on, in a page, in a worker, and in Node.js.
//!
//! ```text
//!   tandem.js ─▶ RawNode ─▶ Ground: one Broadcaster, key, door
//!                              ├─▶ ws      gossip over the host's WebSocket
//!                              └─▶ libp2p  over transports that JavaScript gives ─▶ serve  HTTP to peers
//! ```
//!
//! Every network attaches its links to the one broadcaster, as the two halves of a hybrid node do.
//!
//! # Invariants
//!
//! * Values of JavaScript are checked once, at the rim; errors go back with a code.
//! * There is one thread, so a value of JavaScript is never touched by another one.
//! * A panic ends the instance: no code of a peer's or of the application's may cause one.

#![cfg(target_arch = "wasm32")]

mod code;
mod events;
mod ground;
mod handlers;
mod libp2p;
mod node;
mod options;
mod panic;
mod profile;
mod serve;
mod shown;
mod subscription;
mod topics;
mod transport;
mod ws;

pub use libp2p::{RawExchange, RawRequest};
pub use node::RawNode;
pub use options::RawOptions;
pub use profile::{RawProfile, RawRule};
pub use serve::RawServed;
pub use subscription::RawSubscription;
pub use transport::{RawChannelEvents, RawSignals};
