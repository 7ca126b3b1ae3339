//! The ground a node stands on: what it takes from its surroundings.
//!
//! ```text
//!   NodeBuilder ─▶ Environment ─┬─ wall clock          system, or in memory
//!                 (lent to      ├─ random numbers      system, or from a seed
//!                  every room)  ├─ names               system, or a table
//!                               └─ sockets             TCP, or pipes in memory
//! ```
//!
//! # Invariants
//!
//! * Every task has an owner that joins it: [`TaskSet`] is the only door to spawn.
//! * No room takes the wall clock, random numbers, names or sockets from the system by itself; the lint
//!   configuration forbids it everywhere but here. Monotonic time is [`mod@time`]'s, which tests pause.
//! * A name is dialled, and listened on, in one place: [`Environment::dial`] and [`Environment::bind`].

mod accept_pause;
mod bind;
mod breath;
mod cancel_watch;
mod clock;
mod dial;
mod environment;
mod gateway;
mod hasher;
mod heavy;
pub mod memory;
mod random;
mod rarely;
mod resolve;
mod sockets;
mod stream;
#[cfg(not(target_family = "wasm"))]
mod system;
#[cfg(target_family = "wasm")]
#[path = "no_system.rs"]
mod system;
mod tasks;
pub mod time;

pub use accept_pause::AcceptPause;
pub use bind::Listener;
pub use breath::{Breath, During};
pub use cancel_watch::CancelWatch;
pub use clock::WallClock;
pub use dial::{CONNECTION_ATTEMPT_DELAY, DialError, MAX_DIALLED_ADDRESSES};
pub use environment::Environment;
pub use hasher::KeyedHasher;
pub use heavy::on_a_thread;
pub use random::Random;
pub use rarely::Rarely;
pub use resolve::{Resolve, SystemResolver};
pub use stream::{ReadHalf, Stream, WriteHalf};
pub use tasks::{Fault, FaultKind, Opening, Shutdown, TaskSet};
