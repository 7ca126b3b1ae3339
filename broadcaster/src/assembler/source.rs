//! Drives an [`Assembler`] over a stream of bytes.
//!
//! ```text
//!   stream ──read──▶ Assembler ──▶ messages ─▶ read loop
//!                        └─ charge ─▶ ByteBudget
//! ```
//!
//! # Invariants
//!
//! * Every wait has the assembler's deadline, but the one between two messages: whether a peer that
//!   says nothing is alive is the transport's to ask.
//! * A source that ended stays ended.

use std::{io, pin::Pin};

use bytes::{BufMut, BytesMut};
use gossip::DisconnectReason;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{self, Instant, Sleep},
};

use super::{Assembler, AssemblyRules, Charge, Framing, Space, Step};
use crate::link::{FrameSource, Received, SourceEnd};

/// The inbound half of a connection: takes messages out of a stream of bytes.
#[derive(Debug)]
pub struct AssembledSource<R, F> {
    io: R,
    assembler: Assembler<F>,
    rules: AssemblyRules,
    /// Never later than a wait has to end; made when the first one has a deadline.
    timer: Option<Pin<Box<Sleep>>>,
    ended: Option<DisconnectReason>,
}

impl<R: AsyncRead + Unpin + Send + 'static, F: Framing> AssembledSource<R, F> {
    /// A source over `io`, of which `early` has been read already.
    #[must_use]
    pub fn new(io: R, early: BytesMut, framing: F, rules: AssemblyRules) -> Self {
        let assembler = Assembler::new(framing, rules.clone(), early, Instant::now());
        Self { io, assembler, rules, timer: None, ended: None }
    }

    /// When something was last heard of the peer.
    #[must_use]
    pub fn heard(&self) -> Instant {
        self.assembler.heard()
    }

    async fn advance(&mut self) -> Result<Received, SourceEnd> {
        loop {
            match self.assembler.step().map_err(SourceEnd::because)? {
                Step::Message(message) => return Ok(message),
                // A message goes on as a whole.
                Step::Piece(_) => {}
                Step::Need => self.read().await?,
                Step::Charge(charge) => self.charge(charge).await?,
            }
        }
    }

    /// Charges the budget, as long as a message may wait for that.
    async fn charge(&mut self, charge: Charge) -> Result<(), SourceEnd> {
        let Self { assembler, rules, .. } = self;
        let Charge { bytes, lane, stage } = charge;
        let held = match rules.budget.try_reserve_for(bytes, lane, stage) {
            Some(held) => held,
            None => {
                let reserve = rules.budget.reserve_for(bytes, lane, stage);
                let now = Instant::now();
                let due = assembler.wait(now).unwrap_or(now);
                let held = time::timeout_at(due, reserve).await;
                held.map_err(|_elapsed| SourceEnd::because(assembler.overdue()))?
            }
        };
        assembler.charged(held, Instant::now());
        Ok(())
    }

    /// Reads something.
    async fn read(&mut self) -> Result<(), SourceEnd> {
        let now = Instant::now();
        let Self { io, assembler, timer, .. } = self;
        let due = assembler.wait(now);
        if due.is_some_and(|due| due <= now) {
            return Err(SourceEnd::because(assembler.overdue()));
        }
        let has_begun = assembler.has_begun();
        let space = assembler.space();
        let read = read_to(io, space);
        let (count, room) = match due {
            None => read.await?,
            Some(due) => tokio::select! {
                biased;
                read = read => read?,
                () = passed(timer, due) => return Err(SourceEnd::because(assembler.overdue())),
            },
        };
        match count {
            0 if has_begun => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            0 => Err(SourceEnd::because(DisconnectReason::RemoteClosed)),
            _ => {
                assembler.filled(count, room, Instant::now());
                Ok(())
            }
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static, F: Framing> FrameSource for AssembledSource<R, F> {
    async fn next_message(&mut self) -> Result<Received, SourceEnd> {
        if let Some(reason) = self.ended {
            return Err(SourceEnd::because(reason));
        }
        let received = self.advance().await;
        if let Err(end) = &received {
            self.ended = Some(end.reason);
        }
        received
    }
}

/// Reads once, and says how much, and for how much there was room.
async fn read_to(io: &mut (impl AsyncRead + Unpin), space: Space<'_>) -> io::Result<(usize, usize)> {
    match space {
        Space::Buffer(bytes, room) => Ok((io.read_buf(&mut bytes.limit(room)).await?, room)),
        Space::Message(bytes, room) => Ok((io.read_buf(&mut bytes.limit(room)).await?, room)),
    }
}

/// Resolves at `due`. The timer is set anew only where it would be late, which spares most reads that.
async fn passed(timer: &mut Option<Pin<Box<Sleep>>>, due: Instant) {
    let timer = timer.get_or_insert_with(|| Box::pin(time::sleep_until(due)));
    if due < timer.deadline() {
        timer.as_mut().reset(due);
    }
    loop {
        timer.as_mut().await;
        if Instant::now() >= due {
            return;
        }
        timer.as_mut().reset(due);
    }
}
