//! The data channels of one connection: their streams, and the messages on them.
//!
//! # Invariants
//!
//! * Bytes that nobody reads stay in the association, beyond [`STREAM_UNREAD`] of a stream and [`UNREAD`] of all. That has one
//!   bound for all streams, so the stream that nobody reads while it is nearly reached is reset (`pressure.rs`).
//! * Written bytes are bounded for a stream and for all; a message of 16 KiB may exceed either.
//! * A channel is closed once both ends have ended their direction, or [`LINGER`] after its handle is gone. The end that has
//!   opened it closes it, and the other one [`CLOSING`] later, unless the opener cannot know.
//! * The ID of a channel is used again as soon as both ends have closed it, also while somebody has a handle to the old one. So
//!   handles have keys, which are used once.
//! * At most [`MAX_PEER_CHANNELS`] channels of the peer are open; further ones are closed at once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    task::{Context, Poll},
    time::Duration,
};

use runtime::time::StdInstant as Instant;

use super::{
    Association, Ended, Event, Message, Side,
    channel::Channel,
    ids::{HANDSHAKE, Ids},
    message::{Flag, Frame},
    pressure::Pressure,
};

/// The name of a channel for its handle.
pub(crate) type Key = u64;

/// The key of the channel for the Noise handshake.
pub(crate) const HANDSHAKE_KEY: Key = 0;

/// Unread bytes of a stream that are taken out of the association, so that the flags behind them are seen. Chosen: four messages.
pub(crate) const STREAM_UNREAD: usize = 64 * 1024;

/// The same of all streams of a connection. Chosen: half of what SCTP keeps (`webrtc/association.rs`).
pub(crate) const UNREAD: usize = 512 * 1024;

/// Bytes that a stream may have written and the peer has not acknowledged. Chosen: four messages.
pub(crate) const STREAM_UNSENT: usize = 64 * 1024;

/// The same of all streams of a connection, if the node has few. Chosen: what a path of 100 ms takes at 5 MB/s.
pub(crate) const UNSENT: usize = 512 * 1024;

/// Longest time for a closed stream until the peer has everything. Chosen: twice that of a connection.
const LINGER: Duration = Duration::from_secs(10);

/// Time in which the peer may close a channel of its own that is over. sctp-proto 0.10.8 answers the close of a channel that
/// it has closed itself by closing it once more; node-datachannel 0.33, which has used the ID again by then, takes that for
/// the end of the new channel. Chosen: a round trip with a packet that was lost.
const CLOSING: Duration = Duration::from_secs(2);

/// Channels of the peer that may be open at one time. Chosen: as many streams as with QUIC.
const MAX_PEER_CHANNELS: usize = 512;

/// Channels of this node that may be open at one time, with those that are closing. Chosen: as many as a node of this kind
/// lets wait for their negotiation.
const MAX_OWN_CHANNELS: usize = 256;

/// The error of a stream whose connection has ended.
pub(super) fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
}

/// The data channels of one connection.
pub(crate) struct Channels<A> {
    association: A,
    channels: BTreeMap<Key, Channel>,
    /// The channels that have an ID now.
    by_id: BTreeMap<u16, Key>,
    next: Key,
    /// Those that the peer has opened and nobody has taken.
    opened: VecDeque<Key>,
    ids: Ids,
    /// IDs of channels that this end has closed and the peer has not.
    closing: BTreeSet<u16>,
    /// IDs whose end was seen before the association told it, because their next channel has come.
    ended_early: BTreeSet<u16>,
    /// Bytes taken out of the association and not read.
    unread: usize,
    /// Channels whose bytes stay in the association for now.
    held_back: BTreeSet<Key>,
    /// Most bytes of all streams that the peer has not acknowledged.
    max_unsent: usize,
    /// Channels that were refused since the caller asked last.
    refused: usize,
    pressure: Pressure,
    /// Streams that were reset since the caller asked last, because nobody read them.
    unread_resets: usize,
    /// `true` once the association has ended.
    is_lost: bool,
    /// `true` once dropped streams are to be finished instead of reset.
    is_closing: bool,
    /// The reason why the connection has ended, until somebody takes it.
    ended: Option<Ended>,
    has_ended: bool,
}

