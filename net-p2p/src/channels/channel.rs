//! One data channel: the state of its stream, what came and was not read, and who waits.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use runtime::time::StdInstant as Instant;

use super::{
    halves::{Halves, Receiving, Sending},
    message::{Decoder, Flag, Frame, FrameError},
    pressure::Progress,
};

/// A channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) halves: Halves,
    /// Its ID; `None` once the peer has closed it.
    pub(super) id: Option<u16>,
    /// `true` if the peer has opened it.
    pub(super) is_of_peer: bool,
    /// `true` once the message that opens it has come.
    pub(super) is_opened: bool,
    /// Bytes that the peer has not acknowledged.
    pub(super) unsent: usize,
    /// Progress of its reader.
    pub(super) progress: Progress,
    /// `true` once its handle is gone.
    is_released: bool,
    /// The moment at which this end closes it, if it has one.
    closes_at: Option<Instant>,
    decoder: Decoder,
    unread: VecDeque<Bytes>,
    unread_bytes: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Channel {
    fn new(id: u16, is_of_peer: bool) -> Self {
        Self {
            halves: Halves::default(),
            id: Some(id),
            is_of_peer,
            is_opened: false,
            unsent: 0,
            progress: Progress::default(),
            is_released: false,
            closes_at: None,
            decoder: Decoder::default(),
            unread: VecDeque::new(),
            unread_bytes: 0,
            reader: None,
            writer: None,
        }
    }

    /// A channel that this node has opened, or that both ends know without a word.
    pub(super) fn own(id: u16) -> Self {
        Self::new(id, false)
    }

    /// A channel that the peer opens.
    pub(super) fn of_peer(id: u16) -> Self {
        Self::new(id, true)
    }

    /// Notes that the peer has closed it.
    pub(super) fn end(&mut self) {
        self.id = None;
        self.halves.close();
        self.wake();
    }

    pub(super) const fn unread_bytes(&self) -> usize {
        self.unread_bytes
    }

    /// `true` if bytes that come are kept for a reader.
    pub(super) fn keeps_bytes(&self) -> bool {
        !self.is_released() && self.halves.receiving == Receiving::Open
    }

    /// `true` if somebody has a handle to it, or will have.
    pub(super) const fn is_held(&self) -> bool {
        (!self.is_of_peer || self.is_opened) && !self.is_released()
    }

    /// `true` once its handle is gone.
    pub(super) const fn is_released(&self) -> bool {
        self.is_released
    }

    /// The moment at which this end closes it, if it has one.
    pub(super) const fn closes_at(&self) -> Option<Instant> {
        self.closes_at
    }

    /// Lets this end close it at `at` at the latest.
    pub(super) fn close_by(&mut self, at: Instant) {
        self.closes_at = Some(self.closes_at.map_or(at, |before| before.min(at)));
    }

    /// Takes its ID, as this end closes it.
    pub(super) fn shut(&mut self) -> Option<u16> {
        self.closes_at = None;
        self.id.take()
    }

    /// Notes that the handle is gone. What was not read is thrown away.
    pub(super) fn release(&mut self, until: Instant) {
        self.is_released = true;
        self.close_by(until);
        self.drop_unread();
    }

    /// Throws away what was not read, so that its reader has lost bytes. Returns their number.
    pub(super) fn lose_unread(&mut self) -> usize {
        self.halves.lose();
        self.drop_unread()
    }

    fn drop_unread(&mut self) -> usize {
        self.unread.clear();
        self.progress = Progress::default();
        std::mem::take(&mut self.unread_bytes)
    }

    /// `true` while the peer has not said that it has everything.
    pub(super) fn awaits_acknowledgement(&self) -> bool {
        self.halves.sending == Sending::Finished && self.id.is_some()
    }

    pub(super) fn is_writable(&self) -> bool {
        self.halves.sending == Sending::Open && self.id.is_some()
    }

    /// Takes a message of the peer, and returns the flags to answer with.
    pub(super) fn take(&mut self, bytes: &[u8], now: Instant) -> Result<Vec<Flag>, FrameError> {
        let mut answers = Vec::new();
        self.decoder.push(bytes);
        while let Some(frame) = self.next_frame()? {
            if !frame.data.is_empty() && self.keeps_bytes() {
                self.progress.arrived(now);
                self.unread_bytes += frame.data.len();
                self.unread.push_back(frame.data);
            }
            if let Some(flag) = frame.flag {
                answers.extend(self.halves.receive(flag));
                self.wake_writer();
            }
            self.wake_reader();
        }
        Ok(answers)
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        self.decoder.next().inspect_err(|_| self.decoder = Decoder::default())
    }

    /// Reads bytes; 0 at the end of what the peer has sent.
    pub(super) fn read(
        &mut self,
        context: &Context<'_>,
        into: &mut [u8],
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        let mut read = 0;
        while let Some(first) = self.unread.front_mut() {
            let bytes = first.len().min(into.len() - read);
            first.split_to(bytes).copy_to_slice(&mut into[read..read + bytes]);
            read += bytes;
            if !first.is_empty() {
                break;
            }
            self.unread.pop_front();
        }
        self.unread_bytes -= read;
        self.progress.read(read, self.unread_bytes, now);
        if read > 0 || into.is_empty() {
            return Poll::Ready(Ok(read));
        }
        match self.halves.receiving {
            Receiving::Finished => Poll::Ready(Ok(0)),
            Receiving::Reset | Receiving::Stopped => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            Receiving::Open => {
                self.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn wait_to_write(&mut self, context: &Context<'_>) {
        self.writer = Some(context.waker().clone());
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    pub(super) fn wake(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }
}
