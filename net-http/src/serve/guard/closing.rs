//! The end of a connection: write a refusal, shut the write side down, and linger.
//!
//! ```text
//!   Open ─▶ Refusing ─▶ Shutting ─▶ Lingering ─▶ Done
//! ```
//!
//! # Invariants
//!
//! * Every stage has a deadline.
//! * The kernel resets a connection that is closed with unread bytes, which may discard the answer on its way.
//!   In this case bytes are read and dropped for at most [`PATIENCE`] before the close.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use runtime::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{deadlines::Deadlines, refusal::Refusal};

/// Longest wait for a client that is refused. Source: wire facts 1.6, rows 2 and 3.
const PATIENCE: Duration = Duration::from_millis(500);

/// Number of reads of a refused client's bytes before other tasks get their turn. Chosen.
const READS_AT_ONCE: u32 = 16;

/// Size of the buffer for dropped bytes.
const DISCARDED_AT_ONCE: usize = 4096;

/// The stage of the end.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Open,
    Refusing { said: usize, until: Instant },
    Shutting { until: Instant },
    Lingering { until: Instant },
    Done,
}

/// Bytes of the client that are unread when the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Nothing,
    Something,
}

/// The end of one connection.
#[derive(Debug)]
pub(super) struct Closing {
    stage: Stage,
    refusal: Option<Refusal>,
}

impl Closing {
    /// The state of a connection that is not closing.
    pub(super) const fn new() -> Self {
        Self { stage: Stage::Open, refusal: None }
    }

    /// Makes the connection end with the answer of `refusal`.
    pub(super) const fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
    }

    /// Returns `true` if the connection ends with a refusal.
    pub(super) const fn is_refusal(&self) -> bool {
        self.refusal.is_some()
    }

    /// Runs the stages. `stall` is the deadline of an orderly end without a refusal.
    pub(super) fn poll<Io: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        io: &mut Io,
        context: &mut Context<'_>,
        deadlines: &mut Deadlines,
        (stall, unread): (Duration, Unread),
    ) -> Poll<io::Result<()>> {
        loop {
            self.stage = match self.stage {
                Stage::Open => Stage::Refusing { said: 0, until: Instant::now() + PATIENCE },
                Stage::Refusing { mut said, until } => {
                    let told = self.poll_words(io, context, &mut said)?;
                    self.stage = Stage::Refusing { said, until };
                    if told.is_ready() {
                        let patience = if self.is_refusal() { PATIENCE } else { stall };
                        Stage::Shutting { until: Instant::now() + patience }
                    } else if deadlines.is_past(context, until) {
                        Stage::Done
                    } else {
                        return Poll::Pending;
                    }
                }
                Stage::Shutting { until } => {
                    if Pin::new(&mut *io).poll_shutdown(context)?.is_ready() {
                        match unread {
                            Unread::Something => {
                                Stage::Lingering { until: Instant::now() + PATIENCE }
                            }
                            Unread::Nothing => Stage::Done,
                        }
                    } else if deadlines.is_past(context, until) {
                        Stage::Done
                    } else {
                        return Poll::Pending;
                    }
                }
                Stage::Lingering { until } => {
                    let is_over = poll_discard(io, context).is_ready();
                    if !is_over && !deadlines.is_past(context, until) {
                        return Poll::Pending;
                    }
                    Stage::Done
                }
                Stage::Done => return Poll::Ready(Ok(())),
            };
        }
    }

    fn poll_words<Io: AsyncWrite + Unpin>(
        &self,
        io: &mut Io,
        context: &mut Context<'_>,
        said: &mut usize,
    ) -> Poll<io::Result<()>> {
        let words = self.refusal.map_or(&b""[..], Refusal::bytes);
        while let Some(rest) = words.get(*said..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *io).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *said += count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads and drops the client's bytes. Ready at the end of its half.
fn poll_discard<Io: AsyncRead + Unpin>(io: &mut Io, context: &mut Context<'_>) -> Poll<()> {
    let mut bytes = [const { MaybeUninit::uninit() }; DISCARDED_AT_ONCE];
    for _ in 0..READS_AT_ONCE {
        let mut buffer = ReadBuf::uninit(&mut bytes);
        let read = ready!(Pin::new(&mut *io).poll_read(context, &mut buffer));
        if read.is_err() || buffer.filled().is_empty() {
            return Poll::Ready(());
        }
    }
    context.waker().wake_by_ref();
    Poll::Pending
}