impl<A: Association> Channels<A> {
    /// The channels of a connection that is being made. The one for the Noise handshake is there.
    pub(crate) fn new(side: Side, association: A) -> Self {
        Self {
            association,
            channels: BTreeMap::from([(HANDSHAKE_KEY, Channel::own(HANDSHAKE))]),
            by_id: BTreeMap::from([(HANDSHAKE, HANDSHAKE_KEY)]),
            next: HANDSHAKE_KEY + 1,
            opened: VecDeque::new(),
            ids: Ids::new(side),
            closing: BTreeSet::new(),
            ended_early: BTreeSet::new(),
            unread: 0,
            held_back: BTreeSet::new(),
            max_unsent: UNSENT,
            refused: 0,
            pressure: Pressure::default(),
            unread_resets: 0,
            is_lost: false,
            is_closing: false,
            ended: None,
            has_ended: false,
        }
    }

    /// The association, for what only its own kind has. [`Self::tick`] follows a change.
    pub(crate) const fn association(&mut self) -> &mut A {
        &mut self.association
    }

    /// Notes that the connection has ended. The first reason stays, unless a library has panicked.
    pub(crate) fn end(&mut self, why: Ended) {
        let is_first = !std::mem::replace(&mut self.has_ended, true);
        if is_first || matches!(why, Ended::Panicked) {
            self.ended = Some(why);
            self.wake_all();
        }
    }

    /// `true` once the connection has ended.
    pub(crate) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// `true` once a library has panicked.
    pub(crate) const fn has_panicked(&self) -> bool {
        matches!(self.ended, Some(Ended::Panicked))
    }

    /// Takes the reason why the connection has ended.
    pub(crate) fn take_end(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    /// Bytes that this node keeps for the connection.
    pub(crate) fn held(&self) -> usize {
        self.association.held() + self.unread
    }

    /// `true` once the peer has everything.
    pub(crate) fn is_sent(&self) -> bool {
        let is_acknowledged = A::KNOWS_ARRIVAL
            || !self.channels.values().any(|channel| channel.awaits_acknowledgement());
        self.association.is_sent() && is_acknowledged
    }

    /// Bounds the bytes that the peer has not acknowledged.
    pub(crate) fn set_max_unsent(&mut self, bytes: usize) {
        self.max_unsent = bytes.clamp(STREAM_UNSENT, UNSENT);
    }

    /// Channels that were refused since the last call.
    pub(crate) fn take_refused(&mut self) -> usize {
        std::mem::take(&mut self.refused)
    }

    /// Streams that were reset since the last call, because nobody read them.
    pub(crate) fn take_unread_resets(&mut self) -> usize {
        std::mem::take(&mut self.unread_resets)
    }

    /// Does what is due.
    ///
    /// # Errors
    ///
    /// [`Ended::Sctp`].
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Ended> {
        self.association.tick(now);
        self.settle(now)
    }

    /// The moment at which [`Self::tick`] is due.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        let closing = self.channels.values().filter_map(Channel::closes_at).min();
        [self.association.timeout(), closing, self.pressure.due()].into_iter().flatten().min()
    }

    /// Handles what has happened in the association.
    ///
    /// # Errors
    ///
    /// As those of [`Self::tick`].
    pub(crate) fn settle(&mut self, now: Instant) -> Result<(), Ended> {
        self.handle_events(now);
        if self.is_lost {
            return Err(Ended::Sctp);
        }
        self.recount();
        self.close_late(now);
        self.relieve(now);
        Ok(())
    }

