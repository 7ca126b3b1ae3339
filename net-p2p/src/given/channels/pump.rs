//! Carries out the orders of one connection at its host.

use std::sync::Arc;

use runtime::time::{self, Instant, from_std, into_std};

use super::{
    PeerChannels,
    handed::{Handed, Order},
};
use crate::channels::{self, Channels, Ended, MEASURE_EVERY, Session as _, Shared};

/// A connection without I/O.
pub(super) struct Session(pub(super) Channels<Handed>);

impl channels::Session for Session {
    type Association = Handed;

    fn channels(&mut self) -> &mut Channels<Handed> {
        &mut self.0
    }
}

/// Moves what one connection sends.
pub(super) struct Pump {
    shared: Arc<Shared<Session>>,
    /// `None` once the connection is closed.
    host: Option<Box<dyn PeerChannels>>,
}

impl Pump {
    pub(super) fn new(shared: Arc<Shared<Session>>, host: Box<dyn PeerChannels>) -> Self {
        Self { shared, host: Some(host) }
    }

    fn with<T>(&self, with: impl FnOnce(&mut Channels<Handed>) -> T) -> Result<T, Ended> {
        self.shared.with(|session| with(session.channels())).ok_or(Ended::Panicked)
    }

    /// Carries out what was ordered, and asks how much has not left.
    fn carry_out(&mut self) -> Result<(), Ended> {
        while let Some(order) = self.with(|channels| channels.association().order())? {
            let Some(host) = &mut self.host else { return Err(Ended::Here) };
            match order {
                Order::Open(id) => {
                    if let Err(error) = host.open(id) {
                        tracing::debug!(%error, "the host does not open a channel");
                        self.with(|channels| channels.association().closed(id))?;
                    }
                }
                Order::Send(id, message) => host.send(id, &message).map_err(Ended::Transport)?,
                Order::Close(id) => host.close(id),
            }
        }
        for id in self.with(|channels| channels.association().sending())? {
            let Some(host) = &mut self.host else { return Err(Ended::Here) };
            let bytes = host.buffered(id);
            self.with(|channels| channels.association().buffered(id, bytes))?;
        }
        Ok(())
    }

    /// Handles what has happened.
    fn settle(&self) -> Result<(), Ended> {
        let now = into_std(Instant::now());
        let end = self.with(|channels| {
            if !channels.has_ended()
                && let Err(why) = channels.tick(now)
            {
                channels.end(why);
            }
            channels.take_end()
        })?;
        end.map_or(Ok(()), Err)
    }

    /// Closes the connection.
    fn close(&mut self) {
        // After a panic it has ended already.
        let _ = self.with(|channels| channels.end(Ended::Here));
        self.host = None;
    }
}

impl channels::Pump for Pump {
    type Session = Session;

    fn shared(&self) -> &Arc<Shared<Session>> {
        &self.shared
    }

    async fn turn(&mut self) -> Result<(), Ended> {
        self.carry_out()?;
        // Writers that wait go on at once if there is room.
        self.settle()?;
        let until = self.with(|channels| channels.timeout())?;
        let longest = Instant::now() + MEASURE_EVERY;
        let until = until.map_or(longest, |until| from_std(until).min(longest));
        tokio::select! {
            biased;
            () = self.shared.changed.notified() => {}
            () = time::sleep_until(until) => {}
        }
        self.settle()
    }

    /// The host tells the peer as it can.
    async fn say_goodbye(&mut self) {
        self.close();
    }

    fn hang_up(&mut self) {
        self.close();
    }
}
