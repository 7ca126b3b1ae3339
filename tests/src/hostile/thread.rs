//! An attack on a thread of its own, as far as one process allows what another process would be: the system shares the
//! processor between it and the node, and no task of the attack holds up one of the node.

use std::{io, thread};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Attack, Tally, Target};

/// An attack that lasts until this is dropped.
#[derive(Debug)]
#[must_use = "the attack ends when this is dropped"]
pub struct Attacker {
    tally: Tally,
    _stop: DropGuard,
}

impl Attacker {
    /// Begins an attack with at most so many connections.
    ///
    /// # Errors
    ///
    /// The system gives no thread or no runtime.
    pub fn start(attack: Attack, target: &Target, most: u16) -> io::Result<Self> {
        let (tally, stop) = (Tally::default(), CancellationToken::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (target, counted, stopped) = (target.clone(), tally.clone(), stop.clone());
        thread::Builder::new().name(attack.name().to_owned()).spawn(move || {
            let attack = attack.run(&target, most, &counted);
            // An attack never gives up.
            let _ = runtime.block_on(stopped.run_until_cancelled(attack));
        })?;
        Ok(Self { tally, _stop: stop.drop_guard() })
    }

    /// Counts of its connections and messages so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }
}
