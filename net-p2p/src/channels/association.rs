//! The seam between streams and whatever carries their messages.

use std::collections::BTreeMap;

use runtime::time::StdInstant as Instant;

/// A change that an association tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Something has come on a channel, which may be a new one of the peer.
    Readable(u16),
    /// The peer has closed a channel.
    Finished(u16),
    /// The number of a channel that this end has closed is free again.
    Closed(u16),
    /// Nothing more comes or goes.
    #[cfg_attr(not(feature = "webrtc"), expect(dead_code, reason = "a host tells its reason"))]
    Lost,
}

/// A message on a channel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The peer opens the channel.
    Opening,
    /// Bytes of libp2p.
    Bytes(Vec<u8>),
}

/// Carries messages on channels, which have numbers.
pub(crate) trait Association: Send + 'static {
    /// Opens a channel. Returns `false` if its number cannot be used now.
    fn open(&mut self, id: u16) -> bool;

    /// Closes a channel behind what was sent on it. Returns `false` if there is none.
    fn close(&mut self, id: u16) -> bool;

    /// Returns `true` if the channel is there.
    fn has(&mut self, id: u16) -> bool;

    /// Takes the next message of a channel. One that libp2p does not know is thrown away.
    fn read(&mut self, id: u16) -> Option<Message>;

    /// Sends a message. Returns `false` if the channel is gone, or too much waits on it.
    fn send(&mut self, id: u16, bytes: &[u8]) -> bool;

    /// The next change.
    fn poll(&mut self) -> Option<Event>;

    /// Does what is due.
    fn tick(&mut self, now: Instant);

    /// The moment at which [`Self::tick`] is due.
    fn timeout(&self) -> Option<Instant>;

    /// Bytes that are kept: unread ones, and those that are not sent.
    fn held(&self) -> usize;

    /// `true` if so much is unread that the peer may soon send no more.
    fn is_half_full(&self) -> bool;

    /// The channel that keeps more unread bytes than are allowed. `None` where the peer cannot send so much.
    fn overfull(&self) -> Option<u16>;

    /// Notes that there is room for the peer again.
    fn tell_of_room(&mut self, now: Instant);

    /// Bytes that were written and not sent, of all channels.
    fn unsent(&self) -> usize;

    /// Counts these again. Returns them by channel.
    fn recount(&mut self) -> BTreeMap<u16, usize>;

    /// `true` once all of it has left. It has arrived as well if [`Self::KNOWS_ARRIVAL`].
    fn is_sent(&self) -> bool;

    /// States whether written bytes count until the peer has acknowledged them.
    const KNOWS_ARRIVAL: bool;
}