    /// The same, but for the end of the association. Whoever closes a channel calls this first: its ID may be in use again.
    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.association.poll() {
            match event {
                Event::Readable(id) => self.look_at(id, now),
                Event::Finished(id) if self.ended_early.remove(&id) => {}
                Event::Finished(id) => self.end_of(id),
                Event::Closed(id) => {
                    self.closing.remove(&id);
                    self.ids.give_back(id);
                    // The peer may use the ID for its next stream already.
                    self.look_at(id, now);
                }
                Event::Lost => self.is_lost = true,
            }
        }
    }

    /// Notes that the peer has closed the channel with this ID.
    fn end_of(&mut self, id: u16) {
        let Some(key) = self.by_id.remove(&id) else { return };
        let Some(channel) = self.channels.get_mut(&key) else { return };
        channel.end();
        if !channel.is_held() {
            self.forget(key);
        }
    }

    /// Takes what has come on an ID, which may be that of a new channel of the peer.
    fn look_at(&mut self, id: u16, now: Instant) {
        if self.closing.contains(&id) || !self.association.has(id) {
            return;
        }
        if let Some(&key) = self.by_id.get(&id) {
            return self.pull(key, now);
        }
        if self.ids.is_own(id) {
            return self.close_in_association(id);
        }
        let key = self.discover(id, now);
        self.pull(key, now);
    }

    /// Notes a new channel of the peer.
    fn discover(&mut self, id: u16, now: Instant) -> Key {
        let open = self.channels.values().filter(|channel| channel.is_of_peer).count();
        let key = self.add(id, Channel::of_peer(id));
        if open >= MAX_PEER_CHANNELS {
            self.refused += 1;
            self.release(key, now);
        }
        key
    }

    fn add(&mut self, id: u16, channel: Channel) -> Key {
        let key = self.next;
        self.next += 1;
        self.channels.insert(key, channel);
        self.by_id.insert(id, key);
        key
    }

    /// Takes messages out of the association.
    fn pull(&mut self, mut key: Key, now: Instant) {
        loop {
            let Some(channel) = self.channels.get_mut(&key) else { return };
            let is_full = channel.unread_bytes() >= STREAM_UNREAD || self.unread >= UNREAD;
            if is_full && channel.keeps_bytes() {
                self.held_back.insert(key);
                return;
            }
            let message = channel.id.and_then(|id| self.association.read(id));
            let (Some(message), Some(id)) = (message, channel.id) else {
                self.held_back.remove(&key);
                // Not before: sctp-proto ends an association whose window is full of a stream that is closed.
                return self.close_if_over(key, now);
            };
            match message {
                Message::Opening => key = self.on_open(key, id, now),
                Message::Bytes(bytes) => self.on_message(key, &bytes, now),
            }
        }
    }

    /// Takes the message that opens a channel. Returns the key of the channel, which is another one if the ID is used again.
    fn on_open(&mut self, key: Key, id: u16, now: Instant) -> Key {
        let Some(channel) = self.channels.get_mut(&key) else { return key };
        if channel.is_opened {
            // The old channel has ended with its last message, and the association tells so later.
            self.ended_early.insert(id);
            self.end_of(id);
            let key = self.discover(id, now);
            return self.on_open(key, id, now);
        }
        channel.is_opened = true;
        if !channel.is_released() {
            self.opened.push_back(key);
        }
        key
    }

    fn on_message(&mut self, key: Key, bytes: &[u8], now: Instant) {
        let Some(channel) = self.channels.get_mut(&key) else { return };
        let before = channel.unread_bytes();
        let taken = channel.take(bytes, now);
        self.unread += channel.unread_bytes() - before;
        match taken {
            Ok(answers) => {
                for flag in answers {
                    self.say(key, Some(flag));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "resetting a stream");
                self.give_up(key);
            }
        }
    }

    /// `true` if streams with unread bytes keep the peer from sending on others, or this node from reading them.
    fn is_held_up(&self) -> bool {
        self.unread >= UNREAD || self.association.is_half_full()
    }

    /// Resets the streams that nobody reads while they hold up the connection, the one with most bytes first.
    fn relieve(&mut self, now: Instant) {
        while let Some(id) = self.association.overfull() {
            let Some(&key) = self.by_id.get(&id) else { return };
            self.reset_unread(key, now);
        }
        self.pressure.note(self.is_held_up(), now);
        if !self.pressure.is_due(now) {
            return;
        }
        while self.is_held_up()
            && let Some(key) = self.longest_unread(now)
        {
            self.reset_unread(key, now);
        }
        self.pressure.begin_again(now);
    }

    /// Resets a stream that nobody reads, and throws away what it keeps.
    fn reset_unread(&mut self, key: Key, now: Instant) {
        self.unread_resets += 1;
        self.give_up(key);
        if let Some(channel) = self.channels.get_mut(&key) {
            self.unread -= channel.lose_unread();
        }
        self.pull(key, now);
        self.refill(key, now);
    }

    fn longest_unread(&self, now: Instant) -> Option<Key> {
        let fills_all = self.unread >= UNREAD;
        self.channels
            .iter()
            .filter(|(key, channel)| {
                let is_full = fills_all || self.held_back.contains(key);
                is_full && channel.unread_bytes() > 0 && channel.progress.is_stuck(now)
            })
            .max_by_key(|(_, channel)| channel.unread_bytes())
            .map(|(key, _)| *key)
    }

    /// Resets both directions of a stream, whose handle may still be there.
    fn give_up(&mut self, key: Key) {
        let Some(channel) = self.channels.get_mut(&key) else { return };
        let flags = [channel.halves.reset(), channel.halves.stop()];
        channel.halves.receive(Flag::Reset);
        channel.wake();
        for flag in flags {
            self.say(key, flag);
        }
    }

    /// Sends a flag, unless too much waits for the peer already.
    fn say(&mut self, key: Key, flag: Option<Flag>) {
        if let Some(flag) = flag {
            self.send(key, &Frame::from(flag).encode());
        }
    }

    fn send(&mut self, key: Key, bytes: &[u8]) -> bool {
        let id = self.channels.get(&key).and_then(|channel| channel.id);
        id.is_some_and(|id| self.association.send(id, bytes))
    }

    /// Counts what the peer has not acknowledged, and wakes writers for whom there is room again.
    fn recount(&mut self) {
        let amounts = self.association.recount();
        if self.association.unsent() >= self.max_unsent {
            return;
        }
        // Also those of streams with nothing on its way: they may have waited for the room of all.
        for channel in self.channels.values_mut() {
            channel.unsent = channel.id.and_then(|id| amounts.get(&id).copied()).unwrap_or(0);
            if channel.unsent < STREAM_UNSENT {
                channel.wake_writer();
            }
        }
    }

    /// Opens a channel. `None` while too many are open, or all IDs are in use.
    pub(crate) fn open(&mut self) -> Option<Key> {
        if self.ids.in_use() >= MAX_OWN_CHANNELS {
            return None;
        }
        // An ID that the peer has used without a right to it is left to the peer.
        let id = loop {
            let id = self.ids.take()?;
            if self.association.open(id) {
                break id;
            }
        };
        Some(self.add(id, Channel::own(id)))
    }

    /// Takes a channel that the peer has opened.
    pub(crate) fn accept(&mut self) -> Option<Key> {
        loop {
            let key = self.opened.pop_front()?;
            if self.channels.get(&key).is_some_and(|channel| !channel.is_released()) {
                return Some(key);
            }
        }
    }

    /// Reads bytes of a stream; 0 at its end.
    pub(crate) fn read(
        &mut self,
        key: Key,
        context: &Context<'_>,
        into: &mut [u8],
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        match self.read_open(key, context, into, now) {
            Poll::Pending if self.has_ended => gone(),
            read => read,
        }
    }

    fn read_open(
        &mut self,
        key: Key,
        context: &Context<'_>,
        into: &mut [u8],
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        let Some(channel) = self.channels.get_mut(&key) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let read = channel.read(context, into, now);
        if let Poll::Ready(Ok(bytes @ 1..)) = read {
            self.unread -= bytes;
            self.refill(key, now);
        }
        read
    }

    /// Takes more out of the association after bytes were read, and lets the peer know that there is room.
    fn refill(&mut self, key: Key, now: Instant) {
        if self.held_back.contains(&key) {
            self.pull(key, now);
        }
        if self.unread < UNREAD && !self.held_back.is_empty() {
            let waiting: Vec<Key> = self.held_back.iter().copied().collect();
            for other in waiting {
                self.pull(other, now);
            }
        }
        self.association.tell_of_room(now);
    }

    /// Writes as much as one message takes, once there is room.
    pub(crate) fn write(
        &mut self,
        key: Key,
        context: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.has_ended {
            return gone();
        }
        let max_unsent = self.max_unsent;
        let Some(channel) = self.channels.get_mut(&key).filter(|channel| channel.is_writable())
        else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if self.association.unsent() >= max_unsent || channel.unsent >= STREAM_UNSENT {
            channel.wait_to_write(context);
            return Poll::Pending;
        }
        let frame = Frame::of(bytes);
        let taken = frame.data.len();
        let parts = frame.parts();
        channel.unsent += parts.iter().map(Vec::len).sum::<usize>();
        if parts.iter().all(|part| self.send(key, part)) {
            return Poll::Ready(Ok(taken));
        }
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    /// Ends what this node sends on a stream.
    pub(crate) fn finish(&mut self, key: Key) {
        let flag = self.channels.get_mut(&key).and_then(|channel| channel.halves.finish());
        self.say(key, flag);
    }

    /// Finishes all streams; those that are dropped from now on are finished too.
    pub(crate) fn finish_all(&mut self) {
        self.is_closing = true;
        let keys: Vec<Key> = self.channels.keys().copied().collect();
        for key in keys {
            self.finish(key);
        }
    }

    /// Takes the handle of a stream back: one that was not finished is reset.
    pub(crate) fn release(&mut self, key: Key, now: Instant) {
        self.handle_events(now);
        if self.is_closing {
            self.finish(key);
        }
        let Some(channel) = self.channels.get_mut(&key) else { return };
        self.unread -= channel.unread_bytes();
        channel.release(now + LINGER);
        let flags = [channel.halves.reset(), channel.halves.stop()];
        for flag in flags {
            self.say(key, flag);
        }
        // Everything else that comes is read and thrown away.
        self.pull(key, now);
    }

    /// Closes the channels whose time is over.
    fn close_late(&mut self, now: Instant) {
        let is_late = |channel: &Channel| channel.closes_at().is_some_and(|at| at <= now);
        let late: Vec<Key> = self
            .channels
            .iter()
            .filter(|(_, channel)| is_late(channel))
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            self.close(key);
        }
    }

    /// Sees to it that a channel is closed on which nothing more comes either way.
    fn close_if_over(&mut self, key: Key, now: Instant) {
        let Some(channel) = self.channels.get_mut(&key) else { return };
        if !channel.halves.is_over() {
            return;
        }
        if channel.is_of_peer && channel.halves.is_over_for_peer() {
            channel.close_by(now + CLOSING);
        } else {
            self.close(key);
        }
    }

    /// Closes a channel. Its bytes that were not read stay readable.
    fn close(&mut self, key: Key) {
        let Some(channel) = self.channels.get_mut(&key) else { return };
        let is_released = channel.is_released();
        if let Some(id) = channel.shut() {
            self.by_id.remove(&id);
            self.close_in_association(id);
        }
        if is_released {
            self.forget(key);
        }
    }

    fn close_in_association(&mut self, id: u16) {
        if self.association.close(id) {
            self.closing.insert(id);
        }
    }

    fn forget(&mut self, key: Key) {
        self.channels.remove(&key);
        self.held_back.remove(&key);
    }

    /// Wakes everybody who waits, because the connection has ended.
    fn wake_all(&mut self) {
        for channel in self.channels.values_mut() {
            channel.wake();
        }
    }
}

#[cfg(test)]
#[cfg(feature = "webrtc")]
mod tests;
